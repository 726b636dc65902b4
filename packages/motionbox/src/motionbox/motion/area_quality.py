"""How good a motion area is expected to be: confidence as the expected IoU of its box with the action's true box.

A linear rule on what can be seen without truth, fitted to annotated clips (docs/how-good.md, section "Confidence").
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from motionbox.motion import boxes as bx
from motionbox.motion.evidence import Evidence

Array64 = npt.NDArray[np.float64]

FEATURES = ("gain", "agreement", "cut_off", "peak", "acting")
WEIGHTS = np.array([0.18, 0.36, -0.06, 0.067, 0.2])
BIAS = -0.06
_CUT_SHARE = 0.09
_LEAST_EXCESS = 2.0


def expected_iou(evidence: Evidence, boxes: Array64, clip_box: Array64, cells_wh: tuple[float, float]) -> Array64:
    """Return the expected IoU of each frame's box, float64 (T,), in [0, 1]; arguments as `quality_features`."""
    return np.asarray(np.clip(quality_features(evidence, boxes, clip_box, cells_wh) @ WEIGHTS + BIAS, 0, 1), np.float64)


def quality_features(evidence: Evidence, boxes: Array64, clip_box: Array64, cells_wh: tuple[float, float]) -> Array64:
    """Return what is told about the quality of each frame's box, in the order of `FEATURES`.

    Args:
        evidence: The clip's evidence.
        boxes: float64 (T, 4), xyxy cells, each at least a cell large.
        clip_box: float64 (4,), xyxy cells, the box of the clip's evidence as a whole.
        cells_wh: Width and height of the frame in cells.

    Returns:
        float64 (T, 5): gain: share of the frame's motion inside the box less the box's share of the frame; agreement:
        IoU with the clip's box; cut_off: how much of the frame's four sides the evidence touches, in units of its own
        width or height; peak: logarithm of the clip's sustained peak over noise; acting: share of the time with
        evidence of its own.
    """
    corners = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1).astype(int)
    motion = np.where(evidence.excess > _LEAST_EXCESS, evidence.excess - _LEAST_EXCESS, 0)
    inside = [(slice(y1, y2), slice(x1, x2)) for x1, y1, x2, y2 in corners]
    moved = np.array([frame[box].sum() for frame, box in zip(motion, inside, strict=True)], np.float64)
    everything = motion.sum(axis=(1, 2), dtype=np.float64)
    gain = np.divide(moved, everything, out=np.zeros_like(moved), where=everything > 0)
    gain -= bx.area(boxes) / (cells_wh[0] * cells_wh[1])
    acting = float(evidence.weights @ evidence.strength.any(axis=(1, 2)) / evidence.weights.sum())
    columns = [
        gain,
        bx.iou(boxes, clip_box[None]),
        _cut_off(evidence.total > _CUT_SHARE * evidence.total.max(axis=(1, 2), keepdims=True)),
        np.full(len(boxes), np.log(evidence.peak)),
        np.full(len(boxes), acting),
    ]
    return np.stack(columns, axis=1)


def _cut_off(evident: npt.NDArray[np.bool_]) -> Array64:
    """Return how much of the frame's sides evident cells (T, h, w) touch, in units of their own extent: 0 to 4."""
    width = np.maximum(evident.any(axis=1).sum(axis=1), 1)
    height = np.maximum(evident.any(axis=2).sum(axis=1), 1)
    sides = evident[:, :, [0, -1]].sum(axis=(1, 2)) / height
    return np.asarray(sides + evident[:, [0, -1]].sum(axis=(1, 2)) / width, np.float64)
