"""Names of files and objects: `Path` on a file system, `ObjectPath` in a bucket, used in the same words."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from motionbox.errors import InputError

if TYPE_CHECKING:
    from motionbox.storage.client import Client, Entry

SCHEMES = ("s3", "gs", "az")
"""Kinds of buckets: Amazon S3 and what speaks its language, Google Cloud Storage, Azure Blob Storage."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)/*(.*)", re.DOTALL)
_WILD = re.compile(r"[*?[]")


@dataclass(frozen=True, order=True)
class ObjectPath:
    """The name of an object, or of what lies below a prefix, in the words of `pathlib`.

    There are no directories in a bucket: one is there while an object lies below it. Every listing asks the bucket.

    Attributes:
        bucket: Scheme and bucket, `s3://bucket`.
        key: Without a slash in front or at the end; empty for the bucket itself.
    """

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    def __truediv__(self, part: str | PurePosixPath) -> ObjectPath:
        return ObjectPath(self.bucket, "/".join(piece for piece in (self.key, str(part).strip("/")) if piece))

    @property
    def name(self) -> str:
        """Return the last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """Return the last part of the key without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """Return the suffix of the last part of the key, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> ObjectPath:
        """Return the prefix that it lies below."""
        return ObjectPath(self.bucket, self.key.rpartition("/")[0])

    def with_name(self, name: str) -> ObjectPath:
        """Return the object of another name beside it."""
        return self.parent / name

    def relative_to(self, other: ObjectPath) -> PurePosixPath:
        """Return the rest of the key below a prefix.

        Raises:
            ValueError: It does not lie below it.
        """
        if self.bucket != other.bucket:
            raise ValueError(f"{self} does not lie below {other}")
        return PurePosixPath(self.key).relative_to(other.key)

    def absolute(self) -> ObjectPath:
        """Return itself."""
        return self

    def resolve(self) -> ObjectPath:
        """Return itself."""
        return self

    @property
    def client(self) -> Client:
        """Return the connection to its bucket."""
        from motionbox.storage.client import client_of

        return client_of(self.bucket)

    def read_bytes(self) -> bytes:
        """Return the whole object.

        Raises:
            FileNotFoundError: There is none.
            OSError: It cannot be read.
        """
        return self.client.read(self.key)

    def read_text(self) -> str:
        """Return the whole object as UTF-8 text."""
        return self.read_bytes().decode()

    def stat(self) -> Entry:
        """Return the object's size (`st_size`) and time of writing (`st_mtime`, seconds of the bucket's clock).

        Raises:
            FileNotFoundError: There is none.
        """
        return self.client.head(self.key)

    def is_file(self) -> bool:
        """Return whether there is such an object."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Return whether an object lies below it."""
        return self.client.has_children(self.key)

    def exists(self) -> bool:
        """Return whether there is such an object, or one below it."""
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator[ObjectPath]:
        """Yield what lies directly below it, objects and prefixes, sorted."""
        yield from (ObjectPath(self.bucket, key) for key in self.client.children(self.key))

    def rglob(self, pattern: str) -> Iterator[ObjectPath]:
        """Yield the objects anywhere below it whose last part fits a pattern."""
        for entry in self.client.walk(self.key):
            found = ObjectPath(self.bucket, entry.key)
            if fnmatch.fnmatchcase(found.name, pattern):
                yield found

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        """Yield what fits a pattern below it, level by level, as `Path.glob` does; `**` is not known."""
        first, _, rest = pattern.partition("/")
        if _WILD.search(first):
            found = (entry for entry in self.iterdir() if fnmatch.fnmatchcase(entry.name, first))
            for entry in found:
                yield from entry.glob(rest) if rest else (entry,)
        elif rest:
            yield from (self / first).glob(rest)
        elif (self / first).exists():
            yield self / first

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the object; one that is not there is no error."""
        del missing_ok
        self.client.delete([self.key])


StorePath = Path | ObjectPath
"""Where a store or a part of it lies."""


def children(path: StorePath) -> list[StorePath]:
    """Return what lies directly below a place, sorted; nothing where it is no directory."""
    if isinstance(path, ObjectPath):
        return [*path.iterdir()]
    return [*sorted(path.iterdir())] if path.is_dir() else []


def matching(path: StorePath, pattern: str) -> list[StorePath]:
    """Return what fits a pattern below a place, sorted; nothing where it is no directory."""
    if isinstance(path, ObjectPath):
        return [*path.glob(pattern)]
    return [*sorted(path.glob(pattern))] if path.is_dir() else []


def parse_place(text: str | StorePath) -> StorePath:
    """Return where a path or URL leads.

    Raises:
        InputError: It is a URL that no store can lie at, or its name is no UTF-8, which pyarrow cannot open.
    """
    if not isinstance(text, str):
        return text
    found = _URL.fullmatch(text)
    if found is None:
        if not text.isascii() and text.encode("utf-8", "replace").decode("utf-8") != text:
            raise InputError(f"a store's path must be UTF-8, got {text!r}; rename the folder, or set PYTHONUTF8=1")
        return Path(text)
    scheme, bucket, key = found.groups()
    if scheme.lower() not in SCHEMES or not bucket:
        known = ", ".join(f"{name}://bucket/prefix" for name in SCHEMES)
        raise InputError(f"a store must be a local path or one of {known}, got {text!r}")
    if any(part in (".", "..") for part in key.split("/")):
        raise InputError(f"a URL must name every part, without . and .., got {text!r}")
    return ObjectPath(f"{scheme.lower()}://{bucket}", "/".join(part for part in key.split("/") if part))
