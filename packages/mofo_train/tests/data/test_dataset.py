from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clips_support import AREA, DATA, MODEL, dataset, reader, same
from mofo_train.config import MaskConfig
from mofo_train.data.dataset import PretrainClips
from mofo_train.data.loader import collate, create_loader
from mofo_train.data.reader import ClipReader
from mofo_train.data.sampler import ResumableSampler, SampleKey
from mofo_train.errors import DataError
from mofo_train.guidance.inside import inside_tubes
from mofo_train.guidance.mask_kinds import draw_mask
from mofo_train.guidance.tubelets import ClipShape
from motionbox.store import open_store


def test_a_sample_depends_on_its_key_alone(store_path: Path) -> None:
    clips = dataset(store_path)
    keys = [SampleKey(0, 3, 5), SampleKey(0, 4, 5), SampleKey(1, 3, 5)]
    first = [clips[key] for key in keys]
    again = dataset(store_path)
    for sample, key in zip(first, reversed(keys), strict=True):
        assert not torch.equal(sample.frames[0], sample.frames[1]), "crops differ"
        other = again[key]
        assert other.frames.dtype == torch.uint8
        assert other.frames.shape == (2, 3, 4, 64, 64)
        assert other.boxes.shape == (2, 4, 4)
        assert other.motion.shape == (2, 16)
    assert all(same(collate([clips[key]]), collate([again[key]])) for key in keys)
    assert not torch.equal(first[0].frames, first[1].frames)
    assert not torch.equal(first[0].frames, first[2].frames)
    assert not torch.equal(first[0].frames, dataset(store_path, seed=1)[keys[0]].frames)


def test_boxes_lie_on_the_motion(store_path: Path) -> None:
    """The stored boxes, scaled to the decoded frames, hold more of the strongest change than of the area."""
    clips = reader(store_path)
    inside, area = [], []
    for index in range(len(clips)):
        frames = np.arange(clips.num_frames(index))
        pixels, boxes = clips.read(index, frames)
        change = np.abs(np.diff(pixels.astype(np.int16), axis=0)).sum(3)
        change = np.maximum(change - np.quantile(change, 0.95, axis=(1, 2), keepdims=True), 0)  # what no camera does
        for difference, (x1, y1, x2, y2) in zip(change, boxes.round().astype(int), strict=False):
            inside.append(difference[y1:y2, x1:x2].sum() / max(1, difference.sum()))
            area.append((x2 - x1) * (y2 - y1) / difference.size)
    assert np.mean(inside) > 1.3 * np.mean(area)


def test_workers_change_nothing(store_path: Path) -> None:
    clips = dataset(store_path, guidance=AREA)
    here = [list(create_loader(clips, ResumableSampler(12, 6, seed=0, epochs=1), num_workers=0, pin=False))][0]
    there = list(create_loader(clips, ResumableSampler(12, 6, seed=0, epochs=1), num_workers=2, pin=False))
    assert all(same(one, other) for one, other in zip(here, there, strict=True))  # type: ignore[arg-type]


def test_a_bad_clip_is_named_and_moves_no_other(store_path: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "videos").mkdir(parents=True)
    for path in (store_path.parent / "synthetic" / "videos").iterdir():
        (root / "videos" / path.name).symlink_to(path)
    broken = sorted((root / "videos").iterdir())[4]
    broken.unlink()
    broken.write_bytes(b"not a video")
    batches = list(ResumableSampler(12, 12, seed=0, epochs=1))
    whole, damaged = dataset(store_path), dataset(store_path, root)
    good = collate([whole[key] for key in batches[0]])
    batch = collate([damaged[key] for key in batches[0]])
    assert [name for name, _ in batch.bad] == [f"videos/{broken.stem}"]
    assert broken.name in batch.bad[0][1]
    for place, key in enumerate(batches[0]):
        rows = slice(2 * place, 2 * place + 2)
        assert torch.equal(good.frames[rows], batch.frames[rows]) == (key.clip != 4)
    assert same(batch, collate([dataset(store_path, root)[key] for key in batches[0]])), "the substitute is fixed too"


def test_frames_kept_in_the_store_give_the_same_samples(
    store_path: Path, clips_store_path: Path, tmp_path: Path
) -> None:
    """From the store alone: the same frames, but for the coding, with the same boxes."""
    source, kept = reader(store_path), reader(clips_store_path, tmp_path / "none")
    assert source.clip_ids == kept.clip_ids
    for index in (0, 5, 11):
        frames = np.array([0, 3, 3, 9])
        pixels, boxes = source.read(index, frames)
        other, moved = kept.read(index, frames)
        assert pixels.shape == other.shape
        assert (boxes == moved).all()
        assert np.abs(pixels.astype(int) - other).mean() < 5
        assert np.abs(pixels[1].astype(int) - other[1]).mean() < np.abs(pixels[3].astype(int) - other[1]).mean()


def test_damaged_frames_in_the_store_are_a_bad_clip(clips_store_path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(clips_store_path, copy)
    (path,) = copy.glob("runs/*/attempts/u000000/*/clips.bin")
    content = bytearray(path.read_bytes())
    content[:400] = bytes(400)  # the head of the first clip's block
    path.write_bytes(content)
    whole, damaged = dataset(clips_store_path, tmp_path), dataset(copy, tmp_path)
    sample = damaged[SampleKey(0, 0, 0)]
    assert [name for name, _ in sample.bad] == [reader(copy).clip_ids[0]]
    assert torch.equal(whole[SampleKey(0, 1, 1)].frames, damaged[SampleKey(0, 1, 1)].frames)


def test_misfits_are_one_clear_error(store_path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split must be one of .*train.*got 'holdout'"):
        ClipReader(open_store(store_path), tmp_path, split="holdout", short_side_px=80)
    (tmp_path / "videos").mkdir()
    with pytest.raises(DataError, match="8 clips in a row"):
        dataset(store_path, tmp_path)[SampleKey(0, 0, 0)]


def test_boxes_to_compare_with(store_path: Path) -> None:
    def boxes(**use: Any) -> tuple[np.ndarray, np.ndarray]:
        store, root = open_store(store_path), store_path.parent / "synthetic"
        clips = ClipReader(store, root, split=None, short_side_px=4000, **use)
        pixels, found = clips.read(0, np.arange(clips.num_frames(0)))
        return found, np.array([0, 0, pixels.shape[2], pixels.shape[1]])

    stored, frame = boxes()
    full, _ = boxes(boxes="full_frame")
    assert (full == frame).all()
    moved, _ = boxes(boxes="random")
    shift = moved - stored
    assert (shift == np.tile(shift[0, :2], 2)).all(), "all frames and corners by the same step"
    assert (moved[:, :2] >= 0).all()
    assert (moved[:, 2:] <= frame[2:]).all()
    np.testing.assert_array_equal(moved, boxes(boxes="random")[0])


def test_clips_without_a_clear_motion_area_take_the_full_frame(store_path: Path) -> None:
    """All frames of a clip or none: one frame at rest says nothing about the clip."""
    store, root = open_store(store_path), store_path.parent / "synthetic"
    confidence = np.array(store.clips().column("confidence").to_pylist())
    middle = float(np.median(confidence))
    stored, trusted = (
        ClipReader(store, root, split=None, short_side_px=4000, min_confidence=least) for least in (0.0, middle)
    )
    assert stored.num_uncertain() == 0
    assert 0 < trusted.num_uncertain() == (confidence < middle).sum() < len(confidence)
    assert f"{trusted.num_uncertain()} less certain than" in trusted.remarks()
    rows = np.array([int(confidence.argmax()), int(confidence.argmin())])
    for part, (sure, unsure) in ((trusted, rows), (trusted.subset(rows), (0, 1))):
        for mine, theirs in ((sure, rows[0]), (unsure, rows[1])):
            frames = np.arange(part.num_frames(mine))
            pixels, boxes = part.read(mine, frames)
            expected = stored.read(theirs, frames)[1]
            if mine == unsure:
                expected = np.tile(np.float32([0, 0, pixels.shape[2], pixels.shape[1]]), (len(frames), 1))
            np.testing.assert_array_equal(boxes, expected)


def test_a_full_frame_means_a_plain_tube_mask(store_path: Path) -> None:
    clips = ClipReader(
        open_store(store_path), store_path.parent / "synthetic", split=None, short_side_px=80, min_confidence=1.0
    )
    sample = PretrainClips(clips, MODEL, DATA, seed=0, patch_px=16)[SampleKey(0, 0, 0)]
    shape = ClipShape(4, 64)
    inside = inside_tubes(shape, sample.boxes)
    masks = [
        draw_mask(MaskConfig(kind=kind), shape, inside, sample.motion, torch.Generator().manual_seed(0))
        for kind in ("motion", "tube")
    ]
    assert torch.equal(*masks)


def test_an_error_in_a_worker_is_one_line(store_path: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    sampler = ResumableSampler(12, 2, seed=0, epochs=1)
    batches = iter(create_loader(dataset(store_path, tmp_path), sampler, num_workers=1, pin=False))
    with pytest.raises(DataError, match=r"^8 clips in a row cannot be read; the first: .*--data-root") as stop:
        next(batches)
    assert len(str(stop.value).splitlines()) == 1
