"""`motionbox bench`: speed and accuracy of the flow engines beside OpenCV's and scikit-image's."""

from __future__ import annotations

from pathlib import Path

import click

from motionbox.errors import ExitCode, InputError


@click.command(help="Measure the flow engines: time, accuracy on known flow, agreement with OpenCV.")
@click.option(
    "--testdata",
    envvar="MOTIONBOX_TESTDATA",
    type=click.Path(path_type=Path),
    help="Folder with clips/ and flow/; without it drawn frames are measured. [env: MOTIONBOX_TESTDATA]",
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="How often every pair is timed.")
@click.option("--write", type=click.Path(path_type=Path), help="Markdown file whose flow section is replaced.")
def command(testdata: Path | None, rounds: int, write: Path | None) -> int:
    """Run the command; see the options."""
    from motionbox import bench

    if testdata is not None and not testdata.is_dir():
        raise InputError(f"--testdata must be a folder, got {testdata}; leave it out to measure drawn frames")
    results = bench.measure(testdata, rounds=rounds, report=_report)
    name, frame0, frame1 = bench.timed_pairs(testdata)[0]
    _report(f"floor on {name}")
    floor = bench.measure_floor(frame0, frame1)
    table = bench.to_markdown(results, floor, bench.truth_names(testdata))
    click.echo(table)
    if write is not None:
        before = write.read_text(encoding="utf-8") if write.is_file() else ""
        write.parent.mkdir(parents=True, exist_ok=True)
        write.write_text(bench.replace_section(before, "flow", table), encoding="utf-8")
        click.echo(f"wrote {write}", err=True)
    return ExitCode.OK


def _report(line: str) -> None:
    click.echo(line, err=True)
