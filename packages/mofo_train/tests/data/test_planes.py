"""Crops that the device makes of decoded planes are those that a worker makes of RGB frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clips_support import DATA, MODEL
from mofo_train.data.dataset import PretrainClips, Sample, Uncut
from mofo_train.data.loader import collate, create_loader
from mofo_train.data.reader import ClipReader
from mofo_train.data.sampler import ResumableSampler, SampleKey
from mofo_train.data.transforms import Crop, crop_frames, crop_planes
from mofo_train.errors import DataError
from motionbox.store import open_store

av = pytest.importorskip("av")


def planes_and_rgb(width: int, height: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return frames of noise, every code there is: planes (2, h * 3 / 2, w) and libswscale's RGB of them."""
    planes = np.random.default_rng(seed).integers(0, 256, (2, height * 3 // 2, width), np.uint8)
    pictures = [av.VideoFrame.from_ndarray(frame, format="yuv420p") for frame in planes]
    rgb = [picture.to_ndarray(format="rgb24", threads=1) for picture in pictures]
    return planes, np.stack(rgb)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), width=st.integers(20, 70), height=st.integers(20, 70), out_px=st.sampled_from([16, 32, 48]))
def test_crops_of_planes_are_those_of_rgb_to_the_bit(data: st.DataObject, width: int, height: int, out_px: int) -> None:
    width, height = 2 * width, 2 * height
    planes, rgb = planes_and_rgb(width, height, seed=data.draw(st.integers(0, 9)))
    crops = []
    for _ in range(2):
        x, y = data.draw(st.integers(0, width - 16)), data.draw(st.integers(0, height - 16))
        crops.append(Crop(x, y, data.draw(st.integers(16, width - x)), data.draw(st.integers(16, height - y))))
    made = crop_planes(torch.from_numpy(planes)[None], [crops], out_px)
    for crop, own in zip(crops, made, strict=True):
        expected = crop_frames(torch.from_numpy(rgb), crop, out_px)
        assert torch.equal(own, expected)


def test_where_nothing_is_resized_they_are_equal() -> None:
    planes, rgb = planes_and_rgb(64, 48, seed=1)
    [made] = crop_planes(torch.from_numpy(planes)[None], [[Crop(10, 7, 32, 32)]], 32)
    assert torch.equal(made, crop_frames(torch.from_numpy(rgb), Crop(10, 7, 32, 32), 32))


@pytest.fixture
def both(clips_store_path: Path) -> dict[str, PretrainClips]:
    data = DATA.model_copy(update={"short_side_px": 256})
    reader = ClipReader(open_store(clips_store_path), clips_store_path / "none", split=None, short_side_px=256)
    return {
        who: PretrainClips(
            reader, MODEL, data.model_copy(update={"convert_on": who}), seed=0, with_motion=True, patch_px=16
        )
        for who in ("worker", "device")
    }


def test_batches_are_the_same(both: dict[str, PretrainClips]) -> None:
    keys = [SampleKey(0, place, clip) for place, clip in enumerate((0, 3, 5))]
    one, other = (collate([clips[key] for key in keys]).to(torch.device("cpu")) for clips in both.values())
    assert one.frames.shape == other.frames.shape == (6, 3, 4, 64, 64)
    assert torch.equal(one.frames, other.frames)
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.motion, other.motion)
    assert torch.equal(one.areas, other.areas)
    assert one.clips == other.clips


def test_workers_hand_on_planes_in_half_the_memory(both: dict[str, PretrainClips]) -> None:
    def first(clips: PretrainClips, num_workers: int) -> torch.Tensor:
        sampler = ResumableSampler(12, 4, seed=0, epochs=1)
        batch = next(iter(create_loader(clips, sampler, num_workers=num_workers, pin=False)))
        assert len(batch.uncut) == 4
        return batch.to(torch.device("cpu")).frames

    assert torch.equal(first(both["device"], 0), first(both["device"], 1))


def test_clips_of_several_sizes_share_a_batch() -> None:
    samples = []
    expected = []
    for width, height, seed in ((64, 48, 0), (80, 48, 1), (64, 48, 2)):
        planes, rgb = planes_and_rgb(width, height, seed)
        crop = Crop(seed, 2, 40, 40)
        uncut = Uncut(planes.shape, (crop,), 32, room_bytes=2 * 72 * 80)
        samples.append(
            Sample(torch.from_numpy(planes), torch.zeros(1, 2, 4), torch.empty(0), torch.empty(0), seed, uncut=uncut)
        )
        expected.append(crop_frames(torch.from_numpy(rgb), crop, 32))
    frames = collate(samples).to(torch.device("cpu")).frames
    assert torch.equal(frames, torch.stack(expected))


def test_a_store_without_frames_or_with_larger_ones_is_refused(store_path: Path, clips_store_path: Path) -> None:
    data = DATA.model_copy(update={"convert_on": "device"})
    for path, short_side_px, reason in ((store_path, 256, "keeps no frames"), (clips_store_path, 48, "are reduced")):
        reader = ClipReader(open_store(path), path, split=None, short_side_px=short_side_px)
        with pytest.raises(DataError, match=reason):
            PretrainClips(reader, MODEL, data, seed=0, with_motion=False, patch_px=16)
