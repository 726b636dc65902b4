from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import mofo_train
from mofo_train.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from mofo_train.errors import DataError
from motionbox.store import open_store


def test_a_loader_takes_it_as_it_is_and_a_classifier_what_it_gives(store_path: Path) -> None:
    clips = mofo_train.MotionClips(store_path, num_frames=4, image_px=32)
    batches = list(DataLoader(clips, batch_size=5))
    assert [len(batch["clip_id"]) for batch in batches] == [5, 5, 2]
    assert [name for batch in batches for name in batch["clip_id"]] == clips.clip_ids
    batch = batches[0]
    assert (batch["frames"].dtype, batch["frames"].shape) == (torch.float32, (5, 3, 4, 32, 32))
    assert (batch["boxes"].dtype, batch["boxes"].shape) == (torch.float32, (5, 4, 4))
    assert batch["labels"]["verb_class"].dtype == torch.int64
    table = open_store(store_path).clips()
    assert batch["labels"]["verb_class"].tolist() == table.column("verb_class").to_pylist()[:5]
    assert list(batch["labels"]["noun"]) == table.column("noun").to_pylist()[:5]
    assert not {"path", "width", "confidence"} & set(batch["labels"])
    model = mofo_train.create_classifier("videomae_tiny", 3, "mca", num_frames=4, image_px=32)
    assert model(batch["frames"], batch["boxes"]).shape == (5, 3)


def test_frames_and_boxes_are_those_of_the_middle_square(store_path: Path) -> None:
    """The video is 64 pixels high, so nothing is scaled: the crop can be cut out by hand."""
    store = open_store(store_path)
    row = store.clips().slice(0, 1).to_pylist()[0]
    height, width = row["height"], row["width"]
    clip = mofo_train.MotionClips(store, num_frames=2, image_px=height)[0]
    left = (width - height) // 2
    frames = [int((index + 0.5) * row["num_frames"] / 2) for index in range(2)]
    boxes = store.frame_boxes(row["clip_id"])[frames].astype(np.float32) - np.array([left, 0, left, 0], np.float32)
    boxes = boxes.clip(0, height)
    boxes[(boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])] = 0
    np.testing.assert_allclose(clip["boxes"].numpy(), boxes, atol=1e-4)
    colours = clip["frames"] * torch.tensor(IMAGENET_STD).view(3, 1, 1, 1) + torch.tensor(IMAGENET_MEAN).view(
        3, 1, 1, 1
    )
    assert float(colours.min()) >= -1e-5
    assert float(colours.max()) <= 1 + 1e-5
    assert float(colours.std()) > 0.02, "a picture, not a grey field"


def test_augmented_clips_follow_the_seed_and_boxes_stay_inside(store_path: Path) -> None:
    clips = mofo_train.MotionClips(store_path, num_frames=4, image_px=48, augment=True)
    torch.manual_seed(5)
    first, second = clips[3], clips[3]
    torch.manual_seed(5)
    again = clips[3]
    assert torch.equal(first["frames"], again["frames"])
    assert torch.equal(first["boxes"], again["boxes"])
    assert not torch.equal(first["frames"], second["frames"])
    assert bool(((first["boxes"] >= 0) & (first["boxes"] <= 48)).all())


def test_misuse_is_named(store_path: Path) -> None:
    with pytest.raises(DataError, match="split must be one of train, validation, got 'test'"):
        mofo_train.MotionClips(store_path, split="test")
    with pytest.raises(ValueError, match="num_frames must be at least 1, got 0"):
        mofo_train.MotionClips(store_path, num_frames=0)
    clips = mofo_train.MotionClips(store_path, split="validation", num_frames=2, image_px=16)
    assert clips[-1]["clip_id"] == clips.clip_ids[-1]
    with pytest.raises(IndexError, match="index must be in"):
        clips[len(clips)]
    with pytest.raises(AttributeError, match="no attribute 'MotionClip'"):
        mofo_train.MotionClip  # noqa: B018
    assert set(mofo_train.__all__) <= set(dir(mofo_train))
