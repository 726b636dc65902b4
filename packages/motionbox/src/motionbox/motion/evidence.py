"""Where a clip moves: the regions of its motion maps that are evidence for the action, and their sum over time.

One frame's motion is a poor guide: hands rest, objects wait to be touched, noise has spikes. Here the clip decides what
is noise and what is motion, and frames without motion inherit the evidence of the motion nearest to them.

1. Per frame: cells above the frame's noise and a share of the clip's peak form regions; those with the most motion that
   lasts are kept. What hands move, moves on; a camera that jerks, and flow that misses its mark, give a flash.
2. Evidence: region cells, weighted by strength, summed over time with an exponential kernel on both sides (no lag). Its
   clock runs with the amount of motion: rest does not age the evidence. Scene cuts stop it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from motionbox.motion.robust import ROBUST_STD

if TYPE_CHECKING:
    from motionbox.config import AreaConfig

Array = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]

_MAX_PERSIST_GAP_SECONDS = 0.25  # where frames are sparser than this, nothing can be said of what lasts
_SMOOTHING_CELLS = 0.7
_PEAK_QUANTILE = 0.98
# Shares of the value that a map stores as 255: the noise of a perfect clip, and the least that a scene cut raises.
_LEAST_NOISE_SHARE = 1 / 640
_LEAST_CUT_SHARE = 0.08


@dataclass(frozen=True)
class Evidence:
    """Where T frames of a clip move.

    Attributes:
        total: float32 (T, h, w), >= 0, the evidence around each frame in time; all 0 where nothing moves.
        strength: float32 (T, h, w), in [0, 1], each frame's own evidence: motion over the frame's noise as a share of
            the clip's peak; 0 outside the regions that are evidence.
        excess: float32 (T, h, w), >= 0, each frame's motion in units of its noise.
        coverage: float64 (T,), share of the frame that moves, weak regions too.
        peak: The clip's sustained peak, in units of noise.
        weights: float64 (T,), seconds of each frame.
    """

    total: Array
    strength: Array
    excess: Array
    coverage: Array64
    peak: float
    weights: Array64


def find_evidence(
    motion: Array, times: Array64, *, full_scale: float, map_scale: int, settings: AreaConfig
) -> Evidence:
    """Return the evidence of a clip.

    Args:
        motion: float32 (T, h, w), >= 0, the motion maps.
        times: float64 (T,), seconds, not decreasing.
        full_scale: Value that is stored as 255.
        map_scale: Side of a cell in pixels of the working size.
        settings: The numbers.
    """
    weights = frame_seconds(times)
    excess, cut = _over_noise(motion, full_scale, settings)
    lasting = lasting_motion(excess, times, cut, settings.persist_seconds, settings.persist_px / map_scale)
    # The clip's own scale is what its strongest cells reach for a while: a single flash must not set it.
    peak = sustained(np.quantile(excess.reshape(len(excess), -1), _PEAK_QUANTILE, axis=1), weights, settings)
    threshold = max(settings.noise_ratio, settings.peak_ratio * peak)
    masks = [(frame > threshold).astype(np.uint8) for frame in excess]
    # Regions are ranked by the motion in them that lasts, in which no cell counts for more than the peak.
    energy = np.minimum(lasting, peak)
    frames = [_frame_regions(*pair, settings.num_regions) for pair in zip(masks, energy, strict=True)]
    # Which of them count is measured against what the strongest region reaches for a while.
    level = sustained(np.array([energies[0] if len(energies) else 0.0 for _, energies in frames]), weights, settings)
    strength = np.zeros_like(excess)
    coverage = np.zeros(len(excess))
    for t, (labels, energies) in enumerate(frames):
        moving = np.flatnonzero(energies > settings.min_moving * level) + 1
        evident = np.flatnonzero(energies > settings.min_region * level) + 1
        coverage[t] = np.isin(labels, moving).mean()
        strength[t] = np.isin(labels, evident) * np.minimum(excess[t] / max(peak, 1e-6), 1)
    return Evidence(accumulate(strength, weights, cut, settings), strength, excess, coverage, peak, weights)


def frame_seconds(times: Array64) -> Array64:
    """Return how long each frame stands, float64 (T,); the last one as long as the median."""
    steps = np.diff(times)
    return np.append(steps, np.median(steps)) if len(steps) else np.ones(1)


def _over_noise(motion: Array, full_scale: float, settings: AreaConfig) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return the motion in units of each frame's noise, and which frames are scene cuts (their motion counts as 0)."""
    noise = ROBUST_STD * np.median(motion, axis=(1, 2))
    typical = max(float(np.median(noise)), _LEAST_NOISE_SHARE * full_scale)
    cut = noise > max(settings.cut_ratio * typical, _LEAST_CUT_SHARE * full_scale)
    smooth = np.stack([cv2.GaussianBlur(frame, (0, 0), _SMOOTHING_CELLS) for frame in motion])
    excess = (smooth / np.maximum(noise, typical)[:, None, None]).astype(np.float32)
    excess[cut] = 0
    return excess, cut


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


def sustained(values: Array64, weights: Array64, settings: AreaConfig) -> float:
    """Return the largest level that `values` reach for at least `sustained_seconds` in sum.

    Args:
        values: float64 (T,).
        weights: float64 (T,), seconds of each frame.
        settings: Its `sustained_seconds`; clips shorter than that give their minimum.
    """
    order = np.argsort(-values, kind="stable")
    reached = np.cumsum(weights[order]) >= settings.sustained_seconds * (1 - 1e-9)
    return float(values[order[int(np.argmax(reached)) if reached.any() else len(order) - 1]])


def accumulate(strength: Array, weights: Array64, cut: npt.NDArray[np.bool_], settings: AreaConfig) -> Array:
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
    memory = max(settings.memory_seconds, float(np.median(weights)))  # never less than a frame
    clock = amount / max(typical, 1e-9) * weights / memory
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
