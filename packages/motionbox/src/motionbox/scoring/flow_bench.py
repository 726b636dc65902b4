"""Speed and accuracy of the flow engines, measured in one process and one thread.

Every engine sees every pair in turn, round after round, so that a busy machine slows all of them alike. Times are CPU
time of the calling thread; a figure is the median over all pairs and rounds.
"""

from __future__ import annotations

import logging
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from motionbox.config import FlowConfig, TVL1Params
from motionbox.flow import Flow, create_flow_estimator
from motionbox.flow.opencv import one_opencv_thread
from motionbox.scoring.box_agreement import AgreementClip, agreement_clips, clip_box_ious
from motionbox.scoring.known_flow import TruthPair, truth_pairs, warped_pair

_LOG = logging.getLogger(__name__)

Grey = npt.NDArray[np.uint8]
FlowFunction = Callable[[Grey, Grey], Flow]

REFERENCE = "OpenCV DualTVL1"
TIMED_CLIPS = (
    ("epic_P01_06_90_456x256_60_h264.mp4", 256),
    ("kitchen_flip_pancake_240p30_h264.mkv", 240),
    ("handobj_pour_coffee_720p30_h264.mp4", 240),
)
"""Test videos that are timed, and the short side they are shrunk to: 456x256 and 427x240."""
_MOST_FRAMES = 117
DEFAULT = "motionbox, default"
SLOW_ENGINES = ("scikit-image TV-L1",)
"""Engines that are timed in the first round only."""
NO_BOXES = (REFERENCE, *SLOW_ENGINES)
"""Engines that are too slow to make the boxes of whole clips with."""

# One iteration on one pixel: what `_iterate_row` computes, loads and stores at least.
VECTOR_OPERATIONS = 43
"""Arithmetic, estimates and lane shifts per vector of 16 pixels: 17 primal, 2 x 11 dual, 4 error."""
BYTES_READ, BYTES_WRITTEN = 40, 24
"""Ten float32 fields read and six written per pixel."""


@dataclass
class EngineResult:
    """What one engine did.

    Attributes:
        name: The engine.
        milliseconds: CPU time of every timed pair and round.
        endpoint_errors_px: Mean end-point error per truth pair, by its name.
        mean_difference_px: Mean distance to OpenCV's DualTVL1 over the timed pairs.
        share_within: Share of pixels within 0.1 px of it.
        box_ious: IoU of each clip's box with that of the default set; empty for engines in `NO_BOXES`.
    """

    name: str
    milliseconds: list[float] = field(default_factory=list)
    endpoint_errors_px: dict[str, float] = field(default_factory=dict)
    mean_difference_px: float = float("nan")
    share_within: float = float("nan")
    box_ious: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """Return the median time of a pair in milliseconds."""
        return statistics.median(self.milliseconds)


@dataclass(frozen=True)
class Subjects:
    """What is measured, and on what.

    Attributes:
        engines: Flow functions by name, `DEFAULT` and `REFERENCE` among them.
        pairs: Name, frame and later frame of what is timed.
        truths: Pairs whose flow is known.
        clips: Clips whose boxes are compared.
    """

    engines: dict[str, FlowFunction]
    pairs: list[tuple[str, Grey, Grey]]
    truths: list[TruthPair]
    clips: list[AgreementClip]

    @classmethod
    def of(cls, testdata: Path | None) -> Subjects:
        """Return all engines, on the test data, or on drawn frames where there are none."""
        return cls(engines(), timed_pairs(testdata), truth_pairs(testdata), agreement_clips(testdata))


def engines() -> dict[str, FlowFunction]:
    """Return the engines by name; scikit-image's only where it is installed."""
    sets = {
        DEFAULT: TVL1Params(),
        "motionbox, fast": TVL1Params.fast(),
        "motionbox, draft": TVL1Params.draft(),
        "motionbox, opencv-cuda": TVL1Params(variant="opencv-cuda"),
    }
    result: dict[str, FlowFunction] = {
        name: create_flow_estimator(FlowConfig(tvl1=params)) for name, params in sets.items()
    }
    result[REFERENCE] = create_flow_estimator(FlowConfig(), backend="opencv")
    result["OpenCV DIS"] = create_flow_estimator(FlowConfig(method="dis"))
    try:
        from skimage.registration import optical_flow_tvl1
    except ImportError:
        return result

    def scikit_image(frame0: Grey, frame1: Grey) -> Flow:
        rows, columns = optical_flow_tvl1(frame0, frame1)  # type: ignore[no-untyped-call]
        return np.stack([columns, rows], axis=-1).astype(np.float32)

    return result | {"scikit-image TV-L1": scikit_image}


def timed_pairs(testdata: Path | None, num_pairs: int = 2) -> list[tuple[str, Grey, Grey]]:
    """Return (name, frame, later frame) from the test videos, or drawn ones where there are none.

    Frames are two apart: some of the footage repeats every frame, and OpenCV is quick where nothing moves.
    """
    from motionbox.video import read_frames

    pairs = []
    for name, short_side_px in TIMED_CLIPS:
        path = testdata / "clips" / name if testdata is not None else None
        if path is None or not path.is_file():
            continue
        frames = read_frames(path, short_side_px=short_side_px)
        grey = [frame.grey for _, frame in zip(range(10 * num_pairs), frames, strict=False)]
        size = f"{grey[0].shape[1]}x{grey[0].shape[0]}"
        pairs += [(f"{path.stem.split('_')[0]} {size}", grey[k], grey[k + 2]) for k in range(0, len(grey) - 2, 10)]
    if pairs:
        return pairs
    drawn = [warped_pair(kind, width=456, height=256) for kind in ("translation", "rotation", "zoom")]
    return [(f"{pair.name} 456x256", pair.frame0, pair.frame1) for pair in drawn]


def _resized(grey: Grey) -> Grey:
    return np.asarray(cv2.resize(grey, (456, 256), interpolation=cv2.INTER_AREA), np.uint8)


def consecutive_frames(testdata: Path | None) -> tuple[str, Grey]:
    """Return what they are and uint8 (N, 256, 456) frames of test videos, or of a drawn motion where there are none.

    The videos are the beginnings of the first and the last of `TIMED_CLIPS`, 30 frames per second, and the same turned
    by 180 degrees.
    """
    from motionbox.video import read_frames

    clips: list[Grey] = []
    for (name, _), step in ((TIMED_CLIPS[0], 2), (TIMED_CLIPS[-1], 1)):
        path = testdata / "clips" / name if testdata is not None else None
        if path is not None and path.is_file():
            frames = islice(read_frames(path, short_side_px=256), 0, _MOST_FRAMES * step, step)
            clips += [_resized(frame.grey) for frame in frames]
    if clips:
        upright = np.stack(clips)
        return "kitchen and coffee clip, upright and turned", np.concatenate([upright, upright[:, ::-1, ::-1]])
    drawn = [warped_pair("translation", width=456, height=256, amount=0.1 * k).frame1 for k in range(16)]
    return "drawn translation", np.stack(drawn)


def measure(subjects: Subjects, *, rounds: int = 3) -> list[EngineResult]:
    """Time every engine and compare it with known flow and with OpenCV.

    Args:
        subjects: The engines, and what they are measured on.
        rounds: How often every pair is timed.
    """
    functions = subjects.engines
    results = {name: EngineResult(name) for name in functions}
    with one_opencv_thread():
        for name, function in functions.items():
            _LOG.info("accuracy of %s", name)
            for truth in subjects.truths:
                error = truth.endpoint_error(function(truth.frame0, truth.frame1))
                results[name].endpoint_errors_px[truth.name] = error
        flows = _time_all(functions, subjects.pairs, results, rounds)
        quick = {name: function for name, function in functions.items() if name not in NO_BOXES}
        for name, ious in clip_box_ious(subjects.clips, quick, DEFAULT).items():
            results[name].box_ious = ious
    for name, result in results.items():
        distances = [
            np.hypot(*np.moveaxis(flow - reference, 2, 0))
            for flow, reference in zip(flows[name], flows[REFERENCE], strict=True)
        ]
        result.mean_difference_px = float(np.mean([distance.mean() for distance in distances]))
        result.share_within = float(np.mean([(distance <= 0.1).mean() for distance in distances]))
    return list(results.values())


def _time_all(
    functions: dict[str, FlowFunction],
    pairs: list[tuple[str, Grey, Grey]],
    results: dict[str, EngineResult],
    rounds: int,
) -> dict[str, list[Flow]]:
    flows: dict[str, list[Flow]] = {name: [] for name in functions}
    for turn in range(rounds):
        for pair_name, frame0, frame1 in pairs:
            _LOG.info("round %d of %d: %s", turn + 1, rounds, pair_name)
            for name, function in functions.items():
                if turn and name in SLOW_ENGINES:
                    continue
                if not turn and name not in SLOW_ENGINES:
                    function(frame1, frame0)  # makes the workspace for this size, which is not part of the time
                start = time.thread_time()
                flow = function(frame0, frame1)
                results[name].milliseconds.append((time.thread_time() - start) * 1e3)
                if not turn:
                    flows[name].append(flow)
    return flows


@dataclass(frozen=True)
class Floor:
    """How far the iteration is from what the core can do.

    Attributes:
        operation_ns: Measured time of one vector multiply-add, nothing else to do.
        floor_ns: Time of the counted operations at that rate, per pixel and iteration.
        iteration_ns: Measured time per pixel and iteration.
        other_ms: Milliseconds of a pair that are not iterations: pyramid, warping, one median filter per warping.
        iterations: Millions of pixel iterations of the pair.
    """

    operation_ns: float
    floor_ns: float
    iteration_ns: float
    other_ms: float
    iterations: float

    @property
    def share(self) -> float:
        """Return the share of the floor in the measured time."""
        return self.floor_ns / self.iteration_ns


def measure_floor(frame0: Grey, frame1: Grey) -> Floor:
    """Measure the default set's iteration on a pair, against the counted operations at the core's measured rate."""
    from motionbox.flow.cpu.engine import NumbaTVL1Estimator
    from motionbox.flow.tvl1 import make_plan

    full, single = NumbaTVL1Estimator(TVL1Params()), NumbaTVL1Estimator(TVL1Params(epsilon=1e6))
    height, width = frame0.shape
    pixels = np.array([w * h for w, h in make_plan(TVL1Params(), width, height).sizes_wh])
    times = [_best_seconds(lambda e=estimator: e(frame0, frame1)) for estimator in (full, single)]  # type: ignore[misc]
    counts = [(estimator.num_iterations().sum(axis=1) * pixels).sum() for estimator in (full, single)]
    operation_ns = _vector_operation_ns()
    return Floor(
        operation_ns=operation_ns,
        floor_ns=VECTOR_OPERATIONS * operation_ns / 16,
        iteration_ns=float((times[0] - times[1]) / (counts[0] - counts[1]) * 1e9),
        other_ms=times[1] * 1e3,
        iterations=float(counts[0] / 1e6),
    )


def _best_seconds(function: Callable[[], Any], repeats: int = 7) -> float:
    function()
    seconds = []
    for _ in range(repeats):
        start = time.thread_time()
        function()
        seconds.append(time.thread_time() - start)
    return min(seconds)


def _vector_operation_ns() -> float:
    from motionbox.flow.cpu.peak import NUM_CHAINS, multiply_add_chains

    count, values = 200_000, np.full(32, 0.5, np.float32)
    return _best_seconds(lambda: multiply_add_chains(values, count)) / (count * NUM_CHAINS) * 1e9


def machine() -> str:
    """Return one line: processor, system and the versions of everything that was measured."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    packages = ["numba", "numpy", "opencv-contrib-python-headless", "scikit-image"]
    versions = ", ".join(f"{name} {found}" for name in packages if (found := _version(name)))
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, {versions}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def to_markdown(results: list[EngineResult], floor: Floor) -> str:
    """Return the tables of speed and accuracy as Markdown."""
    reference = next(result for result in results if result.name == REFERENCE)
    lines = [
        f"Machine: {machine()}.",
        "",
        "| engine | ms per pair | pairs/s per core | x OpenCV | mean distance to OpenCV, px | within 0.1 px "
        "| clip-box IoU to default, mean (lowest) |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.name} | {r.median_ms:.1f} | {1e3 / r.median_ms:.1f} | {reference.median_ms / r.median_ms:.1f} "
        f"| {r.mean_difference_px:.4f} | {r.share_within:.1%} | {_box_cell(r.box_ious)} |"
        for r in results
    ]
    lines += ["", "Mean end-point error in pixels where the flow is known:", ""]
    lines += ["| pair | " + " | ".join(r.name for r in results) + " |", "|---" * (len(results) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(f"{r.endpoint_errors_px[name]:.3f}" for r in results) + " |"
        for name in results[0].endpoint_errors_px
    ]
    lines += [
        "",
        f"Floor of the iteration: {VECTOR_OPERATIONS} vector operations on 16 pixels at the measured "
        f"{floor.operation_ns:.3f} ns each are {floor.floor_ns:.3f} ns per pixel and iteration; measured "
        f"{floor.iteration_ns:.3f} ns, so {floor.share:.0%} of the time is the floor. "
        f"Least traffic {BYTES_READ} bytes read and {BYTES_WRITTEN} written per pixel and iteration. "
        f"The pair takes {floor.iterations:.0f} million pixel iterations; all else (pyramid, warpings, medians) is "
        f"{floor.other_ms:.1f} ms.",
    ]
    return "\n".join(lines) + "\n"


def _box_cell(ious: list[float]) -> str:
    return f"{statistics.mean(ious):.3f} ({min(ious):.3f})" if ious else ""


def replace_section(text: str, name: str, body: str) -> str:
    """Replace what is between the marks of section `name`, or append the section with its marks."""
    begin, end = f"<!-- bench {name}: begin -->", f"<!-- bench {name}: end -->"
    section = f"{begin}\n{body}{end}"
    if begin not in text or end not in text:
        return f"{text.rstrip()}\n\n{section}\n".lstrip()
    head, rest = text.split(begin, 1)
    return head + section + rest.split(end, 1)[1]
