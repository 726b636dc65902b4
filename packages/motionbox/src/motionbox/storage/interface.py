"""What a store asks of the place where it lies: `Storage`, once for file systems and once for buckets.

Files are made in a local folder (`staging`), which on a file system is the place itself; `settle` puts them there.
What makes things visible is a name that one writer can get: a *record* (`publish`, and by name and life
`publish_record`), or the next number in a folder (`new_number`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from motionbox.storage.paths import ObjectPath, StorePath


class NewNumber(Protocol):
    """A version that is being made, to appear under the next free number of a folder.

    Attributes:
        directory: Local folder for its files.
    """

    directory: Path

    def publish(self, manifest: dict[str, Any], *, point: str) -> int:
        """Make it visible at once, with its files, and return its number.

        Args:
            manifest: What MANIFEST.json says, which is written last.
            point: Prefix of the failpoints `<point>.before_publish` and `<point>.after_publish`.

        Raises:
            OSError: Nothing was published.
        """
        ...


class Storage(Protocol):
    """A kind of place. Every method raises `OSError` where the place cannot be read or written.

    Attributes:
        poll_seconds: How often another process may look whether something changed.
        counts_retired: Whether the retired records of a name say which its next one is, so that they must stay.
        answers_late: Whether what failed may still come to pass, so that its files must stay for `gc` to judge.
    """

    poll_seconds: float
    answers_late: bool
    counts_retired: bool

    def read_ranges(self, path: StorePath, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return ranges (offset, bytes) of a file or object; many requests are in flight where it is an object."""
        ...

    def digests(self, paths: Sequence[StorePath]) -> list[tuple[int, str] | None]:
        """Return size and SHA-256 of files or objects as they are stored now; None for one that is not there."""
        ...

    def make_directory(self, path: StorePath) -> None:
        """Create a directory and its parents where such things are."""
        ...

    def publish(self, path: StorePath, data: bytes, *, point: str) -> bool:
        """Write a file or object whole under a name that one writer gets.

        Args:
            path: The name.
            data: Must bear something that no other writer's data has.
            point: Prefix of failpoints.

        Returns:
            Whether this call got the name.
        """
        ...

    def replace(self, path: StorePath, data: bytes) -> None:
        """Write a file or object in place of another: readers see the old content or the new one."""
        ...

    def note(self, path: StorePath, data: bytes) -> None:
        """Leave a note that may be lost, whole or not at all."""
        ...

    def scribble(self, path: StorePath, data: bytes) -> None:
        """Leave a note that may be lost or torn, as cheaply as can be."""
        ...

    def remove(self, path: StorePath) -> None:
        """Remove a file, or a directory with all in it; what is not there is no error."""
        ...

    def remove_at_once(self, path: StorePath) -> None:
        """Remove something so that nobody takes what is left of it meanwhile for the whole."""
        ...

    def staging(self, path: StorePath) -> Path:
        """Return the local folder where the files of a directory are to be made; it need not exist yet."""
        ...

    def settle(self, staged: Path, path: StorePath) -> None:
        """Bring what was made in a staging folder to its place, for good; nothing refers to it yet."""
        ...

    def fetch(self, directory: StorePath, names: Sequence[str]) -> Path:
        """Return a local folder that has these files of a directory; to be removed with `clear`."""
        ...

    def clear(self, staged: Path) -> None:
        """Remove a local folder of `staging` or `fetch` that is not the place itself."""
        ...

    def records(self, directory: StorePath) -> dict[str, StorePath]:
        """Return the records in a directory that are in force: name -> where it is, sorted by name."""
        ...

    def places(self, directory: StorePath, names: Sequence[str]) -> dict[str, StorePath]:
        """Return where the records of names are, or where their next ones will be, listed or not."""
        ...

    def record(self, directory: StorePath, name: str) -> StorePath:
        """Return where the record of a name is, or where its next one will be."""
        ...

    def life(self, directory: StorePath, name: str) -> int:
        """Return how many records of a name were retired: what a writer must know before it begins its work."""
        ...

    def publish_record(self, directory: StorePath, name: str, life: int, data: bytes, *, point: str) -> bool:
        """Publish the record of a name, for the life in which the work for it began; see `publish`."""
        ...

    def retire_record(self, directory: StorePath, name: str, retired: StorePath) -> None:
        """End the force of a name's record, of which a copy stays at `retired`."""
        ...

    def create_directory(self, path: StorePath, files: Mapping[str, bytes], folders: Sequence[str]) -> None:
        """Make a directory that is there once the last of its files is, unless somebody else has made it.

        Args:
            path: The directory; others that make it write the same but for times and names of hosts.
            files: File name -> content, in the order of writing.
            folders: Empty directories in it, where such things are.
        """
        ...

    def new_number(self, parent: StorePath) -> AbstractContextManager[NewNumber]:
        """Begin a version in a folder of numbered ones; leaving without `publish` drops it."""
        ...

    def files_of(self, version: StorePath, manifest: dict[str, Any]) -> StorePath:
        """Return where the files of a published version are."""
        ...

    def parts_of(self, version: StorePath) -> list[StorePath]:
        """Return what a published version consists of, in the order in which to remove it."""
        ...

    def is_held(self, version: StorePath) -> bool:
        """Return whether a reader is known to hold a version."""
        ...

    def in_use(self, version: StorePath, successor: StorePath) -> bool:
        """Return whether a reader may hold a version that another has superseded."""
        ...

    def abandoned(self, attempt: StorePath) -> bool:
        """Return whether nobody can be at work on an attempt of a unit without a record."""
        ...

    def leftovers(self, parent: StorePath) -> list[StorePath]:
        """Return what writers left half-made in a folder, and can never be published."""
        ...

    def half_made(self, runs: StorePath) -> list[StorePath]:
        """Return the runs that somebody began to create and that never came to be."""
        ...

    def check_exclusive(self, directory: StorePath) -> None:
        """Check that a name can be got once only: what all of this is made of.

        Raises:
            StoreError: It can be got twice.
        """
        ...


def storage_of(path: StorePath) -> Storage:
    """Return what answers for a place."""
    if isinstance(path, ObjectPath):
        from motionbox.storage.objects import OBJECTS

        return OBJECTS
    from motionbox.storage.posix import FILES

    return FILES
