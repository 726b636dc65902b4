"""`motionbox import-list` and `motionbox export`: other tools' clip lists in, boxes in other tools' forms out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from motionbox.errors import ExitCode, InputError

_IMPORT_LIST_EPILOG = """\b
Example:
  motionbox import-list train.csv val.csv --data-root data/folder"""

_EXPORT_EPILOG = """\b
Example:
  motionbox export stores/ssv2 --format mofo-json --split train -o train.json"""


@click.command(
    help="Turn clip lists of VideoMAE, VideoMAEv2, MOFO, mmaction2 or TSM into annotations.csv for --dataset folder. "
    "A list's split is its file name (train.csv: train), unless --split says another.",
    epilog=_IMPORT_LIST_EPILOG,
)
@click.argument("lists", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--data-root", required=True, type=click.Path(path_type=Path), help="What the listed paths lie below.")
@click.option(
    "--format", "file_format", type=click.Choice(["auto", "video", "pretrain", "rawframes", "mofo"]), default="auto"
)
@click.option("--split", help="Split of all lists.  [each list's file name]")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="File to write.  [<data-root>/annotations.csv]")
@click.option("--force", is_flag=True, help="Replace the file where it exists.")
def import_list(
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


@click.command(help="Write a store's boxes as the MOFO authors' JSON, as CSV or as COCO JSON.", epilog=_EXPORT_EPILOG)
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--format", "file_format", type=click.Choice(["mofo-json", "csv", "coco"]), required=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option("--run", help="Run id or preset, where the store has several runs.  [the newest]")
@click.option("--split", help="Only this split of the data set.  [all]")
def export(store: Path, file_format: Any, out: Path, run: str | None, split: str | None) -> int:
    """Run the command; see the options."""
    from motionbox.store import open_store
    from motionbox.store.export import export_store

    with open_store(store, run=run) as opened:
        num_clips = export_store(opened, out, file_format, split=split)
        num_left_out = len(opened) - num_clips
    click.echo(f"{out}: {num_clips} clips" + (f" ({num_left_out} without boxes left out)" if num_left_out else ""))
    return ExitCode.OK
