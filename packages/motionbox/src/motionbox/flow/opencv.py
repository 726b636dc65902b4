"""OpenCV's own flow: DualTVL1, the reference of the CPU parameter set, and dense inverse search (DIS)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from motionbox.config import TVL1Params
from motionbox.errors import FlowError
from motionbox.flow.arrays import Flow, GreyImage, check_frames


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Let OpenCV use one thread for a while."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


class OpenCVTVL1Estimator:
    """TV-L1 by `cv2.optflow.DualTVL1OpticalFlow`."""

    name = "opencv"

    def __init__(self, params: TVL1Params) -> None:
        """Check that OpenCV has the variant.

        Raises:
            FlowError: OpenCV for the CPU lacks the variant or the contrib modules are not installed.
        """
        if params.variant != "opencv-cpu":
            raise FlowError(
                f"variant of backend opencv must be 'opencv-cpu', got {params.variant!r}; use --backend numba"
            )
        if not hasattr(cv2, "optflow"):
            raise FlowError("cv2.optflow must be there for backend opencv; pip install opencv-contrib-python-headless")
        self._params = params
        self._shape: tuple[int, ...] = ()
        self._dual_tvl1: Any = None

    def __call__(self, frame0: GreyImage, frame1: GreyImage, *, initial: Flow | None = None) -> Flow:
        """Return the flow, see `motionbox.flow.FlowEstimator`."""
        check_frames(frame0, frame1, initial)
        if frame0.shape != self._shape:
            # The object of OpenCV forgets scales for ever once a frame was too small for them.
            self._dual_tvl1, self._shape = self._create(), frame0.shape
        self._dual_tvl1.setUseInitialFlow(initial is not None)
        start = None if initial is None else initial.copy()
        flow: Flow = self._dual_tvl1.calc(np.ascontiguousarray(frame0), np.ascontiguousarray(frame1), start)
        return flow

    def _create(self) -> Any:
        params = self._params
        create: Any = cv2.optflow.DualTVL1OpticalFlow_create  # type: ignore[attr-defined]  # missing in its stubs
        return create(
            tau=params.tau,
            lambda_=params.lambda_,
            theta=params.theta,
            nscales=params.num_scales,
            warps=params.num_warps,
            epsilon=params.epsilon,
            innnerIterations=params.inner_iterations,
            outerIterations=params.outer_iterations,
            scaleStep=params.scale_step,
            gamma=0.0,
            medianFiltering=params.median_size,
            useInitialFlow=False,
        )


class DISEstimator:
    """Dense inverse search by `cv2.DISOpticalFlow`, preset medium."""

    name = "opencv"

    def __call__(self, frame0: GreyImage, frame1: GreyImage, *, initial: Flow | None = None) -> Flow:
        """Return the flow, see `motionbox.flow.FlowEstimator`; float32 frames are rounded to 8 bits."""
        check_frames(frame0, frame1, initial)
        # A used object carries state into the next pair (scales, and the last bits of the refinement).
        dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        start = None if initial is None else initial.copy()
        return np.asarray(dis.calc(_to_uint8(frame0), _to_uint8(frame1), start), dtype=np.float32)


def _to_uint8(frame: GreyImage) -> npt.NDArray[np.uint8]:
    scaled = frame if frame.dtype == np.uint8 else np.rint(frame * np.float32(255))
    return np.ascontiguousarray(scaled).astype(np.uint8, copy=False)
