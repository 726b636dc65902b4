from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from mofo_train import cli
from mofo_train.data.dataset import ClipReader
from mofo_train.data.decode import ClipUnreadableError
from mofo_train.data.training_clips import read_training_clip, training_clip_path, write_training_clip
from motionbox.store import open_store


def test_a_clip_comes_back_frame_by_frame(tmp_path: Path) -> None:
    across = np.linspace(0, 255, 64)[None, None, :, None]
    frames = (across * np.linspace(0.2, 1, 9)[:, None, None, None] * np.ones((1, 33, 1, 3))).astype(np.uint8)
    path = write_training_clip(tmp_path, "videos/a/1", frames, quality=95)
    assert path == training_clip_path(tmp_path, "videos/a/1")
    wanted = np.array([7, 2, 2, 8])
    read = read_training_clip(path, wanted, 9)
    assert read.shape == (4, 33, 64, 3)
    assert np.abs(read.astype(int) - frames[wanted]).mean() < 2


def test_damage_and_other_versions_are_told(tmp_path: Path) -> None:
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    path = write_training_clip(tmp_path, "a", frames, quality=90)
    with pytest.raises(ClipUnreadableError, match="must hold 4 frames, got 3"):
        read_training_clip(path, np.array([0]), 4)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ClipUnreadableError, match="intact training clip"):
        read_training_clip(path, np.array([0]), 3)
    path.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = b'{"num_frames": 3}'
        archive.writestr("frame_000000.jpg", b"no picture")
    with pytest.raises(ClipUnreadableError, match="intact training clip"):
        read_training_clip(path, np.array([0]), 3)


def test_prepared_clips_give_the_same_samples_without_the_source(store_path: Path, tmp_path: Path) -> None:
    arguments = ["prepare", "--store", str(store_path), "--clips", str(tmp_path / "clips"), "--workers", "1"]
    for _ in range(2):  # The second time everything is there.
        with pytest.raises(SystemExit) as stop:
            cli.main([*arguments, "--quality", "95"])
        assert stop.value.code == 0
    store = open_store(store_path)
    source = ClipReader(store, store_path.parent / "synthetic", split=None, short_side_px=256)
    prepared = ClipReader(store, tmp_path, split=None, short_side_px=256, clips=tmp_path / "clips")
    for index in (0, 5, 11):
        frames = np.array([0, 3, 3, 9])
        pixels, boxes = source.read(index, frames)
        other, moved = prepared.read(index, frames)
        assert pixels.shape == other.shape
        assert np.abs(pixels.astype(int) - other).mean() < 3
        assert (boxes == moved).all()
