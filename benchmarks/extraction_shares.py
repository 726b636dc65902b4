"""Where the processor time of an extraction goes, step by step, once libraries are loaded.

`python extraction_shares.py [--rounds N] VIDEO...`: this process decodes, computes and commits one unit a turn, by
default settings; turns shrink frames by OpenCV and by the kernel that takes over from it, and must give the same rows.
Times are milliseconds a frame, medians of the turns.
"""

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
from clips_of_a_run import make_run

from motionbox.config import load_config
from motionbox.extraction.work_unit import process_unit
from motionbox.extraction.worker import keep_freed_memory
from motionbox.flow import FlowEstimator, create_flow_estimator
from motionbox.store.units import units_of
from motionbox.store.writing.attempt import Attempt
from motionbox.store.writing.runs import Run
from motionbox.video import _pixels
from motionbox.video.frames import WHOLE, Frame, Span
from motionbox.video.sources import DirectSource

ROUNDS = 3
WAYS = {"OpenCV": 1 << 62, "kernel": 0}
Seconds = dict[str, float]


def main() -> None:
    """Measure and print two lines for each video."""
    arguments = sys.argv[1:]
    rounds = int(arguments.pop(arguments.index("--rounds") + 1)) if "--rounds" in arguments else ROUNDS
    cv2.setNumThreads(1)
    keep_freed_memory()
    for video in [Path(text) for text in arguments if text != "--rounds"]:
        with tempfile.TemporaryDirectory() as folder:
            measure(video, Path(folder), rounds)


def measure(video: Path, folder: Path, rounds: int) -> None:
    """Let the ways take turns and print the steps of each."""
    spent: dict[str, list[Seconds]] = {way: [] for way in WAYS}
    for turn in range(rounds + 1):
        digests = set()
        for way, pixels in WAYS.items():
            run = make_run(video, folder / f"{turn}{way}", load_config())
            with mock.patch.object(_pixels, "_LOADING_PAYS_PIXELS", pixels):
                seconds, num_frames, digest = one_turn(run)
            digests.add(digest)
            if turn:  # the first one loads and compiles
                spent[way].append({step: 1000 * value / num_frames for step, value in seconds.items()})
        if len(digests) > 1:
            raise SystemExit(f"{video.name}: the ways gave different rows")
    for way, turns in spent.items():
        steps = {step: statistics.median(turn[step] for turn in turns) for step in turns[0]}
        share = statistics.median(turn["flow"] / turn["whole"] for turn in turns)
        told = ", ".join(f"{step} {value:.2f}" for step, value in steps.items())
        print(f"{video.name}, shrunk by {way}: {told} ms a frame; flow {100 * share:.1f} %", flush=True)
    ratios = [new["whole"] / old["whole"] for old, new in zip(*spent.values(), strict=True)]
    print(f"{video.name}: kernel / OpenCV {statistics.median(ratios):.3f} of the whole", flush=True)


def one_turn(run: Run) -> tuple[Seconds, int, tuple[str, ...]]:
    """Do the run's unit; return the processor seconds of each step, the number of frames and the blocks' digests."""
    spent: Seconds = defaultdict(float)
    (unit,) = units_of(run.plan())
    source = _TimedSource(run.config.frames.short_side_px, spent)
    shrink = timed(_pixels.GreyConverter.__call__, spent, "range, shrinking")
    begin = time.thread_time()
    with (
        mock.patch.object(_pixels.GreyConverter, "__call__", shrink),
        Attempt(run.paths, unit.unit_id, run.config.store) as attempt,
    ):
        for rows in process_unit(unit, run.config, run.data_root, source, _estimator(run, spent)):
            attempt.add(rows)
        before = time.thread_time()
        num_frames = attempt.rows.num_frames
        digests = tuple(attempt.rows.tables().blocks.column("digest").to_pylist())
        attempt.commit()
        spent["commit"] = time.thread_time() - before
    spent["whole"] = time.thread_time() - begin
    spent["decoding"] -= spent["range, shrinking"]
    spent["after flow"] = 2 * spent["whole"] - sum(spent.values())
    return spent, num_frames, digests


def timed(function: Callable[..., Any], spent: Seconds, step: str) -> Callable[..., Any]:
    """Return the function, its processor time added to a step's."""

    def run(*args: Any, **options: Any) -> Any:
        begin = time.thread_time()
        try:
            return function(*args, **options)
        finally:
            spent[step] += time.thread_time() - begin

    return run


def _estimator(run: Run, spent: Seconds) -> FlowEstimator:
    estimator = create_flow_estimator(run.config.flow, backend="numba")
    kind = type(estimator)
    return type("Timed", (kind,), {"__call__": timed(kind.__call__, spent, "flow")})(run.config.flow.tvl1)


class _TimedSource(DirectSource):
    def __init__(self, short_side_px: int, spent: Seconds) -> None:
        super().__init__(short_side_px)
        self._spent = spent

    def open(self, path: Path, span: Span = WHOLE) -> Any:
        info, frames = timed(super().open, self._spent, "decoding")(path, span)
        return info, self._timed(frames)

    def _timed(self, frames: Iterator[Frame]) -> Generator[Frame]:
        following = timed(lambda: next(frames, None), self._spent, "decoding")
        while (frame := following()) is not None:
            yield frame


if __name__ == "__main__":
    main()
