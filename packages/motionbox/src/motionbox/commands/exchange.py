"""`motionbox import-list`, `import-boxes` and `export`: other tools' lists and boxes in, boxes in other forms out."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import click

from motionbox.command_line import StorePlace
from motionbox.commands import FiniteRange
from motionbox.errors import ExitCode, InputError
from motionbox.storage.paths import StorePath

_LOG = logging.getLogger(__name__)

_IMPORT_LIST_EPILOG = """\b
Examples:
  motionbox import-list train.csv val.csv --data-root data/folder
  motionbox import-list train.txt --data-root data/folder --prefix /home/me/videos"""

_IMPORT_BOXES_EPILOG = """\b
Examples:
  motionbox import-boxes stores/ssv2 --boxes annotations/ --name annotated
  motionbox import-boxes stores/ssv2 --name random --like motion --seed 1"""

_FORMATS = ("auto", "paths", "video", "names", "pretrain", "rawframes", "mofo")

_EXPORT_EPILOG = """\b
Example:
  motionbox export stores/ssv2 --format mofo-json --split train -o train.json"""


@click.command(
    help="Give a store somebody else's boxes or masks as a guidance that training can follow (guidance.source): "
    "annotations (--boxes), areas at random places (--like), those of another clip "
    "(--shuffle), or worse ones (--shift, --shrink).",
    epilog=_IMPORT_BOXES_EPILOG,
)
@click.argument("store", type=StorePlace())
@click.option("--name", required=True, help="What the guidance is called; a new version replaces an older one.")
@click.option(
    "--boxes",
    "boxes_file",
    type=click.Path(path_type=Path),
    help="Whatever `motionbox evaluate` reads, also masks as <clip id>/<frame number>.png.  [--like or --shuffle]",
)
@click.option(
    "--like",
    help="Make it of this guidance: at random places, or worse (--shift, --shrink).  [motion, if with --shuffle]",
)
@click.option("--shuffle", is_flag=True, help="Give each clip the areas and boxes of another one (of --like).")
@click.option(
    "--shift",
    type=FiniteRange(min=0),
    help="Move the areas of --like into a random direction, so many extents (roots of a clip's mean area).  [0]",
)
@click.option(
    "--shrink",
    type=FiniteRange(0, 1, max_open=True),
    help="Take off this share of the cells of --like, those farthest from the centre.  [0]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of --like and what goes with it.")
@click.option(
    "--fps",
    type=FiniteRange(min=0, min_open=True),
    help="Rate of the annotated frames.  [the clip's own; EPIC videos: 60, or 50 for PXX_1YY]",
)
@click.option("--frame-mapping", type=click.Path(path_type=Path), help="VISOR's frame_mapping.json.  [VISOR's own]")
@click.option("--run", help="Run id or preset, where the store has several runs.  [the newest]")
def import_boxes(
    store: StorePath,
    name: str,
    boxes_file: Path | None,
    like: str | None,
    shuffle: bool,
    shift: float | None,
    shrink: float | None,
    seed: int,
    fps: float | None,
    frame_mapping: Path | None,
    run: str | None,
) -> int:
    """Run the command; see the options."""
    from motionbox.scoring.annotations import read_annotations
    from motionbox.scoring.guidance.annotated import import_truths
    from motionbox.scoring.guidance.controls import write_random, write_shuffled, write_worse
    from motionbox.store import open_store
    from motionbox.store.areas.guidance import MOTION
    from motionbox.store.layout import RunPaths, check_store
    from motionbox.store.writing.guidance_writer import GuidanceWriter, check_name
    from motionbox.store.writing.lock import store_lock

    worse = shift is not None or shrink is not None
    _check_one_origin(boxes=boxes_file is not None, like=like is not None, shuffle=shuffle, worse=worse)
    check_store(store)
    check_name(name)
    truths = read_annotations(boxes_file, frame_mapping=frame_mapping) if boxes_file is not None else []
    source, notes = like or MOTION, list[str]()
    with store_lock(store), open_store(store, run=run) as opened:
        paths = RunPaths(store / "runs" / opened.run_id)
        with GuidanceWriter(paths, name) as writer:
            if boxes_file is not None:
                made = f"from {boxes_file}"
                imported = import_truths(opened, truths, writer, fps=fps)
                num_clips, notes = len(imported.clips), imported.notes()
            elif shuffle:
                made = f"{source} of other clips, seed {seed}"
                num_clips = write_shuffled(opened, writer, like=source, seed=seed)
            elif worse:
                made = f"{source} moved by {shift or 0:g} of its extent and {shrink or 0:.0%} smaller, seed {seed}"
                num_clips = write_worse(
                    opened, writer, like=source, shift=shift or 0.0, shrink=shrink or 0.0, seed=seed
                )
            else:
                made = f"{source} at random places, seed {seed}"
                num_clips = write_random(opened, writer, like=source, seed=seed)
            number = writer.publish({"made": made, "snapshot": opened.snapshot, "notes": notes})
    click.echo(f"{store}: guidance {name!r} ({made}), version {number} for run {opened.run_id}: {num_clips:,} clips")
    for note in notes:
        _LOG.info(note)
    return ExitCode.OK


def _check_one_origin(*, boxes: bool, like: bool, shuffle: bool, worse: bool) -> None:
    """Refuse two origins of a guidance, and none."""
    if boxes == (like or shuffle):
        rule = "give either --boxes, or --like (also with --shift, --shrink) or --shuffle"
        raise InputError(f"{rule}; `motionbox import-boxes --help` shows examples")
    if worse and (shuffle or not like):
        raise InputError("--shift and --shrink must come with --like, which names what they make worse, and no other")


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

    if not os.path.isdir(data_root):  # noqa: PTH112  (False, not an error, where it may not be looked at)
        raise InputError(f"data root {data_root} must be a folder; name another with --data-root")
    target = out or data_root / "annotations.csv"
    if os.path.lexists(target) and not force:
        raise InputError(f"{target} exists; choose another with -o, or replace it with --force")
    media = ListedMedia(data_root, prefix)
    imported = [read_list(path, media, file_format=file_format, split=split) for path in lists]
    write_annotations(imported, target)
    splits = count_splits(imported)
    by_split = ", ".join(f"{count:,} {name}" for name, count in splits.items())
    click.echo(f"{target}: {sum(splits.values()):,} clips of {len(lists)} lists ({by_split})")
    for note in [note for entry in imported for note in entry.notes]:
        _LOG.info(note)
    if media.num_completed:
        _LOG.info(f"{media.num_completed:,} paths were completed by the file on disk")
    absent = missing(imported, media)
    if absent:
        _LOG.warning(f"{len(absent):,} clips are not below {data_root}, the first is {absent[0]}")
    return ExitCode.OK


@click.command(help="Write a store's boxes as the MOFO authors' JSON, as CSV or as COCO JSON.", epilog=_EXPORT_EPILOG)
@click.argument("store", type=StorePlace())
@click.option("--format", "file_format", type=click.Choice(["mofo-json", "csv", "coco"]), required=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option("--run", help="Run id or preset, where the store has several runs.  [the newest]")
@click.option("--split", help="Only this split of the data set.  [all]")
def export(store: StorePath, file_format: Any, out: Path, run: str | None, split: str | None) -> int:
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
