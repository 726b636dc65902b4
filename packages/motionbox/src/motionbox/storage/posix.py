"""File systems: files that survive a power cut and are never seen half-written, and names that one writer gets."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from motionbox.errors import StoreError
from motionbox.storage.failpoints import failpoint
from motionbox.storage.file_bytes import sha256_file, to_json
from motionbox.storage.paths import StorePath

RECORD_FILE = "record.json"
"""What a record, such as `commits/u000000.json`, holds where it is a directory: on file systems without hard links."""
MANIFEST_FILE = "MANIFEST.json"
"""What is written last into a version, and says what is in it."""

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NAME_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}
_NO_DIRECTORY_SYNC = {errno.EINVAL, errno.EOPNOTSUPP}


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


def _rename_new(source: Path, target: Path) -> None:
    """Rename a directory to a name that nothing has, raising FileExistsError otherwise."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise FileExistsError(str(target)) from None
        raise


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
                _rename_new(private, local)
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
