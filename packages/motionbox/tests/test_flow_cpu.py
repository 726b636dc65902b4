from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from motionbox.flow import TVL1Params, compute_flow
from motionbox.flow._simd import kernel, load, store
from motionbox.flow._tvl1_cpu import NumbaTVL1Estimator
from motionbox.flow.tvl1 import pyramid_sizes
from motionbox.truth import warped_pair

Grey = npt.NDArray[np.uint8]


def read_grey(path: Path, index: int, short_side_px: int) -> Grey:
    capture = cv2.VideoCapture(str(path))
    for _ in range(index):
        assert capture.grab()
    ok, frame = capture.read()
    assert ok
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    scale = short_side_px / min(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)


def assert_agrees(flow: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> None:
    distance = np.hypot(*np.moveaxis(flow - reference, 2, 0))
    assert distance.mean() <= 0.02
    assert (distance <= 0.1).mean() >= 0.97


@pytest.mark.parametrize(
    ("name", "indices"),
    [
        ("epic_P01_06_90_456x256_60_h264.mp4", (0, 2)),
        ("kitchen_flip_pancake_240p30_h264.mkv", (10, 11)),
        ("handobj_pour_coffee_720p30_h264.mp4", (5, 6)),
    ],
)
def test_agrees_with_opencv_on_real_frames(testdata: Path, name: str, indices: tuple[int, int]) -> None:
    frame0, frame1 = (read_grey(testdata / "clips" / name, index, 128) for index in indices)
    assert_agrees(compute_flow(frame0, frame1), compute_flow(frame0, frame1, backend="opencv"))


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (33, 64), (131, 50)])
@pytest.mark.parametrize("kind", ["translation", "zoom"])
def test_agrees_with_opencv_at_odd_sizes(size: tuple[int, int], kind: str) -> None:
    pair = warped_pair(kind, width=size[0], height=size[1])
    reference = compute_flow(pair.frame0, pair.frame1, backend="opencv")
    assert_agrees(compute_flow(pair.frame0, pair.frame1), reference)


def test_pyramid_sizes_are_those_of_opencv() -> None:
    image = np.zeros((90, 61), np.float32)
    sizes = [(61, 90)]
    for _ in range(10):
        image = cv2.resize(image, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_LINEAR)
        if min(image.shape) >= 16:
            sizes.append((image.shape[1], image.shape[0]))
    assert pyramid_sizes(61, 90, 16, 0.8) == tuple(sizes)
    assert pyramid_sizes(61, 90, 3, 0.8) == tuple(sizes[:3])
    assert pyramid_sizes(16, 16, 5, 0.8) == ((16, 16),)


CALL_ONCE = """
import numpy as np
from motionbox.flow import _tvl1_kernels, compute_flow
compute_flow(np.zeros((32, 40), np.uint8), np.zeros((32, 40), np.uint8))
kernels = (_tvl1_kernels.resize, _tvl1_kernels.make_taps, _tvl1_kernels.solve_level)
print(*(sum(kernel.stats.cache_hits.values()) for kernel in kernels))
"""


@pytest.mark.slow
def test_a_second_process_does_not_compile(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    hits = [
        subprocess.run([sys.executable, "-c", CALL_ONCE], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert hits[0].stdout.split() == ["0", "0", "0"]
    assert hits[1].stdout.split() == ["1", "1", "1"]


def test_kernels_compile_without_a_cache_where_nothing_is_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locator(*_args: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr("numba.core.dispatcher.Dispatcher.enable_caching", no_locator)

    @kernel
    def double(values):  # type: ignore[no-untyped-def]
        store(values, 0, load(values, 0) + load(values, 0))

    values = np.arange(16, dtype=np.float32)
    double(values)
    np.testing.assert_array_equal(values, 2 * np.arange(16))


def test_steady_state_allocates_the_result_only() -> None:
    pairs = [warped_pair(kind, width=112, height=80) for kind in ("rotation", "zoom")]
    estimator = NumbaTVL1Estimator(TVL1Params())
    for pair in pairs:
        estimator(pair.frame0, pair.frame1)
    tracemalloc.start()
    for pair in pairs:
        estimator(pair.frame0, pair.frame1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * pairs[0].flow.nbytes


def test_stops_exactly_where_every_error_is_checked() -> None:
    # With blocks of one iteration every error is looked at; longer sweeps must end at the same iteration.
    pair = warped_pair("rotation", width=80, height=60, amount=2.0)
    params = TVL1Params(num_scales=1, num_warps=1, median_size=1, outer_iterations=1, inner_iterations=300)
    estimator = NumbaTVL1Estimator(params)
    flow = estimator(pair.frame0, pair.frame1)
    (count,) = estimator.num_iterations().ravel()
    assert 16 < count < 300
    exactly = TVL1Params.model_validate(params.model_dump() | {"epsilon": 0.0, "inner_iterations": int(count)})
    np.testing.assert_allclose(flow, compute_flow(pair.frame0, pair.frame1, params=exactly), atol=1e-4)
    # One iteration fewer has an error above the threshold, this one has not.
    fewer = TVL1Params.model_validate(exactly.model_dump() | {"inner_iterations": int(count) - 1})
    before = compute_flow(pair.frame0, pair.frame1, params=fewer)
    assert ((flow - before) ** 2).sum(axis=2).mean() <= params.epsilon**2 * 1.001
    earlier = TVL1Params.model_validate(exactly.model_dump() | {"inner_iterations": int(count) - 2})
    before_that = compute_flow(pair.frame0, pair.frame1, params=earlier)
    assert ((before - before_that) ** 2).sum(axis=2).mean() > params.epsilon**2


def test_video_and_single_pairs_give_the_same() -> None:
    # The pyramid of the last frame is reused when the next pair starts with it.
    frames = [warped_pair("translation", width=64, height=48, amount=0.2 * k).frame1 for k in range(4)]
    estimator = NumbaTVL1Estimator(TVL1Params())
    for frame0, frame1 in pairwise(frames):
        np.testing.assert_array_equal(estimator(frame0, frame1), compute_flow(frame0, frame1))
