"""Tables of box scores: rows of methods over the same clips, and the row of a store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from motionbox import boxes as bx
from motionbox.errors import InputError
from motionbox.evaluate import (
    METRICS,
    AnnotatedClip,
    ClipScore,
    Interval,
    boxes_at,
    score_clip,
    summarise,
    trivial_boxes,
)
from motionbox.store import open_store

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
        name: Of the method.
        clip_ids: The clips.
        scores: One per clip.
        confidences: Clip confidence, one per clip; empty where the method knows none.
        milliseconds: Time per frame of all steps after flow, one per clip; empty where it was not measured.
    """

    name: str
    clip_ids: list[str] = field(default_factory=list)
    scores: list[ClipScore] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)

    def add(self, clip_id: str, score: ClipScore) -> None:
        """Add one clip."""
        self.clip_ids.append(clip_id)
        self.scores.append(score)

    def summary(self) -> dict[str, Interval]:
        """Return per metric the mean over clips with its 95 % bootstrap interval."""
        return summarise(self.scores)


def score_store(path: Path, truths: Iterable[AnnotatedClip], *, fps: float | None = None) -> tuple[list[ScoreRow], int]:
    """Score a store's boxes, and boxes that do not look at the video beside them.

    Args:
        path: The store.
        truths: Annotated clips, in display pixels; frame number n stands at (n - 1) / fps seconds.
        fps: Rate of the annotated frames, None: each clip's own.

    Returns:
        One row per trivial method and one for the store; how many annotated clips could not be scored, because the
        store lacks them, they failed or they have no box.

    Raises:
        InputError: Not one annotated clip can be scored.
        StoreError: It is not a store.
    """
    rows: dict[str, ScoreRow] = {}
    missing = 0
    with open_store(path) as store:
        clips = {row["clip_id"]: row for row in store.clips().to_pylist()}
        for truth in truths:
            clip = clips.get(truth.clip_id)
            if clip is None or not clip["num_frames"] or not bx.has_box(truth.boxes).any():
                missing += 1
                continue
            size = (clip["width"], clip["height"])
            times = store.frame_times(truth.clip_id)
            wanted = times[0] + (truth.numbers - 1) / (fps or clip["fps"])
            found = boxes_at(times, store.frame_boxes(truth.clip_id), wanted)
            for name, boxes in {**trivial_boxes(truth.boxes, *size), "store": found}.items():
                rows.setdefault(name, ScoreRow(name)).add(truth.clip_id, score_clip(boxes, truth.boxes, *size))
            rows["store"].confidences.append(clip["confidence"])
    if not rows:
        raise InputError(
            f"store {path} must hold at least one clip that the boxes file annotates, got none; clip ids of the store "
            f"begin with {', '.join(sorted(clips)[:3]) or 'nothing'}"
        )
    return list(rows.values()), missing


def markdown_table(rows: Sequence[ScoreRow]) -> str:
    """Return the rows as a Markdown table: means over clips, with 95 % intervals for the two IoUs."""
    timed = any(row.milliseconds for row in rows)
    titles = ["boxes", *(_TITLES[metric] for metric in METRICS), *(["ms/frame"] if timed else [])]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for row in rows:
        cells = [row.name, *(_cell(metric, value) for metric, value in row.summary().items())]
        if timed:
            mean = sum(row.milliseconds) / max(1, len(row.milliseconds))
            cells.append(f"{mean:.1f}" if row.milliseconds else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


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
