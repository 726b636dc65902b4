"""Areas of clips of any length in bounded memory: a long clip is handled in parts, one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from motionbox.motion import boxes as bx
from motionbox.motion.areas import ClipAreas, clip_areas

if TYPE_CHECKING:
    from motionbox.config import ExtractConfig

MAX_CELLS = 1 << 24
"""Cells of a part at most: 2.5 minutes of 60 frames a second in a grid of 32 x 57."""

_MULTIPLE_FRAMES = 256


def part_slices(num_frames: int, num_cells: int, max_cells: int = MAX_CELLS) -> list[slice]:
    """Return the parts of a clip: as equal as multiples of 256 frames allow; one for all but very long clips.

    Args:
        num_frames: Frames of the clip.
        num_cells: Cells of a frame.
        max_cells: Cells of a part at most, about.
    """
    count = max(1, -(-num_frames * num_cells // max_cells))
    inner = np.linspace(0, num_frames / _MULTIPLE_FRAMES, count + 1)[1:-1].round().astype(int) * _MULTIPLE_FRAMES
    return [slice(a, b) for a, b in itertools.pairwise([0, *inner.tolist(), num_frames]) if b > a]


def areas_in_parts(
    read_maps: Callable[[slice], npt.NDArray[np.uint8]],
    times: npt.NDArray[np.float64],
    size_hw: tuple[int, int],
    frame_wh: tuple[int, int],
    config: ExtractConfig,
    max_cells: int = MAX_CELLS,
) -> Iterator[ClipAreas]:
    """Yield the areas of a clip, part by part; a part's strongest cell is 255.

    Args:
        read_maps: Gives the stored motion maps of some of the clip's frames, uint8 (n, h, w).
        times: float64 (T,), seconds, not decreasing, T > 0.
        size_hw: Height and width of the maps, each above 0.
        frame_wh: Width and height of the frame in display pixels.
        config: The config that made the maps.
        max_cells: Cells of a part at most, about.
    """
    for part in part_slices(len(times), size_hw[0] * size_hw[1], max_cells):
        yield clip_areas(read_maps(part), times[part], *frame_wh, config)


def joined_boxes(parts: Sequence[bx.StabilisedBoxes], times: npt.NDArray[np.float64]) -> bx.StabilisedBoxes:
    """Return the boxes of a clip from those of its parts; a part without motion borrows the nearest box in time.

    Args:
        parts: Boxes of all parts, in order.
        times: float64 (T,), seconds of all frames.
    """
    source = np.concatenate([part.source for part in parts])
    boxes = np.concatenate([part.boxes for part in parts])
    moving = source != bx.BoxSource.CENTRE
    if moving.any():
        boxes = boxes[bx.nearest_valid(moving, times)]
        source = np.where(moving, source, np.uint8(bx.BoxSource.BORROWED))
    lengths = [len(part.source) for part in parts]
    clip_confidence = float(np.average([part.clip_confidence for part in parts], weights=lengths))
    return bx.StabilisedBoxes(boxes, source, np.concatenate([part.confidence for part in parts]), clip_confidence)
