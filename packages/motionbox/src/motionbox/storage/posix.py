"""File systems, as the store sees them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from motionbox.errors import StoreError
from motionbox.storage.files import (
    MANIFEST_FILE,
    fsync_directory,
    make_directory,
    publish_directory,
    publish_file,
    rename_new,
    replace_file,
    sha256_file,
    to_json,
    write_file,
)
from motionbox.storage.paths import StorePath


class PosixStorage:
    """`Storage` on a file system."""

    poll_seconds = 0.0
    answers_late = False
    counts_retired = False

    def read_ranges(self, path: StorePath, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return ranges (offset, bytes) of a file."""
        descriptor = os.open(_local(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return [os.pread(descriptor, num_bytes, offset) for offset, num_bytes in ranges]
        finally:
            os.close(descriptor)

    def digests(self, paths: Sequence[StorePath]) -> list[tuple[int, str] | None]:
        """Return size and SHA-256 of files; None for one that is not there."""
        local = [_local(path) for path in paths]
        return [(path.stat().st_size, sha256_file(path)) if path.is_file() else None for path in local]

    def make_directory(self, path: StorePath) -> None:
        """Create a directory and its parents; see `make_directory`."""
        make_directory(_local(path))

    def publish(self, path: StorePath, data: bytes, *, point: str) -> bool:
        """Publish a file under a name that one writer gets; see `publish_file`."""
        return publish_file(_local(path), data, point=point)

    def replace(self, path: StorePath, data: bytes) -> None:
        """Write a file in place of another; see `replace_file`."""
        replace_file(_local(path), data)

    def note(self, path: StorePath, data: bytes) -> None:
        """Leave a note: whole, but not forced to disk."""
        temporary = _local(path).with_name(f".{path.stem}-{os.getpid()}")
        temporary.write_bytes(data)
        temporary.replace(_local(path))

    def scribble(self, path: StorePath, data: bytes) -> None:
        """Leave a note, in place of the one before."""
        _local(path).write_bytes(data)

    def remove(self, path: StorePath) -> None:
        """Remove a file, or a directory with all in it."""
        local = _local(path)
        if local.is_dir():
            shutil.rmtree(local, ignore_errors=True)
        else:
            local.unlink(missing_ok=True)

    def remove_at_once(self, path: StorePath) -> None:
        """Remove a file; a directory by a new name first, that makes it a half-written one."""
        local = _local(path)
        if local.is_dir():
            private = local.with_name(f".{uuid.uuid4().hex}")
            local.rename(private)
            shutil.rmtree(private, ignore_errors=True)
        else:
            local.unlink(missing_ok=True)

    def staging(self, path: StorePath) -> Path:
        """Return the place itself."""
        return _local(path)

    def settle(self, staged: Path, path: StorePath) -> None:
        """Do nothing: it is there."""

    def fetch(self, directory: StorePath, names: Sequence[str]) -> Path:
        """Return the directory itself."""
        del names
        return _local(directory)

    def clear(self, staged: Path) -> None:
        """Do nothing: it is the place itself."""

    def records(self, directory: StorePath) -> dict[str, StorePath]:
        """Return the records in a directory, sorted by name."""
        local = _local(directory)
        found = local.glob("*.json") if local.is_dir() else ()
        return {path.stem: path for path in sorted(found) if not path.name.startswith(".")}

    def places(self, directory: StorePath, names: Sequence[str]) -> dict[str, StorePath]:
        """Return where the records of names are."""
        return {name: self.record(directory, name) for name in names}

    def record(self, directory: StorePath, name: str) -> Path:
        """Return where the record of a name is: there is one such place."""
        return _local(directory) / f"{name}.json"

    def life(self, directory: StorePath, name: str) -> int:
        """Return 0: a retired record has left its name to the next one."""
        del directory, name
        return 0

    def publish_record(self, directory: StorePath, name: str, life: int, data: bytes, *, point: str) -> bool:
        """Publish the record of a name."""
        del life
        return publish_file(self.record(directory, name), data, point=point)

    def retire_record(self, directory: StorePath, name: str, retired: StorePath) -> None:
        """Give a record another name."""
        make_directory(_local(retired).parent)
        self.record(directory, name).rename(_local(retired))
        fsync_directory(_local(retired).parent)
        fsync_directory(_local(directory))

    def create_directory(self, path: StorePath, files: Mapping[str, bytes], folders: Sequence[str]) -> None:
        """Write a directory in private and give it its name, unless that is taken."""
        local = _local(path)
        private = local.with_name(f".{local.name}.{uuid.uuid4().hex}")
        private.mkdir()
        try:
            *before, last = files.items()
            for name, data in before:
                write_file(private / name, data, point="run")
            for name in folders:
                (private / name).mkdir()
            write_file(private / last[0], last[1], point="run")
            fsync_directory(private)
            with contextlib.suppress(FileExistsError):
                rename_new(private, local)
            fsync_directory(local.parent)
        finally:
            shutil.rmtree(private, ignore_errors=True)

    @contextlib.contextmanager
    def new_number(self, parent: StorePath) -> Iterator[_NewDirectory]:
        """Begin a version in a private directory."""
        private = _local(parent) / f".{uuid.uuid4().hex}"
        make_directory(_local(parent))
        private.mkdir()
        try:
            yield _NewDirectory(private)
        finally:
            shutil.rmtree(private, ignore_errors=True)

    def files_of(self, version: StorePath, manifest: dict[str, Any]) -> StorePath:
        """Return the version's directory."""
        del manifest
        return version

    def parts_of(self, version: StorePath) -> list[StorePath]:
        """Return the version's directory."""
        return [version]

    def in_use(self, version: StorePath, successor: StorePath) -> bool:
        """Return whether a reader holds a version open."""
        del successor
        return self.is_held(version)

    def is_held(self, version: StorePath) -> bool:
        """Return whether a reader holds a version open, on this host or wherever the file system shares locks."""
        try:
            descriptor = os.open(_local(version) / MANIFEST_FILE, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def abandoned(self, attempt: StorePath) -> bool:
        """Return True: the store's lock dies with its holder, and `gc` holds it."""
        del attempt
        return True

    def half_made(self, runs: StorePath) -> list[StorePath]:
        """Return the private directories that are left."""
        return self.leftovers(runs)

    def leftovers(self, parent: StorePath) -> list[StorePath]:
        """Return the private directories that are left."""
        local = _local(parent)
        return sorted(local.glob(".*")) if local.is_dir() else []

    def check_exclusive(self, directory: StorePath) -> None:
        """Check that a name in a directory can be got once only."""
        probe = _local(directory) / f".probe-{uuid.uuid4().hex}"
        try:
            if [publish_file(probe, b"", point="probe") for _ in range(2)] != [True, False]:
                raise StoreError(
                    f"store {directory} lies on a file system that has no hard links and lets a directory be renamed "
                    "onto another: two writers could destroy each other's work; give --store a path on another one"
                )
        finally:
            if probe.is_dir():
                shutil.rmtree(probe, ignore_errors=True)
            else:
                probe.unlink(missing_ok=True)


class _NewDirectory:
    """A private directory that becomes a numbered one by one rename."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def publish(self, manifest: dict[str, Any], *, point: str) -> int:
        """Write MANIFEST.json and publish the directory; see `publish_directory`."""
        write_file(self.directory / MANIFEST_FILE, to_json(manifest), point="run")
        return publish_directory(self.directory, point=point)


def _local(path: StorePath) -> Path:
    if not isinstance(path, Path):
        raise AssertionError(f"{path} is no path of a file system")
    return path


FILES = PosixStorage()
