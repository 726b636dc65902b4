"""The GPU engine without a GPU: under Triton's interpreter, and compiled for a Hopper GPU."""

from __future__ import annotations

import importlib
import re
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionbox.config import TVL1Params
from motionbox.errors import FlowError
from motionbox.flow import BatchFlowEstimator, compute_flow, iter_flows
from motionbox.scoring.flow_bench import warped_pair
from reference_tvl1 import reference_flow, stopping_iteration

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")

SHORT = TVL1Params(num_scales=2, num_warps=2)
SHORTEST = TVL1Params(num_scales=1, num_warps=1)
FEW = TVL1Params(num_scales=1, num_warps=1, outer_iterations=2)
"""For what does not hang on the stopping rule: a call inside a kernel costs the interpreter a millisecond."""
CUDA_SET = TVL1Params(variant="opencv-cuda", num_scales=2, num_warps=2)


@dataclass
class Interpreted:
    gpu: ModuleType
    level: ModuleType
    kernels: ModuleType
    bench: ModuleType

    def engine(self, params: TVL1Params = SHORT, **options: Any) -> Any:
        return self.gpu.TVL1BatchEngine(params, "cpu", **options)


@pytest.fixture(scope="module")
def interpreted() -> Interpreted:
    """Load fresh engine modules whose kernels are interpreted; the process keeps its own, and its environment."""
    names = [
        "flow.gpu.median",
        "flow.gpu.tile",
        "flow.gpu.kernels",
        "flow.gpu.level",
        "flow.gpu.engine",
        "scoring.gpu_bench",
    ]
    kept = {name: sys.modules.pop(f"motionbox.{name}", None) for name in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        _, _, kernels, level, gpu, bench = (importlib.import_module(f"motionbox.{name}") for name in names)
    for name, module in kept.items():
        parent, _, leaf = f"motionbox.{name}".rpartition(".")
        del sys.modules[f"motionbox.{name}"]
        vars(sys.modules[parent]).pop(leaf, None)
        if module is not None:
            sys.modules[f"motionbox.{name}"] = module
            setattr(sys.modules[parent], leaf, module)
    return Interpreted(gpu, level, kernels, bench)


def make_frames(num: int, *, width: int = 32, height: int = 24, amount: float = 0.3) -> np.ndarray:
    """Frames (num, height, width) of a texture that moves by a growing translation, the last step the largest."""
    shifts = np.arange(num) ** 2 / 2 * amount
    pairs = [warped_pair("translation", width=width, height=height, amount=shift) for shift in shifts]
    return np.stack([pair.frame1 for pair in pairs])


@pytest.mark.parametrize("size", [(48, 40), (64, 48), (97, 57)])
def test_agrees_with_opencv(interpreted: Interpreted, size: tuple[int, int]) -> None:
    pair = warped_pair("rotation", width=size[0], height=size[1], amount=2)
    flow = interpreted.engine().flows(np.stack([pair.frame0, pair.frame1]))
    assert flow.shape == (1, size[1], size[0], 2)
    solver = cv2.optflow.createOptFlow_DualTVL1()
    solver.setScalesNumber(2)
    solver.setWarpingsNumber(2)
    difference = np.abs(flow[0].numpy() - solver.calc(pair.frame0, pair.frame1, None))
    assert np.abs(pair.flow).max() > 0.5
    assert difference.mean() < 1e-3
    assert difference.max() < 0.02


@pytest.mark.slow
def test_full_default_schedule_agrees_with_opencv_and_the_cpu_engine(interpreted: Interpreted) -> None:
    pair = warped_pair("zoom", width=48, height=40, amount=2)
    flow = interpreted.engine(TVL1Params()).flows(np.stack([pair.frame0, pair.frame1]))[0].numpy()
    opencv = cv2.optflow.createOptFlow_DualTVL1().calc(pair.frame0, pair.frame1, None)
    assert np.abs(flow - opencv).mean() < 2e-3
    numba = compute_flow(pair.frame0, pair.frame1, backend="numba")
    assert np.abs(flow - numba).mean() < 0.02


@pytest.mark.parametrize("params", [SHORT, CUDA_SET], ids=["opencv-cpu", "opencv-cuda"])
def test_agrees_with_plain_numpy_to_the_iteration(interpreted: Interpreted, params: TVL1Params) -> None:
    pair = warped_pair("translation", width=32, height=24)
    flow = interpreted.engine(params).flows(np.stack([pair.frame0, pair.frame1]))[0].numpy()
    error = np.abs(flow - reference_flow(pair.frame0, pair.frame1, params)).max()
    late = np.abs(flow - reference_flow(pair.frame0, pair.frame1, params, extra_iterations=1)).max()
    assert error < 2e-4
    assert late > 10 * error


def test_zero_motion_is_exactly_zero(interpreted: Interpreted) -> None:
    frame = warped_pair("identity", width=48, height=40).frame0
    frames = np.stack([frame, frame, np.zeros_like(frame), np.zeros_like(frame)])
    for params in (SHORT, CUDA_SET):
        flows = interpreted.engine(params).pairs(frames[::2], frames[1::2])
        assert not flows.any()


def test_a_pair_does_not_depend_on_its_batch(interpreted: Interpreted) -> None:
    frames = make_frames(4)
    together = interpreted.engine(FEW).flows(frames)
    for index in range(3):
        alone = interpreted.engine(FEW).flows(frames[index : index + 2])
        torch.testing.assert_close(alone[0], together[index], rtol=0, atol=0)
    in_parts = interpreted.engine(FEW, max_pairs=2).flows(frames)
    torch.testing.assert_close(in_parts, together, rtol=0, atol=0)


def test_pair_indices_choose_and_order_the_pairs(interpreted: Interpreted) -> None:
    frames = make_frames(4)
    engine = interpreted.engine(FEW, max_pairs=2)
    chosen = torch.cat(list(engine.iter_flows(frames, pair_indices=np.array([[3, 1], [0, 2], [2, 3]]))))
    expected = engine.pairs(frames[[3, 0, 2]], frames[[1, 2, 3]])
    torch.testing.assert_close(chosen, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("height_px", "width_px", "halo", "rows"),
    [(16, 16, 3, 1), (16, 16, 3, 4), (32, 32, 6, 2), (64, 64, 10, 1), (16, 64, 4, 4), (32, 16, 3, 8)],
)
def test_tiles_with_halo_equal_plain_iterations(
    interpreted: Interpreted, height_px: int, width_px: int, halo: int, rows: int
) -> None:
    params = TVL1Params(num_scales=1, num_warps=1, inner_iterations=13, outer_iterations=2, epsilon=0)
    frames = make_frames(2, width=29, height=23, amount=3)
    tile = interpreted.level.Tile
    plain = interpreted.engine(params, tile=tile(halo=1, rows=1)).flows(frames)
    tiled = interpreted.engine(params, tile=tile(height_px, width_px, halo, rows)).flows(frames)
    assert np.abs(plain.numpy()).max() > 0.1
    torch.testing.assert_close(tiled, plain, rtol=0, atol=0)


@pytest.mark.parametrize("halo", [1, 4, 10])
def test_launch_length_does_not_move_the_stop(interpreted: Interpreted, halo: int) -> None:
    frames = make_frames(2, amount=2)
    expected = interpreted.engine(SHORTEST).flows(frames)
    result = interpreted.engine(SHORTEST, tile=interpreted.level.Tile(halo=halo, rows=1)).flows(frames)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    exponents=st.lists(st.lists(st.floats(-3, 5), min_size=24, max_size=24), min_size=1, max_size=3),
    sparse=st.booleans(),
    block=st.integers(1, 7),
)
def test_stopping_rule_of_every_pair(
    interpreted: Interpreted, exponents: list[list[float]], sparse: bool, block: int
) -> None:
    errors = np.exp(np.array(exponents, np.float32))
    num_pairs, num_iterations = errors.shape
    control, previous, table = _control_arrays(num_pairs, halo=7)
    kept = np.zeros(num_pairs, int)
    for first in range(0, num_iterations + block, block):
        count = max(0, min(block, num_iterations - first))
        running, repeating = control[:, 0].numpy() == 0, control[:, 0].numpy() == 1
        kept[repeating] += control[repeating, 1].numpy()
        slots = control[:, 2].clone()
        table[:, :2] = float("nan")  # what a pair that does not run must not look at
        table[running, 0, :count] = torch.from_numpy(0.25 * errors[running, first : first + count])
        table[running, 1, :count] = torch.from_numpy(0.75 * errors[running, first : first + count])
        interpreted.kernels.decide_kernel[(num_pairs,)](
            control, previous, table, 2, first, count, 1.0, HALO=7, TILES=4, SPARSE_CHECKS=sparse
        )
        moved = (control[:, 2] != slots).numpy()
        kept[running & moved] += np.where(control[:, 0] == 2, control[:, 1], count)[running & moved]
    for pair in range(num_pairs):
        expected = stopping_iteration(errors[pair].tolist(), 1.0, sparse=sparse)
        assert kept[pair] == (num_iterations if expected is None else expected)
        assert control[pair, 0] == (0 if expected is None else 2)


def _control_arrays(num_pairs: int, *, halo: int) -> tuple[Any, Any, Any]:
    return (
        torch.zeros(num_pairs, 4, dtype=torch.int32),
        torch.zeros(num_pairs),
        torch.full((num_pairs, 2, halo), float("nan")),
    )


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("values", ["random", "ties"])
def test_median_is_opencvs(interpreted: Interpreted, size: int, values: str) -> None:
    rng = np.random.default_rng(size)
    shape = (2, 2, 37, 29)
    flow = rng.normal(size=shape) if values == "random" else rng.integers(0, 3, shape)
    state = torch.zeros(2, 3, 2, 37, 29)
    state[:, 1] = torch.from_numpy(flow.astype(np.float32))
    control = torch.tensor([[0, 0, 1, 0], [2, 0, 1, 0]], dtype=torch.int32)
    interpreted.kernels.median_kernel[(2, 2, 2)](state, control, 29, 37, BLOCK=256, SIZE=size, ROWS=4)
    for component in range(2):
        expected = cv2.medianBlur(flow[0, component].astype(np.float32), size)
        np.testing.assert_array_equal(state[0, 2, component].numpy(), expected)
    assert not state[1, 2].any()  # done: left alone
    assert control[:, 3].tolist() == [1, 0]


def test_initial_flow_is_used(interpreted: Interpreted) -> None:
    pair = warped_pair("translation", width=32, height=24, amount=2)
    frames = (pair.frame0[None], pair.frame1[None])
    warm = interpreted.engine(SHORTEST).pairs(*frames, initial=pair.flow[None])[0].numpy()
    cold = interpreted.engine(SHORTEST).pairs(*frames)[0].numpy()
    assert pair.endpoint_error(warm) < 0.5 * pair.endpoint_error(cold)
    solver = cv2.optflow.createOptFlow_DualTVL1()
    solver.setScalesNumber(1)
    solver.setWarpingsNumber(1)
    solver.setUseInitialFlow(True)
    difference = np.abs(warm - solver.calc(pair.frame0, pair.frame1, pair.flow.copy()))
    assert difference.mean() < 1e-3


def test_single_pair_estimator(interpreted: Interpreted) -> None:
    pair = warped_pair("rotation", width=48, height=40)
    estimator = interpreted.gpu.CudaTVL1Estimator(SHORT, device="cpu")
    flow = estimator(pair.frame0, pair.frame1)
    assert estimator.name == "cuda"
    assert flow.dtype == np.float32
    numba = compute_flow(pair.frame0, pair.frame1, params=SHORT, backend="numba")
    assert np.abs(flow - numba).mean() < 0.02
    as_floats = [frame.astype(np.float32) / np.float32(255) for frame in (pair.frame0, pair.frame1)]
    np.testing.assert_allclose(estimator(*as_floats), flow, atol=0.02)
    with pytest.raises(ValueError, match="at least 16 px"):
        estimator(pair.frame0[:10], pair.frame1[:10])


def test_estimator_takes_pairs_in_batches(interpreted: Interpreted) -> None:
    a, b, c = make_frames(3)
    estimator = interpreted.gpu.CudaTVL1Estimator(FEW, device="cpu")
    assert isinstance(estimator, BatchFlowEstimator)
    together = list(iter_flows(estimator, [(a, b), (b, c), (c, a)]))
    for flow, pair in zip(together, [(a, b), (b, c), (c, a)], strict=True):
        np.testing.assert_array_equal(flow, estimator(*pair))
    assert list(iter_flows(estimator, [])) == []


def test_wrong_input_is_named(interpreted: Interpreted) -> None:
    engine, frames = interpreted.engine(), make_frames(3)
    for bad, text in [
        (frames.astype(np.float64), "frames must be a uint8 array"),
        (frames[:1], "grey"),
        (frames[:, :12], "at least 16 px"),
        (frames[0], "grey"),
    ]:
        with pytest.raises(ValueError, match=text):
            engine.flows(bad)
    for bad in (np.array([[0, 3]]), np.array([[-1, 0]]), np.array([0, 1]), np.array([[0.0, 1.0]])):
        with pytest.raises(ValueError, match="pair_indices must be"):
            list(engine.iter_flows(frames, pair_indices=bad))
    with pytest.raises(ValueError, match="frames1 must have shape and dtype"):
        engine.pairs(frames[:2], frames)
    flow = np.zeros((2, 24, 32, 2), np.float32)
    with pytest.raises(ValueError, match="initial must be float32 of shape"):
        engine.pairs(frames[:2], frames[1:], flow[:1])
    flow[0, 3, 4] = np.nan
    with pytest.raises(ValueError, match="initial must be finite"):
        engine.pairs(frames[:2], frames[1:], flow)
    with pytest.raises(ValueError, match="max_pairs must be"):
        interpreted.engine(max_pairs=0)
    for options, text in [
        ({"height_px": 48}, "height_px"),
        ({"width_px": 8}, "width_px"),
        ({"height_px": 16, "halo": 8}, "halo"),
        ({"rows": 3}, "rows"),
        ({"programs": 5}, "programs"),
    ]:
        with pytest.raises(ValueError, match=f"{text} must be"):
            interpreted.level.Tile(**options)


def test_multiply_add_does_what_it_counts(interpreted: Interpreted) -> None:
    values = torch.arange(1024, dtype=torch.float32)
    interpreted.level.launch_multiply_add(values, 3, 1.0, 0.5)
    per_loop = interpreted.kernels.MULTIPLY_ADDS_PER_LOOP.value
    torch.testing.assert_close(values, torch.arange(1024) + 0.5 * 3 * per_loop)


def test_bench_counts_pairs_pixels_and_iterations(interpreted: Interpreted, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = interpreted.bench
    monkeypatch.setattr(bench._Clock, "seconds", lambda _, run: (run(), 0.5)[1])  # every run takes half a second
    tile = interpreted.level.Tile
    found = bench.bench_gpu(make_frames(3, amount=0.1), SHORTEST, device="cpu", other_tiles=(tile(32, 64, 5, 8, 2),))
    rows = {row.name: row for row in found}
    assert rows["frames to flow"].rate == 2 / 0.5
    assert rows["kernel: warp"].rate == 2 * 24 * 32 / 0.5
    assert rows["kernel: 6 iterations"].rate == 6 * 2 * 24 * 32 / 0.5
    assert rows["frames to flow, tile 64 x 32, rows 8, programs 2, halo 5"].rate == 2 / 0.5
    assert rows["kernel: 5 iterations, tile 64 x 32, rows 8, programs 2"].rate == 5 * 2 * 24 * 32 / 0.5
    assert bench.iterate_cost(tile(32, 64, 5)).device_bytes == pytest.approx((40 * 32 * 64 / (22 * 54) + 24) / 5)
    cost = bench.iterate_cost(tile(halo=6))
    assert cost.device_bytes == pytest.approx((40 * 64**2 / 52**2 + 24) / 6)
    iterations = rows["kernel: 6 iterations"]
    copied = rows["roof: copy"].rate * 1e9
    assert iterations.memory_share == pytest.approx(iterations.rate * cost.device_bytes / copied)


def test_cpu_device_needs_the_interpreter() -> None:
    from motionbox.flow.gpu.engine import TVL1BatchEngine

    with pytest.raises(FlowError, match="TRITON_INTERPRET=1"):
        TVL1BatchEngine(TVL1Params(), "cpu")


def test_missing_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from motionbox.flow.gpu.engine import TVL1BatchEngine

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FlowError, match="no CUDA device"):
        TVL1BatchEngine(TVL1Params())


@pytest.mark.parametrize("kernel", ["warp", "iterate", "iterate twice", "decide", "median", "multiply_add"])
def test_kernels_compile_for_a_hopper_gpu(kernel: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes more than the compiler does; compiling needs no GPU."""
    from motionbox.flow.gpu import kernels, level

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    options: dict[str, dict[str, Any]] = {
        "warp": {"BLOCK": 256, "ZERO_BORDER": True},
        "iterate": {"APPROXIMATE": True},
        "decide": {"HALO": 6, "TILES": 64, "SPARSE_CHECKS": True},
        "median": {"BLOCK": level.MEDIAN_BLOCK, "SIZE": 5, "ROWS": level.MEDIAN_ROWS},
        "multiply_add": {},
    }
    tile = level.OTHER_TILES[0] if kernel == "iterate twice" else level.Tile()
    kernel = kernel.split()[0]
    options["iterate"] |= tile.shape
    function = getattr(kernels, f"{kernel}_kernel")
    integers = {"index0_ptr": "*i32", "index1_ptr": "*i32", "control_ptr": "*i32"}
    reals = ("cubic_a", "l_t", "theta", "taut", "threshold", "factor", "term")
    signature = {
        name: "constexpr"
        if name in options[kernel]
        else integers.get(name, "*fp32" if name.endswith("_ptr") else "fp32" if name in reals else "i32")
        for name in function.arg_names
    }
    source = triton.compiler.ASTSource(function, signature=signature, constexprs=options[kernel])
    target = triton.backends.compiler.GPUTarget("cuda", 90, 32)
    wanted = tile.compile_options if kernel == "iterate" else {"num_warps": 4}
    compiled = triton.compile(source, target=target, options=wanted | {"enable_fp_fusion": True})
    assert len(compiled.asm["cubin"]) > 1000
    if kernel == "iterate":  # the registers of all programs that shall run at once, without any of them in memory
        threads = tile.programs * tile.num_warps * 32
        highest = max(map(int, re.findall(r"\bR(\d+)\b", compiled.asm["sass"])))
        assert (highest + 1) * threads <= 65536
        assert not re.search(r"\b(STL|LDL)\b", compiled.asm["sass"])
