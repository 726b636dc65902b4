"""What goes into a flow engine and what comes out: types and checks that all engines share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from motionbox.flow.tvl1 import MIN_SIDE_PX

GreyImage = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
"""Grey (H, W), uint8 or float32 in 0..1."""

Flow = npt.NDArray[np.float32]
"""(H, W, 2): (dx, dy) in pixels per frame step."""


def check_frames(frame0: GreyImage, frame1: GreyImage, initial: Flow | None = None) -> None:
    """Check the input of a flow estimator.

    Raises:
        ValueError: A frame is not a uint8 or float32 (H, W) array with sides of at least 16 px, float32 values are
            not finite or outside 0..1, the frames differ in shape or dtype, or `initial` is not finite float32
            (H, W, 2).
    """
    for name, frame in (("frame0", frame0), ("frame1", frame1)):
        if not isinstance(frame, np.ndarray) or frame.dtype not in (np.uint8, np.float32):
            raise ValueError(f"{name} must be a uint8 or float32 array, got {getattr(frame, 'dtype', type(frame))!s}")
        if frame.ndim != 2 or min(frame.shape) < MIN_SIDE_PX:
            remedy = "; convert it: cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)" if frame.shape[2:] in ((3,), (4,)) else ""
            raise ValueError(
                f"{name} must be grey (H, W) with both sides at least {MIN_SIDE_PX} px, got shape {frame.shape}{remedy}"
            )
        if frame.dtype == np.float32 and not (frame.min() >= 0 and frame.max() <= 1):
            raise ValueError(
                f"{name} must be finite and within 0..1 when float32, got {frame.min()}..{frame.max()}; "
                "divide 8-bit values by 255"
            )
    if frame0.shape != frame1.shape or frame0.dtype != frame1.dtype:
        raise ValueError(
            f"frame1 must have shape and dtype of frame0, {frame0.shape} {frame0.dtype}, "
            f"got {frame1.shape} {frame1.dtype}"
        )
    if initial is not None:
        _check_initial(initial, (*frame0.shape, 2))


def _check_initial(initial: Flow, shape: tuple[int, ...]) -> None:
    if not isinstance(initial, np.ndarray) or initial.dtype != np.float32 or initial.shape != shape:
        got = f"{getattr(initial, 'dtype', type(initial))} {getattr(initial, 'shape', '')}"
        raise ValueError(f"initial must be a float32 array of shape {shape}, got {got}")
    if not np.isfinite(initial).all():
        raise ValueError("initial must be finite, got NaN or infinite values")
