from __future__ import annotations

import os
import shutil
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
from motionbox.flow.cpu import compiling
from motionbox.flow.cpu.compiling import kernel
from motionbox.flow.cpu.engine import NumbaTVL1Estimator
from motionbox.flow.cpu.simd import load, store
from motionbox.flow.tvl1 import pyramid_sizes
from motionbox.scoring.known_flow import warped_pair

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
from motionbox.flow import compute_flow
from motionbox.flow.cpu import kernels
from motionbox.flow.cpu import warp
frames = np.random.default_rng(0).integers(0, 256, (2, 120, 160), dtype=np.uint8)
flow = compute_flow(*frames)
kernels = (warp.resize, warp.make_taps, kernels.solve_level)
print(*(sum(kernel.stats.cache_hits.values()) for kernel in kernels), hash(flow.tobytes()))
"""


def run_once(cache: Path, *, edited: str = "") -> list[str]:
    """Run `CALL_ONCE` in a process of its own: cache hits and a hash of the flow; `edited` is added to `simd.py`."""
    package = cache / "src" / "motionbox"
    if not package.is_dir():
        shutil.copytree(Path(compiling.__file__).parents[2], package, ignore=shutil.ignore_patterns("__pycache__"))
    with (package / "flow" / "cpu" / "simd.py").open("a") as source:
        source.write(edited)
    paths = [str(package.parent), *sys.path]
    environment = os.environ | {
        "PYTHONHASHSEED": "0",
        "NUMBA_CACHE_DIR": str(cache),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    result = subprocess.run(
        [sys.executable, "-c", CALL_ONCE], env=environment, capture_output=True, text=True, check=True
    )
    return result.stdout.split()


@pytest.mark.slow
def test_only_a_process_with_other_sources_compiles_again(tmp_path: Path) -> None:
    *hits, compiled = run_once(tmp_path)
    assert hits == ["0", "0", "0"]
    # Code from disk must be the code that ran where it was compiled, to the last bit of the flow.
    assert run_once(tmp_path) == ["1", "1", "1", compiled]
    # The kernels are in other files than this one, which numba by itself would not notice.
    assert run_once(tmp_path, edited="# changed\n") == ["0", "0", "0", compiled]


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


@pytest.mark.parametrize("size", [(320, 240), (32, 24)])
@pytest.mark.parametrize("kind", ["truth", "noise", "far", "outside"])
def test_initial_flow_gives_what_it_gives_opencv(size: tuple[int, int], kind: str) -> None:
    pair = warped_pair("translation", width=size[0], height=size[1])
    noise = np.random.default_rng(0).normal(size=pair.flow.shape).astype(np.float32)
    initial = {"truth": pair.flow, "noise": 5 * noise, "far": np.full_like(noise, 15), "outside": 200 * noise}[kind]
    params = TVL1Params(num_scales=1, num_warps=1, outer_iterations=1)
    flow = compute_flow(pair.frame0, pair.frame1, params=params, initial=initial)
    reference = compute_flow(pair.frame0, pair.frame1, params=params, initial=initial, backend="opencv")
    distance = np.hypot(*np.moveaxis(flow - reference, 2, 0))
    assert distance.mean() < 0.0005
    assert distance.max() < 0.005


def test_initial_flow_passes_through_the_pyramid_as_in_opencv(testdata: Path) -> None:
    frames = [read_grey(testdata / "clips" / "epic_P01_06_90_456x256_60_h264.mp4", index, 128) for index in (0, 2, 4)]
    initial = compute_flow(frames[0], frames[1])
    flow = compute_flow(frames[1], frames[2], initial=initial)
    assert_agrees(flow, compute_flow(frames[1], frames[2], initial=initial, backend="opencv"))


def test_fixed_iterations_are_all_done() -> None:
    # With epsilon 0 nothing is checked and sweeps work in place: the numbers must be those of one iteration at a time.
    pair = warped_pair("zoom", width=80, height=60)
    params = TVL1Params(num_scales=1, num_warps=1, outer_iterations=1, median_size=1, inner_iterations=19, epsilon=0)
    estimator = NumbaTVL1Estimator(params)
    flow = estimator(pair.frame0, pair.frame1)
    assert estimator.num_iterations().tolist() == [[19]]
    checked = TVL1Params.model_validate(params.model_dump() | {"epsilon": 1e-9})
    np.testing.assert_allclose(flow, compute_flow(pair.frame0, pair.frame1, params=checked), atol=1e-6)


def test_cache_key_depends_on_every_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("simd.py", "_median.py"):
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(compiling, "files", lambda _: tmp_path)
    digest = compiling.sources_digest.__wrapped__
    before = digest()
    assert digest() == before
    (tmp_path / "simd.py").write_text("2")
    changed = digest()
    (tmp_path / "_median.py").rename(tmp_path / "_other.py")
    assert len({before, changed, digest()}) == 3
