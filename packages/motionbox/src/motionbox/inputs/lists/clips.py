"""Clip lists of other tools -> the `annotations.csv` of the `folder` data set.

Fields are separated by tabs, semicolons, commas or blanks; a field with the separator in it is quoted. Lines are read
from the right, so a path may hold blanks. What the fields mean:

============== ============================================ ====================================================
format         line                                         from
============== ============================================ ====================================================
paths          `path`                                       UCF-101 test lists, `ls`
video          `path label`                                 VideoMAE and VideoMAEv2 videos, mmaction2 videos
names          `path "label name"`                          tables without a header
pretrain       `path start total_frames`                    VideoMAE and VideoMAEv2 pre-training (`path 0 -1`)
rawframes      `path total_frames label`                    VideoMAEv2 and mmaction2 raw frames, TSM
mofo           `path "label name" label`                    MOFO
============== ============================================ ====================================================

`auto` decides by the fields; between `pretrain` and `rawframes` by what can only be one of them (see `_tell_apart`) and
by the frames on disk. What remains in doubt is refused with its line. A list whose first line names its columns is a
table, see `list_tables`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from motionbox.errors import InputError
from motionbox.inputs.folder.listed import ListedMedia
from motionbox.inputs.lists.fields import Fields, has_media_suffix, is_image, read_fields
from motionbox.inputs.lists.lines import BLANKS, SEPARATORS, Line, read_lines

ListFormat = Literal["auto", "paths", "video", "names", "pretrain", "rawframes", "mofo"]
FORMATS: tuple[ListFormat, ...] = get_args(ListFormat)

# format -> how many numbers its lines end in, and whether a label name stands before them
_SHAPES = {
    "paths": (0, False),
    "video": (1, False),
    "names": (0, True),
    "pretrain": (2, False),
    "rawframes": (2, False),
    "mofo": (1, True),
}
_LINES = {
    "paths": "`path`",
    "video": "`path label`",
    "names": '`path "label name"`',
    "pretrain": "`path start total_frames`",
    "rawframes": "`path total_frames label`",
    "mofo": '`path "label name" label`',
}
_KNOWN = "one of " + ", ".join(_LINES.values())
_BY_SHAPE = {shape: kind for kind, shape in _SHAPES.items() if shape != (2, False)}
_PICKLED = (".pkl", ".pickle", ".npy", ".npz", ".pt", ".pth")
_CHOOSE = "say which with --format rawframes or --format pretrain"
_NUM_LOOKED_AT = 256
_MAX_MISCOUNT = 2  # lists are off by one or two from what another extraction gave


@dataclass(frozen=True)
class ListedClip:
    """One line of a list.

    Attributes:
        path: As written in the list.
        label_id: Class number, None in pre-training lists and where the list says -1.
        label: Class name, None where the list has none.
        first_frame: Number of the first frame file, None for whole videos.
        num_frames: Number of frames as written, None where the list has none or says -1.
        line: Where it stands, from 1.
    """

    path: str
    label_id: int | None
    label: str | None
    first_frame: int | None
    num_frames: int | None
    line: int


@dataclass(frozen=True)
class _Row:
    line: Line
    fields: Fields


def read_clip_list(path: Path, file_format: ListFormat = "auto", media: ListedMedia | None = None) -> list[ListedClip]:
    """Read a list of clips.

    Args:
        path: Text file in UTF-8 or, with a byte order mark, UTF-16; LF, CRLF or CR. Empty lines and lines that start
            with `#` are passed over.
        file_format: One of `FORMATS`.
        media: What is on disk; settles what the line alone leaves open. None: nothing is.

    Raises:
        InputError: Missing, pickled, not text, empty, or a line that breaks the format or may mean two things; names
            the line.
    """
    if file_format not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}, got {file_format!r}")
    if path.suffix.lower() in _PICKLED:
        raise InputError(f"{path}: pickled and binary lists are never loaded; export them as text first")
    lines, comments = read_lines(path)
    if not lines:
        raise InputError(f"{path}: holds no clip")
    is_there = _no_file if media is None else media.has_listed
    for comment in comments:
        if is_there(comment.text) or is_there(comment.text.split()[0]):
            raise InputError(
                f"{path}: line {comment.number} may be a comment or a clip, {_shown(comment.text)} is there; quote it"
            )
    rows = _read_rows(path, lines, file_format, is_there)
    kind = _kind_of(path, rows, media) if file_format == "auto" else file_format
    return [_parse(path, row, kind, is_there) for row in rows]


def _no_file(_path: str) -> bool:
    return False


class _LineError(ValueError):
    def __init__(self, line: Line, message: str) -> None:
        super().__init__(f"line {line.number}: {message}")
        self.number = line.number


def _read_rows(path: Path, lines: list[Line], kind: ListFormat, is_there: Callable[[str], bool]) -> list[_Row]:
    """Read all lines with the first separator that all of them can be read with."""
    errors = []
    for separator in SEPARATORS:
        if separator == BLANKS or all(separator in line.text for line in lines):
            try:
                return _read_with(separator, lines, kind, is_there)
            except _LineError as error:
                errors.append(error)
    raise InputError(f"{path}: {max(errors, key=lambda error: error.number)}")  # that of the best try


def _read_with(separator: str, lines: list[Line], kind: ListFormat, is_there: Callable[[str], bool]) -> list[_Row]:
    most = None if kind == "auto" else _SHAPES[kind][0]
    rows: list[_Row] = []
    for line in lines:
        try:
            rows.append(_Row(line, read_fields(line.text, separator, is_there=is_there, max_numbers=most)))
        except ValueError as error:
            raise _LineError(line, f"{error}, got {_shown(line.text)}") from None
        _check_shape(rows, kind)
    return rows


def _check_shape(rows: list[_Row], kind: ListFormat) -> None:
    """Refuse a line that has other fields than its format, or than the first line."""
    shape = _shape(rows[-1].fields)
    if kind != "auto":
        if shape != _SHAPES[kind]:
            raise _LineError(rows[-1].line, f"{kind} lines must be {_LINES[kind]}, got {_shown(rows[-1].line.text)}")
        return
    if shape not in _SHAPES.values():
        what = "; several labels for one clip are not supported" if shape[0] > 2 else ""
        raise _LineError(rows[-1].line, f"must be {_KNOWN}, got {_shown(rows[-1].line.text)}{what}")
    if shape != _shape(rows[0].fields):
        raise _LineError(
            rows[-1].line,
            f"must have the same fields as line {rows[0].line.number}, {_shown(rows[0].line.text)}, "
            f"got {_shown(rows[-1].line.text)}",
        )


def _shape(fields: Fields) -> tuple[int, bool]:
    return len(fields.numbers), fields.name is not None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _kind_of(path: Path, rows: list[_Row], media: ListedMedia | None) -> str:
    shape = _shape(rows[0].fields)
    if shape != (2, False):
        return _BY_SHAPE[shape]
    try:
        return _tell_apart(rows, media)
    except _LineError as error:
        raise InputError(f"{path}: {error}") from None


def _tell_apart(rows: list[_Row], media: ListedMedia | None) -> str:
    """Tell `path total_frames label` from `path start total_frames`.

    A last number of -1 is no label, and a video of 0 or 1 frames no clip: such lines can only be `start` and
    `total_frames`. One folder cannot have two totals, so a path with several second numbers has several starts. Else a
    second number of 2 or more is a total, unless the folder is there and says otherwise.

    Raises:
        _LineError: Lines contradict each other or the frames on disk.
    """
    for row in rows:
        first, last = row.fields.numbers
        if last == -1 and first not in (0, 1):
            raise _LineError(row.line, f"{first} may be a start or a number of frames; {_CHOOSE}")
        if has_media_suffix(row.fields.path) and last != -1:
            raise _LineError(row.line, f"two numbers after a video may be frames, labels or both; {_CHOOSE}")
    only_start = [row for row in rows if row.fields.numbers[0] <= 1]
    unlabelled = any(row.fields.numbers[1] == -1 for row in rows)
    if unlabelled or len(only_start) == len(rows) or _has_segments(rows):
        return "pretrain"
    for row in [*only_start, *rows[:: max(1, len(rows) // _NUM_LOOKED_AT)]]:
        num_frames = None if media is None else media.num_frames(row.fields.path)
        total = row.fields.numbers[0]
        if num_frames is not None and abs(num_frames - total) > _MAX_MISCOUNT:
            raise _LineError(row.line, f"{total} is not the {num_frames} frames on disk; {_CHOOSE}")
        if row in only_start and num_frames is None:
            raise _LineError(row.line, f"{_shown(row.line.text)} may hold a start or a total; {_CHOOSE}")
    return "rawframes"


def _has_segments(rows: list[_Row]) -> bool:
    seconds: dict[str, int] = {}
    return any(seconds.setdefault(row.fields.path, row.fields.numbers[0]) != row.fields.numbers[0] for row in rows)


def _parse(path: Path, row: _Row, kind: str, is_there: Callable[[str], bool]) -> ListedClip:
    listed, name, numbers = row.fields.path, row.fields.name, row.fields.numbers
    try:
        _check_path(listed, kind, is_there)
        if kind == "pretrain":
            return ListedClip(listed, None, None, *_frames(listed, *numbers), row.line.number)
        total = numbers[0] if kind == "rawframes" else None
        if total is not None and total < 1 and total != -1:
            raise ValueError(f"total_frames must be at least 1, got {total}")
        label = numbers[-1] if kind in ("video", "rawframes", "mofo") else None
        if label is not None and label < -1:
            raise ValueError(f"label must be 0 or more, or -1 for none, got {label}")
    except ValueError as error:
        raise InputError(f"{path}: line {row.line.number}: {error}") from None
    label, total = (None if number == -1 else number for number in (label, total))
    return ListedClip(listed, label, name, None, total, row.line.number)


def _check_path(listed: str, kind: str, is_there: Callable[[str], bool]) -> None:
    if is_image(listed):
        raise ValueError(f"path must be a video or a folder of frames, got the picture {listed!r}")
    if kind == "paths" and not has_media_suffix(listed) and not is_there(listed):
        raise ValueError(f"must be {_KNOWN}, got {_shown(listed)}, which is neither a video's name nor on disk")


def _frames(listed: str, start: int, total: int) -> tuple[int | None, int | None]:
    """Return the first frame and the number of frames of a pre-training line; None for a whole video."""
    if total == -1:
        return None, None
    if has_media_suffix(listed):
        raise ValueError(f"{listed!r} must have -1 frames (the whole video), got {total}: a video has no frame numbers")
    if start < 0 or total < 1:
        raise ValueError(f"start must be 0 or more and total_frames 1 or more (or -1: all), got {start} and {total}")
    return start, total
