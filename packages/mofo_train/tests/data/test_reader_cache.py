from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clips_support import AREA
from mofo_train.data.reader import ClipCache, ClipReader, ClipUnreadableError
from motionbox.store import open_store

CLIP = np.arange(5 * 4 * 6 * 3, dtype=np.uint8).reshape(5, 4, 6, 3)


class Decoder:
    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, frames: NDArray[np.int64], out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        self.asked.append(frames.tolist())
        return CLIP.take(frames, axis=0, out=out)


def test_a_clip_is_decoded_once_and_whole() -> None:
    cache, decode = ClipCache(1.0), Decoder()
    for wanted in ([0, 2, 2], [4], [1, 3]):
        assert np.array_equal(cache.read("a", np.array(wanted), 5, decode), CLIP[wanted])
    assert decode.asked == [[0, 1, 2, 3, 4]]


def test_a_full_cache_keeps_what_it_has_and_decodes_the_rest_as_asked() -> None:
    cache, decode = ClipCache(1.5 * CLIP.nbytes / 2**30), Decoder()
    for clip in ("a", "b", "b", "a"):
        assert np.array_equal(cache.read(clip, np.array([1, 2]), 5, decode), CLIP[1:3])
    assert decode.asked == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [1, 2]], "b does not fit: its second read decodes again"


def test_frames_are_written_where_they_are_wanted() -> None:
    cache, decode = ClipCache(1.5 * CLIP.nbytes / 2**30), Decoder()
    for clip in ("a", "a", "b", "b"):
        room = np.zeros_like(CLIP[:3])
        assert cache.read(clip, np.array([4, 0, 0]), 5, decode, room[:3]) is not None
        assert np.array_equal(room, CLIP[[4, 0, 0]])


def test_no_memory_means_no_cache() -> None:
    cache, decode = ClipCache(0.0), Decoder()
    for _ in range(2):
        cache.read("a", np.array([3]), 5, decode)
    assert decode.asked == [[3], [3]]


def test_readers_share_what_was_decoded(store_path: Path, tmp_path: Path) -> None:
    cache = ClipCache(1.0)

    def reader(folder: Path) -> ClipReader:
        return ClipReader(
            open_store(store_path), folder, split=None, short_side_px=80, guidance=AREA, cache_gib=1.0, cache=cache
        )

    first, second = reader(store_path.parent / "synthetic"), reader(tmp_path)  # in the second folder is no video
    frames = np.arange(4)
    pixels, _ = first.read(3, frames)
    assert np.array_equal(second.read(3, frames)[0], pixels)
    with pytest.raises(ClipUnreadableError):
        second.read(4, frames)
    for _ in range(2):  # from the store, then from memory
        kept = first.areas(3, frames)
        assert kept is not None
        assert np.array_equal(kept.strength, open_store(store_path).motion_areas(first.clip_ids[3], frames))
