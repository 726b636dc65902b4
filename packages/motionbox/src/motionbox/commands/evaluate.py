"""`motionbox evaluate`: a store's boxes against annotated boxes."""

from __future__ import annotations

from pathlib import Path

import click

from motionbox.errors import ExitCode


@click.command(help="Score the boxes of a store against annotated hand and object boxes.")
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--boxes",
    "boxes_file",
    type=click.Path(path_type=Path),
    required=True,
    help="JSON in the form of Something-Else (and of `motionbox synth`), or the authors' form.",
)
@click.option(
    "--fps", type=click.FloatRange(min=0, min_open=True), help="Rate of the annotated frames.  [the clip's own]"
)
@click.option("--per-clip", is_flag=True, help="Also list every clip.")
def command(store: Path, boxes_file: Path, fps: float | None, per_clip: bool) -> int:
    """Run the command; see the options."""
    from motionbox.box_scores import clip_table, markdown_table, score_store
    from motionbox.evaluate import read_boxes

    rows, missing = score_store(store, read_boxes(boxes_file).values(), fps=fps)
    click.echo(f"{len(rows[0].scores)} clips of {store} against {boxes_file}")
    click.echo(markdown_table(rows))
    if per_clip:
        click.echo(clip_table(rows))
    if missing:
        click.echo(f"not scored: {missing} annotated clips that the store lacks, that failed or have no box", err=True)
    return ExitCode.FAILED_CLIPS if missing else ExitCode.OK
