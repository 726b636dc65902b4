"""`motionbox bench` and `motionbox bench-boxes`: flow engines and boxes, measured beside others."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from motionbox.commands import FiniteRange
from motionbox.config import FLOW_METHODS, preset_names
from motionbox.errors import ExitCode, InputError
from motionbox.settings import parse_overrides

_LOG = logging.getLogger(__name__)

_BENCH_BOXES_EPILOG = """\b
Examples:
  motionbox bench-boxes --synthetic 60 --seed 7
  motionbox bench-boxes --ablation --data-root clips --boxes boxes.json"""

_BENCH_EPILOG = """\b
Examples:
  motionbox bench --rounds 5
  motionbox bench --backend cuda --write docs/how-fast.md"""


@click.command(
    help="Measure the flow engines: time, accuracy on known flow, agreement with OpenCV.", epilog=_BENCH_EPILOG
)
@click.option(
    "--testdata",
    envvar="MOTIONBOX_TESTDATA",
    type=click.Path(path_type=Path),
    help="Folder with clips/ and flow/; without it drawn frames are measured. [env: MOTIONBOX_TESTDATA]",
)
@click.option("--rounds", type=click.IntRange(1), default=3, help="How often every pair is timed.")
@click.option(
    "--backend",
    type=click.Choice(["numba", "cuda"]),
    default="numba",
    help="Measure the CPU engine beside others, or the GPU engine and its kernels.",
)
@click.option("--write", type=click.Path(path_type=Path), help="Markdown file whose flow section is replaced.  [none]")
def bench(testdata: Path | None, rounds: int, backend: str, write: Path | None) -> int:
    """Run the command; see the options."""
    from motionbox.scoring import flow_bench

    if testdata is not None and not testdata.is_dir():
        raise InputError(f"--testdata must be a folder, got {testdata}; leave it out to measure drawn frames")
    name, table = _measure_gpu(testdata, rounds) if backend == "cuda" else _measure_cpu(testdata, rounds)
    click.echo(table)
    if write is not None:
        before = write.read_text(encoding="utf-8") if write.is_file() else ""
        write.parent.mkdir(parents=True, exist_ok=True)
        write.write_text(flow_bench.replace_section(before, name, table), encoding="utf-8")
        _LOG.info("wrote %s", write)
    return ExitCode.OK


def _measure_cpu(testdata: Path | None, rounds: int) -> tuple[str, str]:
    """Return the name of the section and its tables."""
    from motionbox.scoring import flow_bench

    subjects = flow_bench.Subjects.of(testdata)
    results = flow_bench.measure(subjects, rounds=rounds)
    name, frame0, frame1 = subjects.pairs[0]
    _LOG.info("floor on %s", name)
    return "flow", flow_bench.to_markdown(results, flow_bench.measure_floor(frame0, frame1))


def _measure_gpu(testdata: Path | None, rounds: int) -> tuple[str, str]:
    """Return the name of the section and its table.

    Raises:
        FlowError: There is no GPU, or PyTorch or Triton is missing; one line that says which.
    """
    from motionbox.flow import resolve_backend
    from motionbox.scoring import flow_bench

    resolve_backend("tvl1", "cuda")
    from motionbox.scoring.gpu_bench import bench_gpu, to_markdown

    name, frames = flow_bench.consecutive_frames(testdata)
    _LOG.info("%d frames of %s", len(frames), name)
    return "gpu", f"{name}, {len(frames)} frames.\n\n" + to_markdown(bench_gpu(frames, repeats=rounds))


@click.command(
    help="Compare presets, or the steps of `tuned`, on clips with annotated boxes.", epilog=_BENCH_BOXES_EPILOG
)
@click.option(
    "--data-root", type=click.Path(path_type=Path), help="Folder of annotated videos or frame folders.  [generated]"
)
@click.option(
    "--boxes",
    "boxes_file",
    type=click.Path(path_type=Path),
    help="Their boxes: JSON, Something-Else form.  [generated]",
)
@click.option(
    "--frame-fps",
    type=FiniteRange(min=0, min_open=True),
    default=12.0,
    help="Rate of frame folders for which no annotations.csv gives one.",
)
@click.option("--synthetic", type=click.IntRange(min=1), default=36, help="Else: clips to generate.")
@click.option("--seed", type=click.IntRange(min=0), default=3, help="Seed of the generated clips.")
@click.option("--still-camera", is_flag=True, help="Generate without camera motion.")
@click.option("--preset", "presets", multiple=True, type=click.Choice(preset_names()), help="[all]")
@click.option("--ablation", is_flag=True, help="Compare the steps of `tuned` instead of presets.")
@click.option("--flow", type=click.Choice(tuple(FLOW_METHODS)), default="dis")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a value in every config.")
@click.option("--per-clip", is_flag=True, help="Also list every clip.")
def bench_boxes(
    data_root: Path | None,
    boxes_file: Path | None,
    frame_fps: float,
    synthetic: int,
    seed: int,
    still_camera: bool,
    presets: tuple[str, ...],
    ablation: bool,
    flow: str,
    settings: tuple[str, ...],
    per_clip: bool,
) -> int:
    """Run the command; see the options."""
    import tempfile

    import cv2

    from motionbox.extraction.worker import keep_freed_memory
    from motionbox.scoring.box_bench import (
        ablation_configs,
        find_clips,
        preset_configs,
        run_bench,
    )
    from motionbox.scoring.score_tables import clip_table, markdown_table
    from motionbox.synthetic import SyntheticConfig, write_dataset

    if (data_root is None) != (boxes_file is None):
        raise InputError("--data-root and --boxes must be given together: clips and their annotated boxes")
    cv2.setNumThreads(1)
    keep_freed_memory()
    overrides = {"flow.method": flow, **parse_overrides(settings)}
    configs = ablation_configs(overrides) if ablation else preset_configs(presets or preset_names(), overrides)
    with tempfile.TemporaryDirectory(prefix="motionbox-bench-") as folder:
        if data_root is not None and boxes_file is not None:
            clips = find_clips(data_root, boxes_file, frame_fps=frame_fps)
        else:
            write_dataset(Path(folder), SyntheticConfig(synthetic, seed, camera_motion=not still_camera))
            clips = find_clips(Path(folder), Path(folder, "boxes.json"))
        rows = run_bench(clips, configs)
    click.echo(f"{len(clips)} clips · flow {flow}")
    click.echo(markdown_table(rows))
    if per_clip:
        click.echo(clip_table(rows))
    return ExitCode.OK
