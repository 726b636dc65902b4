"""Clip lists of other tools -> the `annotations.csv` of the `folder` data set.

Fields are separated by blanks, or by commas; a field with blanks in it is quoted. What the fields mean:

============== ============================================ ====================================================
format         line                                         from
============== ============================================ ====================================================
video          `path label`                                 VideoMAE and VideoMAEv2 videos, mmaction2 videos
pretrain       `path start total_frames`                    VideoMAE and VideoMAEv2 pre-training (`path 0 -1`)
rawframes      `path total_frames label`                    VideoMAEv2 and mmaction2 raw frames, TSM
mofo           `path "label name" label`                    MOFO
============== ============================================ ====================================================

`auto` decides by the number of fields and by whether the second is a number; three numbers' worth of doubt remain
between `pretrain` and `rawframes`, where a last field of -1 throughout means `pretrain`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from motionbox.errors import InputError

ListFormat = Literal["auto", "video", "pretrain", "rawframes", "mofo"]
FORMATS: tuple[ListFormat, ...] = get_args(ListFormat)

_NUM_FIELDS = {"video": 2, "pretrain": 3, "rawframes": 3, "mofo": 3}


@dataclass(frozen=True)
class ListedClip:
    """One line of a list.

    Attributes:
        path: As written in the list.
        label: Class number, None in pre-training lists.
        label_name: Class name, None except in MOFO's lists.
        num_frames: Number of frames as written, None where the list has none or says -1.
    """

    path: str
    label: int | None
    label_name: str | None
    num_frames: int | None


def read_clip_list(path: Path, file_format: ListFormat = "auto") -> list[ListedClip]:
    """Read a list of clips.

    Args:
        path: Text file in UTF-8, with or without BOM, LF or CRLF; empty lines are passed over.
        file_format: One of `FORMATS`.

    Raises:
        InputError: Missing, pickled, not UTF-8, empty, or a line that breaks the format; names the line.
    """
    if file_format not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}, got {file_format!r}")
    if path.suffix.lower() in (".pkl", ".pickle"):
        raise InputError(f"{path}: pickled lists are never loaded; export them as text first")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: must be a text file in UTF-8: {error}") from None
    rows = [(number, row) for number, row in enumerate(_split_lines(path, text), start=1) if row]
    if not rows:
        raise InputError(f"{path}: holds no clip")
    kind = _guess(path, rows) if file_format == "auto" else file_format
    return [_parse(path, number, row, kind) for number, row in rows]


def write_annotations(clips: Sequence[tuple[str, ListedClip]], data_root: Path, out: Path) -> None:
    """Write lists as an `annotations.csv`: clip_id is left to its reader; columns path, split, label, label_name.

    Args:
        clips: Pairs of split and clip.
        data_root: What the paths become relative to; absolute paths must lie below it.
        out: File to write, usually `<data_root>/annotations.csv`.

    Raises:
        InputError: A path outside the data root, or the file cannot be written.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    with_names = any(clip.label_name is not None for _, clip in clips)
    with_labels = any(clip.label is not None for _, clip in clips)
    extra = ["label"] * with_labels + ["label_name"] * with_names
    writer.writerow(["path", "split", *extra])
    for split, clip in clips:
        values = {"label": "" if clip.label is None else clip.label, "label_name": clip.label_name or ""}
        writer.writerow([relative_path(clip.path, data_root), split, *(values[name] for name in extra)])
    try:
        out.write_text(buffer.getvalue(), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror or error}") from None


def relative_path(path: str, data_root: Path) -> str:
    """Return a list's path relative to the data root, with forward slashes.

    Raises:
        InputError: It lies outside.
    """
    listed = Path(path)
    if listed.is_absolute():
        root = data_root.absolute()
        if not listed.is_relative_to(root):
            raise InputError(f"path must lie below the data root {root}, got {path!r}; name another with --data-root")
        listed = listed.relative_to(root)
    if ".." in listed.parts:
        raise InputError(f"path must lie below the data root, without '..', got {path!r}")
    return listed.as_posix()


def _split_lines(path: Path, text: str) -> list[list[str]]:
    """Split every line at blanks outside of quotes, else at commas."""
    lines = text.splitlines()
    sample = [line for line in lines if line.strip()]
    by_comma = bool(sample) and all("," in line for line in sample) and not all(" " in line.strip() for line in sample)
    try:
        if by_comma:
            return [[field.strip() for field in row] for row in csv.reader(lines, strict=True)]
        # several blanks in a row, or tabs, separate like one
        rows = csv.reader((line.replace("\t", " ").strip() for line in lines), delimiter=" ", strict=True)
        return [[field for field in row if field] for row in rows]
    except csv.Error as error:
        raise InputError(f"{path}: must be a list of fields separated by blanks or commas: {error}") from None


def _guess(path: Path, rows: list[tuple[int, list[str]]]) -> ListFormat:
    counts = {len(row) for _, row in rows}
    if counts == {2}:
        return "video"
    if counts != {3}:
        number, row = next((n, r) for n, r in rows if len(r) not in (2, 3) or len(r) != len(rows[0][1]))
        raise InputError(f"{path}: lines must have 2 fields or 3, all alike, got {len(row)} in line {number}: {row!r}")
    if not all(_is_number(row[1]) for _, row in rows):
        return "mofo"
    return "pretrain" if all(row[2] == "-1" for _, row in rows) else "rawframes"


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isascii() and text.removeprefix("-").isdigit()


def _parse(path: Path, number: int, row: list[str], kind: str) -> ListedClip:
    if len(row) != _NUM_FIELDS[kind]:
        raise InputError(f"{path}: {kind} lines must have {_NUM_FIELDS[kind]} fields, got {len(row)} in line {number}")
    numeric = {"video": [1], "pretrain": [1, 2], "rawframes": [1, 2], "mofo": [2]}[kind]
    for position in numeric:
        if not _is_number(row[position]):
            raise InputError(
                f"{path}: field {position + 1} of {kind} lines must be a whole number, got {row[position]!r} in line "
                f"{number}; choose another --format"
            )
    if kind == "video":
        return ListedClip(row[0], int(row[1]), None, None)
    if kind == "mofo":
        return ListedClip(row[0], int(row[2]), row[1], None)
    if kind == "pretrain":
        return ListedClip(row[0], None, None, int(row[2]) if int(row[2]) > 0 else None)
    return ListedClip(row[0], int(row[2]), None, int(row[1]))
