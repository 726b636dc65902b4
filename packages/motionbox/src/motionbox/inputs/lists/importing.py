"""Several lists -> one `annotations.csv`: splits by the lists' names, paths below the data root, frames as on disk."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from motionbox.errors import InputError
from motionbox.inputs.folder.listed import ListedMedia
from motionbox.inputs.lists.clips import ListedClip, ListFormat, read_clip_list
from motionbox.inputs.lists.headed import read_list_table
from motionbox.output import whole_file

_SPLITS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "dev": "validation", "test": "test", "testing": "test", "trainlist": "train", "testlist": "test",
    "vallist": "validation",
}  # fmt: skip
_HMDB_SPLIT = re.compile(r".+_test_split[123]\.txt")
_LEADING = ("path", "split", "label_id", "label", "start_frame", "stop_frame")


@dataclass(frozen=True)
class ImportedList:
    """What became of one list.

    Attributes:
        path: The list.
        rows: A clip each: column of `annotations.csv` -> text.
        notes: What a user should be told of.
    """

    path: Path
    rows: list[dict[str, str]]
    notes: tuple[str, ...] = ()


def read_list(
    path: Path, media: ListedMedia, *, file_format: ListFormat = "auto", split: str | None = None
) -> ImportedList:
    """Read one list as rows of an `annotations.csv`.

    Args:
        path: A list that `clip_lists` or `list_tables` knows.
        media: What lies below the data root.
        file_format: The list's format.
        split: Split of all its clips; None: a table's own column, else the word in the file's name.

    Raises:
        InputError: It cannot be read for certain; names the line.
    """
    if _HMDB_SPLIT.fullmatch(path.name):
        raise InputError(
            f"{path}: is an HMDB51 split file, whose numbers are no labels (1 train, 2 test, 0 unused); write a list "
            "`path label` for each split"
        )
    table = read_list_table(path) if file_format == "auto" else None
    if table is not None:
        rows = [{**row, "path": _located(path, row["path"], media)} for row in table]
        for row in rows:
            own = row.get("split", "")
            row["split"] = split or (usual_split(own) if own else usual_split(path.stem))
        return ImportedList(path, rows)
    clips = read_clip_list(path, file_format, media)
    name = split or usual_split(path.stem)
    return ImportedList(path, [_row(path, clip, name, media) for clip in clips], tuple(_notes(path, clips)))


def usual_split(name: str) -> str:
    """Return the split that a name stands for: `train`, `validation` or `test` by a word in it, else the name."""
    words = re.split(r"[^a-z]+", name.lower())
    found = {_SPLITS[word] for word in words if word in _SPLITS}
    return found.pop() if len(found) == 1 else name


def write_annotations(lists: Sequence[ImportedList], out: Path) -> None:
    """Write lists as an `annotations.csv`; clip_id is left to its reader.

    Raises:
        InputError: The file cannot be written.
    """
    rows = [row for entry in lists for row in entry.rows]
    used = dict.fromkeys(name for row in rows for name, cell in row.items() if cell != "" or name == "path")
    names = sorted(used, key=lambda name: _LEADING.index(name) if name in _LEADING else len(_LEADING))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([row.get(name, "") for name in names] for row in rows)
    with whole_file(out) as unfinished:
        unfinished.write_text(buffer.getvalue(), encoding="utf-8", newline="")


def _located(path: Path, listed: str, media: ListedMedia, line: int | None = None) -> str:
    try:
        return media.complete(media.relative(listed))
    except InputError as error:
        raise InputError(f"{path}: {'' if line is None else f'line {line}: '}{error}") from None


def _row(path: Path, clip: ListedClip, split: str, media: ListedMedia) -> dict[str, str]:
    located = _located(path, clip.path, media, clip.line)
    row: dict[str, str] = {"path": located, "split": split}
    row["label_id"] = "" if clip.label_id is None else str(clip.label_id)
    row["label"] = clip.label or ""
    if clip.first_frame is not None and clip.num_frames is not None:
        there = media.frame_range(located)
        first, last = clip.first_frame, clip.first_frame + clip.num_frames - 1
        if there is not None and there[0] == clip.num_frames:
            first, last = there[1:]  # the whole folder, whether it counts from 0 or from 1
        elif there is not None and not there[1] <= first <= last <= there[2]:
            raise InputError(
                f"{path}: line {clip.line}: frames {first} to {last} must be in {located!r}, which holds {there[1]} to "
                f"{there[2]}"
            )
        row["start_frame"], row["stop_frame"] = str(first), str(last)
    return row


def _notes(path: Path, clips: Sequence[ListedClip]) -> list[str]:
    labels = [clip.label_id for clip in clips if clip.label_id is not None]
    if labels and min(labels) == 1 and len(set(labels)) == max(labels) and len(labels) > 1:
        return [f"{path}: labels run from 1 to {max(labels)}, so class 0 has no clip"]
    return []


def count_splits(lists: Sequence[ImportedList]) -> Mapping[str, int]:
    """Return split -> number of clips, in the order of first appearance."""
    return Counter(row["split"] for entry in lists for row in entry.rows)


def missing(lists: Sequence[ImportedList], media: ListedMedia) -> list[str]:
    """Return the paths of clips that are not below the data root, each as often as it is listed."""
    return [row["path"] for entry in lists for row in entry.rows if not media.has(row["path"])]
