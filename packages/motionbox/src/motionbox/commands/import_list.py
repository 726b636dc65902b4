"""`motionbox import-list`: lists that people already have, as the clip list of the `folder` data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from motionbox.errors import ExitCode, InputError

EPILOG = """\b
Example:
  motionbox import-list train.csv val.csv --data-root data/folder"""


@click.command(
    help="Turn clip lists of VideoMAE, VideoMAEv2, MOFO, mmaction2 or TSM into annotations.csv for --dataset folder. "
    "A list's split is its file name (train.csv: train), unless --split says another.",
    epilog=EPILOG,
)
@click.argument("lists", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--data-root", required=True, type=click.Path(path_type=Path), help="What the listed paths lie below.")
@click.option(
    "--format", "file_format", type=click.Choice(["auto", "video", "pretrain", "rawframes", "mofo"]), default="auto"
)
@click.option("--split", help="Split of all lists.  [each list's file name]")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="File to write.  [<data-root>/annotations.csv]")
@click.option("--force", is_flag=True, help="Replace the file where it exists.")
def command(
    lists: tuple[Path, ...], data_root: Path, file_format: Any, split: str | None, out: Path | None, force: bool
) -> int:
    """Run the command; see the options."""
    from motionbox.inputs.lists import read_clip_list, write_annotations

    target = out or data_root / "annotations.csv"
    if target.exists() and not force:
        raise InputError(f"{target} exists; choose another with -o, or replace it with --force")
    clips = [(split or path.stem, clip) for path in lists for clip in read_clip_list(path, file_format)]
    write_annotations(clips, data_root, target)
    num_missing = sum(not (data_root / clip.path).exists() for _, clip in clips)
    click.echo(f"{target}: {len(clips)} clips of {len(lists)} lists")
    if num_missing:
        click.echo(f"{num_missing} of them are not below {data_root}", err=True)
    return ExitCode.OK
