"""TV-L1 of whole batches of pairs on a GPU: from 8-bit frames to flow without leaving the device.

`TVL1BatchEngine` builds each frame's pyramid once, then solves all pairs of a sub-batch together, level by level, with
the kernels of `kernels`. The host only enqueues: which pairs go on is decided on the device, and the host looks
at a flag that is several launches old to stop enqueuing once every pair has converged.

Nearly all the time goes to `iterate_kernel`; docs/gpu.md has what was measured and what bounds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import torch
import triton

from motionbox.errors import FlowError
from motionbox.flow.gpu import kernels
from motionbox.flow.gpu.level import DoneWatch, LevelState, Tile, on_device, resize, with_gradient
from motionbox.flow.tvl1 import MIN_SIDE_PX, make_plan

if TYPE_CHECKING:
    from motionbox.config import TVL1Params
    from motionbox.flow.arrays import Flow, GreyImage
    from motionbox.flow.tvl1 import TVL1Plan

INTERPRETED_TILE = Tile(rows=1)
"""Fewer, larger cells: the interpreter's time goes with their number."""

_PAIR_BYTES_PER_PIXEL = 160
"""18 planes of state and data, the flow in and out, what resizing it takes, and the pyramids of two frames."""
_MEMORY_SHARE = 0.6
_CPU_MEMORY_BYTES = 1 << 30
_MOST_PAIRS = 512
_LARGEST_GRID = 65535


class TVL1BatchEngine:
    """TV-L1 flow of batches of pairs on one device.

    A pair's result depends on its two frames and the parameters alone, never on the other pairs of its batch or on
    earlier calls.

    Attributes:
        device: Where everything is computed.
        tile: How the planes are cut.
    """

    def __init__(
        self,
        params: TVL1Params,
        device: str | torch.device = "cuda",
        *,
        max_pairs: int | None = None,
        tile: Tile | None = None,
    ) -> None:
        """Prepare an engine.

        Args:
            params: Parameters of TV-L1.
            device: A CUDA device, or `cpu` under Triton's interpreter (`TRITON_INTERPRET=1`, for tests).
            max_pairs: Most pairs solved together; None takes what fits in 60 % of the free device memory.
            tile: How the planes are cut, which does not change the result; None takes what suits the device.

        Raises:
            ValueError: A number is out of range.
            FlowError: The device does not exist or cannot run the kernels.
        """
        self.device = _checked_device(device)
        if max_pairs is not None and not 1 <= max_pairs <= _LARGEST_GRID:
            raise ValueError(f"max_pairs must be within 1..{_LARGEST_GRID}, got {max_pairs!r}")
        self._params = params
        self._max_pairs = max_pairs
        self.tile = tile or (Tile() if self.device.type == "cuda" else INTERPRETED_TILE)

    def flows(self, frames: npt.NDArray[np.uint8] | torch.Tensor) -> torch.Tensor:
        """Return the flow from every frame to the next.

        Args:
            frames: uint8 (N, H, W) grey, N >= 2, in host or device memory.

        Returns:
            float32 (N - 1, H, W, 2) on the device, (dx, dy) in pixels per frame step.

        Raises:
            ValueError: `frames` has another shape or dtype.
        """
        return torch.cat(list(self.iter_flows(frames)))

    def iter_flows(
        self, frames: npt.NDArray[np.uint8] | torch.Tensor, *, pair_indices: npt.NDArray[np.integer] | None = None
    ) -> Iterator[torch.Tensor]:
        """Yield the flows of pairs of frames in order, one sub-batch that fits in memory at a time.

        Args:
            frames: uint8 (N, H, W) grey, N >= 2, in host or device memory.
            pair_indices: Integers (P, 2): positions in `frames` of each pair's two frames; None pairs neighbours.

        Yields:
            float32 (B, H, W, 2) on the device; all sub-batches together have P (or N - 1) flows.

        Raises:
            ValueError: `frames` or `pair_indices` has another shape, dtype or range.
        """
        _check_frames("frames", frames)
        indices = _checked_pairs(pair_indices, len(frames))
        size = self._max_pairs or self._pairs_that_fit(int(frames.shape[1]), int(frames.shape[2]))
        for start in range(0, len(indices), size):
            wanted, local = np.unique(indices[start : start + size], return_inverse=True)
            local = local.reshape(-1, 2)
            with on_device(self.device):
                chosen = frames if len(wanted) == len(frames) else frames[wanted]
                flows = self._solve(self._upload(chosen), local[:, 0], local[:, 1], None)
            yield flows

    def pairs(
        self,
        frames0: npt.NDArray[np.uint8] | torch.Tensor,
        frames1: npt.NDArray[np.uint8] | torch.Tensor,
        initial: npt.NDArray[np.float32] | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the flow from `frames0[i]` to `frames1[i]` for every i.

        Args:
            frames0: (P, H, W) grey, uint8, or float32 in 0..1.
            frames1: The later frames; shape and dtype of `frames0`.
            initial: Flow to start from, float32 (P, H, W, 2), pixels; None starts from zero.

        Returns:
            float32 (P, H, W, 2) on the device, pixels per frame step.

        Raises:
            ValueError: A shape or dtype is another, or `initial` is not finite.
        """
        _check_frames("frames0", frames0)
        _check_frames("frames1", frames1)
        if frames0.shape != frames1.shape or str(frames0.dtype) != str(frames1.dtype):
            raise ValueError(
                f"frames1 must have shape and dtype of frames0, {tuple(frames0.shape)} {frames0.dtype}, "
                f"got {tuple(frames1.shape)} {frames1.dtype}"
            )
        start = None if initial is None else self._checked_initial(initial, (*frames0.shape, 2))
        size = self._max_pairs or self._pairs_that_fit(int(frames0.shape[1]), int(frames0.shape[2]))
        parts = []
        for first in range(0, len(frames0), size):
            part = slice(first, first + size)
            with on_device(self.device):
                frames = torch.cat([self._upload(frames0[part]), self._upload(frames1[part])])
                count = len(frames) // 2
                order = np.arange(count)
                parts.append(self._solve(frames, order, order + count, None if start is None else start[part]))
        return torch.cat(parts)

    def _pairs_that_fit(self, height: int, width: int) -> int:
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            # What PyTorch holds but does not use is free for us.
            free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            budget = int(_MEMORY_SHARE * free)
        else:
            budget = _CPU_MEMORY_BYTES
        return max(1, min(_MOST_PAIRS, budget // (_PAIR_BYTES_PER_PIXEL * height * width)))

    def _upload(self, frames: npt.NDArray[np.generic] | torch.Tensor) -> torch.Tensor:
        """Return (N, H, W) float32 grey 0..255 on the device; 8-bit frames cross the bus as 8 bits."""
        tensor = frames if isinstance(frames, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(frames))
        moved = tensor.to(self.device)
        return moved.float() if moved.dtype == torch.uint8 else moved * 255.0

    def _checked_initial(self, initial: npt.NDArray[np.float32] | torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        if tuple(initial.shape) != shape or not str(initial.dtype).endswith("float32"):
            raise ValueError(f"initial must be float32 of shape {shape}, got {initial.dtype} {tuple(initial.shape)}")
        tensor = torch.as_tensor(initial, device=self.device)
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError("initial must be finite, got NaN or infinite values")
        return tensor

    def _solve(
        self,
        frames: torch.Tensor,
        index0: npt.NDArray[np.integer],
        index1: npt.NDArray[np.integer],
        initial: torch.Tensor | None,
    ) -> torch.Tensor:
        height, width = frames.shape[1:]
        plan = make_plan(self._params, width, height)
        images = [frames]
        flows = [] if initial is None else [initial.movedim(3, 1)]
        for size in plan.sizes_wh[1:]:
            images.append(resize(images[-1], size, 1 / plan.scale_step, plan.half_pixel))
            if flows:
                flows.append(resize(flows[-1], size, 1 / plan.scale_step, plan.half_pixel) * plan.scale_step)
        pairs = (self._to_index(index0), self._to_index(index1))
        if flows:
            flow = flows[-1]
        else:
            coarsest_width, coarsest_height = plan.sizes_wh[-1]
            flow = torch.zeros(len(index0), 2, coarsest_height, coarsest_width, device=self.device)
        for level in reversed(range(len(images))):
            flow = self._solve_level(plan, images[level], pairs, flow)
            if level:
                coarse, fine = plan.sizes_wh[level], plan.sizes_wh[level - 1]
                ratio = (coarse[0] / fine[0], coarse[1] / fine[1])
                flow = resize(flow, fine, ratio, plan.half_pixel) * (1 / plan.scale_step)
        return flow.movedim(1, 3).contiguous()

    def _to_index(self, index: npt.NDArray[np.integer]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(index, np.int32)).to(self.device)

    def _solve_level(
        self, plan: TVL1Plan, images: torch.Tensor, pairs: tuple[torch.Tensor, torch.Tensor], flow: torch.Tensor
    ) -> torch.Tensor:
        level = LevelState(plan, with_gradient(images), pairs, flow, self.tile)
        for _ in range(plan.num_warps):
            level.warp()
            self._iterate(plan, level)
        return level.flow()

    def _iterate(self, plan: TVL1Plan, level: LevelState) -> None:
        watch = DoneWatch(self.device)
        for round_index in range(plan.num_rounds):
            level.round(round_index * plan.num_iterations)
            if watch.all_done(level.control):
                return
        level.iterate(plan.num_rounds * plan.num_iterations, 0)  # what the last launch asked to repeat


class CudaTVL1Estimator:
    """TV-L1 of pairs of frames on the GPU, flow in host memory; many pairs at once (`flows`) are far faster."""

    name = "cuda"

    def __init__(self, params: TVL1Params, *, device: str = "cuda") -> None:
        self._engine = TVL1BatchEngine(params, device)

    def __call__(self, frame0: GreyImage, frame1: GreyImage, *, initial: Flow | None = None) -> Flow:
        """Return the flow, see `motionbox.flow.FlowEstimator`."""
        from motionbox.flow.arrays import check_frames

        check_frames(frame0, frame1, initial)
        flow = self._engine.pairs(
            cast("npt.NDArray[np.uint8]", frame0[None]),
            cast("npt.NDArray[np.uint8]", frame1[None]),
            None if initial is None else initial[None],
        )
        return cast("Flow", flow[0].cpu().numpy())

    def flows(self, pairs: Sequence[tuple[GreyImage, GreyImage]]) -> Iterator[Flow]:
        """Yield the flow of each pair, see `motionbox.flow.BatchFlowEstimator`; a frame of two pairs goes up once."""
        if not pairs:
            return
        frames = list({id(frame): frame for pair in pairs for frame in pair}.values())
        places = {id(frame): place for place, frame in enumerate(frames)}
        indices = np.array([[places[id(frame)] for frame in pair] for pair in pairs])
        for flows in self._engine.iter_flows(np.stack(frames), pair_indices=indices):
            host = torch.empty(flows.shape, pin_memory=flows.is_cuda)
            yield from host.copy_(flows).numpy()


def _checked_device(device: str | torch.device) -> torch.device:
    device = torch.device(device)
    interpreted = not isinstance(kernels.iterate_kernel, triton.JITFunction)
    if device.type == "cpu" and not interpreted:
        raise FlowError("the GPU engine runs on device cpu under Triton's interpreter only: set TRITON_INTERPRET=1")
    if device.type not in ("cpu", "cuda"):
        raise FlowError(f"device must be cuda or cpu, got {str(device)!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise FlowError("backend cuda cannot run here: PyTorch finds no CUDA device; use --backend numba")
    return device


def _check_frames(name: str, frames: npt.NDArray[np.generic] | torch.Tensor) -> None:
    dtype = str(getattr(frames, "dtype", type(frames))).removeprefix("torch.")
    if dtype not in (("uint8",) if name == "frames" else ("uint8", "float32")):
        raise ValueError(f"{name} must be a uint8 array, got {dtype}")
    if frames.ndim != 3 or len(frames) < (2 if name == "frames" else 1) or min(frames.shape[1:]) < MIN_SIDE_PX:
        raise ValueError(
            f"{name} must be grey (N, H, W) with both sides at least {MIN_SIDE_PX} px, got shape {tuple(frames.shape)}"
        )


def _checked_pairs(pairs: npt.NDArray[np.integer] | None, num_frames: int) -> npt.NDArray[np.integer]:
    if pairs is None:
        order = np.arange(num_frames - 1)
        return np.stack([order, order + 1], axis=1)
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs) or not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(f"pair_indices must be integers (P, 2), got {pairs.dtype} {pairs.shape}")
    if pairs.min() < 0 or pairs.max() >= num_frames:
        raise ValueError(f"pair_indices must be within 0..{num_frames - 1}, got {pairs.min()}..{pairs.max()}")
    return pairs
