"""`motionbox synth`: generate a data set with exact truth: drawn, over real footage, or rendered with Meta-World."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from motionbox.commands import FiniteRange, progress_bar

if TYPE_CHECKING:
    from motionbox.synthetic import SyntheticConfig

EPILOG = """\b
Examples:
  motionbox synth -o data/synthetic --num-clips 200
  motionbox synth --footage my-videos -o data/over-footage --num-clips 40"""
_NUM_DRAWN, _NUM_OVER_FOOTAGE, _NUM_PER_ACTION = 200, 40, 20


@click.command(
    help="""Generate a data set with exact truth from a seed.

    Without further options the kitchen set is drawn. With --footage, moving, resting and partly hidden things with
    known outlines are laid over stretches of your videos in which little but the camera moves. With --metaworld, a
    robot arm handles things; that needs the package metaworld. All write a mask of every frame. Score
    boxes with `motionbox evaluate`.
    """,
    epilog=EPILOG,
)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="New or empty folder.")
@click.option("--footage", type=click.Path(path_type=Path), help="Folder of real videos to lay things over.  [none]")
@click.option("--metaworld", is_flag=True, help="Render Meta-World's tasks.")
@click.option(
    "--part",
    type=click.Choice(["all", "choose", "report"]),
    default="all",
    help="Of Meta-World: all, or one half of its nouns.",
)
@click.option(
    "--num-clips",
    type=click.IntRange(1, 99_999),
    help="Clips in all; of Meta-World, per verb of each noun.  "
    f"[default: {_NUM_DRAWN}; {_NUM_OVER_FOOTAGE} over footage; {_NUM_PER_ACTION} of Meta-World]",
)
@click.option("--seed", default=0, type=click.IntRange(0), help="Another seed, another data set.")
@click.option("--camera-motion/--no-camera-motion", default=True, help="Move the camera; not for footage.")
@click.option("--small", is_flag=True, help="Kitchen clips of 84x64 pixels and 16 frames, for small models.")
@click.option(
    "--scale",
    default=1.0,
    type=FiniteRange(0.25, 3),
    help="How large the kitchen set's hand and things are drawn.",
)
@click.option("--workers", default=None, type=click.IntRange(1), help="Processes that draw.  [default: all cores]")
def synth(
    out: Path,
    footage: Path | None,
    metaworld: bool,
    part: str,
    num_clips: int | None,
    seed: int,
    camera_motion: bool,
    small: bool,
    scale: float,
    workers: int | None,
) -> None:
    """Generate the data set, or say that it is there already."""
    num_workers = workers or len(os.sched_getaffinity(0))
    _check_one_set(
        metaworld=metaworld,
        footage=footage is not None,
        part=part,
        still=not camera_motion,
        small=small,
        scaled=scale != 1,
    )
    if metaworld:
        _render(out, num_clips or _NUM_PER_ACTION, seed, part, camera_motion, num_workers)
    elif footage is None:
        from motionbox.synthetic import SyntheticConfig

        config = SyntheticConfig(num_clips or _NUM_DRAWN, seed, camera_motion, small, scale)
        _draw(out, config, num_workers)
    else:
        _lay_over(out, footage, num_clips or _NUM_OVER_FOOTAGE, seed, num_workers)


def _check_one_set(*, metaworld: bool, footage: bool, part: str, still: bool, small: bool, scaled: bool) -> None:
    """Refuse options of one set beside another's."""
    if footage and metaworld:
        raise click.UsageError("--footage and --metaworld make different sets; choose one")
    if part != "all" and not metaworld:
        raise click.UsageError("--part is for --metaworld")
    if footage and still:
        raise click.UsageError("--no-camera-motion is not for footage, whose camera moves as it does")
    for option, given in (("--small", small), ("--scale", scaled)):
        if given and (metaworld or footage):
            raise click.UsageError(f"{option} is for the kitchen set; leave out --metaworld or --footage")


def _draw(out: Path, config: SyntheticConfig, num_workers: int) -> None:
    from motionbox.synthetic import write_dataset

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


def _render(out: Path, num_clips: int, seed: int, part: str, camera_motion: bool, num_workers: int) -> None:
    from motionbox.synthetic.metaworld import MetaWorldConfig, write_metaworld_set

    config = MetaWorldConfig(num_clips, seed, part, camera_motion=camera_motion)
    with _progress() as show:
        dataset = write_metaworld_set(out, config, num_workers=num_workers, progress=show)
    _tell(out, dataset.num_clips, dataset.num_drawn)
    click.echo(f"next: motionbox extract --dataset metaworld --data-root {out} --store STORE")


def _tell(out: Path, num_clips: int, num_drawn: int) -> None:
    click.echo(f"{out}: {num_clips} clips, {f'drew {num_drawn}' if num_drawn else 'already complete'}")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on a terminal; yields what is to be called with (what is being done, done, in all)."""
    with progress_bar() as bar:
        task = bar.add_task("", total=None)
        yield lambda doing, done, total: bar.update(task, description=doing, completed=done, total=total)
