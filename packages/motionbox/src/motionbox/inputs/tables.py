"""What the readers of annotation files share: finding files, reading CSV as text, refusing rows by name."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from motionbox.errors import InputError
from motionbox.inputs.data_root import DataRoot

_MAX_HEADER_BYTES = 1 << 18
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def find_file(root: DataRoot, folders: Sequence[str], *names: str) -> DataRoot | None:
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


def read_text(path: DataRoot) -> str:
    """Read a text file in UTF-8, with or without byte order mark, or in UTF-16 with one.

    Raises:
        InputError: It cannot be read, or is neither; names the line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    encoding = "utf-16" if data.startswith(_UTF16_MARKS) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: must be a text file in UTF-8, but line {line} is not; save it as UTF-8") from None


def read_csv_text(path: DataRoot) -> pa.Table:
    """Read a table with a header as strings, nothing null; columns without a name and content are left out.

    Commas, tabs or semicolons separate, whichever the header has most of; UTF-8 with or without byte order mark, or
    UTF-16 with one. Empty lines and lines that start with `#` before the header are passed over, and Excel's `sep=;`.

    Raises:
        InputError: Missing, unreadable, not UTF-8, a column twice, or not a table.
    """
    text = read_text(path)
    try:
        data = text.encode()
        num_skipped, header = _find_header(data)
        separator = sniff_separator(header)
        names = next(csv.reader([header], delimiter=separator), [])
        padded = any(name != name.strip() for name in names)
        names = [name.strip() for name in names]
        doubled = [name for name, count in Counter(filter(None, names)).items() if count > 1]
        if doubled:
            raise InputError(f"{path}: has column {doubled[0]!r} twice; rename or remove one")
        unique = [name or f"\0{place}" for place, name in enumerate(names)]
        if padded:
            table = _read_padded(text, num_skipped, separator, unique)
        else:
            table = pyarrow.csv.read_csv(
                pa.BufferReader(data),
                read_options=pyarrow.csv.ReadOptions(skip_rows=num_skipped, column_names=unique),
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, delimiter=separator),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(unique, pa.string()), strings_can_be_null=False
                ),
            )
    except (pa.ArrowInvalid, csv.Error) as error:
        raise InputError(
            f"{path}: must be a CSV table in UTF-8 with a header, separated by commas, tabs or semicolons: {error}"
        ) from None
    return _drop_nameless(table, path)


def _read_padded(text: str, num_skipped: int, separator: str, names: Sequence[str]) -> pa.Table:
    """Read a table with blanks around its separators, which Arrow takes for parts of the cells."""
    reader = csv.reader(_lines_after(text, num_skipped), delimiter=separator, skipinitialspace=True)
    rows = [[cell.strip() for cell in row] for row in reader if row]
    for row in rows:
        if len(row) != len(names):
            raise csv.Error(f"Expected {len(names)} columns, got {len(row)}: {separator.join(row)}")
    return pa.table({name: pa.array([row[place] for row in rows], pa.string()) for place, name in enumerate(names)})


def _lines_after(text: str, num_skipped: int) -> io.StringIO:
    lines = io.StringIO(text, newline="")
    for _ in range(num_skipped):
        lines.readline()
    return lines


def _drop_nameless(table: pa.Table, path: DataRoot) -> pa.Table:
    for name in [name for name in table.column_names if name.startswith("\0")]:
        if pc.any(pc.not_equal(table[name], "")).as_py():
            raise InputError(f"{path}: column {int(name[1:]) + 1} has no name in the header; name it or remove it")
        table = table.drop_columns([name])
    return table


def _find_header(data: bytes) -> tuple[int, str]:
    """Return how many lines end with the header, and the header."""
    for number, line in enumerate(re.split(rb"\r\n|\n|\r", data[:_MAX_HEADER_BYTES]), start=1):
        text = line.decode(errors="replace")
        if text.strip() and not text.startswith("#") and not re.fullmatch("sep=.", text.strip()):
            return number, text
    raise pa.ArrowInvalid("it is empty")


def sniff_separator(header: str) -> str:
    """Return the separator that a header line has most of: comma, tab or semicolon; comma where it has none."""
    return max(",\t;", key=header.count)


def line_number(path: DataRoot, row: int) -> int:
    """Return the line of a table's file that a row, from 0, starts in; quoted cells may hold line ends."""
    data = read_text(path)
    num_skipped, header = _find_header(data.encode())
    reader = csv.reader(_lines_after(data, num_skipped), delimiter=sniff_separator(header))
    before = -1
    start = 0
    for cells in reader:
        before += bool(cells)
        if before == row:
            break
        start = reader.line_num
    return num_skipped + start + 1


def read_optional_csv(root: DataRoot, folders: Sequence[str], name: str, columns: Sequence[str]) -> pa.Table | None:
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


def require_columns(table: pa.Table, columns: Sequence[str], path: DataRoot) -> None:
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
    table: pa.Table, bad: pa.Array | pa.ChunkedArray, name: str, rule: str, path: DataRoot, id_column: str
) -> None:
    """Refuse the file where the mask `bad` is true anywhere; nulls are not bad.

    Raises:
        InputError: Names the first such row, its value and how many there are.
    """
    rows = np.flatnonzero(pc.fill_null(bad, False).to_numpy(zero_copy_only=False))
    if len(rows):
        row = int(rows[0])
        raise InputError(
            f"{path}: {name} must {rule}, got {table[name][row].as_py()!r} in line {line_number(path, row)} "
            f"({table[id_column][row].as_py()!r}; {len(rows)} such); get the file again or correct it"
        )
