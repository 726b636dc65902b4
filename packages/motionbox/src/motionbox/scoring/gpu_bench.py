"""Speed of the GPU flow engine against the roofs of the machine that it runs on, both measured in one process."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from motionbox.config import TVL1Params
from motionbox.flow.gpu import kernels
from motionbox.flow.gpu.engine import TVL1BatchEngine
from motionbox.flow.gpu.level import OTHER_TILES, LevelState, Tile, launch_multiply_add, on_device, with_gradient
from motionbox.flow.tvl1 import TVL1Plan, make_plan

_FLOAT_BYTES = 4
_COPY_BYTES = 1 << 30
_FMA_LOOPS = 4096
_INTERPRETED_COPY_BYTES = 1 << 20
_INTERPRETED_FMA_LOOPS = 2


@dataclass(frozen=True)
class KernelCost:
    """What a kernel must do at least for one pixel (`iterate`: for one pixel and iteration), counted in its formulae.

    Attributes:
        device_bytes: Device memory read and written, each value once per launch, the halo of a tile included.
        operations: Floating-point operations; a square root, a division, a minimum and a maximum count one each.
    """

    device_bytes: float
    operations: float


def iterate_cost(tile: Tile = Tile()) -> KernelCost:  # noqa: B008  (frozen)
    """Return the cost of one pixel and iteration: 10 planes read with the halo, 6 written, once per launch.

    The operations are those of an owned pixel: the data step 7, two divergences 6, two primal steps 8, the error 6,
    four differences 4, two norms 14 and four dual updates 12.
    """
    return KernelCost(_FLOAT_BYTES * (10 / tile.kept + 6) / tile.halo, 57)


WARP_COST = KernelCost(_FLOAT_BYTES * (2 + 1 + 3 + 4), 16 * 7 + 8 * 7 + 15)
"""Reads the flow, frame 0 and frame 1 with its gradient, writes four planes; 16 taps of three values, 8 weights."""

MEDIAN_COST = KernelCost(_FLOAT_BYTES * 2 * 2, 2 * 119)
"""5 x 5, both components: 950 minima and maxima for eight pixels as compiled."""


@dataclass(frozen=True)
class GpuBenchRow:
    """One line of the table.

    Attributes:
        name: What was measured.
        rate: Amount per second.
        unit: Unit of `rate`.
        memory_share: Counted device bytes per second over the measured copy rate; None where nothing is counted.
        arithmetic_share: Counted operations per second over the measured multiply-add rate; None likewise.
    """

    name: str
    rate: float
    unit: str
    memory_share: float | None = None
    arithmetic_share: float | None = None


def bench_gpu(
    frames: npt.NDArray[np.uint8],
    params: TVL1Params = TVL1Params(),  # noqa: B008  (frozen)
    *,
    device: str = "cuda",
    repeats: int = 5,
    other_tiles: Sequence[Tile] = OTHER_TILES,
) -> list[GpuBenchRow]:
    """Measure the roofs of the device, the engine from 8-bit frames to flow, and its kernels.

    Args:
        frames: uint8 (N, H, W) grey, N >= 2: consecutive frames, best of real footage (how soon pairs converge decides
            the speed); the pairs of neighbours are one batch.
        params: Parameters of TV-L1.
        device: A CUDA device, or `cpu` under Triton's interpreter, whose times mean nothing.
        repeats: Runs of which the median counts, after one that does not.
        other_tiles: Tiles that are timed beside the device's usual one.

    Raises:
        ValueError: `frames` has another shape or dtype.
        FlowError: The device does not exist or cannot run the kernels.
    """
    engine = TVL1BatchEngine(params, device)
    with on_device(engine.device):
        return _measure(frames, params, engine, repeats, other_tiles)


def to_markdown(rows: list[GpuBenchRow]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| what | rate | share of copy rate | share of multiply-add rate |", "|---|---|---|---|"]
    for row in rows:
        shares = ("" if share is None else f"{share:.0%}" for share in (row.memory_share, row.arithmetic_share))
        lines.append(f"| {row.name} | {row.rate:,.4g} {row.unit} | " + " | ".join(shares) + " |")
    return "\n".join(lines) + "\n"


def _measure(
    frames: npt.NDArray[np.uint8],
    params: TVL1Params,
    engine: TVL1BatchEngine,
    repeats: int,
    other_tiles: Sequence[Tile],
) -> list[GpuBenchRow]:
    clock = _Clock(engine.device, repeats)
    copy_rate, operation_rate = _measure_roofs(clock)
    num_pairs = len(frames) - 1
    rows = [
        GpuBenchRow("roof: copy", copy_rate / 1e9, "GB/s"),
        GpuBenchRow("roof: multiply-add", operation_rate / 1e12, "TFLOP/s"),
        GpuBenchRow("frames to flow", num_pairs / clock.seconds(lambda: engine.flows(frames)), "pairs/s"),
    ]
    # epsilon 0: no pair stops, so the number of iterations is known.
    height, width = frames.shape[1:]
    plan = make_plan(params.model_copy(update={"epsilon": 0.0}), width, height)
    pixels = num_pairs * height * width

    def timed(name: str, run: Callable[[], None], amount: float, unit: str, cost: KernelCost) -> GpuBenchRow:
        rate = amount / clock.seconds(run)
        shares = (rate * cost.device_bytes / copy_rate, rate * cost.operations / operation_rate)
        return GpuBenchRow(name, rate, unit, *shares)

    def iterations(level: LevelState, tile: Tile, suffix: str = "") -> GpuBenchRow:
        name = f"kernel: {tile.halo} iterations{suffix}"
        amount = pixels * tile.halo
        return timed(name, lambda: level.iterate(0, tile.halo), amount, "pixel iterations/s", iterate_cost(tile))

    level = _level_of(frames, plan, engine)
    level.warp()
    rows += [timed("kernel: warp", level.warp, pixels, "pixels/s", WARP_COST), iterations(level, engine.tile)]
    if plan.median_size == 5:
        rows.append(timed("kernel: median", lambda: level.filter(5), pixels, "pixels/s", MEDIAN_COST))
    for tile in other_tiles:
        other = TVL1BatchEngine(params, engine.device, tile=tile)
        suffix = f", tile {tile.width_px} x {tile.height_px}, rows {tile.rows}, programs {tile.programs}"
        rate = num_pairs / clock.seconds(functools.partial(other.flows, frames))
        rows.append(GpuBenchRow(f"frames to flow{suffix}, halo {tile.halo}", rate, "pairs/s"))
        level = _level_of(frames, plan, other)
        level.warp()
        rows.append(iterations(level, tile, suffix))
    return rows


class _Clock:
    def __init__(self, device: torch.device, repeats: int) -> None:
        if repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {repeats!r}")
        self.device, self._repeats = device, repeats

    def seconds(self, run: Callable[[], object]) -> float:
        """Return the median time of `run`, the device idle before and after."""
        times = []
        for _ in range(self._repeats + 1):
            self._wait()
            start = time.perf_counter()
            run()
            self._wait()
            times.append(time.perf_counter() - start)
        return statistics.median(times[1:])

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _measure_roofs(clock: _Clock) -> tuple[float, float]:
    """Return the bytes per second of a copy (read plus written) and the operations per second of multiply-adds."""
    on_gpu = clock.device.type == "cuda"
    num_bytes = _COPY_BYTES if on_gpu else _INTERPRETED_COPY_BYTES
    source = torch.zeros(num_bytes // _FLOAT_BYTES, device=clock.device)
    target = torch.empty_like(source)
    copy_rate = 2 * num_bytes / clock.seconds(lambda: target.copy_(source))
    num_programs, num_loops = (4096, _FMA_LOOPS) if on_gpu else (1, _INTERPRETED_FMA_LOOPS)
    values = torch.zeros(num_programs * kernels.MULTIPLY_ADD_BLOCK.value, device=clock.device)
    operations = 2 * len(values) * num_loops * kernels.MULTIPLY_ADDS_PER_LOOP.value
    return copy_rate, operations / clock.seconds(lambda: launch_multiply_add(values, num_loops, 0.999, 0.5))


def _level_of(frames: npt.NDArray[np.uint8], plan: TVL1Plan, engine: TVL1BatchEngine) -> LevelState:
    device = engine.device
    images = with_gradient(torch.from_numpy(frames).to(device).float())
    count = len(frames) - 1
    index = torch.arange(count, dtype=torch.int32, device=device)
    flow = torch.zeros(count, 2, *frames.shape[1:], device=device)
    return LevelState(plan, images, (index, index + 1), flow, engine.tile)
