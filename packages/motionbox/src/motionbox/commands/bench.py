"""`motionbox bench`: speed and accuracy of the flow engines beside OpenCV's and scikit-image's."""

from __future__ import annotations

from pathlib import Path

import click

from motionbox.errors import ExitCode, InputError

EPILOG = """\b
Examples:
  motionbox bench --rounds 5
  motionbox bench --backend cuda --write docs/benchmarks.md"""


@click.command(help="Measure the flow engines: time, accuracy on known flow, agreement with OpenCV.", epilog=EPILOG)
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
def command(testdata: Path | None, rounds: int, backend: str, write: Path | None) -> int:
    """Run the command; see the options."""
    from motionbox.scoring import flow_bench as bench

    if testdata is not None and not testdata.is_dir():
        raise InputError(f"--testdata must be a folder, got {testdata}; leave it out to measure drawn frames")
    name, table = _measure_gpu(testdata, rounds) if backend == "cuda" else _measure_cpu(testdata, rounds)
    click.echo(table)
    if write is not None:
        before = write.read_text(encoding="utf-8") if write.is_file() else ""
        write.parent.mkdir(parents=True, exist_ok=True)
        write.write_text(bench.replace_section(before, name, table), encoding="utf-8")
        click.echo(f"wrote {write}", err=True)
    return ExitCode.OK


def _measure_cpu(testdata: Path | None, rounds: int) -> tuple[str, str]:
    """Return the name of the section and its tables."""
    from motionbox.scoring import flow_bench as bench

    results = bench.measure(testdata, rounds=rounds, report=_report)
    name, frame0, frame1 = bench.timed_pairs(testdata)[0]
    _report(f"floor on {name}")
    floor = bench.measure_floor(frame0, frame1)
    return "flow", bench.to_markdown(results, floor, bench.truth_names(testdata))


def _measure_gpu(testdata: Path | None, rounds: int) -> tuple[str, str]:
    """Return the name of the section and its table.

    Raises:
        FlowError: There is no GPU, or PyTorch or Triton is missing; one line that says which.
    """
    from motionbox.flow import resolve_backend
    from motionbox.scoring import flow_bench as bench

    resolve_backend("tvl1", "cuda")
    from motionbox.scoring.gpu_bench import bench_gpu, to_markdown

    name, frames = bench.consecutive_frames(testdata)
    _report(f"{len(frames)} frames of {name}")
    return "gpu", f"{name}, {len(frames)} frames.\n\n" + to_markdown(bench_gpu(frames, repeats=rounds))


def _report(line: str) -> None:
    click.echo(line, err=True)
