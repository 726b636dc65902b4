"""`motionbox evaluate`: a store's boxes and areas against annotated boxes or masks."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from motionbox.command_line import StorePlace
from motionbox.commands import FiniteRange
from motionbox.errors import ExitCode, InputError
from motionbox.storage.paths import StorePath

_LOG = logging.getLogger(__name__)

EPILOG = """\b
Example:
  motionbox evaluate stores/synthetic --boxes data/synthetic/boxes.json --per-clip"""


@click.command(
    help="Score the boxes and areas of a store against annotated boxes or masks of hands and objects.", epilog=EPILOG
)
@click.argument("store", type=StorePlace())
@click.option(
    "--boxes",
    "boxes_file",
    type=click.Path(path_type=Path),
    required=True,
    help="JSON of Something-Else (and of `motionbox synth`), of MOFO's authors, of VISOR, or of EPIC's hand-object "
    "detections; or a folder of such files, or of masks as <clip id>/<frame number>.png.",
)
@click.option(
    "--fps",
    type=FiniteRange(min=0, min_open=True),
    help="Rate of the annotated frames.  [the clip's own; EPIC videos: 60, or 50 for PXX_1YY]",
)
@click.option(
    "--frame-mapping",
    type=click.Path(path_type=Path),
    help="VISOR's frame_mapping.json: EPIC's numbers of its frames.  [VISOR's own]",
)
@click.option("--run", help="Run id or preset, where the store has several runs.  [the newest]")
@click.option("--per-clip", is_flag=True, help="Also list every clip.")
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Also draw the IoU of frames and clips into this .png.  [none]"
)
def evaluate(
    store: StorePath,
    boxes_file: Path,
    fps: float | None,
    frame_mapping: Path | None,
    run: str | None,
    per_clip: bool,
    plot: Path | None,
) -> int:
    """Run the command; see the options."""
    from motionbox.scoring.annotations import AnnotatedVideo, read_annotations
    from motionbox.scoring.area_metrics import area_table
    from motionbox.scoring.score_tables import clip_table, markdown_table, score_areas, score_store
    from motionbox.store import open_store

    if plot is not None and plot.suffix.lower() != ".png":
        raise InputError(f"--plot must end in .png, got {str(plot)!r}")
    truths = read_annotations(boxes_file, frame_mapping=frame_mapping)
    if any(isinstance(truth, AnnotatedVideo) and not truth.renumbered for truth in truths):
        _LOG.warning("VISOR's frame numbers are taken for EPIC's; --frame-mapping corrects those that differ")
    with open_store(store, run=run) as opened:
        rows, missing = score_store(opened, truths, fps=fps)
        areas = score_areas(opened, truths, fps=fps)
    click.echo(f"{len(rows[0].scores)} clips of {store} against {boxes_file}")
    click.echo(markdown_table(rows))
    if areas:
        click.echo(f"\n{area_table(areas)}")
    if per_clip:
        click.echo(f"\n{clip_table(rows)}")
    if plot is not None:
        from motionbox.pictures.score_plot import score_plot

        plot.parent.mkdir(parents=True, exist_ok=True)
        score_plot(rows).savefig(plot, dpi=120)
        click.echo(f"plot: {plot}")
    if missing:
        _LOG.warning(
            f"not scored: {missing} annotated clips or videos that the store lacks, that failed or have no box"
        )
    return ExitCode.FAILED_CLIPS if missing else ExitCode.OK
