"""A data root: a folder of this machine, or a prefix of a bucket that is read like one.

`ListedPath` has the few methods of `Path` that finding clips needs. All places below one root share one listing, so a
data set of 220,000 videos is listed once, a page of 1,000 keys at a time, and looked up in memory afterwards.
"""

from __future__ import annotations

import bisect
import os
from array import array
from collections.abc import Iterator
from functools import cached_property
from operator import itemgetter
from pathlib import Path, PurePosixPath

from motionbox.errors import CredentialsError, InputError, refuse_url
from motionbox.storage.reading import ObjectEntry, Objects, is_url


class Listing:
    """What lies below a URL, listed when it is first asked for. Pickles as the URL."""

    def __init__(self, url: str) -> None:
        self.objects = Objects(url)

    def __reduce__(self) -> tuple[type[Listing], tuple[str]]:
        return type(self), (self.objects.url,)

    @cached_property
    def _sorted(self) -> tuple[list[str], array[int], list[str | None]]:
        """Return the keys in order, their sizes and their etags."""
        try:
            found = [(entry.key, entry.num_bytes, entry.etag) for entry in self.objects.listing()]
        except (OSError, CredentialsError) as error:
            raise InputError(getattr(error, "strerror", None) or str(error)) from None
        found.sort(key=itemgetter(0))
        return [key for key, _, _ in found], array("q", (size for _, size, _ in found)), [etag for _, _, etag in found]

    def entry(self, key: str) -> ObjectEntry | None:
        """Return an object, None where there is none of that name."""
        keys, sizes, etags = self._sorted
        place = bisect.bisect_left(keys, key)
        if place == len(keys) or keys[place] != key:
            return None
        return ObjectEntry(key, sizes[place], etags[place])

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names in a folder, in order; "" is the root."""
        keys = self._sorted[0]
        prefix = f"{folder}/" if folder else ""
        place = bisect.bisect_left(keys, prefix)
        while place < len(keys) and keys[place].startswith(prefix):
            name, slash, _ = keys[place][len(prefix) :].partition("/")
            yield name
            place = bisect.bisect_left(keys, f"{prefix}{name}0") if slash else place + 1  # "0" comes after "/"

    def below(self, folder: str) -> Iterator[str]:
        """Yield the keys below a folder, in order; "" is the root."""
        keys = self._sorted[0]
        prefix = f"{folder}/" if folder else ""
        for place in range(bisect.bisect_left(keys, prefix), len(keys)):
            if not keys[place].startswith(prefix):
                return
            yield keys[place]


class ListedPath:
    """A place below the URL of a data root: an object, or what would be a folder."""

    def __init__(self, listing: Listing, key: str = "") -> None:
        self._listing = listing
        self.key = key

    def __truediv__(self, other: str) -> ListedPath:
        parts = (*PurePosixPath(self.key).parts, *PurePosixPath(other).parts)
        return ListedPath(self._listing, "/".join(part for part in parts if part not in (".", "/")))

    def __str__(self) -> str:
        return f"{self._listing.objects.url}/{self.key}".rstrip("/")

    def __fspath__(self) -> str:
        raise InputError(f"a path must be local here, got {self}; copy it to this machine or mount it")

    @property
    def objects(self) -> Objects:
        """Return the objects that its key is one of."""
        return self._listing.objects

    @property
    def name(self) -> str:
        """Return the last part of the URL."""
        return str(self).rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """Return the extension, as `Path.suffix`."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> ListedPath:
        """Return the folder that it lies in; the root's is the root."""
        return ListedPath(self._listing, self.key.rpartition("/")[0])

    def with_suffix(self, suffix: str) -> ListedPath:
        """Return the place with another extension."""
        return ListedPath(self._listing, str(PurePosixPath(self.key).with_suffix(suffix)))

    def resolve(self) -> ListedPath:
        """Return the place: there are no links."""
        return self

    def entry(self) -> ObjectEntry | None:
        """Return the object, None where there is none of that name."""
        return self._listing.entry(self.key)

    def is_file(self) -> bool:
        """Tell whether there is an object of that name."""
        return self.entry() is not None

    def is_dir(self) -> bool:
        """Tell whether there are objects below it."""
        return next(self._listing.below(self.key), None) is not None

    def exists(self) -> bool:
        """Tell whether it is either."""
        return self.is_file() or self.is_dir()

    def read_bytes(self) -> bytes:
        """Return the object's content.

        Raises:
            OSError: It cannot be read.
        """
        return self.objects.read(self.key)

    def names(self) -> list[str]:
        """Return the names in it, in order."""
        return list(dict.fromkeys(self._listing.names(self.key)))

    def walk(self) -> Iterator[str]:
        """Yield the names of everything below it, relative to it, in order."""
        skipped = len(self.key) + 1 if self.key else 0
        return (key[skipped:] for key in self._listing.below(self.key))


DataRoot = Path | ListedPath
"""A data root, or a place below one."""


def open_root(place: str | Path | ListedPath) -> DataRoot:
    """Return a data root by its path or URL; nothing is looked at yet.

    Raises:
        InputError: It is a URL of a kind that is not read.
    """
    if isinstance(place, ListedPath):
        return place
    if is_url(place):
        return ListedPath(Listing(str(place)))
    refuse_url(place)
    return Path(place)


def place_below(root: DataRoot, path: str) -> DataRoot:
    """Return what a manifest's path leads to: a place below the root, or the object that it is the URL of."""
    if is_url(path):
        folder, _, name = path.rstrip("/").rpartition("/")
        return ListedPath(Listing(folder), name) if is_url(folder) else ListedPath(Listing(path))
    return root / path


def is_object(root: DataRoot, path: str) -> bool:
    """Tell whether a manifest's path leads into a bucket."""
    return isinstance(root, ListedPath) or is_url(path)


def names_in(folder: DataRoot) -> list[str]:
    """Return the names in a folder.

    Raises:
        OSError: It is not there, or cannot be listed.
    """
    if isinstance(folder, Path):
        return os.listdir(folder)  # noqa: PTH208  (names only, hundreds of thousands of them)
    names = folder.names()
    if not names:
        raise FileNotFoundError(f"{folder} does not exist")
    return names
