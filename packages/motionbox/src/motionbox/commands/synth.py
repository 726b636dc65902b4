"""`motionbox synth`: generate a data set with exact truth, drawn from nothing or over real footage."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

EPILOG = """\b
Examples:
  motionbox synth -o data/synthetic --num-clips 200 --seed 0
  motionbox synth --footage my-videos -o data/over-footage --num-clips 40"""
_NUM_DRAWN, _NUM_OVER_FOOTAGE = 200, 40


@click.command(
    help="""Generate a data set with exact truth from a seed: the kitchen set, or things that move over real footage.

    With --footage, moving, resting and partly hidden things with known outlines are laid over stretches of your videos
    in which little but the camera moves; every frame gets its mask. Score boxes with `motionbox evaluate`.
    """,
    epilog=EPILOG,
)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="New or empty folder.")
@click.option("--footage", type=click.Path(path_type=Path), help="Folder of real videos to lay things over.")
@click.option(
    "--num-clips",
    type=click.IntRange(1, 99_999),
    help=f"Clips in all.  [default: {_NUM_DRAWN}, {_NUM_OVER_FOOTAGE} over footage]",
)
@click.option("--seed", default=0, type=click.IntRange(0), help="Another seed, another data set.")
@click.option("--camera-motion/--no-camera-motion", default=True, help="Move the camera of the kitchen set.")
@click.option("--workers", default=None, type=click.IntRange(1), help="Processes that draw.  [default: all cores]")
def synth(
    out: Path, footage: Path | None, num_clips: int | None, seed: int, camera_motion: bool, workers: int | None
) -> None:
    """Generate the data set, or say that it is there already."""
    num_workers = workers or len(os.sched_getaffinity(0))
    if footage is None:
        _draw(out, num_clips or _NUM_DRAWN, seed, camera_motion, num_workers)
    elif not camera_motion:
        raise click.UsageError("--no-camera-motion is for the kitchen set; over footage the footage's camera moves")
    else:
        _lay_over(out, footage, num_clips or _NUM_OVER_FOOTAGE, seed, num_workers)


def _draw(out: Path, num_clips: int, seed: int, camera_motion: bool, num_workers: int) -> None:
    from motionbox.synthetic import SyntheticConfig, write_dataset

    config = SyntheticConfig(num_clips, seed, camera_motion)
    with _progress() as show:
        dataset = write_dataset(
            out, config, num_workers=num_workers, progress=lambda done, total: show("Drawing clips", done, total)
        )
    _tell(out, len(dataset.clips), dataset.num_drawn)
    click.echo(f"next: motionbox extract --dataset synthetic --data-root {out} --store STORE")


def _lay_over(out: Path, footage: Path, num_clips: int, seed: int, num_workers: int) -> None:
    from motionbox.synthetic.over_footage import FootageConfig, write_footage_set

    with _progress() as show:
        dataset = write_footage_set(
            out, FootageConfig(footage, num_clips, seed), num_workers=num_workers, progress=show
        )
    _tell(out, dataset.num_clips, dataset.num_drawn)
    click.echo(f"over {dataset.num_videos} videos; passed over: {len(dataset.passed_over)}")
    for reason in dataset.passed_over:
        click.echo(f"  {reason}")
    click.echo(f"next: motionbox extract --dataset folder --data-root {out} --store STORE")
    click.echo(f"      motionbox evaluate STORE --boxes {out}/boxes.json")


def _tell(out: Path, num_clips: int, num_drawn: int) -> None:
    click.echo(f"{out}: {num_clips} clips, {f'drew {num_drawn}' if num_drawn else 'already complete'}")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on a terminal; yields what is to be called with (what is being done, done, in all)."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda doing, done, total: bar.update(task, description=doing, completed=done, total=total)
