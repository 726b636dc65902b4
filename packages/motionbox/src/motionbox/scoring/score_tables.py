"""Tables of box scores: rows of methods over the same clips, and the row of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from motionbox.errors import InputError
from motionbox.motion import boxes as bx
from motionbox.scoring.area_metrics import AreaRow, Lift, add_clip, mean_lift, rank_correlation
from motionbox.scoring.box_metrics import (
    METRICS,
    ClipScore,
    Interval,
    boxes_at,
    frame_ious,
    score_clip,
    summarise,
    trivial_boxes,
)
from motionbox.scoring.marks import Truth, clips_of_truths, cover_of_boxes, grid_of, marks_of
from motionbox.store import Store

_TITLES = {
    "frame_iou": "frame IoU",
    "iou_over_half": "IoU > .5",
    "coverage": "coverage",
    "area_share": "area",
    "clip_iou": "clip IoU",
    "jitter": "jitter",
}


@dataclass
class ScoreRow:
    """The scores of one method.

    Attributes:
        name: The method.
        clip_ids: The clips.
        scores: One per clip.
        confidences: Clip confidence, one per clip; empty where the method knows none.
        milliseconds: Time per frame of all steps after flow, one per clip; empty where it was not measured.
        frame_ious: IoU of every annotated frame, float64 (T,) per clip; empty where it is not kept.
        lifts: The areas' lift, one per clip; empty where the method has none.
    """

    name: str
    clip_ids: list[str] = field(default_factory=list)
    scores: list[ClipScore] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    frame_ious: list[npt.NDArray[np.float64]] = field(default_factory=list)
    lifts: list[Lift] = field(default_factory=list)

    def add(self, clip_id: str, score: ClipScore) -> None:
        """Add one clip."""
        self.clip_ids.append(clip_id)
        self.scores.append(score)

    def summary(self) -> dict[str, Interval]:
        """Return per metric the mean over clips with its 95 % bootstrap interval."""
        return summarise(self.scores)


def score_store(store: Store, truths: Iterable[Truth], *, fps: float | None = None) -> tuple[list[ScoreRow], int]:
    """Score a store's boxes, and boxes that do not look at the video beside them.

    Args:
        store: The store, open.
        truths: Annotated clips, in display pixels; frame number n stands at (n - 1) / fps seconds. Or annotated videos:
            each of their clips is scored on the annotated frames within it, frame number n at n / fps seconds.
        fps: Rate of the annotated frames, None: each clip's own, and EPIC's official rate for videos.

    Returns:
        One row per trivial method and one for the store; how many annotated clips and videos could not be scored,
        because the store lacks them, they failed or they have no box.

    Raises:
        InputError: Not one annotated clip can be scored.
    """
    rows: dict[str, ScoreRow] = {}
    missing = 0
    clips = store.clips().column("clip_id").to_pylist()
    find = clips_of_truths(store)
    for truth in truths:
        known = [scene for clip in find(truth) if (scene := _scene(store, clip, truth, fps)) is not None]
        missing += not known
        for scene in known:
            _score_scene(rows, scene)
    if not rows:
        raise InputError(
            f"store {store.path} must hold at least one clip that the boxes file annotates, got none; clip ids of the "
            f"store begin with {', '.join(sorted(clips)[:3]) or 'nothing'}"
        )
    return list(rows.values()), missing


@dataclass(frozen=True)
class _Scene:
    """A clip's row, its boxes in the annotated frames, (T, 4), and the true ones, (T, 4), both in display pixels."""

    clip: dict[str, Any]
    predicted: npt.NDArray[Any]
    truth: npt.NDArray[Any]


def _scene(store: Store, clip: dict[str, Any], truth: Truth, fps: float | None) -> _Scene | None:
    """Return what is to be compared in a clip, None where there is nothing."""
    if not clip["num_frames"]:
        return None
    times = store.frame_times(clip["clip_id"])
    marks = marks_of(truth, clip, times, fps, grid_of(store, clip["clip_id"]))
    if not bx.has_box(marks.boxes).any():
        return None
    return _Scene(clip, boxes_at(times, store.frame_boxes(clip["clip_id"]), marks.seconds), marks.boxes)


def _score_scene(rows: dict[str, ScoreRow], scene: _Scene) -> None:
    size = (scene.clip["width"], scene.clip["height"])
    for name, boxes in {**trivial_boxes(scene.truth, *size), "store": scene.predicted}.items():
        row = rows.setdefault(name, ScoreRow(name))
        row.add(scene.clip["clip_id"], score_clip(boxes, scene.truth, *size))
        row.frame_ious.append(frame_ious(boxes, scene.truth))
    rows["store"].confidences.append(scene.clip["confidence"])


def score_areas(store: Store, truths: Iterable[Truth], *, fps: float | None = None) -> list[AreaRow]:
    """Score a store's areas: those of motion, of every other guidance, and the frame boxes taken as areas.

    Args:
        store: The store, open.
        truths: As in `score_store`.
        fps: As in `score_store`.

    Returns:
        A row for each kind of areas, over the clips that it covers; none where the store has no areas at all.
    """
    rows: dict[str, AreaRow] = {}
    sources = store.guidance_sources()[0 if store.info["motion_maps"] else 1 :]
    find = clips_of_truths(store)
    pairs = ((entry, clip) for entry in truths for clip in find(entry) if clip["num_frames"])
    for truth, clip in pairs:
        times, grid = store.frame_times(clip["clip_id"]), grid_of(store, clip["clip_id"])
        marks = marks_of(truth, clip, times, fps, grid)
        if not sources or not bx.has_box(marks.boxes).any():
            continue
        areas = {source: store.motion_areas(clip["clip_id"], source=source) for source in sources}
        boxes = store.frame_boxes(clip["clip_id"]).astype(np.float64)
        areas["frame boxes"] = np.stack([cover_of_boxes(box[None], grid) for box in boxes])
        add_clip(rows, clip, areas, times, marks)
    return list(rows.values())


def markdown_table(rows: Sequence[ScoreRow]) -> str:
    """Return the rows as a Markdown table: means over clips, with 95 % intervals for the two IoUs.

    Lift of the areas, rank correlation of the clips' confidence with their frame IoU, and time, where a row has them.
    """
    extra = {title: [cell(row) for row in rows] for title, cell in _EXTRA.items()}
    extra = {title: cells for title, cells in extra.items() if any(cells)}
    titles = ["boxes", *(_TITLES[metric] for metric in METRICS), *extra]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for position, row in enumerate(rows):
        cells = [row.name, *(_cell(metric, value) for metric, value in row.summary().items())]
        lines.append("| " + " | ".join([*cells, *(column[position] for column in extra.values())]) + " |")
    return "\n".join(lines)


def _rank_cell(row: ScoreRow) -> str:
    """Return the rank correlation of confidence and frame IoU, where there are clips enough to speak of one."""
    if len(row.confidences) < _MIN_RANKED:
        return ""
    return f"{rank_correlation(row.confidences, [score.frame_iou for score in row.scores]):.2f}"


_MIN_RANKED = 5
_EXTRA: dict[str, Callable[[ScoreRow], str]] = {
    "lift": lambda row: f"{mean_lift(row.lifts):.2f}" if row.lifts else "",
    "rank of confidence": _rank_cell,
    "ms/frame": lambda row: f"{sum(row.milliseconds) / len(row.milliseconds):.1f}" if row.milliseconds else "",
}


def _cell(metric: str, value: Interval) -> str:
    if metric in ("frame_iou", "clip_iou"):
        return f"{value.mean:.3f} ({value.low:.2f} to {value.high:.2f})"
    return f"{value.mean:.4f}" if metric == "jitter" else f"{value.mean:.2f}"


def clip_table(rows: Sequence[ScoreRow]) -> str:
    """Return a Markdown table with one line per clip: frame IoU / clip IoU of every row."""
    lines = ["| clip | " + " | ".join(row.name for row in rows) + " |", "|---" * (len(rows) + 1) + "|"]
    for position, clip_id in enumerate(rows[0].clip_ids):
        scores = [row.scores[position] for row in rows]
        lines.append(f"| {clip_id} | " + " | ".join(f"{s.frame_iou:.2f} / {s.clip_iou:.2f}" for s in scores) + " |")
    return "\n".join(lines)
