"""`mofo-train prepare`: training clips, so that training does not decode whole videos."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command(name="prepare")
@click.option("--dataset", default="synthetic", show_default=True, help="Data set of the store.")
@click.option("--store", type=click.Path(path_type=Path), help="Store of motion boxes.  [stores/<dataset>]")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder of the videos.  [that of the store]")
@click.option("--clips", type=click.Path(path_type=Path), help="Where to put the clips.  [clips/<dataset>]")
@click.option("--split", help="Only this split.")
@click.option(
    "--short-side-px", type=click.IntRange(min=16), default=256, show_default=True, help="Largest short side."
)
@click.option("--quality", type=click.IntRange(1, 95), default=90, show_default=True, help="JPEG quality.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [all cores]")
def command(
    dataset: str,
    store: Path | None,
    data_root: Path | None,
    clips: Path | None,
    split: str | None,
    short_side_px: int,
    quality: int,
    workers: int | None,
) -> int:
    """Write every clip's frames as JPEGs, one file per clip; the same command goes on where it stopped."""
    from rich.console import Console
    from rich.progress import Progress

    from mofo_train.data.dataset import ClipReader
    from mofo_train.data.sources import open_boxes
    from mofo_train.data.training_clips import prepare_training_clips
    from mofo_train.errors import ExitCode

    boxes, root = open_boxes(dataset, store, data_root)
    reader = ClipReader(boxes, root, split=split, short_side_px=short_side_px)
    folder = clips or Path("clips") / dataset
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Preparing clips", total=len(reader))
        failed = prepare_training_clips(
            reader.sources(),
            folder,
            short_side_px=short_side_px,
            quality=quality,
            num_workers=workers or len(os.sched_getaffinity(0)),
            progress=lambda done: bar.update(task, completed=done),
        )
    for clip_id, reason in failed:
        click.echo(f"not prepared: {clip_id}: {reason}", err=True)
    click.echo(f"{folder}: {len(reader) - len(failed)} of {len(reader)} clips")
    return ExitCode.FAILED_CLIPS if failed else ExitCode.OK
