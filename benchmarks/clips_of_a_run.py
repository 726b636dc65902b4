"""What `extract --clips` costs on a run that has the rows, beside the whole extraction and beside decoding and coding.

`python clips_of_a_run.py [--rounds N] VIDEO...`: processor time of this process, which decodes, too; the three take
turns. Kernels are compiled before.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2

from motionbox.config import ExtractConfig, load_config
from motionbox.extraction.plan import plan_units, scan_inputs
from motionbox.extraction.work_unit import process_unit
from motionbox.flow import create_flow_estimator
from motionbox.inputs.schema import build_table
from motionbox.store.clip_blocks import SHORT_SIDE_PX
from motionbox.store.clip_coder import PieceClips
from motionbox.store.reuse.sibling_units import StoredUnit
from motionbox.store.reuse.stored_blocks import StoredBlocks
from motionbox.store.units import block_of, units_of
from motionbox.store.writing.attempt import Attempt
from motionbox.store.writing.runs import Run, RunInputs, open_or_create_run, prepare_store
from motionbox.video.sources import DirectSource

ROUNDS = 5


def main() -> None:
    """Measure and print one line for each video."""
    arguments = sys.argv[1:]
    rounds = int(arguments[arguments.index("--rounds") + 1]) if "--rounds" in arguments else ROUNDS
    cv2.setNumThreads(1)
    for video in [Path(text) for text in arguments if not text.startswith("--") and not text.isdigit()]:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(video, Path(folder), rounds), flush=True)


def measure(video: Path, folder: Path, rounds: int) -> str:
    """Return the times of a video as a row: milliseconds a frame, and shares of the whole extraction."""
    rows = make_run(video, folder / "rows", load_config())
    with_clips = load_config(overrides={"store.clips": "h264"})
    stored = StoredUnit(rows.paths, "u000000", commit(rows))
    seconds: dict[str, list[float]] = {"whole": [], "frames alone": [], "decoding and coding": []}
    for turn in range(rounds):
        ways: dict[str, Callable[[], object]] = {
            "whole": lambda turn=turn: commit(make_run(video, folder / f"whole{turn}", with_clips)),
            "frames alone": lambda turn=turn: commit(make_run(video, folder / f"alone{turn}", with_clips), stored),
            "decoding and coding": lambda: code(video, rows),
        }
        for name, way in ways.items():
            begin = time.process_time()
            way()
            seconds[name].append(time.process_time() - begin)
    (count,) = {len(list(decode(video, rows)))}
    shares = [alone / whole for alone, whole in zip(seconds["frames alone"], seconds["whole"], strict=True)]
    extra = [
        alone / least for alone, least in zip(seconds["frames alone"], seconds["decoding and coding"], strict=True)
    ]
    milliseconds = {name: 1000 * statistics.median(values) / count for name, values in seconds.items()}
    told = ", ".join(f"{name} {value:.1f} ms" for name, value in milliseconds.items())
    return (
        f"{video.name}, {count} frames: {told} a frame; frames alone are {statistics.median(shares):.3f} of the whole, "
        f"{statistics.median(extra):.2f} of decoding and coding"
    )


def make_run(video: Path, store: Path, config: ExtractConfig) -> Run:
    """Create a run over one video, in one unit."""
    prepare_store(store)
    manifest = build_table({"clip_id": [video.stem], "video_id": [video.stem], "path": ["."]})
    inputs = scan_inputs(video, ["."])
    parts = RunInputs("folder", video, manifest, inputs, config)
    return open_or_create_run(
        store, parts, lambda: plan_units(manifest, inputs, video, lambda _: None, max_frames=10**6), new_run=False
    )


def commit(run: Run, stored: StoredUnit | None = None) -> str:
    """Do the run's unit; return the attempt."""
    (unit,) = units_of(run.plan())
    colour_px = None if run.config.store.clips == "none" else SHORT_SIDE_PX
    source = DirectSource(run.config.frames.short_side_px, colour_short_side_px=colour_px)
    blocks = None if stored is None else StoredBlocks(stored, run.config)
    with Attempt(run.paths, unit.unit_id, run.config.store) as attempt:
        for rows in process_unit(
            unit, run.config, run.data_root, source, create_flow_estimator(run.config.flow), stored=blocks
        ):
            attempt.add(rows)
        attempt.commit()
    return attempt.attempt_id


def decode(video: Path, run: Run) -> list[float]:
    """Return the times of the video's frames."""
    source = DirectSource(run.config.frames.short_side_px)
    _, frames = source.open(video)
    return [frame.time_seconds for frame in frames]


def code(video: Path, run: Run) -> None:
    """Decode a video and code its frames, and nothing else."""
    (unit,) = units_of(run.plan())
    source = DirectSource(run.config.frames.short_side_px, colour_short_side_px=SHORT_SIDE_PX)
    clips = PieceClips(unit.pieces[0], "h264")
    _, frames = source.open(video)
    for block in sorted({block_of(frame.time_seconds) for frame in clips.watch(frames)}):
        clips.take(block)


if __name__ == "__main__":
    main()
