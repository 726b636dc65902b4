"""Files from elsewhere, kept on this machine within a number of bytes, shared by its processes; and its work folders.

A folder holds the entries as plain files. Who uses one holds a shared lock on it, who fills one an exclusive lock on
its `.part`, which has its full size from the start; so the sizes of what lies there are what is taken, and a lock that
can be had shows that its owner has died. Room is counted under the lock of the folder.

Work folders, in which the files of an object store's attempts and versions are made, hold to the same rule: whoever
makes one holds a lock on it, and removes those whose lock can be had.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

DEFAULT_SCRATCH_GIB = 20.0
"""Room on a machine for the videos of a bucket that its workers are at."""

_PART = ".part"
_LOCK = ".lock"
_WAIT_SECONDS = 0.05
_WORK_FOLDERS = "work"

_HELD: dict[Path, int] = {}

Fill = Callable[[int], None]
"""Writes an entry's content into the open file with this descriptor."""


class NoRoomError(OSError):
    """An entry does not fit, now or ever."""


class Held:
    """An entry in use: it stays where it is until it is let go.

    Attributes:
        path: The file.
    """

    def __init__(self, cache: LocalCache, path: Path, descriptor: int) -> None:
        self.path = path
        self._cache = cache
        self._descriptor = descriptor

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self, *, remove: bool = False) -> None:
        """Let go, once or more often.

        Args:
            remove: Remove the file where nobody else uses it; else it stays until its room is needed.
        """
        if self._descriptor < 0:
            return
        if remove:
            self._cache.remove(self.path, self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1


class LocalCache:
    """A folder of files that came from elsewhere, never more than `max_bytes` of them. Pickles as these two.

    Attributes:
        folder: Where they are; on a disk of this machine.
        max_bytes: Most bytes of entries, those under way included.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    def hold(self, name: str, num_bytes: int, fill: Fill, *, waiting: Callable[[], None] | None = None) -> Held:
        """Return an entry, filled by this call where the folder lacks it, by whoever comes first where several call.

        Args:
            name: The entry's file name: it says which content it is, so another content has another name.
            num_bytes: Its size.
            fill: Called to fill it.
            waiting: Called again and again while another fills it or there is no room; may raise. None: do not wait.

        Raises:
            NoRoomError: It is larger than the cache, or there is no room and `waiting` is None.
            OSError: The folder cannot be written, or `fill` raised it.
        """
        if num_bytes > self.max_bytes:
            raise NoRoomError(errno.EFBIG, f"{num_bytes:,} bytes are more than the {self.max_bytes:,} of {self.folder}")
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        while True:
            held = self._take(path)
            if held is not None:
                return held
            descriptor = self._begin(path, num_bytes)
            if descriptor is not None:
                return self._filled(path, descriptor, fill)
            if not path.exists():
                if waiting is None:
                    raise NoRoomError(errno.EAGAIN, f"{self.folder} has no room now")
                waiting()
                time.sleep(_WAIT_SECONDS)

    def clear(self) -> None:
        """Remove every entry that nobody uses."""
        if self.folder.is_dir():
            with _locked(self.folder):
                self._make_room(self.max_bytes, spare=None)

    def remove(self, path: Path, descriptor: int) -> None:
        """Remove an entry, open at a descriptor, where nobody else uses it."""
        with _locked(self.folder):
            if _lock(descriptor, fcntl.LOCK_EX) and _is_at(path, descriptor):
                path.unlink()

    def num_bytes(self) -> int:
        """Return how many bytes the entries take, those under way included."""
        return sum(size for _, size, _ in self._entries())

    def _take(self, path: Path) -> Held | None:
        """Return an entry that is there, None where it is not."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if _lock(descriptor, fcntl.LOCK_SH) and _is_at(path, descriptor):
            with contextlib.suppress(OSError):
                os.utime(path)  # what was used last is removed last
            return Held(self, path, descriptor)
        os.close(descriptor)
        return None

    def _begin(self, path: Path, num_bytes: int) -> int | None:
        """Return the locked file to fill, None where another fills it, it is there by now, or there is no room."""
        part = path.with_name(path.name + _PART)
        with _locked(self.folder):
            if path.exists():
                return None
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                if not _lock(descriptor, fcntl.LOCK_EX):
                    os.close(descriptor)
                    return None
                os.ftruncate(descriptor, 0)
                if not self._make_room(num_bytes, spare=part):
                    part.unlink()
                    os.close(descriptor)
                    return None
                if num_bytes:
                    os.posix_fallocate(descriptor, 0, num_bytes)
            except BaseException:
                part.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    os.close(descriptor)
                raise
        return descriptor

    def _filled(self, path: Path, descriptor: int, fill: Fill) -> Held:
        part = path.with_name(path.name + _PART)
        try:
            fill(descriptor)
            os.fsync(descriptor)
            with _locked(self.folder):
                part.rename(path)
                _lock(descriptor, fcntl.LOCK_SH)
        except BaseException:
            with _locked(self.folder):
                part.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        return Held(self, path, descriptor)

    def _make_room(self, num_bytes: int, *, spare: Path | None) -> bool:
        """Remove what nobody uses, the longest unused first, until so many bytes are free; return whether they are."""
        entries = sorted(self._entries())
        taken = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            dead = path.name.endswith(_PART)
            if path != spare and (dead or taken + num_bytes > self.max_bytes) and _remove_unused(path):
                taken -= size
        return taken + num_bytes <= self.max_bytes

    def _entries(self) -> list[tuple[float, int, Path]]:
        """Return when each entry was last used, its size and its path."""
        found = []
        for entry in os.scandir(self.folder):
            if entry.name != _LOCK and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat()
                    found.append((status.st_mtime, status.st_size, Path(entry.path)))
        return found


def scratch_folder() -> Path:
    """Return this machine's scratch: `MOTIONBOX_SCRATCH`, else a folder in the system's one for temporary files."""
    place = os.environ.get("MOTIONBOX_SCRATCH")
    return Path(place) if place else Path(tempfile.gettempdir()) / f"motionbox-scratch-{os.getuid()}"


def make_work_folder() -> Path:
    """Return a new empty folder in scratch, this process's until `remove_work_folder`; remove those of dead processes.

    Raises:
        OSError: Scratch cannot be written.
    """
    parent = scratch_folder() / _WORK_FOLDERS
    parent.mkdir(parents=True, exist_ok=True)
    with _locked(parent):
        for entry in parent.iterdir():
            if entry.name != _LOCK:
                _remove_dead(entry)
        folder = parent / uuid.uuid4().hex
        folder.mkdir()
        _HELD[folder] = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(_HELD[folder], fcntl.LOCK_EX)
    return folder


def remove_work_folder(folder: Path) -> None:
    """Remove a folder that `make_work_folder` has made, with all in it; once or more often."""
    shutil.rmtree(folder, ignore_errors=True)
    descriptor = _HELD.pop(folder, None)
    if descriptor is not None:
        os.close(descriptor)


def _remove_dead(folder: Path) -> None:
    """Remove a work folder whose process has ended."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if _lock(descriptor, fcntl.LOCK_EX):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Tell whether a path still leads to an open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove_unused(path: Path) -> bool:
    """Remove an entry unless somebody holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        if not _lock(descriptor, fcntl.LOCK_EX):
            return False
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)
