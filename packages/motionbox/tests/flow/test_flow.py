from __future__ import annotations

import importlib.machinery
import sys
import types

import numpy as np
import pytest

from motionbox.config import ExtractConfig, FlowConfig, load_config
from motionbox.errors import ConfigError, FlowError
from motionbox.flow import TVL1Params, check_frames, compute_flow, create_flow_estimator, resolve_backend
from motionbox.scoring.known_flow import warped_pair
from motionbox.settings import validate

ENGINES = [("tvl1", "numba"), ("tvl1", "opencv"), ("dis", "opencv")]
SMALL = {"width": 112, "height": 80}


@pytest.mark.parametrize(("method", "backend"), ENGINES)
@pytest.mark.parametrize("kind", ["translation", "rotation", "zoom"])
def test_known_warps(method: str, backend: str, kind: str) -> None:
    pair = warped_pair(kind, **SMALL)
    flow = compute_flow(pair.frame0, pair.frame1, method=method, backend=backend)
    assert flow.shape == (80, 112, 2)
    assert flow.dtype == np.float32
    still = pair.endpoint_error(np.zeros_like(flow))
    assert pair.endpoint_error(flow) < (0.12 if method == "tvl1" else 0.3) * max(still, 1)


@pytest.mark.parametrize("backend", ["numba", "opencv"])
@pytest.mark.parametrize("value", [None, 0, 255])
def test_zero_motion_is_exactly_zero(backend: str, value: int | None) -> None:
    frame = warped_pair("identity", **SMALL).frame0 if value is None else np.full((80, 112), value, np.uint8)
    assert not compute_flow(frame, frame.copy(), backend=backend).any()


@pytest.mark.parametrize(("method", "backend"), ENGINES)
def test_initial_flow_is_used_and_left_alone(method: str, backend: str) -> None:
    pair = warped_pair("translation", amount=6, **SMALL)
    initial = pair.flow.copy()
    warm = compute_flow(pair.frame0, pair.frame1, method=method, backend=backend, initial=initial)
    np.testing.assert_array_equal(initial, pair.flow)
    cold = compute_flow(pair.frame0, pair.frame1, method=method, backend=backend)
    assert pair.endpoint_error(warm) < pair.endpoint_error(cold)


@pytest.mark.parametrize(("method", "backend"), ENGINES)
def test_result_does_not_depend_on_history(method: str, backend: str) -> None:
    estimator = create_flow_estimator(FlowConfig(method=method), backend=backend)
    pair, other = warped_pair("rotation", **SMALL), warped_pair("zoom", seed=3, **SMALL)
    first = estimator(pair.frame0, pair.frame1)
    kept = first.copy()
    tiny = warped_pair("translation", width=24, height=17)
    estimator(tiny.frame0, tiny.frame1)  # fewer scales: OpenCV's own object would keep the smaller number
    estimator(other.frame0, other.frame1, initial=other.flow)
    estimator(pair.frame1, pair.frame0)
    np.testing.assert_array_equal(estimator(pair.frame0, pair.frame1), kept)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("backend", ["numba", "opencv"])
def test_frames_in_a_reused_buffer_are_seen(backend: str) -> None:
    estimator = create_flow_estimator(FlowConfig(), backend=backend)
    pair, other = warped_pair("rotation", **SMALL), warped_pair("zoom", seed=3, **SMALL)
    buffer0, buffer1 = pair.frame0.copy(), pair.frame1.copy()
    estimator(buffer0, buffer1)
    buffer0[:] = other.frame0
    buffer1[:] = other.frame1
    np.testing.assert_array_equal(
        estimator(buffer1, buffer0), compute_flow(other.frame1, other.frame0, backend=backend)
    )


@pytest.mark.parametrize("backend", ["numba", "opencv"])
def test_float_frames_mean_the_same_as_bytes(backend: str) -> None:
    pair = warped_pair("translation", **SMALL)
    from_bytes = compute_flow(pair.frame0, pair.frame1, backend=backend)
    frames = [frame.astype(np.float32) / np.float32(255) for frame in (pair.frame0, pair.frame1)]
    np.testing.assert_allclose(compute_flow(*frames, backend=backend), from_bytes, atol=0.02)


def test_non_contiguous_frames() -> None:
    pair = warped_pair("translation", **SMALL)
    flow = compute_flow(np.asfortranarray(pair.frame0), np.asfortranarray(pair.frame1))
    np.testing.assert_array_equal(flow, compute_flow(pair.frame0, pair.frame1))


GOOD = np.zeros((32, 40), np.uint8)
BAD_FRAMES = [
    (np.zeros((32, 40, 3), np.uint8), GOOD, "frame0 must be grey"),
    (GOOD, np.zeros((32, 41), np.uint8), "frame1 must have shape and dtype of frame0"),
    (GOOD, np.zeros((32, 40), np.float32), "frame1 must have shape and dtype of frame0"),
    (np.zeros((15, 40), np.uint8), np.zeros((15, 40), np.uint8), "at least 16 px"),
    (GOOD.astype(np.float64), GOOD.astype(np.float64), "uint8 or float32"),
    (GOOD.astype(np.int32), GOOD, "uint8 or float32"),
    (GOOD.tolist(), GOOD, "uint8 or float32"),
    (np.full((32, 40), np.nan, np.float32), np.zeros((32, 40), np.float32), "finite"),
    (np.full((32, 40), 255, np.float32), np.zeros((32, 40), np.float32), "within 0..1"),
]


@pytest.mark.parametrize(("frame0", "frame1", "message"), BAD_FRAMES)
@pytest.mark.parametrize("backend", ["numba", "opencv"])
def test_bad_frames(frame0: np.ndarray, frame1: np.ndarray, message: str, backend: str) -> None:
    with pytest.raises(ValueError, match=message):
        compute_flow(frame0, frame1, backend=backend)


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        (np.full((32, 40, 2), np.nan, np.float32), "initial must be finite"),
        (np.full((32, 40, 2), np.inf, np.float32), "initial must be finite"),
        (np.zeros((32, 40, 2), np.float64), "initial must be a float32"),
        (np.zeros((40, 32, 2), np.float32), "initial must be a float32"),
        ([[0, 0]], "initial must be a float32"),
    ],
)
def test_bad_initial(initial: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_frames(GOOD, GOOD, initial)


def test_resolve_backend() -> None:
    assert resolve_backend("tvl1") == "numba"
    assert resolve_backend("dis") == "opencv"
    with pytest.raises(FlowError, match="method must be one of tvl1, dis, got 'farneback'"):
        resolve_backend("farneback")
    with pytest.raises(FlowError, match="must be one of auto, opencv, got 'numba'"):
        resolve_backend("dis", "numba")


def test_cuda_without_a_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    there = types.ModuleType("triton")
    there.__spec__ = importlib.machinery.ModuleSpec("triton", None)
    monkeypatch.setitem(sys.modules, "triton", there)
    with pytest.raises(FlowError, match="PyTorch finds no CUDA device; use --backend numba") as caught:
        create_flow_estimator(FlowConfig(), backend="cuda")
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(FlowError, match="Triton is not installed"):
        resolve_backend("tvl1", "cuda")


def test_cuda_variant_resolves_its_defaults_and_refuses_a_median() -> None:
    params = TVL1Params(variant="opencv-cuda")
    assert (params.inner_iterations, params.outer_iterations, params.median_size) == (300, 1, 1)
    with pytest.raises(ValueError, match="median_size and outer_iterations must be 1"):
        TVL1Params(variant="opencv-cuda", median_size=5)
    with pytest.raises(FlowError, match="opencv-cpu"):
        compute_flow(GOOD, GOOD, params=params, backend="opencv")


def test_cuda_variant_from_a_config_error_is_one_line() -> None:
    with pytest.raises(ConfigError, match="median_size"):
        validate(ExtractConfig, {"flow": {"tvl1": {"variant": "opencv-cuda", "median_size": 3}}}, "x.toml")


def test_fast_preset_is_the_fast_parameter_set() -> None:
    assert load_config("fast").flow.tvl1 == TVL1Params.fast()


@pytest.mark.parametrize("params", [TVL1Params.fast(), TVL1Params.draft()])
@pytest.mark.parametrize("kind", ["translation", "rotation", "zoom"])
def test_quicker_sets_are_as_close_to_known_flow_as_opencv(params: TVL1Params, kind: str) -> None:
    pairs = [warped_pair(kind, width=112, height=80, seed=seed) for seed in range(2)]
    ours = [pair.endpoint_error(compute_flow(pair.frame0, pair.frame1, params=params)) for pair in pairs]
    opencv = [pair.endpoint_error(compute_flow(pair.frame0, pair.frame1, backend="opencv")) for pair in pairs]
    assert np.mean(ours) <= 1.05 * np.mean(opencv)
