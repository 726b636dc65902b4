"""The forms in which a store keeps flow, and back to pixels."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FlowForm = Literal["float16", "uint8"]

ZERO = 128
"""What stands for no motion in the form `uint8`."""
_STEPS = 127


def quantise_flow(flow: npt.NDArray[np.float32], form: FlowForm, bound_px: float) -> npt.NDArray[Any]:
    """Return a flow as the store keeps it.

    Args:
        flow: float32 (H, W, 2), pixels.
        form: `float16`, or `uint8`: 128 + round(127 * v / bound), so that no motion stays exactly zero.
        bound_px: Larger displacements saturate in `uint8`; smaller ones are off by at most bound / 254.

    Returns:
        float16 or uint8 (2, H, W), u before v.
    """
    planes = np.moveaxis(flow, 2, 0)
    if form == "float16":
        return np.ascontiguousarray(planes, np.float16)
    scaled = np.clip(planes, -bound_px, bound_px) * np.float32(_STEPS / bound_px)
    return np.ascontiguousarray(np.rint(scaled) + ZERO, np.uint8)


def dequantise_flow(stored: npt.NDArray[Any], form: FlowForm, bound_px: float) -> npt.NDArray[np.float32]:
    """Return stored flows (..., 2, H, W) as float32 (..., H, W, 2) in pixels."""
    flow = np.moveaxis(stored, -3, -1).astype(np.float32)
    return flow if form == "float16" else (flow - ZERO) * np.float32(bound_px / _STEPS)
