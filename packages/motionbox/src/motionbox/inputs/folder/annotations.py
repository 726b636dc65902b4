"""`annotations.csv` of the `folder` data set: a table of clips, as people write it -> a manifest."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from motionbox.errors import InputError
from motionbox.inputs.data_root import DataRoot
from motionbox.inputs.folder.clip_ids import clip_ids, video_ids
from motionbox.inputs.folder.listed import ListedMedia
from motionbox.inputs.schema import RESULT_COLUMNS, SCHEMA, build_table
from motionbox.inputs.tables import line_number, read_csv_text

PATH_NAMES = ("path", "video_path", "file_path", "filepath", "file", "filename", "file_name")
"""Headers, in lower case, of the column of paths, the best first."""

LABEL_NAMES = ("label_id", "label", "template", "verb", "noun", "verb_class", "noun_class", "action_id")
"""Label columns that are known to training; any others are kept, too."""

OTHER_LABEL_NAMES = ("class", "class_name", "action", "action_name", "activity", "category")
"""Headers, in lower case, of a column that is taken for `label` where the list has none of `LABEL_NAMES`."""

_NUMBERS = {field.name: field.type for field in SCHEMA if field.type in (pa.float64(), pa.int64())}
_SECONDS_NAMES = {"start_sec": "start_seconds", "stop_sec": "stop_seconds", "end_sec": "stop_seconds",
                  "end_seconds": "stop_seconds"}  # fmt: skip
# times without a unit, or ends that may be inclusive or not: taken for labels, the whole video would be the clip
_UNCLEAR = ("start", "stop", "end", "begin", "start_time", "end_time", "stop_time", "time_start", "time_end",
            "t_start", "t_end", "end_frame", "frame_start", "frame_end")  # fmt: skip
_WHOLE = "^-?(0|[1-9][0-9]{0,17})$"
_WHOLE_FLOAT = r"^-?(0|[1-9][0-9]{0,17})(\.0+)?$"  # `3.0`: programs keep whole numbers with gaps as floats
_CLASS_COLUMNS = ("label_id", "verb_class", "noun_class", "action_id")
_NAMES_OF = {"verb_class": "verb", "noun_class": "noun"}


def read_annotations(path: DataRoot) -> pa.Table:
    """Read a CSV list of clips into a manifest.

    Columns: `path` is needed (relative to the CSV's folder); `clip_id` (default: the path without extension, numbered
    `_0`, `_1`, ... where a path has several rows), `video_id` (default: the path without extension, with it where two
    files share the rest), the other columns of `manifest.SCHEMA` and any label column are optional. Capitals and
    blanks in their names do not matter; a sole label column may be called by one of `OTHER_LABEL_NAMES`. Empty cells of
    numbers are null. A label column is int64 where every filled cell is a whole number, else string. A column named
    like one that results have is kept as `listed_<name>`.

    Raises:
        InputError: No table, no `path` column, a cell that is no number where one belongs, or columns that may mean two
            things; names the line or the column.
    """
    table = _known_names(read_csv_text(path), path)
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    labels: dict[str, pa.Array | pa.ChunkedArray] = {}
    notes = []
    for name in table.column_names:
        if name in _NUMBERS:
            columns[name] = _to_number(path, name, table[name], _NUMBERS[name])
        elif name in SCHEMA.names:
            columns[name] = table[name]
        elif name in RESULT_COLUMNS:
            labels[f"listed_{name}"] = to_label(path, name, table[name])
            notes.append(f"column {name} of {path} is kept as listed_{name}: results have a {name} of their own")
        else:
            labels[name] = to_label(path, name, table[name])
    columns["path"] = _relative(path, table["path"].to_pylist())
    columns |= _ids(columns)
    if "split" in columns:
        columns["split"] = pc.if_else(pc.equal(columns["split"], ""), pa.scalar(None, pa.string()), columns["split"])
    return build_table(columns, labels, notes)


def normalised(name: str) -> str:
    """Return a header in lower case with underscores for blanks and dashes."""
    return "_".join(name.strip().lower().replace("-", " ").replace("_", " ").split())


def _known_names(table: pa.Table, path: DataRoot) -> pa.Table:
    """Give the columns that we know our names for them."""
    names = list(table.column_names)
    ours = (*SCHEMA.names, *LABEL_NAMES)
    for place, name in enumerate(names):
        known = _SECONDS_NAMES.get(normalised(name), normalised(name))
        if known in ours and name not in ours:
            if known in names:
                raise InputError(f"{path}: columns {name!r} and {known!r} mean the same; rename or remove one")
            names[place] = known
        elif known in _UNCLEAR:
            raise InputError(
                f"{path}: column {name!r} may be seconds or frames; name it start_seconds, stop_seconds (the first "
                "time after the clip), start_frame or stop_frame (the last frame), or else something that is no time"
            )
    if "path" not in names:
        found = [i for known in PATH_NAMES for i, name in enumerate(names) if normalised(name) == known]
        if not found:
            raise InputError(f"{path}: needs a column 'path', got {', '.join(map(repr, names))}")
        names[found[0]] = "path"
    if not set(names) & set(LABEL_NAMES):
        found = [i for known in OTHER_LABEL_NAMES for i, name in enumerate(names) if normalised(name) == known]
        if found:
            names[found[0]] = "label"
    return table.rename_columns(names)


def to_label(path: DataRoot, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Turn a column of strings into int64 where every filled cell is a whole number, empty cells null; else leave it.

    Raises:
        InputError: A column of class numbers, such as `label_id`, holds something else; names the line.
    """
    empty = pc.equal(column, "")
    whole = pc.match_substring_regex(column, _WHOLE_FLOAT if name in _CLASS_COLUMNS else _WHOLE)
    if name in _CLASS_COLUMNS:
        bad = np.flatnonzero(pc.invert(pc.or_(empty, whole)).to_numpy())
        if len(bad):
            row = int(bad[0])
            raise InputError(
                f"{path}: {name} must be a whole number, got {column[row].as_py()!r} in line {line_number(path, row)}; "
                f"put the names of classes into a column {_NAMES_OF.get(name, 'label')!r}"
            )
    elif not pc.all(pc.or_(empty, whole)).as_py():
        return column
    if pc.all(empty).as_py():
        return column
    digits = pc.replace_substring_regex(column, r"\.0+$", "")
    return pc.if_else(empty, pa.scalar(None, pa.string()), digits).cast(pa.int64())


def _to_number(path: DataRoot, name: str, column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    text = pc.utf8_trim_whitespace(column)
    filled = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    if kind == pa.int64():
        filled = pc.replace_substring_regex(filled, r"\.0*$", "")
    try:
        return filled.cast(kind)
    except pa.ArrowInvalid:
        row = next(row for row, cell in enumerate(filled.to_pylist()) if not _casts(cell, kind))
        rule = "whole numbers" if kind == pa.int64() else "numbers with a decimal point"
        raise InputError(
            f"{path}: column {name} must hold {rule}, got {column[row].as_py()!r} in line {line_number(path, row)}"
        ) from None


def _casts(cell: str | None, kind: pa.DataType) -> bool:
    try:
        pa.scalar(cell, pa.string()).cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _relative(path: DataRoot, listed: list[str]) -> pa.Array:
    """Return the paths relative to the CSV's folder, each file under one spelling."""
    media = ListedMedia(path.parent)
    known: dict[str, str] = {}
    for row, entry in enumerate(listed):
        if entry in known:
            continue
        try:
            if not entry.strip():
                raise InputError("path must not be empty")
            known[entry] = media.relative(entry)
        except InputError as error:
            raise InputError(f"{path}: line {line_number(path, row)}: {error}") from None
    return pa.array([known[entry] for entry in listed], pa.string())


def _ids(columns: dict[str, pa.Array | pa.ChunkedArray]) -> dict[str, pa.Array]:
    """Return clip and video ids: those given, and made from the paths where a cell is empty or there is no column."""
    paths = columns["path"].to_pylist()
    given = columns["video_id"].to_pylist() if "video_id" in columns else [""] * len(paths)
    named = {path: own for path, own in zip(paths, given, strict=True) if own}
    given = [own or named.get(path, "") for path, own in zip(paths, given, strict=True)]
    made = video_ids([path for path, own in zip(paths, given, strict=True) if not own], set(filter(None, given)))
    videos = [own or made[path] for path, own in zip(paths, given, strict=True)]
    own_clips = columns["clip_id"].to_pylist() if "clip_id" in columns else [""] * len(paths)
    without = [video for video, own in zip(videos, own_clips, strict=True) if not own]
    numbered = iter(clip_ids(without, set(filter(None, own_clips))))
    clips = [own or next(numbered) for own in own_clips]
    return {"video_id": pa.array(videos, pa.string()), "clip_id": pa.array(clips, pa.string())}
