"""Boxes against annotated boxes: how well they find the hands and objects, beside boxes that look at nothing.

NumPy only, except for reading files. An annotated frame's true box is the union of its hand and object boxes; frames
without an annotated box are not scored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from motionbox.errors import InputError
from motionbox.motion import boxes as bx

AnyArray = npt.NDArray[Any]

FPS_SOMETHING_ELSE = 12.0


@dataclass(frozen=True)
class AnnotatedClip:
    """The true boxes of one clip.

    Attributes:
        clip_id: As in the store.
        numbers: int64 (T,), the numbers of the annotated frames as in their names, rising, 1-based.
        boxes: float64 (T, 4), xyxy pixels of the annotated video: the union over hands and objects; -1 rows where
            nothing is annotated.
        parts: float64 (k, 4) for each of the T frames: its single boxes; empty where only the union is known.
    """

    clip_id: str
    numbers: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    parts: tuple[npt.NDArray[np.float64], ...] = ()


@dataclass(frozen=True)
class ClipScore:
    """One clip's boxes against the truth; shares and IoU in [0, 1].

    Attributes:
        frame_iou: Mean IoU over annotated frames.
        iou_over_half: Share of annotated frames with IoU > 0.5.
        coverage: Mean share of the true box that the box covers.
        area_share: Mean area of the boxes, as a share of the frame.
        clip_iou: IoU of the unions over the clip.
        jitter: Mean distance that the box's centre moves between frames beyond the true box's own movement, as a
            share of the diagonal: mean |(c_t+1 - c_t) - (g_t+1 - g_t)|.
    """

    frame_iou: float
    iou_over_half: float
    coverage: float
    area_share: float
    clip_iou: float
    jitter: float


METRICS = tuple(ClipScore.__dataclass_fields__)


@dataclass(frozen=True)
class Interval:
    """A mean over clips with its bootstrap confidence interval."""

    mean: float
    low: float
    high: float


def score_clip(predicted: AnyArray, truth: AnyArray, width: int, height: int) -> ClipScore:
    """Score the boxes of one clip.

    Args:
        predicted: (T, 4) xyxy pixels, one per frame; -1 rows count as no box (IoU 0).
        truth: (T, 4) xyxy pixels of the same frames; -1 rows are not scored.
        width: Width of the frame in pixels.
        height: Height of the frame in pixels.

    Raises:
        ValueError: The shapes disagree or no frame has a true box.
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if predicted.shape != truth.shape or predicted.ndim != 2 or predicted.shape[1] != 4:
        raise ValueError(f"predicted and truth must both be (T, 4), got {predicted.shape} and {truth.shape}")
    scored = bx.has_box(truth)
    if not scored.any():
        raise ValueError("truth must have a box in at least one frame, got none")
    ious = frame_ious(predicted, truth)
    covered = bx.area(bx.intersection(predicted[scored], truth[scored])) / bx.area(truth[scored])
    return ClipScore(
        frame_iou=float(ious.mean()),
        iou_over_half=float((ious > 0.5).mean()),
        coverage=float(covered.mean()),
        area_share=float(bx.area(predicted[scored]).mean() / (width * height)),
        clip_iou=float(bx.iou(bx.clip_box(predicted), bx.clip_box(truth))),
        jitter=_jitter(predicted, truth, float(np.hypot(width, height))),
    )


def frame_ious(predicted: AnyArray, truth: AnyArray) -> npt.NDArray[np.float64]:
    """Return the IoU of every frame that has a true box, float64 (num_scored,); arguments as in `score_clip`."""
    scored = bx.has_box(np.asarray(truth))
    return np.asarray(bx.iou(np.asarray(predicted)[scored], np.asarray(truth)[scored]), np.float64)


def _jitter(predicted: AnyArray, truth: AnyArray, diagonal_px: float) -> float:
    there = bx.has_box(predicted) & bx.has_box(truth)
    pairs = there[1:] & there[:-1]
    if not pairs.any():
        return 0.0
    offset = (predicted[:, :2] + predicted[:, 2:] - truth[:, :2] - truth[:, 2:]) / 2
    return float(np.linalg.norm(np.diff(offset, axis=0)[pairs], axis=1).mean() / diagonal_px)


def trivial_boxes(truth: AnyArray, width: int, height: int) -> dict[str, npt.NDArray[np.float64]]:
    """Return the boxes of methods that do not look at the video, each float64 (T, 4).

    `full frame`, `centre half`, and two that know the truth: `true clip box` (the union of the true boxes in every
    frame) and `best constant box` (the one box with the highest mean frame IoU, see `best_constant_box`).
    """
    num_frames = len(truth)
    constant = {
        "full frame": np.array([0, 0, width, height]),
        "centre half": bx.centre_half(width, height),
        "true clip box": bx.clip_box(truth),
        "best constant box": best_constant_box(truth),
    }
    return {name: np.tile(np.asarray(box, np.float64), (num_frames, 1)) for name, box in constant.items()}


def best_constant_box(truth: AnyArray) -> npt.NDArray[np.float64]:
    """Return the constant box with the highest mean IoU with the true boxes (T, 4), float64 (4,).

    Coordinate ascent over the edges that occur in the truth, from their median, quartiles, union and the best single
    true box: exact for one edge at a time, not proven to be the global optimum.
    """
    truth = np.asarray(truth, np.float64)
    truth = truth[bx.has_box(truth)]
    edges = [np.unique(np.quantile(truth[:, side], np.linspace(0, 1, 41))) for side in range(4)]
    low, middle, high = np.quantile(truth, [0.25, 0.5, 0.75], axis=0)
    starts = [middle, np.r_[low[:2], high[2:]], np.r_[high[:2], low[2:]], bx.union_box(truth)]
    starts.append(max(truth, key=lambda box: float(bx.iou(box, truth).mean())))
    return max((_ascend(start, truth, edges) for start in starts), key=lambda box: float(bx.iou(box, truth).mean()))


def _ascend(box: AnyArray, truth: AnyArray, edges: Sequence[AnyArray]) -> npt.NDArray[np.float64]:
    box = np.array(box, np.float64)
    best = float(bx.iou(box, truth).mean())
    for _ in range(20):
        before = best
        for side in range(4):
            tried = np.tile(box, (len(edges[side]), 1))
            tried[:, side] = edges[side]
            means = bx.iou(tried[:, None], truth[None]).mean(axis=1)
            if means.max() > best:
                best = float(means.max())
                box = tried[int(means.argmax())]
        if best == before:
            break
    return box


def bootstrap(values: Sequence[float], *, num_samples: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """Return the mean of one value per clip and its percentile bootstrap interval over clips.

    Args:
        values: One value per clip.
        num_samples: Bootstrap samples.
        level: Confidence level.
        seed: Seed of the resampling.

    Raises:
        ValueError: `values` is empty.
    """
    array = np.asarray(values, np.float64)
    if array.size == 0:
        raise ValueError("values must hold at least one clip, got none")
    draws = np.random.default_rng(seed).integers(0, array.size, (num_samples, array.size))
    low, high = np.quantile(array[draws].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(array.mean()), float(low), float(high))


def summarise(scores: Sequence[ClipScore]) -> dict[str, Interval]:
    """Return per metric the mean over clips with its 95 % bootstrap interval."""
    return {metric: bootstrap([getattr(score, metric) for score in scores]) for metric in METRICS}


def read_boxes(path: Path) -> dict[str, AnnotatedClip]:
    """Read annotated or predicted boxes from JSON: the form of Something-Else or the authors' form.

    Something-Else (also the generated data set's `boxes.json`): {clip: [{"name": "<clip>/0001.jpg", "labels": [...]}]},
    frames numbered from 1, at 12 fps for Something-Something videos. The authors' form is the same with one label per
    frame whose `gt_annotation` is "union", and without names its frames count from 1 in order.

    Raises:
        InputError: The file is missing or not of this form; says where.
    """
    return parse_clips(load_json(path), path)


def load_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: It is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"boxes file {path} does not exist") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"boxes file {path} must be readable JSON: {error}") from None


def parse_clips(content: Any, path: Path) -> dict[str, AnnotatedClip]:
    """Take clips out of the content of a boxes file; see `read_boxes`.

    Raises:
        InputError: The content is not of this form; says where in `path`.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"boxes file {path} must be an object of clip id -> frames, got {type(content).__name__}")
    if "video_annotations" in content:
        raise InputError(
            f"boxes file {path} must annotate clips, got VISOR's videos; `motionbox evaluate` scores those"
        )
    return {str(clip_id): _read_clip(str(clip_id), frames, path) for clip_id, frames in content.items()}


def _read_clip(clip_id: str, frames: Any, path: Path) -> AnnotatedClip:
    numbers, parts = [], []
    try:
        for position, frame in enumerate(frames, start=1):
            name = frame.get("name")
            numbers.append(int(Path(name).stem) if name else position)
            parts.append(_frame_boxes(frame["labels"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"boxes file {path}: clip {clip_id!r}, frame {len(parts) + 1} must hold labels with box2d: {error!r}"
        ) from None
    order = np.argsort(np.array(numbers, np.int64), kind="stable")
    ordered = tuple(parts[position] for position in order)
    unions = np.array([bx.union_box(each) for each in ordered], np.float64).reshape(-1, 4)
    return AnnotatedClip(clip_id, np.array(numbers, np.int64)[order], unions, ordered)


def _frame_boxes(labels: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float64]:
    boxes = [[float(label["box2d"][side]) for side in ("x1", "y1", "x2", "y2")] for label in labels]
    return np.array(boxes, np.float64).reshape(-1, 4)


def boxes_at(times: AnyArray, boxes: AnyArray, wanted_seconds: AnyArray) -> AnyArray:
    """Return the box of the frame nearest in time to each wanted instant.

    Args:
        times: float64 (T,), seconds, rising: the times of `boxes`.
        boxes: (T, 4).
        wanted_seconds: float64 (N,), seconds.

    Returns:
        (N, 4); the earlier frame on a tie.
    """
    times = np.asarray(times, np.float64)
    after = np.clip(np.searchsorted(times, wanted_seconds), 1, max(1, len(times) - 1))
    before = after - 1
    after = np.minimum(after, len(times) - 1)
    earlier = np.asarray(wanted_seconds) - times[before] <= times[after] - np.asarray(wanted_seconds)
    return np.asarray(boxes)[np.where(earlier, before, after)]
