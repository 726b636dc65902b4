"""Lists whose first line names the columns: Kinetics' tables, `path,label`, exports of spreadsheets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from motionbox.errors import InputError
from motionbox.inputs.folder.annotations import PATH_NAMES, normalised
from motionbox.inputs.lists.fields import NUMBER, has_media_suffix
from motionbox.inputs.lists.lines import BLANKS, SEPARATORS, read_lines, tokenize
from motionbox.inputs.tables import read_csv_text

_PATH_NAMES = (*PATH_NAMES, "video", "videos", "clip", "video_name", "clip_path", "folder", "frame_folder", "frame_dir")
_LABEL_NAMES = ("label", "label_id", "class", "class_id", "class_name", "label_name", "target", "category")
_KINETICS = ("youtube_id", "time_start", "time_end")


def read_list_table(path: Path) -> list[dict[str, str]] | None:
    """Read a list that is a table: column -> cell of each clip, the columns `path`, `label_id`, `label`, `split` ours.

    Kinetics' tables give paths as its downloads are named, `<youtube_id>_<start>_<end>.mp4`.

    Returns:
        None where the first line names no column of paths: then it is a list.

    Raises:
        InputError: The table is broken, or two columns could be the paths.
    """
    lines, _ = read_lines(path)
    header = _header(lines[0].text) if len(lines) > 1 else None
    if header is None:
        return None
    names, separator = header
    table = read_csv_text(path) if separator != BLANKS else _blank_separated(path, names)
    known = [normalised(name) for name in table.column_names]
    if set(_KINETICS) <= set(known):
        return _kinetics(path, table.rename_columns(known))
    places = [place for place, name in enumerate(known) if name in _PATH_NAMES]
    if "path" in known:
        places = [known.index("path")]
    if len(places) > 1:
        both = " and ".join(repr(table.column_names[place]) for place in places[:2])
        raise InputError(f"{path}: columns {both} may both be the paths; name the right one 'path'")
    columns = list(table.column_names)
    columns[places[0]] = "path"
    return list(_rows(table.rename_columns(columns)))


def _header(text: str) -> tuple[list[str], str] | None:
    """Return the columns that a first line names and what separates them; None where it is a clip."""
    for separator in SEPARATORS:
        try:
            words = [token.text for token in tokenize(text, separator)]
        except ValueError:
            continue
        if any(NUMBER.fullmatch(word) or has_media_suffix(word) for word in words):
            continue
        names = [normalised(word) for word in words]
        has_paths = bool(set(names) & set(_PATH_NAMES))
        known = separator != BLANKS or set(names) <= {*_PATH_NAMES, *_LABEL_NAMES, "split"}
        if (has_paths and known) or set(_KINETICS) <= set(names):
            return names, separator
    return None


def _blank_separated(path: Path, names: Sequence[str]) -> pa.Table:
    rows = []
    for line in read_lines(path)[0][1:]:
        try:
            cells = [token.text for token in tokenize(line.text, BLANKS)]
        except ValueError as error:
            raise InputError(f"{path}: line {line.number}: {error}") from None
        if len(cells) != len(names):
            raise InputError(
                f"{path}: line {line.number} must have {len(names)} fields like the header, got {len(cells)}; put "
                "fields with blanks in double quotes"
            )
        rows.append(dict(zip(names, cells, strict=True)))
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in names]))


def _rows(table: pa.Table) -> Iterator[dict[str, str]]:
    """Yield the rows with the first label column under our name for it: by whether it holds numbers or names."""
    names = list(table.column_names)
    for place, name in enumerate(names):
        if normalised(name) == "split":
            names[place] = "split"
        elif normalised(name) in _LABEL_NAMES:
            cells = [cell for cell in table[name].to_pylist() if cell]
            ours = "label_id" if all(NUMBER.fullmatch(cell) for cell in cells) else "label"
            if ours == name or ours not in (*table.column_names, *names):
                names[place] = ours
    yield from table.rename_columns(names).to_pylist()


def _kinetics(path: Path, table: pa.Table) -> list[dict[str, str]]:
    rows = []
    for row in _rows(table):
        start, stop = (row.pop(name) for name in ("time_start", "time_end"))
        video = row.pop("youtube_id")
        try:
            name = f"{video}_{int(float(start)):06d}_{int(float(stop)):06d}.mp4"
        except ValueError:
            raise InputError(
                f"{path}: time_start and time_end must be seconds, got {start!r} and {stop!r} for {video!r}"
            ) from None
        rows.append({"path": name, **row})
    return rows
