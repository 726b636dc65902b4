"""What the readers of annotation files share: finding files, reading CSV as text, refusing rows by name."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from motionbox.errors import InputError


def find_file(root: Path, folders: Sequence[str], *names: str) -> Path | None:
    """Return the first of some file names in the first of some folders below a root, None where there is none.

    Raises:
        InputError: Only a pickled twin is there: it is never loaded, because loading a pickle runs what is in it.
    """
    paths = [root / folder / name for folder in folders for name in names]
    for path in paths:
        if path.is_file():
            return path
    for path in paths:
        twin = path.with_suffix(".pkl")
        if twin.is_file():
            raise InputError(f"{twin}: pickled files are never loaded; put its twin {path.name} beside it")
    return None


def read_csv_text(path: Path) -> pa.Table:
    """Read a CSV with a header (UTF-8, with or without BOM, LF or CRLF) as a table of strings, nothing null.

    Raises:
        InputError: Missing, unreadable, not UTF-8, a column twice, or not a table.
    """
    try:
        with path.open("rb") as file:
            header = file.readline().decode("utf-8-sig")
        names = next(csv.reader([header.rstrip("\r\n")]), [])
        doubled = [name for name, count in Counter(names).items() if count > 1]
        if doubled:
            raise InputError(f"{path}: has column {doubled[0]!r} twice; rename or remove one")
        return pyarrow.csv.read_csv(
            path,
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except FileNotFoundError:
        raise InputError(f"{path}: does not exist") from None
    except (OSError, UnicodeDecodeError, pa.ArrowInvalid, csv.Error) as error:
        raise InputError(f"{path}: must be a CSV table in UTF-8 with a header: {error}") from None


def read_optional_csv(root: Path, folders: Sequence[str], name: str, columns: Sequence[str]) -> pa.Table | None:
    """Read a CSV that may be absent; its columns may not.

    Raises:
        InputError: As `read_csv_text` and `require_columns`.
    """
    path = find_file(root, folders, name)
    if path is None:
        return None
    table = read_csv_text(path)
    require_columns(table, columns, path)
    return table


def require_columns(table: pa.Table, columns: Sequence[str], path: Path) -> None:
    """Check that a file has its columns, in whatever order.

    Raises:
        InputError: Names the missing ones.
    """
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise InputError(
            f"{path}: needs the columns {', '.join(missing)}, has {', '.join(table.column_names)}; get the file again"
        )


def refuse_row(
    table: pa.Table, bad: pa.Array | pa.ChunkedArray, name: str, rule: str, path: Path, id_column: str
) -> None:
    """Refuse the file where the mask `bad` is true anywhere; nulls are not bad.

    Raises:
        InputError: Names the first such row, its value and how many there are.
    """
    rows = np.flatnonzero(pc.fill_null(bad, False).to_numpy(zero_copy_only=False))
    if len(rows):
        row = int(rows[0])
        raise InputError(
            f"{path}: {name} must {rule}, got {table[name][row].as_py()!r} in row {row + 2} "
            f"({table[id_column][row].as_py()!r}; {len(rows)} such); get the file again or correct it"
        )
