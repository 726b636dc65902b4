"""`motionbox import-list` and `motionbox export`: other tools' clip lists in, boxes in other tools' forms out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from motionbox.errors import ExitCode, InputError

_IMPORT_LIST_EPILOG = """\b
Examples:
  motionbox import-list train.csv val.csv --data-root data/folder
  motionbox import-list train.txt --data-root data/folder --prefix /home/me/videos"""

_FORMATS = ("auto", "paths", "video", "names", "pretrain", "rawframes", "mofo")

_EXPORT_EPILOG = """\b
Example:
  motionbox export stores/ssv2 --format mofo-json --split train -o train.json"""


@click.command(
    help="Turn clip lists of VideoMAE, VideoMAEv2, MOFO, mmaction2, TSM or a table with a header into annotations.csv "
    "for --dataset folder. A list's split is the word in its file name (val.csv: validation), unless --split says "
    "another.",
    epilog=_IMPORT_LIST_EPILOG,
)
@click.argument("lists", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--data-root", required=True, type=click.Path(path_type=Path), help="What the listed paths lie below.")
@click.option("--format", "file_format", type=click.Choice(_FORMATS), default="auto", help="What the lines mean.")
@click.option("--split", help="Split of all lists.  [the word in each list's file name]")
@click.option("--prefix", help="What listed absolute paths lie below on the machine they come from.  [the data root]")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="File to write.  [<data-root>/annotations.csv]")
@click.option("--force", is_flag=True, help="Replace the file where it exists.")
def import_list(
    lists: tuple[Path, ...],
    data_root: Path,
    file_format: Any,
    split: str | None,
    prefix: str | None,
    out: Path | None,
    force: bool,
) -> int:
    """Run the command; see the options."""
    from motionbox.inputs.folder.listed import ListedMedia
    from motionbox.inputs.lists.importing import count_splits, missing, read_list, write_annotations

    target = out or data_root / "annotations.csv"
    if target.exists() and not force:
        raise InputError(f"{target} exists; choose another with -o, or replace it with --force")
    media = ListedMedia(data_root, prefix)
    imported = [read_list(path, media, file_format=file_format, split=split) for path in lists]
    write_annotations(imported, target)
    splits = count_splits(imported)
    by_split = ", ".join(f"{count:,} {name}" for name, count in splits.items())
    click.echo(f"{target}: {sum(splits.values()):,} clips of {len(lists)} lists ({by_split})")
    for note in [note for entry in imported for note in entry.notes]:
        click.echo(note, err=True)
    if media.num_completed:
        click.echo(f"{media.num_completed:,} paths were completed by the file on disk", err=True)
    absent = missing(imported, media)
    if absent:
        click.echo(f"{len(absent):,} clips are not below {data_root}, the first is {absent[0]}", err=True)
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
        splits = opened.clips()["split"].to_pylist()
        num_chosen = len(splits) if split is None else splits.count(split)
    without = f" ({num_chosen - num_clips} without boxes left out)" if num_chosen > num_clips else ""
    others = f"; {len(splits) - num_chosen} clips are of other splits" if num_chosen < len(splits) else ""
    click.echo(f"{out}: {num_clips} clips{without}{others}")
    return ExitCode.OK
