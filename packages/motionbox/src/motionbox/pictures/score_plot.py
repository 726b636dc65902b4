"""A picture of box scores: the frame IoU of frames and of clips, beside trivial boxes, and what confidence is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from motionbox.pictures import draw
from motionbox.pictures.draw import Colour, Picture
from motionbox.scoring.area_metrics import rank_correlation, reliability
from motionbox.scoring.score_tables import ScoreRow

_PANEL_WH = (600, 360)
_MARGIN_LEFT, _MARGIN_RIGHT, _MARGIN_TOP, _MARGIN_BOTTOM = 62, 36, 46, 56
_COLOURS: dict[str, Colour] = {"store": draw.FRAME_BOX, "full frame": draw.CLIP_BOX, "centre half": draw.CENTRE_BOX}
_GRID: Colour = (52, 56, 68)
_NUM_BINS = 20
_SMOOTH = 4  # drawn so many times larger, then reduced: thin lines without steps


def score_plot(rows: Sequence[ScoreRow]) -> Picture:
    """Draw the distribution of the frame IoU over all annotated frames, and the mean frame IoU of every clip.

    Where the store's clips have a confidence, a reliability plot stands beside them: each clip's frame IoU over its
    confidence, the means of tenths of the scale joined by a line, and the diagonal on which a calibrated one lies.

    Args:
        rows: As from `score_store`; "store", "full frame" and "centre half" are drawn.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: None of these rows is there, or one lacks its frame IoUs.
    """
    shown = {row.name: row for row in rows if row.name in _COLOURS}
    if not shown or not all(row.frame_ious for row in shown.values()):
        raise ValueError(f"rows must hold frame IoUs of one of {', '.join(_COLOURS)}, got {[row.name for row in rows]}")
    ordered = [shown[name] for name in reversed(_COLOURS) if name in shown]  # the store last, above the others
    panels = [_distribution(ordered), _per_clip(ordered)]
    if "store" in shown and shown["store"].confidences:
        panels.append(_reliability(shown["store"]))
    entries = [
        (
            f"{row.name}, mean over clips {np.mean([score.frame_iou for score in row.scores]):.2f}",
            _COLOURS[row.name],
            False,
        )
        for row in reversed(ordered)
    ]
    return _framed(draw.grid([panels]), draw.legend(entries))


def _framed(body: Picture, legend: Picture) -> Picture:
    height, width = body.shape[0] + legend.shape[0] + 30, max(body.shape[1], legend.shape[1]) + 20
    page = np.full((height, width, 3), draw.BACKGROUND, np.uint8)
    page[10 : 10 + body.shape[0], 10 : 10 + body.shape[1]] = body
    page[-10 - legend.shape[0] : -10, 10 : 10 + legend.shape[1]] = legend
    return page


def _distribution(rows: Sequence[ScoreRow]) -> Picture:
    values = [np.concatenate(row.frame_ious) for row in rows]
    shares = [np.histogram(each, _NUM_BINS, (0.0, 1.0))[0] / len(each) for each in values]
    top = draw.nice_scale(max(float(share.max()) for share in shares))
    edges = np.repeat(np.linspace(0, 1, _NUM_BINS + 1), 2)
    lines = [np.column_stack([edges, np.r_[0.0, np.repeat(share / top, 2), 0.0]]) for share in shares]
    page = _panel(
        f"IoU of {len(values[0]):,} annotated frames", "frame IoU", [f"{k / 5:g}" for k in range(6)],
        [f"{top * k / 4:.0%}" for k in range(5)],
    )  # fmt: skip
    return _traced(page, lines, [_COLOURS[row.name] for row in rows], filled=len(rows) - 1)


def _per_clip(rows: Sequence[ScoreRow]) -> Picture:
    means = [np.array([score.frame_iou for score in row.scores]) for row in rows]
    order = np.argsort(means[-1], kind="stable")
    num_clips = len(order)
    places = (np.arange(num_clips) + 0.5) / num_clips
    lines = [np.column_stack([places, each[order]]) for each in means]
    page = _panel(
        f"mean frame IoU of each of {num_clips:,} clips", f"clips, by the IoU of the {rows[-1].name}",
        ["lowest", "highest"], [f"{k / 4:g}" for k in range(5)],
    )  # fmt: skip
    return _traced(page, lines, [_COLOURS[row.name] for row in rows], joined=[False] * (len(rows) - 1) + [True])


def _reliability(row: ScoreRow) -> Picture:
    reached = [score.frame_iou for score in row.scores]
    points = np.column_stack([row.confidences, reached]).astype(np.float64)
    bins = np.array([[each.confidence, each.iou] for each in reliability(row.confidences, reached)])
    rank = rank_correlation(row.confidences, reached)
    ticks = [f"{k / 5:g}" for k in range(6)]
    page = _panel(f"confidence and IoU, rank correlation {rank:.2f}", "confidence", ticks, ticks)
    page = _traced(page, [np.array([[0.0, 0.0], [1.0, 1.0]])], [draw.MUTED])
    page = _traced(page, [points], [draw.CENTRE_BOX], joined=[False])
    return _traced(page, [bins], [_COLOURS["store"]], joined=[True])


def _panel(title: str, x_title: str, x_labels: Sequence[str], y_labels: Sequence[str]) -> Picture:
    """Draw an empty panel: title, grid and labels, evenly spaced."""
    width, height = _PANEL_WH
    page = np.full((height, width, 3), draw.PANEL, np.uint8)
    right, bottom = width - _MARGIN_RIGHT, height - _MARGIN_BOTTOM
    draw.text(page, title, (_MARGIN_LEFT, 22), 14, draw.INK)
    for y, label in zip(np.linspace(bottom, _MARGIN_TOP, len(y_labels)).round().astype(int), y_labels, strict=True):
        page[y, _MARGIN_LEFT:right] = _GRID
        draw.text(page, label, (_MARGIN_LEFT - 8, int(y)), 11, draw.MUTED, align="right")
    for x, label in zip(np.linspace(_MARGIN_LEFT, right, len(x_labels)).round().astype(int), x_labels, strict=True):
        draw.text(page, label, (int(x), bottom + 16), 11, draw.MUTED, align="centre")
    draw.text(page, x_title, ((_MARGIN_LEFT + right) // 2, height - 16), 12, draw.MUTED, align="centre")
    return page


def _traced(
    page: Picture,
    lines: Sequence[NDArray[np.float64]],
    colours: Sequence[Colour],
    *,
    filled: int | None = None,
    joined: Sequence[bool] | None = None,
) -> Picture:
    """Draw curves in [0, 1] x [0, 1] into a panel: joined by a line, or dots; one may be filled down to zero."""
    width, height = _PANEL_WH
    big = cv2.resize(page, (width * _SMOOTH, height * _SMOOTH), interpolation=cv2.INTER_NEAREST)
    origin = np.array([_MARGIN_LEFT, height - _MARGIN_BOTTOM], np.float64)
    extent = np.array([width - _MARGIN_LEFT - _MARGIN_RIGHT, -(height - _MARGIN_TOP - _MARGIN_BOTTOM)], np.float64)
    for position, (line, colour) in enumerate(zip(lines, colours, strict=True)):
        points = np.rint((origin + line * extent) * _SMOOTH).astype(np.int32)
        if position == filled:
            veil = big.copy()
            cv2.fillPoly(veil, [points], colour)
            big = cv2.addWeighted(veil, 0.25, big, 0.75, 0)
        if joined is None or joined[position]:
            cv2.polylines(big, [points], False, colour, 2 * _SMOOTH)
        if joined is not None:
            _dots(big, points, colour)
    return np.asarray(cv2.resize(big, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _dots(picture: NDArray[Any], points: NDArray[np.int32], colour: Colour) -> None:
    radius = (3 if len(points) <= 100 else 2) * _SMOOTH
    for x, y in points.tolist():
        cv2.circle(picture, (x, y), radius, colour, -1)
