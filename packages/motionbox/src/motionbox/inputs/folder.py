"""Any folder of videos, or of folders or tars of frames; and the generated data set, which is one with a list."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from motionbox.errors import InputError
from motionbox.inputs.media import is_frame_folder, is_frame_name, is_video_name, natural_key
from motionbox.inputs.schema import SCHEMA, build_table
from motionbox.inputs.tables import read_csv_text

ANNOTATIONS_NAME = "annotations.csv"
"""Optional list beside the media: which clips, their spans, splits and labels."""

_NUMBERS = {field.name: field.type for field in SCHEMA if field.type in (pa.float64(), pa.int64())}


def load_folder(root: Path) -> pa.Table:
    """Read a folder, one video file or one folder of frames into a manifest.

    Clip ids are the paths below the root, without extension for files; where that makes two the same, the files among
    them keep theirs. A folder that directly holds JPEG or PNG files, and no videos, is one clip. With an
    `annotations.csv` in the root, its rows are the clips, see `read_annotations`.

    Raises:
        InputError: Nothing to read, a name that is not UTF-8, or a broken `annotations.csv`.
    """
    if root.is_file() or is_frame_folder(root):
        name = root.resolve().name
        return _whole_videos([_checked_name(Path(name).stem if root.is_file() else name)], ["."])
    if (root / ANNOTATIONS_NAME).is_file():
        return read_annotations(root / ANNOTATIONS_NAME)
    paths = find_media(root)
    if not paths:
        raise InputError(
            f"data root {root} holds no video (.mp4, .webm, .mkv, ...), frame folder or frame tar; check --data-root"
        )
    return _whole_videos(_clip_ids(root, paths), paths)


def load_synthetic(root: Path) -> pa.Table:
    """Read the generated data set (`motionbox synth`) into a manifest.

    Raises:
        InputError: It is not there, or its `annotations.csv` is broken.
    """
    if not (root / ANNOTATIONS_NAME).is_file():
        raise InputError(
            f"data root {root} has no {ANNOTATIONS_NAME}; generate the set with: motionbox synth -o {root}"
        )
    return read_annotations(root / ANNOTATIONS_NAME)


def find_media(root: Path) -> list[str]:
    """List videos, frame tars and frame folders below a root: relative POSIX paths in natural order.

    Hidden files and folders are passed over; links to folders are followed, each folder once.

    Raises:
        InputError: A folder cannot be read, or a name is not UTF-8.
    """
    found: list[str] = []
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from None

    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=refuse):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        relative = os.path.relpath(folder, root)
        prefix = "" if relative == "." else f"{_checked_name(relative)}/"
        videos = [name for name in names if is_video_name(name)]
        found.extend(_checked_name(prefix + name) for name in videos)
        if not videos and prefix and any(map(is_frame_name, names)):
            found.append(prefix.rstrip("/"))
    return sorted(found, key=natural_key)


def read_annotations(path: Path) -> pa.Table:
    """Read a CSV list of clips into a manifest.

    Columns: `path` is needed (relative to the CSV's folder); `clip_id` (default: the path without extension, numbered
    `_0`, `_1`, ... where a path has several rows), `video_id` (default: the path without extension), the other columns
    of `manifest.SCHEMA` and any label column are optional. Empty cells of numbers are null. A label column is int64
    where every cell is a whole number, else string.

    Raises:
        InputError: No CSV, no `path` column, or a cell that is no number where one belongs.
    """
    table = read_csv_text(path)
    if "path" not in table.column_names:
        raise InputError(f"{path}: needs a column 'path', got {', '.join(map(repr, table.column_names))}")
    columns: dict[str, pa.ChunkedArray] = {}
    labels: dict[str, pa.ChunkedArray] = {}
    for name in table.column_names:
        if name in _NUMBERS:
            columns[name] = _to_number(path, name, table[name], _NUMBERS[name])
        elif name in SCHEMA.names:
            columns[name] = table[name]
        else:
            labels[name] = to_label(table[name])
    stems = pc.replace_substring_regex(table["path"], r"\.[A-Za-z0-9]+$", "")
    columns.setdefault("video_id", stems)
    if "clip_id" not in columns:
        columns["clip_id"] = pa.chunked_array([_numbered(stems.to_pylist())])
    if "split" in columns:
        columns["split"] = pc.if_else(pc.equal(columns["split"], ""), pa.scalar(None, pa.string()), columns["split"])
    return build_table(columns, labels)


def to_label(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Turn a column of strings into int64 where every cell is a whole number, else leave it."""
    whole = pc.all(pc.match_substring_regex(column, r"^-?(0|[1-9][0-9]{0,17})$")).as_py()
    return column.cast(pa.int64()) if whole and len(column) else column


def _to_number(path: Path, name: str, column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    filled = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    try:
        return filled.cast(kind)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: column {name} must hold numbers: {error}") from None


def _numbered(stems: list[str]) -> pa.Array:
    """Number the rows of videos that have several: a, b -> a, b; a, a -> a_0, a_1."""
    totals = Counter(stems)
    seen: Counter[str] = Counter()
    ids = []
    for stem in stems:
        ids.append(stem if totals[stem] == 1 else f"{stem}_{seen[stem]}")
        seen[stem] += 1
    return pa.array(ids, pa.string())


def _whole_videos(clip_ids: list[str], paths: list[str]) -> pa.Table:
    return build_table({"clip_id": clip_ids, "video_id": clip_ids, "path": paths})


def _clip_ids(root: Path, paths: list[str]) -> list[str]:
    ids = [path if (root / path).is_dir() else str(Path(path).with_suffix("")) for path in paths]
    while True:
        counts = Counter(ids)
        longer = [path if counts[clip_id] > 1 else clip_id for clip_id, path in zip(ids, paths, strict=True)]
        if longer == ids:
            return ids
        ids = longer


def _checked_name(name: str) -> str:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        raise InputError(f"file name must be UTF-8, got {shown!r}; rename the file") from None
    return name
