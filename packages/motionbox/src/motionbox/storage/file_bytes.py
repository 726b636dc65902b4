"""The bytes of the files that a store is made of, and their digests."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from motionbox.storage.paths import StorePath


def to_json(value: Any) -> bytes:
    """Return the bytes of a JSON file as the store writes them: indented, keys in the given order."""
    return (json.dumps(value, indent=1) + "\n").encode("ascii")  # bytes of names that are no UTF-8 as \\udc80 and so on


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as the bytes of a zstd-compressed Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def read_table(path: StorePath, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table, or some columns, of a Parquet file or object.

    Raises:
        OSError: It cannot be read.
        pyarrow.ArrowException: It is damaged.
    """
    source = path if isinstance(path, Path) else pa.BufferReader(path.read_bytes())
    return pq.read_table(source, columns=columns)


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
