"""Motion areas and confidence against annotations: lift of the chosen patches, IoU with masks, reliability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from motionbox.motion import boxes as bx
from motionbox.scoring.marks import Marks

GRID = 14
"""Patches per side of a training sample: 224 px in patches of 16."""
SAMPLE_FRAMES, SAMPLE_STRIDE = 16, 2
CHOSEN_SHARE = 0.3
_WINDOW_STEP = 8


class Lift(NamedTuple):
    """How far the strongest patches of training samples lie inside the annotated boxes, means over samples.

    Attributes:
        chosen: Share of the chosen patches, over the frames of the sample, whose middle is inside the frame's box.
        random: The same of all patches.
    """

    chosen: float
    random: float


def area_lift(areas: npt.NDArray[Any], truth: npt.NDArray[Any], width: int, height: int) -> Lift | None:
    """Say how much better than chance the patches that areas choose hit annotated boxes.

    A sample is 16 frames at stride 2 (the last one repeated in shorter clips), one beginning at every eighth frame; it
    chooses the 30 % of its 14 x 14 patches with the largest sum of areas over its frames.

    Args:
        areas: (T, h, w), >= 0.
        truth: (T, 4) xyxy pixels, the true box of each frame; -1 rows are not scored.
        width: Width of the frame in pixels.
        height: Height of the frame in pixels.

    Returns:
        None where no frame has a true box.
    """
    num_frames = len(areas)
    truth = np.asarray(truth, np.float64)
    annotated = bx.has_box(truth)
    strength = np.stack([cv2.resize(a.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA) for a in areas])
    hits = _middles_inside(truth, width, height)
    found = []
    for start in range(0, max(1, num_frames - SAMPLE_FRAMES * SAMPLE_STRIDE + _WINDOW_STEP), _WINDOW_STEP):
        frames = np.minimum(start + SAMPLE_STRIDE * np.arange(SAMPLE_FRAMES), num_frames - 1)
        scored = frames[annotated[frames]]
        if len(scored):
            order = np.argsort(-strength[frames].sum(axis=0).ravel(), kind="stable")
            inside = hits[scored].mean(axis=0).ravel()
            found.append((inside[order[: round(CHOSEN_SHARE * GRID * GRID)]].mean(), inside.mean()))
    return Lift(*np.mean(found, axis=0).tolist()) if found else None


def _middles_inside(boxes: npt.NDArray[np.float64], width: int, height: int) -> npt.NDArray[np.bool_]:
    """Return for boxes (T, 4) which patches' middles they hold, bool (T, 14, 14)."""
    middles = (np.arange(GRID) + 0.5) / GRID
    x1, y1, x2, y2 = (side[:, None] for side in boxes.T)
    columns = (middles * width >= x1) & (middles * width < x2)
    rows = (middles * height >= y1) & (middles * height < y2)
    return np.asarray(rows[:, :, None] & columns[:, None, :])


def mean_lift(lifts: Sequence[Lift]) -> float:
    """Return the mean share of the chosen patches inside, over that of random ones."""
    chosen, random = np.mean(lifts, axis=0)
    return float(chosen / random)


def rank_correlation(confidences: Sequence[float], ious: Sequence[float]) -> float:
    """Return Spearman's rank correlation, ties shared; NaN where either does not vary."""
    ranks = np.stack([rankdata(confidences), rankdata(ious)])
    if len(confidences) < 2 or (np.ptp(ranks, axis=1) == 0).any():
        return float("nan")
    return float(np.corrcoef(ranks)[0, 1])


class ReliabilityBin(NamedTuple):
    """Clips, or frames, of like confidence: its mean, the mean IoU, how many."""

    confidence: float
    iou: float
    num_values: int


def reliability(confidences: Sequence[float], ious: Sequence[float], num_bins: int = 10) -> list[ReliabilityBin]:
    """Return what IoU is reached where a confidence is given: the points of a reliability plot.

    Args:
        confidences: In [0, 1].
        ious: In [0, 1], as many.
        num_bins: Equal bins over [0, 1]; empty ones are left out.

    Raises:
        ValueError: The lengths disagree.
    """
    given, reached = np.asarray(confidences, np.float64), np.asarray(ious, np.float64)
    if given.shape != reached.shape or given.ndim != 1:
        raise ValueError(f"confidences and ious must be of one length, got {given.shape} and {reached.shape}")
    places = np.minimum((given * num_bins).astype(int), num_bins - 1)
    return [
        ReliabilityBin(float(given[at].mean()), float(reached[at].mean()), int(at.sum()))
        for at in (places == place for place in range(num_bins))
        if at.any()
    ]


@dataclass
class AreaRow:
    """How one kind of areas does, clip by clip.

    Attributes:
        name: What the areas are called.
        clip_ids: The clips.
        lifts: One per clip.
        mask_ious: IoU of the cells above 0 with those that a mask covers by half, mean over a clip's masks; empty where
            the truth is boxes.
    """

    name: str
    clip_ids: list[str] = field(default_factory=list)
    lifts: list[Lift] = field(default_factory=list)
    mask_ious: list[float] = field(default_factory=list)


def add_clip(
    rows: dict[str, AreaRow],
    clip: dict[str, Any],
    areas: dict[str, npt.NDArray[np.uint8]],
    times: npt.NDArray[np.float64],
    marks: Marks,
) -> None:
    """Score the areas of one clip.

    Args:
        rows: The rows by name; missing ones are made.
        clip: The clip's row of `Store.clips`.
        areas: Name -> uint8 (T, h, w), one for each of the clip's frames.
        times: float64 (T,), seconds of the frames.
        marks: What is annotated in the clip; a box in one frame at least.
    """
    seen = np.flatnonzero(bx.has_box(marks.boxes))
    frames = np.abs(times[:, None] - marks.seconds[seen]).argmin(axis=0)
    truth = np.full((len(times), 4), -1.0)
    truth[frames] = marks.boxes[seen]
    for name, strength in areas.items():
        lift = area_lift(strength, truth, clip["width"], clip["height"])
        if lift is None:
            continue
        row = rows.setdefault(name, AreaRow(name))
        row.clip_ids.append(clip["clip_id"])
        row.lifts.append(lift)
        if marks.are_masks:
            row.mask_ious.append(_mask_iou(strength[frames], [marks.areas(int(number)) for number in seen]))


def _mask_iou(areas: npt.NDArray[np.uint8], masks: Sequence[npt.NDArray[np.uint8]]) -> float:
    inside, true = areas > 0, np.stack(masks) >= 128
    either = (inside | true).sum(axis=(1, 2))
    return float(np.mean((inside & true).sum(axis=(1, 2)) / np.maximum(either, 1)))


def area_table(rows: Sequence[AreaRow]) -> str:
    """Return the rows as a Markdown table: means over clips, and their ratio as lift."""
    masked = any(row.mask_ious for row in rows)
    titles = ["areas", "clips", "inside, of all patches", f"of the strongest {CHOSEN_SHARE:.0%}", "lift"]
    titles += ["IoU with masks"] if masked else []
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for row in rows:
        chosen, random = np.mean(row.lifts, axis=0)
        cells = [row.name, str(len(row.lifts)), f"{random:.3f}", f"{chosen:.3f}", f"{mean_lift(row.lifts):.2f}"]
        if masked:
            cells.append(f"{np.mean(row.mask_ious):.3f}" if row.mask_ious else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
