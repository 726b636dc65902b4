"""What sets of TV-L1 parameters cost and gain, held against the default: time, error on known flow, clip boxes.

`python benchmarks/flow_sets.py [--testdata D] [--frames N] [--rounds R] SET...`; a set is TVL1Params in TOML, for
example `"lambda_ = 0.1501"` or `"num_scales = 6, inner_iterations = 20, outer_iterations = 1"`. Times are CPU time of
the thread, measured in turn with the default on the same pairs; the figure is the median of the ratios.
"""

import argparse
import logging
import os
import statistics
import time
import tomllib
from pathlib import Path

import numpy as np

from motionbox.config import FlowConfig, TVL1Params
from motionbox.flow import create_flow_estimator
from motionbox.flow.opencv import one_opencv_thread
from motionbox.scoring.box_agreement import NUM_FRAMES, FlowFunction, agreement_clips, clip_box_ious
from motionbox.scoring.flow_bench import timed_pairs
from motionbox.scoring.known_flow import truth_pairs

DEFAULT = "default"


def seconds(function: FlowFunction, frame0: np.ndarray, frame1: np.ndarray) -> float:
    """Return the CPU time of one flow."""
    begin = time.thread_time()
    function(frame0, frame1)
    return time.thread_time() - begin


def time_ratio(function: FlowFunction, default: FlowFunction, testdata: Path | None, rounds: int) -> float:
    """Return the median of time over the default's time, over all timed pairs and rounds."""
    ratios = []
    for _, frame0, frame1 in timed_pairs(testdata):
        seconds(function, frame1, frame0), seconds(default, frame1, frame0)  # make the workspaces
        ratios += [seconds(function, frame0, frame1) / seconds(default, frame0, frame1) for _ in range(rounds)]
    return statistics.median(ratios)


def main() -> None:
    """Measure and print one Markdown row for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", metavar="SET")
    parser.add_argument("--testdata", type=Path, default=os.environ.get("MOTIONBOX_TESTDATA"))
    parser.add_argument("--frames", type=int, default=NUM_FRAMES, help="frames of a clip that count for its box")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    testdata = None if options.testdata is None else Path(options.testdata)
    sets = {text: TVL1Params(**tomllib.loads(f"set = {{{text}}}")["set"]) for text in options.sets}
    functions: dict[str, FlowFunction] = {
        name: create_flow_estimator(FlowConfig(tvl1=params)) for name, params in {DEFAULT: TVL1Params(), **sets}.items()
    }
    with one_opencv_thread():
        clips, truths = agreement_clips(testdata, options.frames), truth_pairs(testdata)
        ious = clip_box_ious(clips, functions, DEFAULT)
        print(f"{len(clips)} clips of {options.frames} frames, {len(truths)} pairs with known flow\n")
        print(
            "| set | time / default | mean end-point error, px | clip-box IoU, mean | lowest |\n|---|---|---|---|---|"
        )
        for name, function in functions.items():
            ratio = time_ratio(function, functions[DEFAULT], testdata, options.rounds)
            error = statistics.mean(truth.endpoint_error(function(truth.frame0, truth.frame1)) for truth in truths)
            print(f"| {name} | {ratio:.2f} | {error:.3f} | {statistics.mean(ious[name]):.3f} | {min(ious[name]):.3f} |")


if __name__ == "__main__":
    main()
