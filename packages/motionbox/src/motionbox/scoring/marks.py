"""What is annotated within one clip of a store: when, boxes in its pixels, and areas in its cells."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from motionbox.errors import InputError
from motionbox.inputs.epic100 import official_rate
from motionbox.motion import boxes as bx
from motionbox.scoring.annotations import AnnotatedVideo
from motionbox.scoring.box_metrics import AnnotatedClip
from motionbox.scoring.masks import MaskedClip, read_mask
from motionbox.store import Store
from motionbox.store.export import mofo_stem

Array64 = npt.NDArray[np.float64]
Truth = AnnotatedClip | AnnotatedVideo | MaskedClip

_MIN_COVER = 0.05
_MOST_OUTSIDE = 1.5


@dataclass(frozen=True)
class Grid:
    """The cells of a clip's frames.

    Attributes:
        frame_wh: Width and height of the frames in display pixels.
        cells_wh: The same in cells; the last ones may be cut.
        size_hw: Rows and columns of cells.
    """

    frame_wh: tuple[int, int]
    cells_wh: tuple[float, float]
    size_hw: tuple[int, int]


def grid_of(store: Store, clip_id: str) -> Grid:
    """Return the cells of a clip that has frames."""
    return Grid(store.frame_size(clip_id), store.frame_cells_wh(clip_id), store.grid_hw(clip_id))


def clips_of_truths(store: Store) -> Callable[[Truth], list[dict[str, Any]]]:
    """Return a function that gives the rows of `Store.clips` that a truth speaks of, if the store has any."""
    clips = {row["clip_id"]: row for row in store.clips().to_pylist()}
    of_video: dict[str, list[dict[str, Any]]] = {}
    for row in clips.values():
        of_video.setdefault(mofo_stem(row["video_id"]), []).append(row)

    def find(truth: Truth) -> list[dict[str, Any]]:
        if isinstance(truth, AnnotatedVideo):
            return of_video.get(truth.video_id, [])
        return [clips[truth.clip_id]] if truth.clip_id in clips else []

    return find


@dataclass(frozen=True)
class Marks:
    """The annotated frames of one clip.

    Attributes:
        seconds: float64 (N,), when, rising, in the time of the clip's video.
        boxes: float64 (N, 4), xyxy display pixels of all that is annotated in the frame; -1 rows where nothing is.
        areas: Number of an annotated frame -> uint8 (h, w), 0 to 255: the share of each cell that lies inside.
        are_masks: Whether the areas come from masks rather than from boxes.
    """

    seconds: Array64
    boxes: Array64
    areas: Callable[[int], npt.NDArray[np.uint8]]
    are_masks: bool = False


def marks_of(truth: Truth, clip: dict[str, Any], times: Array64, fps: float | None, grid: Grid) -> Marks:
    """Return what a truth says about a clip.

    Args:
        truth: What is annotated of the clip or of its video.
        clip: The clip's row of `Store.clips`.
        times: float64 (T,), seconds of the clip's frames.
        fps: Rate of the annotated frames; None: the clip's own, for videos EPIC's official rate.
        grid: The clip's cells.

    Raises:
        InputError: The boxes or masks are those of frames of another size.
    """
    if isinstance(truth, AnnotatedVideo):
        return _marks_of_video(truth, times, fps, grid)
    first = truth.first_number if isinstance(truth, MaskedClip) else 1
    seconds = times[0] + (truth.numbers - first) / (fps or clip["fps"])
    if isinstance(truth, MaskedClip):
        return _marks_of_masks(truth, seconds, grid)
    parts = truth.parts or [box[None] for box in truth.boxes]
    _check_size(truth, grid)
    return Marks(seconds, truth.boxes, lambda number: cover_of_boxes(parts[number], grid))


def _marks_of_video(truth: AnnotatedVideo, times: Array64, fps: float | None, grid: Grid) -> Marks:
    """Take the annotated frames within a clip, half a frame step of the annotation beyond its ends included."""
    rate = fps or official_rate(truth.video_id)
    seconds = truth.numbers / rate
    within = (seconds >= times[0] - 0.5 / rate) & (seconds <= times[-1] + 0.5 / rate)
    boxes = truth.boxes_px(*grid.frame_wh)[within]
    return Marks(seconds[within], boxes, lambda number: cover_of_boxes(boxes[number][None], grid))


def _marks_of_masks(truth: MaskedClip, seconds: Array64, grid: Grid) -> Marks:
    def area(number: int) -> npt.NDArray[np.uint8]:
        return cover_of_mask(read_mask(truth.files[number], grid.frame_wh), grid)

    boxes = np.array([_box_of_mask(read_mask(file, grid.frame_wh), grid.frame_wh) for file in truth.files])
    return Marks(seconds, boxes, area, are_masks=True)


def _box_of_mask(mask: npt.NDArray[np.bool_], frame_wh: tuple[int, int]) -> list[float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return [*bx.NO_BOX]
    scale_x, scale_y = frame_wh[0] / mask.shape[1], frame_wh[1] / mask.shape[0]
    return [columns[0] * scale_x, rows[0] * scale_y, (columns[-1] + 1) * scale_x, (rows[-1] + 1) * scale_y]


def _check_size(truth: AnnotatedClip, grid: Grid) -> None:
    limits = np.array([*grid.frame_wh, *grid.frame_wh]) * _MOST_OUTSIDE
    outside = (truth.boxes > limits).any(axis=1)
    if outside.any():
        box = [round(float(side)) for side in truth.boxes[int(np.argmax(outside))]]
        raise InputError(
            f"boxes of clip {truth.clip_id!r} must be in pixels of its {grid.frame_wh[0]}x{grid.frame_wh[1]} frames, "
            f"got {box}"
        )


def cover_of_boxes(boxes: Array64, grid: Grid) -> npt.NDArray[np.uint8]:
    """Return the share of each cell that boxes (k, 4) cover, uint8 (h, w), 255 for all of it; the largest of the k.

    Boxes are in display pixels; -1 rows cover nothing, nor does less than a twentieth of a cell.
    """
    cover = np.zeros(grid.size_hw)
    scale = np.array([*grid.cells_wh, *grid.cells_wh]) / np.array([*grid.frame_wh, *grid.frame_wh])
    for x1, y1, x2, y2 in boxes[bx.has_box(boxes)] * scale:
        across = _cover(x1, x2, grid.size_hw[1], grid.cells_wh[0])
        down = _cover(y1, y2, grid.size_hw[0], grid.cells_wh[1])
        np.maximum(cover, down[:, None] * across, out=cover)
    return _levels(cover)


def cover_of_mask(mask: npt.NDArray[np.bool_], grid: Grid) -> npt.NDArray[np.uint8]:
    """Return the share of each cell that lies in a mask, uint8 (h, w), 255 for all of it.

    Args:
        mask: bool (H, W), of the whole frame at any size.
        grid: The cells.
    """
    sums = mask.astype(np.float64)
    for axis, limit in ((0, grid.cells_wh[1]), (1, grid.cells_wh[0])):
        sums = _sum_cells(np.moveaxis(sums, axis, 0), grid.size_hw[axis], limit)
        sums = np.moveaxis(sums, 0, axis)
    return _levels(sums)


def _cover(low: float, high: float, count: int, limit: float) -> Array64:
    """Return the share of each of `count` cells along an axis that [low, high) covers; the last one ends at `limit`."""
    begin = np.arange(count)
    end = np.minimum(begin + 1, limit)
    return cast("Array64", np.clip(np.minimum(high, end) - np.maximum(low, begin), 0, None) / (end - begin))


def _sum_cells(values: Array64, count: int, limit: float) -> Array64:
    """Return the means of rows (N, ...) over `count` cells, whose `limit` first make up all rows."""
    integral = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])
    edges = np.minimum(np.arange(count + 1), limit) * (len(values) / limit)
    low = np.minimum(edges.astype(int), len(values) - 1)
    at_edges = integral[low] + (edges - low)[:, None] * values[low]
    return cast("Array64", np.diff(at_edges, axis=0) / np.diff(edges)[:, None])


def _levels(cover: Array64) -> npt.NDArray[np.uint8]:
    return np.round(np.where(cover < _MIN_COVER, 0, cover) * 255).astype(np.uint8)


def nearest_marks(marks: Marks, times: Array64) -> tuple[npt.NDArray[np.int64], int] | None:
    """Return for each frame of a clip the annotated frame with a box that is nearest in time.

    Args:
        marks: The clip's marks.
        times: float64 (T,), seconds of its frames.

    Returns:
        int64 (T,), and how many of the frames have no annotation within half their step; None where no frame has a box.
    """
    there = np.flatnonzero(bx.has_box(marks.boxes))
    if not len(there):
        return None
    seconds = marks.seconds[there]
    middles = (seconds[1:] + seconds[:-1]) / 2
    nearest = np.searchsorted(middles, times)  # the earlier one on a tie
    step = float(np.median(np.diff(times))) if len(times) > 1 else math.inf
    far = int((np.abs(seconds[nearest] - times) > step * 0.51).sum())
    return there[nearest], far
