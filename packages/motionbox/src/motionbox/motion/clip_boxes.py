"""Boxes of a clip from the motion maps of all its frames: `boxes.stabilise = "evidence"`.

One frame's motion is a poor guide: hands rest, objects wait to be touched, noise has spikes. Here the clip decides what
is noise and what is motion, frames without motion inherit the area of the motion nearest to them, and boxes grow where
the clip is a close-up. A pure function of what the store keeps per frame (motion maps and times), so it does not depend
on how the video was split into work units.

1. Per frame: cells above the frame's noise and a share of the clip's peak form regions; those with the most motion that
   lasts are kept. What hands move, moves on; a camera that jerks, and flow that misses its mark, give a flash.
2. Evidence: region cells, weighted by strength, summed over time with an exponential kernel on both sides (no lag). Its
   clock runs with the amount of motion: rest does not age the evidence. Scene cuts stop it.
3. Boxes: marginal quantiles of the evidence. Motion that fills them most of the time and is cut off by the frame's
   border is a close-up: what the hand acts on is larger than what moves, and the boxes grow towards the border.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import numpy.typing as npt

from motionbox.motion import boxes as bx
from motionbox.motion.maps import ROBUST_STD, dequantise_map
from motionbox.video.frames import working_size

if TYPE_CHECKING:
    from motionbox.config import EvidenceConfig, ExtractConfig

Array = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]

# Longer clips are handled piece by piece: what moves a minute later says nothing about this box.
_MAX_PIECE_SECONDS = 60.0
_MAX_PIECE_FRAMES = 3600
_MIN_NOISE_PX = 0.1
_MIN_CUT_NOISE_SHARE = 0.02
_MAX_PERSIST_GAP_SECONDS = 0.25  # where frames are sparser than this, nothing can be said of what lasts
_SMOOTHING_CELLS = 0.7
_PEAK_QUANTILE = 0.98
_MIN_MOVING_SHARE = 0.01
_CLOSE_UP_POWER = 2


@dataclass(frozen=True)
class _Regions:
    """Moving regions of T frames.

    Attributes:
        strength: float32 (T, h, w), motion over the frame's noise, capped at the clip's peak, 1 there; 0 outside the
            regions that are evidence.
        coverage: float64 (T,), share of the frame that moves.
        peak: The clip's sustained peak, in units of noise.
        cut: bool (T,), scene cuts.
    """

    strength: Array
    coverage: Array64
    peak: float
    cut: npt.NDArray[np.bool_]


def clip_boxes(
    raw: bx.AnyBoxes,
    maps: npt.NDArray[np.uint8] | None,
    times: Array64,
    width: int,
    height: int,
    config: ExtractConfig,
    confidence: Array | None = None,
) -> bx.StabilisedBoxes:
    """Return the boxes of one clip, by the rule that the config names.

    Args:
        raw: (T, 4) raw frame boxes, xyxy display pixels, -1 rows where a frame has none.
        maps: uint8 (T, h, w), the stored motion maps; None unless `boxes.stabilise` is `evidence`.
        times: float64 (T,), seconds, not decreasing.
        width: Width of the frame in display pixels.
        height: Height of the frame in display pixels.
        config: Everything; `boxes`, `store` and `frames` are read.
        confidence: float32 (T,), confidence of the raw boxes; only `nearest` and `none` use it.

    Raises:
        ValueError: The shapes disagree or maps are missing.
    """
    if config.boxes.stabilise != "evidence":
        return bx.stabilise(raw, times, width, height, config.boxes, confidence)
    if maps is None:
        raise ValueError(f"maps must be (T, h, w) for {len(times)} > 0 times, got None")
    return clip_evidence(maps, times, width, height, config)[0]


def clip_evidence(
    maps: npt.NDArray[np.uint8], times: Array64, width: int, height: int, config: ExtractConfig
) -> tuple[bx.StabilisedBoxes, Array, tuple[float, float]]:
    """Return a clip's boxes, its evidence (T, h, w) and the frame's width and height in cells; see `clip_boxes`.

    Raises:
        ValueError: The shapes disagree.
    """
    times = np.asarray(times, np.float64)
    if maps.ndim != 3 or len(maps) != len(times) or len(times) == 0:
        raise ValueError(f"maps must be (T, h, w) for {len(times)} > 0 times, got {maps.shape}")
    working_wh = working_size(width, height, config.frames.short_side_px)
    cells_wh = (working_wh[0] / config.store.map_scale, working_wh[1] / config.store.map_scale)
    pieces = [
        _piece_boxes(dequantise_map(maps[part], config.store.map_full_scale), times[part], cells_wh, config)
        for part in _pieces(times)
    ]
    evidence = np.zeros(maps.shape, np.float32)
    if not any(pieces):
        centre = np.tile(bx.centre_half(width, height), (len(times), 1))
        source = np.full(len(times), bx.BoxSource.CENTRE, np.uint8)
        return bx.StabilisedBoxes(centre, source, np.zeros(len(times), np.float32), 0.0), evidence, cells_wh
    for part, piece in zip(_pieces(times), pieces, strict=True):
        if piece is not None:
            evidence[part] = piece.evidence
    return _joined(pieces, times, cells_wh, width, height, config), evidence, cells_wh


def _pieces(times: Array64) -> list[slice]:
    """Cut a long clip into equal pieces of at most a minute."""
    duration = float(times[-1] - times[0])
    count = max(int(np.ceil(duration / _MAX_PIECE_SECONDS)), -(-len(times) // _MAX_PIECE_FRAMES), 1)
    edges = np.linspace(0, len(times), count + 1).astype(int)
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges) if b > a]


@dataclass(frozen=True)
class _Piece:
    boxes: Array64
    evidence: Array
    own: npt.NDArray[np.bool_]
    confidence: Array64
    clip_confidence: float


def _joined(
    pieces: list[_Piece | None],
    times: Array64,
    cells_wh: tuple[float, float],
    width: int,
    height: int,
    config: ExtractConfig,
) -> bx.StabilisedBoxes:
    """Scale the pieces' boxes to pixels; a piece without motion borrows the nearest box in time."""
    lengths = [part.stop - part.start for part in _pieces(times)]
    cells = np.full((len(times), 4), -1.0)
    own = np.zeros(len(times), bool)
    confidence = np.zeros(len(times))
    overall = 0.0
    begin = 0
    for length, piece in zip(lengths, pieces, strict=True):
        rows = slice(begin, begin + length)
        begin += length
        if piece is not None:
            cells[rows], own[rows], confidence[rows] = piece.boxes, piece.own, piece.confidence
            overall += piece.clip_confidence * length / len(times)
    cells = cells[bx.nearest_valid(bx.has_box(cells), times)]
    pixels = cells * (np.array([width, height, width, height]) / np.array([*cells_wh, *cells_wh]))
    rounded = np.concatenate([np.floor(pixels[:, :2] + 0.5), np.ceil(pixels[:, 2:] - 0.5)], axis=1)
    rounded[:, 2:] = np.maximum(rounded[:, 2:], rounded[:, :2] + 1)
    boxes = bx.pad_box(rounded, config.boxes.pad_share, width, height)
    source = np.where(own, bx.BoxSource.OWN, bx.BoxSource.BORROWED).astype(np.uint8)
    return bx.StabilisedBoxes(boxes, source, confidence.astype(np.float32), overall)


def _piece_boxes(motion: Array, times: Array64, cells_wh: tuple[float, float], config: ExtractConfig) -> _Piece | None:
    """Return the boxes of up to a minute in cells, None where nothing moves."""
    settings = config.boxes.evidence
    weights = _frame_seconds(times)
    noise_units, regions = _find_regions(motion, times, config.store.map_scale, cells_wh, settings)
    if not regions.strength.any():
        return None
    evidence = accumulate(regions.strength, weights, regions.cut, settings)
    own = evidence_boxes(evidence, settings.trim_share, cells_wh)
    area = bx.area(own) / (cells_wh[0] * cells_wh[1])
    factor = max(closeness(regions.strength, regions.coverage, area, weights) / settings.close_up, 1) ** _CLOSE_UP_POWER
    boxes = _grow(own, np.maximum(area, np.minimum(area * factor, settings.close_up_area)), cells_wh)
    frame_confidence, confidence = _confidence(noise_units, boxes, regions, cells_wh, settings)
    return _Piece(boxes, evidence, np.asarray(regions.strength.any(axis=(1, 2))), frame_confidence, confidence)


def _frame_seconds(times: Array64) -> Array64:
    """Return how long each frame stands; the last one as long as the median."""
    steps = np.diff(times)
    return np.append(steps, np.median(steps)) if len(steps) else np.ones(1)


def _find_regions(
    motion: Array, times: Array64, map_scale: int, cells_wh: tuple[float, float], settings: EvidenceConfig
) -> tuple[Array, _Regions]:
    """Find the moving regions of a clip; also return its motion in units of each frame's noise."""
    weights = _frame_seconds(times)
    noise = ROBUST_STD * np.median(motion, axis=(1, 2))
    typical = max(float(np.median(noise)), _MIN_NOISE_PX)
    cut = noise > max(settings.cut_ratio * typical, _MIN_CUT_NOISE_SHARE * min(cells_wh) * map_scale)
    smooth = np.stack([cv2.GaussianBlur(frame, (0, 0), _SMOOTHING_CELLS) for frame in motion])
    units = (smooth / np.maximum(noise, typical)[:, None, None]).astype(np.float32)
    units[cut] = 0
    lasting = lasting_motion(units, times, cut, settings.persist_seconds, settings.persist_px / map_scale)
    peak = sustained(np.quantile(units.reshape(len(units), -1), _PEAK_QUANTILE, axis=1), weights, settings)
    threshold = max(settings.noise_ratio, settings.peak_ratio * peak)
    masks = [(frame > threshold).astype(np.uint8) for frame in units]
    energy = np.minimum(lasting, peak)
    frames = [_frame_regions(*pair, settings.num_regions) for pair in zip(masks, energy, strict=True)]
    strongest = np.array([energies[0] if len(energies) else 0.0 for _, energies in frames])
    level = sustained(strongest, weights, settings)
    strength = np.zeros_like(units)
    coverage = np.zeros(len(units))
    for t, (labels, energies) in enumerate(frames):
        moving = np.flatnonzero(energies > settings.min_moving * level) + 1
        evidence = np.flatnonzero(energies > settings.min_region * level) + 1
        coverage[t] = np.isin(labels, moving).mean()
        strength[t] = np.isin(labels, evidence) * np.minimum(units[t] / max(peak, 1e-6), 1)
    return units, _Regions(strength, coverage, peak, cut)


def lasting_motion(
    motion: Array, times: Array64, cut: npt.NDArray[np.bool_], persist_seconds: float, reach_cells: float
) -> Array:
    """Limit the motion of each cell to what is seen around it a moment before and a moment after.

    Args:
        motion: float32 (T, h, w), >= 0.
        times: float64 (T,), seconds, not decreasing.
        cut: bool (T,), scene cuts: nothing is compared across them.
        persist_seconds: The moment: the nearest frames at least this far away are looked at. 0 limits nothing.
        reach_cells: How far from the cell, in x and in y; rounded.

    Returns:
        float32 (T, h, w), the smallest of a cell's motion, the largest around it before and the largest after.
        A side where the clip or the scene ends, or where no frame follows for a quarter of a second, limits nothing.
    """
    if persist_seconds == 0:
        return motion
    size = 2 * round(reach_cells) + 1
    around = [cv2.dilate(frame, np.ones((size, size), np.uint8)) for frame in motion]
    scene = np.cumsum(cut)
    slack = 1e-6  # timestamps are rounded
    before = np.searchsorted(times, times - persist_seconds + slack, side="right") - 1
    after = np.searchsorted(times, times + persist_seconds - slack, side="left")
    lasting = motion.copy()
    for t in range(len(motion)):
        for other in (int(before[t]), int(after[t])):
            comparable = 0 <= other < len(motion) and scene[other] == scene[t] and not cut[other]
            if comparable and abs(times[other] - times[t]) <= _MAX_PERSIST_GAP_SECONDS:
                np.minimum(lasting[t], around[other], out=lasting[t])
    return lasting


def _frame_regions(mask: npt.NDArray[np.uint8], energy: Array, count: int) -> tuple[npt.NDArray[np.intp], Array64]:
    """Label a frame's strongest connected regions 1, 2, ... by falling energy; return labels and energies."""
    num, labels = cv2.connectedComponents(mask, connectivity=8)
    sums = np.bincount(labels.ravel(), energy.ravel(), minlength=num)[1:]
    order = np.argsort(-sums, kind="stable")[:count]
    ranks = np.zeros(num, np.intp)
    ranks[order + 1] = np.arange(1, len(order) + 1)
    return np.asarray(ranks[labels], np.intp), np.asarray(sums[order], np.float64)


def sustained(values: Array64, weights: Array64, settings: EvidenceConfig) -> float:
    """Return the largest level that `values` reach for at least `sustained_seconds` in sum.

    Args:
        values: float64 (T,).
        weights: float64 (T,), seconds of each frame.
        settings: Its `sustained_seconds`; clips shorter than that give their minimum.
    """
    order = np.argsort(-values, kind="stable")
    reached = np.cumsum(weights[order]) >= settings.sustained_seconds * (1 - 1e-9)
    return float(values[order[int(np.argmax(reached)) if reached.any() else len(order) - 1]])


def accumulate(strength: Array, weights: Array64, cut: npt.NDArray[np.bool_], settings: EvidenceConfig) -> Array:
    """Sum evidence over time with an exponential kernel whose clock runs with the amount of motion.

    Args:
        strength: float32 (T, h, w), evidence of each frame.
        weights: float64 (T,), seconds of each frame.
        cut: bool (T,), scene cuts: nothing passes them.
        settings: `memory_seconds` of typical motion make evidence fade by 1/e.

    Returns:
        float32 (T, h, w); a frame with no evidence in its scene has the sum over the clip.
    """
    amount = strength.mean(axis=(1, 2), dtype=np.float64)
    typical = sustained(amount, weights, settings)
    clock = amount / max(typical, 1e-9) * weights / settings.memory_seconds
    # Between the middles of two frames; the motion of a cut frame leads into the next scene.
    fade = np.where(cut[:-1], 0.0, np.exp(-(clock[:-1] + clock[1:]) / 2)).astype(np.float32)
    weighted = strength * weights[:, None, None].astype(np.float32)
    total = weighted.copy()
    for order in (range(1, len(total)), range(len(total) - 2, -1, -1)):
        running = np.zeros_like(total[0])
        step = order.step
        for t in order:
            running = (running + weighted[t - step]) * fade[min(t, t - step)]
            total[t] += running
    empty = ~(total.sum(axis=(1, 2)) > 1e-6 * weighted.sum())
    total[empty] = weighted.sum(axis=0)
    return total


def evidence_boxes(evidence: Array, trim_share: float | Array64, cells_wh: tuple[float, float]) -> Array64:
    """Return the boxes that leave a share of the evidence outside on each of their sides.

    Args:
        evidence: float32 (T, h, w), >= 0, each frame's sum above 0.
        trim_share: One share, or float64 (T,).
        cells_wh: Width and height of the frame in cells (the last row and column may be cut).

    Returns:
        float64 (T, 4), xyxy cells, with fractions: the mass of a cell is spread over it evenly.
    """
    trim = np.maximum(np.broadcast_to(np.asarray(trim_share, np.float64), (len(evidence),)), 1e-9)
    sides = []
    for axis, limit in ((1, cells_wh[0]), (2, cells_wh[1])):
        mass = evidence.sum(axis=axis, dtype=np.float64)
        shares = np.cumsum(np.pad(mass, ((0, 0), (1, 0))), axis=1)
        shares /= shares[:, -1:]
        low = _crossing(shares, trim)
        high = _crossing(shares, 1 - trim)
        sides.append((np.minimum(low, limit), np.minimum(high, limit)))
    (x1, x2), (y1, y2) = sides
    return np.stack([x1, y1, x2, y2], axis=1)


def _crossing(shares: Array64, level: Array64) -> Array64:
    """Return where each rising row (T, n + 1) reaches its level, interpolated linearly."""
    after = np.clip((shares < level[:, None]).sum(axis=1), 1, shares.shape[1] - 1)
    rows = np.arange(len(shares))
    low, high = shares[rows, after - 1], shares[rows, after]
    return cast("Array64", after - 1 + (level - low) / np.maximum(high - low, 1e-12))


def closeness(strength: Array, coverage: Array64, area: Array64, weights: Array64) -> float:
    """Return how much of a close-up a clip is: how full of motion its boxes are, times how much the border cuts it off.

    Args:
        strength: float32 (T, h, w), the moving regions; 0 outside.
        coverage: float64 (T,), share of the frame that moves.
        area: float64 (T,), share of the frame inside the boxes of the evidence.
        weights: float64 (T,), seconds of each frame.

    Returns:
        Fullness, mean coverage x share of the time that something moves / mean area, times the cells that the regions
        have along the frame's border per square root of their cells: 1 for a square with one of its sides there.
    """
    share = weights / weights.sum()
    duty = float(share[coverage > _MIN_MOVING_SHARE].sum())
    moving = strength > 0
    border = moving[:, [0, -1]].sum(axis=(1, 2)) + moving[:, :, [0, -1]].sum(axis=(1, 2))
    extent = np.sqrt(moving.sum(axis=(1, 2)))
    return float(coverage @ share) * duty / float(area @ share) * float(border @ share) / float(extent @ share)


def _grow(boxes: Array64, area: Array64, cells_wh: tuple[float, float]) -> Array64:
    """Move every edge the same share of its way to the frame's border, so that the box has the area share."""
    width, height = cells_wh
    border = np.array([0.0, 0.0, width, height])
    # (bw + s (W - bw)) (bh + s (H - bh)) = area W H, a quadratic equation in s.
    box_width, box_height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    a = (width - box_width) * (height - box_height)
    b = box_width * (height - box_height) + box_height * (width - box_width)
    c = box_width * box_height - area * width * height
    root = np.sqrt(np.maximum(b * b - 4 * a * c, 0))
    step = np.clip(-2 * c / np.maximum(b + root, 1e-12), 0, 1)
    return boxes + step[:, None] * (border - boxes)


def _confidence(
    units: Array, boxes: Array64, regions: _Regions, cells_wh: tuple[float, float], settings: EvidenceConfig
) -> tuple[Array64, float]:
    """Return per frame and for the clip: share of the motion inside the boxes beyond their area, times its clarity.

    Motion is what exceeds the noise; clarity is 1 - `noise_ratio` / peak: 0 where the clip's peak is only noise.
    """
    clarity = float(np.clip(1 - settings.noise_ratio / max(regions.peak, 1e-6), 0, 1))
    excess = np.where(units > settings.noise_ratio / 2, units, 0).astype(np.float64)
    corners = np.rint(boxes).astype(int)
    inside = np.array([frame[y1:y2, x1:x2].sum() for frame, (x1, y1, x2, y2) in zip(excess, corners, strict=True)])
    total = excess.sum(axis=(1, 2))
    area = bx.area(boxes) / (cells_wh[0] * cells_wh[1])
    share = np.divide(inside, total, out=np.zeros_like(inside), where=total > 0)
    pooled = float(inside.sum() / max(total.sum(), 1e-12))
    frames = clarity * np.clip(share - area, 0, 1)
    return frames, clarity * float(np.clip(pooled - area.mean(), 0, 1))
