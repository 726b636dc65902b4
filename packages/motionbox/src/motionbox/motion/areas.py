"""Motion areas of a clip: per frame and cell of the stored motion maps, how strongly it belongs to the action.

A pure function of what the store keeps per frame (motion maps and times), so it does not depend on how the video was
split into work units. From the evidence around a frame in time (see `evidence`) to its area and box:

1. Membership. Boxes around the cells above a threshold are nested in each other, and so are boxes that leave a share of
   the evidence out on each side. How deep a column or row lies in both kinds of nest says how likely it belongs to the
   action: a logistic function with three constants, the same for both axes, for every frame and every clip.
2. Area: the product of the memberships of a cell's column and row. It is a soft box: what acts and what is acted on
   fill their box with motion here and rest there, and a cell that rests between moving ones belongs to it.
3. Box: where the membership of columns and rows falls to one half, to a fraction of a cell. The area fades out about a
   cell further, where its strength falls to a fifth.
4. Close-ups: motion that fills its box most of the time, is cut off by the frame's border and acts less than half of
   the time is a hand at something larger than what moves. There area and box are stretched towards the border.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from motionbox.motion import boxes as bx
from motionbox.motion.area_quality import expected_iou
from motionbox.motion.evidence import Evidence, find_evidence
from motionbox.motion.maps import dequantise_map
from motionbox.video.frames import working_size

if TYPE_CHECKING:
    from motionbox.config import AreaConfig, ExtractConfig

Array = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]

_LEVELS = 255
# Longer clips are handled piece by piece: what moves a minute later says nothing about this area.
_MAX_PIECE_SECONDS = 60.0
_MAX_PIECE_FRAMES = 3600
_EDGE = 0.5
_LEVEL_FLOOR = 0.02
_DEPTH_FLOOR = 0.004
_MIN_MOVING_SHARE = 0.01


@dataclass(frozen=True)
class ClipAreas:
    """The motion areas of one clip and the boxes around them, one row per frame.

    Attributes:
        areas: uint8 (T, h, w), the grid of the motion maps: 0 outside, 255 strongest of the clip. All 0 where the clip
            has no motion.
        boxes: int16 (T, 4), xyxy half-open display pixels: the box of the frame's area without its faint margin; always
            a box, the centre half where the clip has no motion.
        source: uint8 (T,), a `boxes.BoxSource` per frame.
        confidence: float32 (T,), in [0, 1]: the expected IoU of the frame's box with the action's; 0 for `CENTRE`.
        clip_confidence: The same for the clip, in [0, 1]: where it is low, plain tube masking is the safer choice.
    """

    areas: npt.NDArray[np.uint8]
    boxes: bx.Boxes
    source: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.float32]
    clip_confidence: float

    def stabilised_boxes(self) -> bx.StabilisedBoxes:
        """Return the boxes without the areas."""
        return bx.StabilisedBoxes(self.boxes, self.source, self.confidence, self.clip_confidence)


def clip_areas(
    maps: npt.NDArray[np.uint8], times: npt.NDArray[np.float64], width: int, height: int, config: ExtractConfig
) -> ClipAreas:
    """Return the motion areas of one clip.

    Args:
        maps: uint8 (T, h, w), the stored motion maps, T > 0.
        times: float64 (T,), seconds, not decreasing.
        width: Width of the frame in display pixels.
        height: Height of the frame in display pixels.
        config: The config that made the maps; `areas`, `store`, `frames` and `boxes.pad_share` are read.

    Returns:
        Areas and boxes. A stretch of a minute without motion borrows the box nearest in time, not its area.

    Raises:
        ValueError: The shapes disagree.
    """
    times = np.asarray(times, np.float64)
    if maps.ndim != 3 or len(maps) != len(times) or len(times) == 0:
        raise ValueError(f"maps must be (T, h, w) for {len(times)} > 0 times, got {maps.shape}")
    working_wh = working_size(width, height, config.frames.short_side_px)
    cells_wh = (working_wh[0] / config.store.map_scale, working_wh[1] / config.store.map_scale)
    pieces = [(part, _minute(maps[part], times[part], cells_wh, config)) for part in _parts(times)]
    strength = np.zeros(maps.shape, np.float32)
    cells = np.full((len(times), 4), -1.0)
    own = np.zeros(len(times), bool)
    confidence = np.zeros(len(times), np.float32)
    for part, piece in pieces:
        if piece is not None:
            strength[part], cells[part] = piece.strength, piece.boxes
            own[part], confidence[part] = piece.own, piece.confidence
    if not own.any():
        return _still(maps.shape, width, height)
    # The strongest cell may round to a hair above 255, which as a byte would be 0.
    areas = np.minimum(np.ceil(strength * np.float32(_LEVELS / strength.max())), _LEVELS).astype(np.uint8)
    cells = cells[bx.nearest_valid(bx.has_box(cells), times)]
    boxes = bx.pad_box(_to_pixels(cells, cells_wh, width, height), config.boxes.pad_share, width, height)
    source = np.where(own, bx.BoxSource.OWN, bx.BoxSource.BORROWED).astype(np.uint8)
    return ClipAreas(areas, boxes, source, confidence, float(confidence.mean()))


def _still(shape: tuple[int, ...], width: int, height: int) -> ClipAreas:
    """Return the areas of a clip without motion."""
    num_frames = shape[0]
    return ClipAreas(
        areas=np.zeros(shape, np.uint8),
        boxes=np.tile(bx.centre_half(width, height), (num_frames, 1)),
        source=np.full(num_frames, bx.BoxSource.CENTRE, np.uint8),
        confidence=np.zeros(num_frames, np.float32),
        clip_confidence=0.0,
    )


def _parts(times: Array64) -> list[slice]:
    """Cut a long clip into equal pieces of at most a minute."""
    duration = float(times[-1] - times[0])
    count = max(int(np.ceil(duration / _MAX_PIECE_SECONDS)), -(-len(times) // _MAX_PIECE_FRAMES), 1)
    edges = np.linspace(0, len(times), count + 1).astype(int)
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges) if b > a]


def _to_pixels(cells: Array64, cells_wh: tuple[float, float], width: int, height: int) -> Array64:
    """Round boxes in cells to whole display pixels, never to nothing."""
    pixels = cells * (np.array([width, height, width, height]) / np.array([*cells_wh, *cells_wh]))
    rounded = np.concatenate([np.floor(pixels[:, :2] + 0.5), np.ceil(pixels[:, 2:] - 0.5)], axis=1)
    rounded[:, 2:] = np.maximum(rounded[:, 2:], rounded[:, :2] + 1)
    return rounded


@dataclass(frozen=True)
class _Minute:
    """Up to a minute of a clip: boxes in cells, the strength of the areas in [0, 1], which frames move themselves."""

    strength: Array
    boxes: Array64
    own: npt.NDArray[np.bool_]
    confidence: Array64


def _minute(
    maps: npt.NDArray[np.uint8], times: Array64, cells_wh: tuple[float, float], config: ExtractConfig
) -> _Minute | None:
    """Return the areas of up to a minute, None where nothing moves."""
    settings, store = config.areas, config.store
    evidence = find_evidence(
        dequantise_map(maps, store.map_full_scale),
        times,
        full_scale=store.map_full_scale,
        map_scale=store.map_scale,
        settings=settings,
    )
    if not evidence.strength.any():
        return None
    strength, boxes = _areas(evidence, cells_wh, settings)
    whole = evidence.strength.sum(axis=0, keepdims=True)
    clip_box = membership_boxes(membership(whole, 0, settings), membership(whole, 1, settings), cells_wh)[0]
    quality = expected_iou(evidence, boxes, clip_box, cells_wh)
    return _Minute(strength, boxes, np.asarray(evidence.strength.any(axis=(1, 2))), quality)


def _areas(evidence: Evidence, cells_wh: tuple[float, float], settings: AreaConfig) -> tuple[Array, Array64]:
    """Return the strength of the areas (T, h, w) in [0, 1] and their boxes (T, 4) in cells."""
    sides = [membership(evidence.total, axis, settings) for axis in (0, 1)]
    boxes = membership_boxes(sides[0], sides[1], cells_wh)
    factor = close_up_factor(evidence, boxes, cells_wh, settings)
    if factor > 1:
        grown = grow_boxes(boxes, factor, settings.close_up_area, cells_wh)
        sides = [_stretched(side, boxes[:, k::2], grown[:, k::2]) for k, side in enumerate(sides)]
        boxes = grown
    columns, rows = sides
    strength = (rows[:, :, None] * columns[:, None, :]).astype(np.float32)
    peak = strength.max(axis=(1, 2), keepdims=True)
    strength[strength < np.minimum(settings.least_strength, peak)] = 0
    return strength, boxes


def membership(evidence: Array, axis: int, settings: AreaConfig) -> Array64:
    """Return how likely each column (or row) of each frame belongs to the action.

    Args:
        evidence: float32 (T, h, w), >= 0, each frame's sum above 0.
        axis: 0: columns, 1: rows.
        settings: Its `evidence_power`, `level_weight`, `depth_weight` and `member_bias`.

    Returns:
        float64 (T, w) or (T, h), in (0, 1): logistic(level_weight ln(level + .02) + depth_weight ln(depth + .004) +
        member_bias), of the evidence as a share of the frame's largest, raised to `evidence_power`. Level: the root of
        the largest threshold whose cells lie on both sides of the column or in it. Depth: the share of the evidence on
        that side of the column's middle where there is less.
    """
    across = 1 + axis
    share = (evidence / evidence.max(axis=(1, 2), keepdims=True)) ** settings.evidence_power
    level = np.sqrt(nested_levels(share.max(axis=across)))
    mass = share.sum(axis=across, dtype=np.float64)
    mass /= mass.sum(axis=1, keepdims=True)
    before = np.cumsum(mass, axis=1) - mass / 2
    depth = np.maximum(np.minimum(before, 1 - before), 0)
    logit = settings.level_weight * np.log(level + _LEVEL_FLOOR) + settings.depth_weight * np.log(depth + _DEPTH_FLOOR)
    return np.asarray(1 / (1 + np.exp(-(logit + settings.member_bias))), np.float64)


def nested_levels(largest: npt.NDArray[np.floating]) -> Array64:
    """Return for values (T, n) the smaller one of the maxima up to and from each position, float64 (T, n)."""
    upward = np.maximum.accumulate(largest, axis=1)
    downward = np.maximum.accumulate(largest[:, ::-1], axis=1)[:, ::-1]
    return np.minimum(upward, downward).astype(np.float64)


def membership_boxes(columns: Array64, rows: Array64, cells_wh: tuple[float, float]) -> Array64:
    """Return the boxes in which columns and rows belong to the action more likely than not.

    Args:
        columns: float64 (T, w), see `membership`.
        rows: float64 (T, h).
        cells_wh: Width and height of the frame in cells (the last column and row may be cut).

    Returns:
        float64 (T, 4), xyxy cells with fractions: memberships are interpolated between the middles of cells. Where none
        reaches one half, nine tenths of the largest count.
    """
    x1, x2 = _interval(columns, cells_wh[0])
    y1, y2 = _interval(rows, cells_wh[1])
    return np.stack([x1, y1, x2, y2], axis=1)


def _interval(member: Array64, limit: float) -> tuple[Array64, Array64]:
    """Return where each row (T, n) first and last crosses one half."""
    edge = np.minimum(_EDGE, 0.9 * member.max(axis=1))
    above = member > edge[:, None]
    count = member.shape[1]
    low = _crossing(member, above.argmax(axis=1), -1, edge)
    high = _crossing(member, count - 1 - above[:, ::-1].argmax(axis=1), 1, edge)
    return np.clip(low, 0, limit), np.clip(high, 0, limit)


def _crossing(member: Array64, first: npt.NDArray[np.intp], step: int, edge: Array64) -> Array64:
    """Return where the membership falls to `edge` between the cell `first` and the next one outwards."""
    frames, count = np.arange(len(member)), member.shape[1]
    beyond = np.clip(first + step, 0, count - 1)
    here, there = member[frames, first], member[frames, beyond]
    part = np.divide(here - edge, here - there, out=np.full(len(member), 0.5), where=here > there)
    return np.asarray(first + 0.5 + step * np.where(beyond == first, 0.5, part), np.float64)


def close_up_factor(evidence: Evidence, boxes: Array64, cells_wh: tuple[float, float], settings: AreaConfig) -> float:
    """Return how many times larger the boxes of a close-up are than what moves; 1 where the clip is none.

    Closeness is fullness (mean share of the frame that moves, times the share of the time in which something does, over
    the mean area of the boxes) times how much the border cuts off: cells of the evidence along the frame's border per
    square root of its cells, 1 for a square with one of its sides there.
    """
    share = evidence.weights / evidence.weights.sum()
    evident = evidence.strength > 0
    acting = float(share @ evident.any(axis=(1, 2)))
    moving = float(share[evidence.coverage > _MIN_MOVING_SHARE].sum())
    area = float(share @ bx.area(boxes)) / (cells_wh[0] * cells_wh[1])
    border = evident[:, [0, -1]].sum(axis=(1, 2)) + evident[:, :, [0, -1]].sum(axis=(1, 2))
    cut_off = float(share @ border) / float(share @ np.sqrt(evident.sum(axis=(1, 2))))
    closeness = float(share @ evidence.coverage) * moving / area * cut_off
    if closeness <= settings.close_up or acting >= settings.close_up_acting:
        return 1.0
    return (closeness / settings.close_up_unit) ** 2


def grow_boxes(boxes: Array64, factor: float, area_limit: float, cells_wh: tuple[float, float]) -> Array64:
    """Move every edge the same share of its way to the frame's border, so that the area grows by `factor`.

    Args:
        boxes: float64 (T, 4), xyxy cells.
        factor: At least 1.
        area_limit: Share of the frame at which growth ends; larger boxes stay.
        cells_wh: Width and height of the frame in cells.
    """
    width, height = cells_wh
    border = np.array([0.0, 0.0, width, height])
    area = bx.area(boxes) / (width * height)
    target = np.maximum(area, np.minimum(area * factor, area_limit))
    # (bw + s (W - bw)) (bh + s (H - bh)) = target W H, a quadratic equation in s.
    box_width, box_height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    a = (width - box_width) * (height - box_height)
    b = box_width * (height - box_height) + box_height * (width - box_width)
    c = box_width * box_height - target * width * height
    root = np.sqrt(np.maximum(b * b - 4 * a * c, 0))
    step = np.clip(-2 * c / np.maximum(b + root, 1e-12), 0, 1)
    return np.asarray(boxes + step[:, None] * (border - boxes), np.float64)


def _stretched(member: Array64, edges: Array64, grown: Array64) -> Array64:
    """Stretch memberships (T, n) so that they cross one half at `grown` (T, 2) instead of at `edges`."""
    middles = np.arange(member.shape[1]) + 0.5
    stretched = np.empty_like(member)
    for t, (side, (low, high), (to_low, to_high)) in enumerate(zip(member, edges, grown, strict=True)):
        source = low + (middles - to_low) * (high - low) / max(to_high - to_low, 1e-9)
        stretched[t] = np.interp(source, middles, side)
    return stretched
