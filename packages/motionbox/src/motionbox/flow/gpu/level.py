"""One pyramid level of a batch of pairs on a device: its state and the kernel launches that change it."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from motionbox.flow.gpu import kernels

if TYPE_CHECKING:
    from motionbox.flow.tvl1 import TVL1Plan

_PIXEL_BLOCK = 256
MEDIAN_BLOCK, MEDIAN_ROWS = 128, 8
"""Threads of a program of `median_kernel`, and the pixels below each other that each of them filters."""
_INTERPRETED_BLOCK = 4096  # the interpreter's time goes with the number of programs and of operations
_DECIDE_TILES = 64
_WARP = 32
_LOOKS_IN_FLIGHT = 2
_REGISTERS, _MOST_REGISTERS, _LEAST_REGISTERS = 65536, 255, 32
"""Of a multiprocessor (all since Maxwell's); of a thread at most; of a thread at least, with fewer all is spilled."""


@dataclass(frozen=True)
class Tile:
    """The pixels that one program of `iterate_kernel` holds in registers; it does not change the result.

    Attributes:
        height_px: Height, a power of two of at least 16.
        width_px: Width, likewise; 64 has the columns of a row in one warp.
        halo: Pixels at each edge that are computed for the sake of the others; also the most iterations per launch.
        rows: Rows of pixels of one thread, which owns two columns of them; a power of two.
        programs: How many programs a multiprocessor shall hold at once, so that one can load while another computes;
            limits the registers of a thread.
    """

    height_px: int = 64
    width_px: int = 64
    halo: int = 6
    rows: int = 4
    programs: int = 1

    def __post_init__(self) -> None:
        for name in ("height_px", "width_px"):
            side = getattr(self, name)
            if side < 16 or side & (side - 1):
                raise ValueError(f"{name} must be a power of two of at least 16, got {side!r}")
        short = min(self.height_px, self.width_px)
        if not 1 <= self.halo < short // 2:
            raise ValueError(f"halo must be within 1..{short // 2 - 1}, got {self.halo!r}")
        if not 1 <= self.rows <= self.height_px // 2 or self.rows & (self.rows - 1):
            raise ValueError(f"rows must be a power of two of at most {self.height_px // 2}, got {self.rows!r}")
        most = max(1, _REGISTERS // (self.num_warps * _WARP * _LEAST_REGISTERS))
        if not 1 <= self.programs <= most:
            raise ValueError(f"programs must be within 1..{most} of {self.num_warps} warps each, got {self.programs!r}")

    @property
    def owned_wh(self) -> tuple[int, int]:
        """Width and height of what a program writes."""
        return self.width_px - 2 * self.halo, self.height_px - 2 * self.halo

    @property
    def kept(self) -> float:
        """The share of its pixels that a program writes."""
        width, height = self.owned_wh
        return width * height / (self.width_px * self.height_px)

    @property
    def shape(self) -> dict[str, int]:
        """The compile-time parameters of `iterate_kernel` that say how threads share the tile."""
        groups, lanes = self.height_px // self.rows, self.width_px // 2
        return {"GROUPS": groups, "LANES": lanes, "ROWS": self.rows, "HALO": self.halo}

    @property
    def num_warps(self) -> int:
        """Warps of a program: a thread has two columns of `rows` pixels."""
        return max(1, self.height_px * self.width_px // (2 * self.rows * _WARP))

    @property
    def compile_options(self) -> dict[str, int]:
        """What the compiler of `iterate_kernel` is told about the tile's threads."""
        threads = self.num_warps * _WARP * self.programs
        most = {} if self.programs == 1 else {"maxnreg": min(_MOST_REGISTERS, _REGISTERS // threads)}
        return {"num_warps": self.num_warps, **most}


OTHER_TILES = (
    Tile(height_px=32, programs=2),
    Tile(height_px=32, halo=5, programs=2),
    Tile(height_px=32, rows=8, programs=2),
    Tile(rows=8),
)
"""Tiles that may be faster than the default on some GPU; `motionbox bench --backend cuda` times them too."""


class LevelState:
    """State of all pairs at one pyramid level and the launches that change it.

    Attributes:
        control: int32 (pairs, 4) on the device, what each pair does next; see `kernels`.
    """

    def __init__(
        self,
        plan: TVL1Plan,
        images: torch.Tensor,
        pairs: tuple[torch.Tensor, torch.Tensor],
        flow: torch.Tensor,
        tile: Tile,
    ) -> None:
        """Set up one level.

        Args:
            plan: The schedule.
            images: float32 (frames, 3, height, width): grey 0..255 and its derivatives, see `with_gradient`.
            pairs: Two int32 (pairs,): positions in `images` of each pair's frames.
            flow: float32 (pairs, 2, height, width), pixels of this level, to start from.
            tile: How `iterate_kernel` cuts the planes.
        """
        self._plan, self._images, self._tile = plan, images, tile
        self._index0, self._index1 = pairs
        self._height, self._width = (int(side) for side in images.shape[2:])
        device, size = images.device, (self._height, self._width)
        owned_width, owned_height = tile.owned_wh
        self._tiles_x = -(-self._width // owned_width)
        self._num_tiles = self._tiles_x * -(-self._height // owned_height)
        self._pixel_block = _PIXEL_BLOCK if device.type == "cuda" else _INTERPRETED_BLOCK
        self._blocks = -(-self._width * self._height // self._pixel_block)
        self._count = count = len(flow)
        self._flow = torch.empty(count, kernels.NUM_FLOW_SLOTS.value, 2, *size, device=device)
        self._flow[:, 0] = flow
        self._dual = torch.empty(count, kernels.NUM_DUAL_SLOTS.value, 4, *size, device=device)
        self._dual[:, 0] = 0
        self._data = torch.empty(count, 4, *size, device=device)
        self._error = torch.empty(count, self._num_tiles, tile.halo, device=device)
        self._previous = torch.empty(count, device=device)
        self.control = torch.zeros(count, kernels.NUM_CONTROLS.value, dtype=torch.int32, device=device)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def warp(self) -> None:
        """Linearise the data term around the current flow and set all pairs going again."""
        self.control[:, kernels.CONTROL_MODE.value] = kernels.RUNNING.value
        self._previous.zero_()
        kernels.warp_kernel[(self._blocks, self._count)](
            self._images,
            self._index0,
            self._index1,
            self._flow,
            self._data,
            self.control,
            self._width,
            self._height,
            self._plan.cubic_a,
            BLOCK=self._pixel_block,
            ZERO_BORDER=self._plan.zero_border,
            num_warps=4,
            enable_fp_fusion=True,
        )

    def round(self, first_iteration: int) -> None:
        """Filter the flow and run the iterations up to the next filtering.

        A launch costs the host longer than a small batch keeps the device busy: on a GPU the launches of a round are
        recorded once and then replayed as one graph. They depend on the first iteration by its parity alone.
        """
        parity = first_iteration % 2
        if parity in self._graphs:
            self._graphs[parity].replay()
            return
        self._launch_round(parity)
        if self._flow.is_cuda:
            self._graphs[parity] = _recorded(lambda: self._launch_round(parity))

    def _launch_round(self, first_iteration: int) -> None:
        if self._plan.median_size > 1:
            self.filter(self._plan.median_size)
        for first in range(0, self._plan.num_iterations, self._tile.halo):
            self.iterate(first_iteration + first, min(self._tile.halo, self._plan.num_iterations - first))

    def filter(self, size: int) -> None:
        """Median-filter the flow of the running pairs."""
        block, rows = (MEDIAN_BLOCK, MEDIAN_ROWS) if self._flow.is_cuda else (_INTERPRETED_BLOCK, 1)
        columns = self._width * -(-self._height // rows)
        kernels.median_kernel[(-(-columns // block), 2, self._count)](
            self._flow,
            self.control,
            self._width,
            self._height,
            BLOCK=block,
            SIZE=size,
            ROWS=rows,
            num_warps=MEDIAN_BLOCK // _WARP,
        )

    def iterate(self, first_iteration: int, count: int) -> None:
        """Run `count` iterations of the running pairs and what pairs that stopped have to repeat."""
        plan, tile = self._plan, self._tile
        kernels.iterate_kernel[(self._num_tiles, self._count)](
            self._flow,
            self._dual,
            self._data,
            self.control,
            self._error,
            self._width,
            self._height,
            self._tiles_x,
            count,
            plan.l_t,
            plan.theta,
            plan.taut,
            **tile.shape,
            APPROXIMATE=self._flow.is_cuda,
            **tile.compile_options,
            enable_fp_fusion=True,
        )
        kernels.decide_kernel[(self._count,)](
            self.control,
            self._previous,
            self._error,
            self._num_tiles,
            first_iteration,
            count,
            plan.epsilon**2 * self._width * self._height,
            HALO=tile.halo,
            TILES=_DECIDE_TILES,
            SPARSE_CHECKS=plan.sparse_checks,
            num_warps=1,
        )

    def flow(self) -> torch.Tensor:
        """Return the flow of all pairs, (pairs, 2, height, width)."""
        slot = self.control[:, kernels.CONTROL_SLOT.value].long()
        return self._flow[torch.arange(self._count, device=slot.device), slot]


def _recorded(launch: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """Return the graph of what `launch` launches on the current device; nothing runs, and all must be compiled."""
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # the default one cannot record
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode="thread_local")
        launch()
        graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph


class DoneWatch:
    """Tells when every pair is done, without making the device wait for the host.

    On a GPU the host asks after every round and reads the answer to a question asked earlier; kernels launched
    meanwhile return at once where a pair is done. Under the interpreter it reads directly.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._answers: deque[tuple[torch.Tensor, torch.cuda.Event]] = deque()

    def all_done(self, control: torch.Tensor) -> bool:
        """Return whether every pair is known to be done."""
        mode = control[:, kernels.CONTROL_MODE.value]
        if not self._on_gpu:
            return bool((mode == kernels.DONE.value).all())
        answer = torch.empty((), dtype=torch.bool, pin_memory=True)
        answer.copy_((mode == kernels.DONE.value).all(), non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._answers.append((answer, event))
        if len(self._answers) <= _LOOKS_IN_FLIGHT:
            return False
        oldest, asked = self._answers.popleft()
        asked.synchronize()
        return bool(oldest)


def with_gradient(images: torch.Tensor) -> torch.Tensor:
    """Return (N, 3, H, W): the image and its central differences d/dx, d/dy, the border repeated; from (N, H, W)."""
    result = torch.empty(len(images), 3, *images.shape[1:], device=images.device)
    result[:, 0] = images
    for channel, axis in ((1, 2), (2, 1)):
        length = images.shape[axis]
        target = result[:, channel]
        later, earlier = images.narrow(axis, 2, length - 2), images.narrow(axis, 0, length - 2)
        target.narrow(axis, 1, length - 2).copy_((later - earlier) * 0.5)
        for at, low in ((0, 0), (length - 1, length - 2)):
            step = images.select(axis, low + 1) - images.select(axis, low)
            target.select(axis, at).copy_(step * 0.5)
    return result


def resize(
    images: torch.Tensor, size_wh: tuple[int, int], step: float | tuple[float, float], half_pixel: bool
) -> torch.Tensor:
    """Resize the last two axes linearly.

    Args:
        images: float32 (..., height, width), any number of axes before.
        size_wh: New width and height.
        step: Distance of two new pixels in old ones; one number, or one for x and one for y.
        half_pixel: Pixel areas are aligned; else the centres of the first pixels are.
    """
    step_x, step_y = step if isinstance(step, tuple) else (step, step)
    for axis, length, distance in ((-1, size_wh[0], step_x), (-2, size_wh[1], step_y)):
        old = images.shape[axis]
        offset = 0.5 if half_pixel else 0.0
        at = np.clip((np.arange(length) + offset) * distance - offset, 0.0, old - 1.0)
        low = np.minimum(at.astype(np.int64), old - 2)
        weight = torch.as_tensor((at - low).astype(np.float32), device=images.device)
        weight = weight.reshape(-1, 1) if axis == -2 else weight
        index = torch.as_tensor(low, device=images.device)
        first = images.index_select(axis, index)
        images = torch.lerp(first, images.index_select(axis, index + 1), weight)
    return images


def on_device(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return a context in which kernels go to `device`: Triton launches on PyTorch's current CUDA device."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def launch_multiply_add(values: torch.Tensor, num_loops: int, factor: float, term: float) -> None:
    """Apply `value * factor + term` to `values` (a multiple of the block) num_loops x MULTIPLY_ADDS_PER_LOOP times."""
    grid = (len(values) // kernels.MULTIPLY_ADD_BLOCK.value,)
    kernels.multiply_add_kernel[grid](values, num_loops, factor, term, num_warps=4, enable_fp_fusion=True)
