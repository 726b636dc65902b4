"""Motion areas as bytes: blocks of a clip's frames, each block readable by itself.

A block holds `BLOCK_FRAMES` frames of one clip (its last block fewer), cropped to the cells that are inside in any of
them, in `NUM_LEVELS` levels beside 0, every frame but the first as its difference from the one before (modulo 256),
compressed with zstd. Areas change little from frame to frame: this takes a few hundredths of their size in memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from motionbox.video.frames import working_size

Areas = npt.NDArray[np.uint8]

BLOCK_FRAMES = 256
NUM_LEVELS = 12
"""Strengths that a stored area tells apart: 255, 234, ..., 24; 0 stays 0 and nothing else becomes 0."""

_HEADER = struct.Struct("<5H")  # frames; left, top, width and height of the cells that are kept
_ZSTD_LEVEL = 15
_STEP = 21
_LEVELS = np.append(0, 255 - _STEP * np.arange(NUM_LEVELS)[::-1])
_STORED = _LEVELS[np.abs(np.arange(256)[:, None] - _LEVELS).argmin(axis=1)].astype(np.uint8)
_STORED[1 : _LEVELS[1]] = _LEVELS[1]


def frame_cells_wh(width: int, height: int, short_side_px: int, map_scale: int) -> tuple[float, float]:
    """Return the width and height of a frame in cells of its motion maps; the last cells may be cut, hence fractions.

    Args:
        width: Width of the frame in display pixels.
        height: Height of the frame in display pixels.
        short_side_px: As in `FramesConfig`.
        map_scale: As in `StoreConfig`.
    """
    working_wh = working_size(width, height, short_side_px)
    return working_wh[0] / map_scale, working_wh[1] / map_scale


def stored_areas(areas: Areas) -> Areas:
    """Return areas as they come back from a store.

    Args:
        areas: uint8, any shape.

    Returns:
        uint8 of the same shape, the nearest of the `NUM_LEVELS` levels; what is above 0 stays above 0.
    """
    return cast("Areas", _STORED[areas])


def encode_blocks(areas: Areas) -> Iterator[bytes]:
    """Yield the blocks of consecutive frames.

    Args:
        areas: uint8 (T, h, w), T, h and w below 65,536.
    """
    for first in range(0, len(areas), BLOCK_FRAMES):
        yield _encode(areas[first : first + BLOCK_FRAMES])


def _encode(areas: Areas) -> bytes:
    used = np.asarray(areas.max(axis=0) > 0)
    rows, columns = np.flatnonzero(used.any(axis=1)), np.flatnonzero(used.any(axis=0))
    top, bottom, left, right = (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if len(rows) else (0, 0, 0, 0)
    changes = stored_areas(areas[:, top:bottom, left:right])
    changes[1:] -= changes[:-1].copy()
    header = _HEADER.pack(len(areas), left, top, right - left, bottom - top)
    return header + bytes(_codec().compress(changes.tobytes(), asbytes=True))


def decode_block(data: bytes, size_hw: tuple[int, int], positions: npt.NDArray[np.int64] | None = None) -> Areas:
    """Return the areas of a block, uint8 (n, h, w).

    Args:
        data: What `encode_blocks` gave.
        size_hw: Height and width of the whole grid.
        positions: int64 (n,), which of its frames; None: all.

    Raises:
        ValueError: The bytes are damaged, or the block lacks a frame.
    """
    try:
        count, left, top, width, height = _HEADER.unpack_from(data)
        if top + height > size_hw[0] or left + width > size_hw[1]:
            raise ValueError(f"the cells of the block must lie in the grid {size_hw}, got {(left, top, width, height)}")
        changes = _codec().decompress(memoryview(data)[_HEADER.size :], count * height * width)
        kept = np.frombuffer(changes, np.uint8).reshape(count, height, width).copy()
    except (struct.error, pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from None
    for frame, before in zip(kept[1:], kept, strict=False):  # several times as fast as `np.add.accumulate`
        frame += before
    if positions is not None:
        if len(positions) and positions.max() >= count:
            raise ValueError(f"the block must hold frame {positions.max()}, got {count} frames")
        kept = kept[positions]
    areas = np.zeros((len(kept), *size_hw), np.uint8)
    areas[:, top : top + height, left : left + width] = kept
    return areas


@cache
def _codec() -> pa.Codec:
    return pa.Codec("zstd", compression_level=_ZSTD_LEVEL)
