"""Files of a store: their bytes and digests, and how they are written to survive a power cut.

None is ever seen half-written; names that one writer alone gets are made here, too.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from motionbox.storage.failpoints import failpoint
from motionbox.storage.paths import StorePath

RECORD_FILE = "record.json"
"""What a record, such as `commits/u000000.json`, holds where it is a directory: on file systems without hard links."""
MANIFEST_FILE = "MANIFEST.json"
"""What is written last into a version, and says what is in it."""

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NAME_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}
_NO_DIRECTORY_SYNC = {errno.EINVAL, errno.EOPNOTSUPP}


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


def write_file(path: Path, data: bytes, *, point: str = "attempt") -> None:
    """Create a new file and force it to disk.

    Args:
        path: Must not exist; its directory must.
        data: The whole content.
        point: Prefix of the failpoints `<point>.write`, and for attempts `attempt.torn` and `attempt.fsync`.

    Raises:
        FileExistsError: `path` exists.
        OSError: The disk is full or broken.
    """
    failpoint(f"{point}.write")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        half = len(data) // 2
        _write_all(descriptor, memoryview(data)[:half])
        if point == "attempt":
            failpoint("attempt.torn")
        _write_all(descriptor, memoryview(data)[half:])
        if point == "attempt":
            failpoint("attempt.fsync")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def fsync_directory(path: Path) -> None:
    """Force a directory's entries to disk, where the file system can do that."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Create a directory and its parents where absent and force the new entries to disk."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        fsync_directory(directory.parent)


def publish_file(path: Path, data: bytes, *, point: str) -> bool:
    """Publish a file under a name that only one writer can get.

    The content is complete and on disk before the name appears: as a hard link to a finished file, or, where the file
    system has no hard links, as a directory that holds the file (`RECORD_FILE`) and was renamed; a directory cannot be
    renamed onto one that is not empty. `layout.read_json` reads both.

    Args:
        path: The name to get.
        data: The whole content.
        point: Prefix of the failpoints `<point>.write`, `<point>.before_link` and `<point>.after_link`.

    Returns:
        True if this call published it, False if the name was taken.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        write_file(temporary, data, point=point)
        failpoint(f"{point}.before_link")
        published = _link(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    if published:
        failpoint(f"{point}.after_link")
        fsync_directory(path.parent)
    return published


def _link(finished: Path, path: Path) -> bool:
    """Give a finished file a name of its own, by a link or inside a directory; return False if the name is taken."""
    try:
        os.link(finished, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _wrap(finished, path)
    return True


def _wrap(finished: Path, path: Path) -> bool:
    directory = finished.with_name(f"{finished.name}.d")
    directory.mkdir()
    try:
        finished.rename(directory / RECORD_FILE)
        fsync_directory(directory)
        directory.rename(path)
    except OSError as error:
        if error.errno not in _NAME_TAKEN:
            raise
        return False
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return True


def replace_file(path: Path, data: bytes) -> None:
    """Write a file in place of another: a reader sees the old content or the new one, whatever happens between.

    Raises:
        OSError: The disk is full or broken; the old content is still there.
    """
    private = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        write_file(private, data, point="run")
        private.replace(path)
    finally:
        private.unlink(missing_ok=True)
    fsync_directory(path.parent)


def publish_directory(private: Path, *, point: str) -> int:
    """Give a finished directory the next free number beside it, by one rename.

    Args:
        private: The directory; its name begins with a dot, and its files are on disk.
        point: Prefix of the failpoints `<point>.before_publish` and `<point>.after_publish`.

    Returns:
        The number.

    Raises:
        OSError: The disk is broken; nothing was published.
    """
    fsync_directory(private)
    failpoint(f"{point}.before_publish")
    while True:
        number = max((int(entry.name) for entry in private.parent.iterdir() if entry.name.isdigit()), default=0) + 1
        try:
            private.rename(private.parent / str(number))
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                continue
            raise
        fsync_directory(private.parent)
        failpoint(f"{point}.after_publish")
        return number


def rename_new(source: Path, target: Path) -> None:
    """Rename a directory to a name that nothing has, raising FileExistsError otherwise."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise FileExistsError(str(target)) from None
        raise
