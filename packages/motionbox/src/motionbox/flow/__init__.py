"""Dense optical flow: one function, one estimator object, interchangeable backends.

Flow is float32 (H, W, 2), (dx, dy) in pixels per frame step: `frame1[y + dy, x + dx]` shows what `frame0[y, x]` shows.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from motionbox.config import FLOW_METHODS, FlowConfig, TVL1Params
from motionbox.errors import FlowError
from motionbox.flow.arrays import Flow, GreyImage, check_frames

__all__ = [
    "BatchFlowEstimator",
    "Flow",
    "FlowEstimator",
    "GreyImage",
    "TVL1Params",
    "check_frames",
    "compute_flow",
    "create_flow_estimator",
    "iter_flows",
    "resolve_backend",
]


class FlowEstimator(Protocol):
    """Computes the flow of one pair of frames after the other, reusing its workspace.

    The result depends on the arguments of the call alone, never on earlier calls. Not thread-safe.

    Attributes:
        name: The resolved backend: `numba`, `opencv` or `cuda`.
    """

    @property
    def name(self) -> str:
        """Return the resolved backend."""
        ...

    def __call__(self, frame0: GreyImage, frame1: GreyImage, *, initial: Flow | None = None) -> Flow:
        """Return the flow from `frame0` to `frame1`, a new float32 array (H, W, 2), pixels per frame step.

        Args:
            frame0: (H, W) grey, uint8, or float32 in 0..1.
            frame1: The later frame; shape and dtype of `frame0`.
            initial: Flow to start from, float32 (H, W, 2), for example the previous pair's; None starts from zero.

        Raises:
            ValueError: Wrong shape, dtype, size or range, see `check_frames`.
        """
        ...


@runtime_checkable
class BatchFlowEstimator(FlowEstimator, Protocol):
    """An estimator that is far faster with many pairs at once."""

    def flows(self, pairs: Sequence[tuple[GreyImage, GreyImage]]) -> Iterator[Flow]:
        """Yield the flow of each pair of uint8 frames of one size, in order; each as a call with that pair gives it."""
        ...


def iter_flows(estimator: FlowEstimator, pairs: Sequence[tuple[GreyImage, GreyImage]]) -> Iterator[Flow]:
    """Yield the flow of each pair of frames in order, as a batch where the estimator takes batches.

    Args:
        estimator: Computes the flow.
        pairs: uint8 (H, W) frames, all of one size.
    """
    if isinstance(estimator, BatchFlowEstimator):
        yield from estimator.flows(pairs)
        return
    for frame0, frame1 in pairs:
        yield np.array(estimator(frame0, frame1), np.float32)


def compute_flow(
    frame0: GreyImage,
    frame1: GreyImage,
    *,
    method: str = "tvl1",
    params: TVL1Params = TVL1Params(),  # noqa: B008  (frozen)
    backend: str = "auto",
    initial: Flow | None = None,
) -> Flow:
    """Return the optical flow from `frame0` to `frame1`.

    For many pairs make one estimator with `create_flow_estimator`: it keeps its workspace.

    Args:
        frame0: (H, W) grey, uint8 in 0..255 or float32 in 0..1; both sides at least 16 px.
        frame1: The later frame; shape and dtype of `frame0`.
        method: One of `motionbox.config.FLOW_METHODS`: `tvl1` or `dis`.
        params: Parameters of TV-L1; `dis` has none.
        backend: `auto`, `numba`, `opencv` or `cuda`.
        initial: Flow to start from, float32 (H, W, 2), pixels; None starts from zero.

    Returns:
        A new float32 array (H, W, 2): (dx, dy) in pixels per frame step.

    Raises:
        ValueError: The frames or `initial` have a wrong shape, dtype, size or range.
        FlowError: Unknown method or backend, or the backend cannot run here.
    """
    name = resolve_backend(method, backend)
    config = FlowConfig(method=method, tvl1=params)
    return create_flow_estimator(config, backend=name)(frame0, frame1, initial=initial)


def create_flow_estimator(config: FlowConfig, *, backend: str = "auto") -> FlowEstimator:
    """Return an estimator for `config.method`.

    Args:
        config: Method and parameters.
        backend: `auto`, `numba`, `opencv` or `cuda`.

    Raises:
        FlowError: Unknown method or backend, or the backend cannot run here.
    """
    name = resolve_backend(config.method, backend)
    return ENGINES[config.method, name](config)


def _numba_tvl1(config: FlowConfig) -> FlowEstimator:
    from motionbox.flow.cpu.engine import NumbaTVL1Estimator

    return NumbaTVL1Estimator(config.tvl1)


def _opencv_tvl1(config: FlowConfig) -> FlowEstimator:
    from motionbox.flow.opencv import OpenCVTVL1Estimator

    return OpenCVTVL1Estimator(config.tvl1)


def _cuda_tvl1(config: FlowConfig) -> FlowEstimator:
    from motionbox.flow.gpu.engine import CudaTVL1Estimator

    return CudaTVL1Estimator(config.tvl1)


def _opencv_dis(_config: FlowConfig) -> FlowEstimator:
    from motionbox.flow.opencv import DISEstimator

    return DISEstimator()


ENGINES: dict[tuple[str, str], Callable[[FlowConfig], FlowEstimator]] = {
    ("tvl1", "numba"): _numba_tvl1,
    ("tvl1", "opencv"): _opencv_tvl1,
    ("tvl1", "cuda"): _cuda_tvl1,
    ("dis", "opencv"): _opencv_dis,
}
"""(method, backend) of `config.FLOW_METHODS` -> what makes its estimator; engines are imported on first use."""


def resolve_backend(method: str, backend: str = "auto") -> str:
    """Return the backend that will run; `auto` is the method's first: `numba` for `tvl1`, `opencv` for `dis`.

    Raises:
        FlowError: Unknown method or backend, a backend that does not offer the method, or `cuda` on a machine that
            lacks PyTorch, Triton or a GPU; one line that says which.
    """
    if method not in FLOW_METHODS:
        raise FlowError(f"flow method must be one of {', '.join(FLOW_METHODS)}, got {method!r}")
    names = FLOW_METHODS[method]
    if backend == "auto":
        return names[0]
    if backend not in names:
        raise FlowError(f"backend of flow method {method} must be one of auto, {', '.join(names)}, got {backend!r}")
    if backend == "cuda" and (missing := _missing_for_cuda()):
        raise FlowError(f"backend cuda cannot run here: {missing}; use --backend numba")
    return backend


def _missing_for_cuda() -> str | None:
    for module, package in (
        ("torch", "PyTorch"),
        ("triton", "Triton"),
        ("motionbox.flow.gpu.engine", "the GPU engine"),
    ):
        if importlib.util.find_spec(module) is None:
            return f"{package} is not installed (pip install 'motionbox[gpu]')"
    import torch

    return None if torch.cuda.is_available() else "PyTorch finds no CUDA device"
