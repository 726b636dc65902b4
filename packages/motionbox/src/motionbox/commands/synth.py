"""`motionbox synth`: generate the synthetic kitchen data set."""

from __future__ import annotations

import os
from pathlib import Path

import click

EPILOG = """\b
Example:
  motionbox synth -o data/synthetic --num-clips 200 --seed 0"""


@click.command(
    help="Generate the synthetic kitchen data set: videos, labels and exact boxes, from a seed.", epilog=EPILOG
)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="New or empty folder.")
@click.option("--num-clips", default=200, type=click.IntRange(1, 99_999), help="Clips in all.")
@click.option("--seed", default=0, type=click.IntRange(0), help="Another seed, another data set.")
@click.option("--camera-motion/--no-camera-motion", default=True, help="Move the camera.")
@click.option("--workers", default=None, type=click.IntRange(1), help="Processes that draw.  [default: all cores]")
def synth(out: Path, num_clips: int, seed: int, camera_motion: bool, workers: int | None) -> None:
    """Generate the data set, or say that it is there already."""
    from rich.console import Console
    from rich.progress import Progress

    from motionbox.synthetic import SyntheticConfig, write_dataset

    config = SyntheticConfig(num_clips, seed, camera_motion)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Drawing clips", total=num_clips)
        dataset = write_dataset(
            out,
            config,
            num_workers=workers or len(os.sched_getaffinity(0)),
            progress=lambda done, _: bar.update(task, completed=done),
        )
    state = f"drew {dataset.num_drawn}" if dataset.num_drawn else "already complete"
    click.echo(f"{out}: {len(dataset.clips)} clips, {state}")
    click.echo(f"next: motionbox extract --dataset synthetic --data-root {out} --store STORE")
