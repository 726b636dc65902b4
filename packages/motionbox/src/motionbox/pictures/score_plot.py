"""A picture of box scores: the frame IoU of frames and of clips, beside trivial boxes, and what confidence is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from motionbox.scoring.area_metrics import rank_correlation, reliability
from motionbox.scoring.score_tables import ScoreRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {"store": "#0094b8", "full frame": "#e08a00", "centre half": "#9467bd"}
_NUM_BINS = 20


def score_plot(rows: Sequence[ScoreRow]) -> Figure:
    """Draw the distribution of the frame IoU over all annotated frames, and the mean frame IoU of every clip.

    Where the store's clips have a confidence, a reliability plot stands beside them: each clip's frame IoU over its
    confidence, the means of tenths of the scale joined by a line, and the diagonal on which a calibrated one lies.

    Args:
        rows: As from `score_store`; "store", "full frame" and "centre half" are drawn.

    Raises:
        ValueError: None of these rows is there, or one lacks its frame IoUs.
    """
    from matplotlib.figure import Figure

    shown = {row.name: row for row in rows if row.name in _COLOURS}
    if not shown or not all(row.frame_ious for row in shown.values()):
        raise ValueError(f"rows must hold frame IoUs of one of {', '.join(_COLOURS)}, got {[row.name for row in rows]}")
    ordered = [shown[name] for name in _COLOURS if name in shown]
    store = shown.get("store")
    has_confidence = store is not None and bool(store.confidences)
    figure = Figure(figsize=(5.5 * (2 + has_confidence), 4.2), layout="constrained")
    panels = figure.subplots(1, 2 + has_confidence)
    _distribution(panels[0], ordered)
    _per_clip(panels[1], ordered)
    if store is not None and has_confidence:
        _reliability(panels[2], store)
    for axes in panels:
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(ordered), frameon=False)
    return figure


def _distribution(axes: Axes, rows: Sequence[ScoreRow]) -> None:
    for row in rows:
        values = np.concatenate(row.frame_ious)
        mean = np.mean([score.frame_iou for score in row.scores])
        shares, label = np.full(len(values), 1 / len(values)), f"{row.name}, mean over clips {mean:.2f}"
        outline: dict[str, Any] = {"histtype": "step", "linewidth": 2, "color": _COLOURS[row.name], "label": label}
        axes.hist(values, _NUM_BINS, range=(0, 1), weights=shares, **outline)
    axes.set(
        title=f"IoU of {len(values):,} annotated frames", xlabel="frame IoU", ylabel="share of frames", xlim=(0, 1)
    )


def _per_clip(axes: Axes, rows: Sequence[ScoreRow]) -> None:
    means = [np.array([score.frame_iou for score in row.scores]) for row in rows]
    order = np.argsort(means[0], kind="stable")
    for row, each in zip(rows, means, strict=True):
        axes.plot(each[order], "o-" if row is rows[0] else "o", color=_COLOURS[row.name], markersize=4)
    axes.set(
        title=f"mean frame IoU of each of {len(order):,} clips", xlabel=f"clips, by the IoU of the {rows[0].name}",
        ylabel="frame IoU", ylim=(0, 1), xticks=[],
    )  # fmt: skip


def _reliability(axes: Axes, row: ScoreRow) -> None:
    reached = [score.frame_iou for score in row.scores]
    bins = reliability(row.confidences, reached)
    axes.plot([0, 1], [0, 1], color="#888888", linewidth=1)
    axes.plot(row.confidences, reached, "o", color="#b0b0b0", markersize=3)
    axes.plot([each.confidence for each in bins], [each.iou for each in bins], "o-", color=_COLOURS["store"])
    rank = rank_correlation(row.confidences, reached)
    axes.set(
        title=f"confidence and IoU, rank correlation {rank:.2f}", xlabel="confidence", ylabel="frame IoU of the clip",
        xlim=(0, 1), ylim=(0, 1),
    )  # fmt: skip
