"""Boxes: xyxy algebra, and frame boxes -> stabilised boxes -> clip box. NumPy only: trainers import this module.

A box is (x1, y1, x2, y2) in integer pixels, half-open: it holds the pixels x1 <= x < x2, y1 <= y < y2. Functions take
arrays (..., 4) and keep their leading dimensions. A row of -1 says that there is no box.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from motionbox.config import BoxConfig

Boxes = npt.NDArray[np.int16]
AnyBoxes = npt.NDArray[Any]

NO_BOX = (-1, -1, -1, -1)

_STATIC_SHARE = 0.9


class BoxSource(IntEnum):
    """Where a frame's stabilised box comes from."""

    OWN = 0
    BORROWED = 1
    CENTRE = 2


@dataclass(frozen=True)
class StabilisedBoxes:
    """The boxes of one clip, one row per frame.

    Attributes:
        boxes: int16 (T, 4), xyxy half-open pixels of the frame given to `stabilise`; always a box, never -1.
        source: uint8 (T,), a `BoxSource` per frame.
        confidence: float32 (T,), in [0, 1]: how clearly the frame's motion lies inside its box; 0 for `CENTRE`.
        clip_confidence: The same for the clip, in [0, 1]: where it is low, plain tube masking is the safer choice.
    """

    boxes: Boxes
    source: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.float32]
    clip_confidence: float


def area(boxes: AnyBoxes) -> npt.NDArray[np.float64]:
    """Return the areas of boxes (..., 4) as float64 (...), square pixels; 0 for an empty or missing one."""
    boxes = np.asarray(boxes)
    width = np.maximum(boxes[..., 2].astype(np.float64) - boxes[..., 0], 0)
    return cast("npt.NDArray[np.float64]", width * np.maximum(boxes[..., 3].astype(np.float64) - boxes[..., 1], 0))


def intersection(a: AnyBoxes, b: AnyBoxes) -> AnyBoxes:
    """Return the overlap of boxes a and b, (..., 4) each, broadcast; x2 < x1 or y2 < y1 where they are disjoint."""
    a, b = np.broadcast_arrays(a, b)
    return np.concatenate([np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])], axis=-1)


def iou(a: AnyBoxes, b: AnyBoxes) -> npt.NDArray[np.float64]:
    """Return the intersection over union of boxes a and b, (..., 4) each, broadcast.

    Returns:
        float64 (...), in [0, 1]; 0 where both are empty.
    """
    overlap = area(intersection(a, b))
    union = area(a) + area(b) - overlap
    return cast("npt.NDArray[np.float64]", np.divide(overlap, union, out=np.zeros_like(union), where=union > 0))


def has_box(boxes: AnyBoxes) -> npt.NDArray[np.bool_]:
    """Return for boxes (..., 4) whether each is one: bool (...), False for -1 rows and empty boxes."""
    boxes = np.asarray(boxes)
    return (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])


def union_box(boxes: AnyBoxes) -> AnyBoxes:
    """Return the smallest box around boxes (N, 4), shape (4,); missing ones are left out, -1 when none is left."""
    boxes = np.asarray(boxes)
    there = boxes[has_box(boxes)]
    if len(there) == 0:
        return np.array(NO_BOX, boxes.dtype)
    return np.concatenate([there[:, :2].min(axis=0), there[:, 2:].max(axis=0)])


def clip_box(boxes: AnyBoxes) -> AnyBoxes:
    """Return the clip box: the union of the clip's frame boxes (T, 4), shape (4,)."""
    return union_box(boxes)


def clip_to_frame(boxes: AnyBoxes, width: int, height: int) -> AnyBoxes:
    """Return boxes (..., 4) cut at the frame's border; -1 rows stay.

    Args:
        boxes: xyxy pixels.
        width: Width of the frame in pixels.
        height: Height of the frame in pixels.
    """
    boxes = np.asarray(boxes)
    cut = np.clip(boxes, 0, np.array([width, height, width, height])).astype(boxes.dtype)
    return np.where(has_box(boxes)[..., None], cut, boxes)


def scale_boxes(boxes: AnyBoxes, from_wh: tuple[int, int], to_wh: tuple[int, int]) -> Boxes:
    """Return boxes of a frame of one size in the pixels of the same frame at another size.

    Rounding is outwards, so a box never loses a part of what it covered and never becomes empty.

    Args:
        boxes: (..., 4) xyxy integer pixels of the first frame; -1 rows stay.
        from_wh: Width and height of the first frame in pixels.
        to_wh: Width and height of the second frame in pixels.

    Returns:
        int16 (..., 4), inside the second frame.
    """
    boxes = np.asarray(boxes)
    numerator = np.array([*to_wh, *to_wh], np.int64)
    denominator = np.array([*from_wh, *from_wh], np.int64)
    product = boxes.astype(np.int64) * numerator
    scaled = np.concatenate([(product // denominator)[..., :2], -(-product // denominator)[..., 2:]], axis=-1)
    inside = clip_to_frame(scaled, *to_wh)
    return np.where(has_box(boxes)[..., None], inside, -1).astype(np.int16)


def pad_box(boxes: AnyBoxes, pad_share: float, width: int, height: int) -> Boxes:
    """Return boxes grown by a share of their own size, half of it on each side, cut at the frame's border.

    Args:
        boxes: (..., 4) xyxy pixels; -1 rows stay.
        pad_share: Growth as a share of the box's width and height; 0 changes nothing.
        width: Width of the frame in pixels.
        height: Height of the frame in pixels.

    Returns:
        int16 (..., 4), rounded outwards.
    """
    boxes = np.asarray(boxes)
    margin = (boxes[..., 2:].astype(np.float64) - boxes[..., :2]) * (pad_share / 2)
    grown = np.concatenate([np.floor(boxes[..., :2] - margin), np.ceil(boxes[..., 2:] + margin)], axis=-1)
    grown = clip_to_frame(grown, width, height)
    return np.where(has_box(boxes)[..., None], grown, -1).astype(np.int16)


def centre_half(width: int, height: int) -> Boxes:
    """Return the box of half the frame's width and height in its centre, int16 (4,)."""
    left, top = width // 4, height // 4
    return np.array([left, top, max(width - left, left + 1), max(height - top, top + 1)], np.int16)


def is_static(energy: npt.NDArray[Any], static_energy: float) -> bool:
    """Return whether a clip stands still: nine frames of ten have less energy than what noise of compression has.

    Args:
        energy: float (T,), mean motion of each frame.
        static_energy: The limit, `StoreConfig.static_energy`; a clip at the limit moves, one without frames too.
    """
    return len(energy) > 0 and bool(np.quantile(energy, _STATIC_SHARE) < static_energy)


def is_degenerate(boxes: AnyBoxes, width: int, height: int, config: BoxConfig) -> npt.NDArray[np.bool_]:
    """Return for boxes (..., 4) whether each is missing, too wide, too tall or too small: bool (...).

    Args:
        boxes: xyxy pixels.
        width: Width of the frame in pixels.
        height: Height of the frame in pixels.
        config: The limits, as shares of the frame.
    """
    boxes = np.asarray(boxes)
    wide = boxes[..., 2].astype(np.int64) - boxes[..., 0] > config.max_width_share * width
    tall = boxes[..., 3].astype(np.int64) - boxes[..., 1] > config.max_height_share * height
    small = area(boxes) < config.min_area_share * width * height
    return ~has_box(boxes) | wide | tall | small


def stabilise(
    raw: AnyBoxes,
    times: npt.NDArray[np.float64],
    width: int,
    height: int,
    config: BoxConfig,
    confidence: npt.NDArray[np.float32] | None = None,
) -> StabilisedBoxes:
    """Return the stabilised boxes of one clip from its raw frame boxes.

    Args:
        raw: (T, 4) xyxy pixels, -1 rows where a frame has no box.
        times: float64 (T,), seconds, not decreasing.
        width: Width of the frame in pixels.
        height: Height of the frame in pixels.
        config: Limits of a valid box, what replaces the others (`stabilise`), padding.
        confidence: float32 (T,), in [0, 1], of the raw boxes; None counts as 1.

    Returns:
        T boxes: a frame's own where it is valid, else the nearest valid one in time (the earlier one on a tie), else,
        where the clip has none at all, the centre half; padded by `pad_share` and cut at the border. A borrowed box
        has half the confidence of its source; the clip's confidence is the mean.

    Raises:
        ValueError: `raw` and `times` disagree or are empty.
    """
    raw = np.asarray(raw)
    times = np.asarray(times, np.float64)
    if raw.ndim != 2 or raw.shape[1] != 4 or len(raw) == 0 or times.shape != (len(raw),):
        raise ValueError(f"raw must be (T, 4) and times (T,) with T > 0, got {raw.shape} and {times.shape}")
    valid = has_box(raw) if config.stabilise == "none" else ~is_degenerate(raw, width, height, config)
    if not valid.any():
        boxes = np.tile(centre_half(width, height), (len(raw), 1))
        source = np.full(len(raw), BoxSource.CENTRE, np.uint8)
        return StabilisedBoxes(boxes, source, np.zeros(len(raw), np.float32), 0.0)
    nearest = nearest_valid(valid, times)
    boxes = pad_box(raw[nearest], config.pad_share, width, height)
    given = np.ones(len(raw), np.float32) if confidence is None else np.asarray(confidence, np.float32)
    found = np.where(valid, given, given[nearest] * np.float32(0.5)).astype(np.float32)
    source = np.where(valid, BoxSource.OWN, BoxSource.BORROWED).astype(np.uint8)
    return StabilisedBoxes(boxes, source, found, float(found.mean()))


def nearest_valid(valid: npt.NDArray[np.bool_], times: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return for every row the index of the valid row nearest in time, itself where it is valid.

    Args:
        valid: bool (T,), at least one True.
        times: float64 (T,), seconds, not decreasing.

    Returns:
        int64 (T,); the earlier one on a tie.

    Raises:
        ValueError: No row is valid.
    """
    if not valid.any():
        raise ValueError(f"valid must be True somewhere, got {len(valid)} times False")
    index = np.arange(len(valid))
    before = np.maximum.accumulate(np.where(valid, index, -1))
    after = np.minimum.accumulate(np.where(valid, index, len(valid))[::-1])[::-1]
    gap_before = np.where(before >= 0, times - times[np.maximum(before, 0)], np.inf)
    gap_after = np.where(after < len(valid), times[np.minimum(after, len(valid) - 1)] - times, np.inf)
    return cast("npt.NDArray[np.int64]", np.where(gap_before <= gap_after, before, after).astype(np.int64))
