"""Videos of a bucket for a worker: each is fetched to this machine's scratch folder when its turn comes.

The scratch folder is shared by the workers of a machine and holds no more than it may: a video that is being decoded
and the one that comes after it, for each worker. With a unit's last video that is the first of the unit that is likely
to come next. It stays for whoever is given that unit, and like a long video that several units share until its room is
needed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from motionbox.errors import ClipError, Reason
from motionbox.inputs.data_root import DataRoot, ListedPath
from motionbox.storage.local_cache import DEFAULT_SCRATCH_GIB, Held, LocalCache, NoRoomError, scratch_folder
from motionbox.storage.reading import ChangedError, ObjectEntry
from motionbox.store.units import InputFile, Piece
from motionbox.video.frames import WHOLE, Span

if TYPE_CHECKING:
    from motionbox.extraction.work_unit import FrameSource
    from motionbox.video.frames import Frame, VideoInfo

_BEAT_SECONDS = 1.0


def scratch_cache(max_gib: float) -> LocalCache:
    """Return the videos in this machine's scratch, see `scratch_folder`."""
    return LocalCache(scratch_folder(), int(max_gib * 2**30))


def clear_scratch() -> None:
    """Remove from scratch the videos that nobody uses."""
    scratch_cache(DEFAULT_SCRATCH_GIB).clear()


def _do_nothing() -> None:
    """Wait patiently."""


@contextlib.contextmanager
def on_this_machine(place: DataRoot) -> Iterator[Path]:
    """Have a video as a file of this machine: itself, or as it is now in its bucket, from scratch.

    Raises:
        ClipError: The object is gone, forbidden or larger than the scratch folder may be.
        OSError: The network or the disk is at fault.
    """
    if not isinstance(place, ListedPath):
        yield place
        return
    with _as_clip_errors():
        entry = place.objects.entry(place.key)
    known = InputFile(place.key, "file", entry.num_bytes, 0, entry.etag)
    with _Wanted(place, known, shared=True).hold(scratch_cache(DEFAULT_SCRATCH_GIB), _do_nothing) as path:
        yield path


@dataclass(frozen=True)
class _Wanted:
    """An object that pieces of the unit are read from."""

    place: ListedPath
    known: InputFile
    shared: bool

    @property
    def name(self) -> str:
        """Return its name in scratch: another content has another."""
        text = f"{self.place}\0{self.known.num_bytes}\0{self.known.etag}"
        return hashlib.sha256(text.encode()).hexdigest()[:40] + PurePosixPath(self.place.name).suffix.lower()

    def hold(self, cache: LocalCache, beat: Callable[[], None], *, wait: bool = True) -> Held:
        """Return it on this machine's disk.

        Args:
            cache: See `scratch_cache`.
            beat: Called with every part of it that has come, and while it is waited for; may raise.
            wait: Whether to wait for another who fetches it, or for room.

        Raises:
            ClipError: The object is gone, forbidden, changed or larger than the scratch folder may be.
            OSError: The network or the disk is at fault, or there is no room and `wait` is False.
        """
        if self.known.kind == "missing":
            raise ClipError(Reason.MISSING, f"{self.place}: does not exist")
        entry = ObjectEntry(self.place.key, self.known.num_bytes, self.known.etag)
        try:
            with _as_clip_errors():
                return cache.hold(
                    self.name,
                    entry.num_bytes,
                    lambda descriptor: self.place.objects.fetch(entry, descriptor, beat),
                    waiting=beat if wait else None,
                )
        except NoRoomError:
            if not wait:
                raise
            size = f"{entry.num_bytes / 2**30:.3f} GiB"
            most = f"--scratch-gib {cache.max_bytes / 2**30:g}"
            raise ClipError(Reason.TOO_LARGE, f"{self.place}: {size} do not fit into scratch ({most})") from None


class FetchingSource:
    """Opens the videos of one unit: those of a bucket from scratch, the next one of them fetched meanwhile."""

    def __init__(
        self,
        source: FrameSource,
        cache: LocalCache,
        pieces: Sequence[tuple[Piece, DataRoot]],
        inputs: Mapping[str, InputFile],
        *,
        following: tuple[Piece, DataRoot] | None = None,
        beat: Callable[[], None] = _do_nothing,
    ) -> None:
        """Take what decodes, the scratch, the unit's pieces with where they lie, and what they were when planned.

        Args:
            source: Decodes files of this machine.
            cache: See `scratch_cache`.
            pieces: The unit's pieces, in their order.
            inputs: Path of a piece -> its object as the run knows it.
            following: A piece that comes after the unit; see `keep_following`.
            beat: Called while a video is waited for; may raise.
        """
        self._source = source
        self._cache = cache
        self._beat = beat
        self._wanted: dict[str, _Wanted] = {}
        for piece, place in pieces:
            if isinstance(place, ListedPath):
                in_part = (piece.first_block, piece.stop_block) != (None, None)
                shared = in_part or str(place) in self._wanted
                self._wanted[str(place)] = _Wanted(place, inputs[piece.path], shared)
        piece_after, after = following or (None, None)
        if piece_after is not None and isinstance(after, ListedPath):
            self._wanted.setdefault(str(after), _Wanted(after, inputs[piece_after.path], shared=True))
        self._order = list(self._wanted)
        self._ahead: _Ahead | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")

    def open(self, path: DataRoot, span: Span = WHOLE) -> tuple[VideoInfo, Generator[Frame]]:
        """Return what the video is and its frames, see `FrameSource.open`.

        Raises:
            ClipError: It cannot be fetched or opened.
            OSError: The network or the disk is at fault.
        """
        if isinstance(path, Path):
            return self._source.open(path, span)
        wanted = self._wanted[str(path)]
        held = self._taken_ahead(str(path)) or wanted.hold(self._cache, self._beat)
        self._begin_next(str(path))
        try:
            with _told_of(path, held.path):
                info, frames = self._source.open(held.path, span)
        except BaseException:
            held.release(remove=not wanted.shared)
            raise
        return info, self._frames(wanted, held, frames)

    def keep_following(self) -> None:
        """Leave in scratch what was begun to be fetched for after the unit, for as long as there is room for it."""
        if self._ahead is not None:
            self._ahead.keep()
            self._ahead = None

    def close(self) -> None:
        """Let go of what was fetched ahead, and for no longer than a part of it."""
        self._drop_ahead()
        self._pool.shutdown(wait=False)

    def _frames(self, wanted: _Wanted, held: Held, frames: Generator[Frame]) -> Generator[Frame]:
        try:
            with contextlib.closing(frames), _told_of(wanted.place, held.path):
                yield from frames
        finally:
            held.release(remove=not wanted.shared)

    def _taken_ahead(self, url: str) -> Held | None:
        """Return what was fetched ahead, None where that is another object or could not be fetched."""
        if self._ahead is None or self._ahead.url != url:
            return None
        future = self._ahead.held
        self._ahead = None
        while not future.done():
            self._beat()
            wait([future], timeout=_BEAT_SECONDS)
        return None if future.exception() is not None else future.result()  # what failed is tried again, and told then

    def _begin_next(self, url: str) -> None:
        """Begin to fetch the object after this one, if there is room for it."""
        place = self._order.index(url) + 1
        if place == len(self._order) or (self._ahead is not None and self._ahead.url == self._order[place]):
            return
        self._drop_ahead()
        self._ahead = _Ahead(self._order[place], self._wanted[self._order[place]], self._cache, self._pool)

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            ahead.drop()


class _Ahead:
    """An object that is fetched while another one is decoded.

    Attributes:
        url: Its URL.
        held: It, when it is here.
    """

    def __init__(self, url: str, wanted: _Wanted, cache: LocalCache, pool: ThreadPoolExecutor) -> None:
        self.url = url
        self._unwanted = threading.Event()
        self.held: Future[Held] = pool.submit(wanted.hold, cache, self._check, wait=False)

    def _check(self) -> None:
        if self._unwanted.is_set():
            raise OSError(errno.ECANCELED, f"{self.url} is not wanted any more")

    def drop(self) -> None:
        """Remove it, or give up fetching it."""
        self._unwanted.set()
        if self.held.exception() is None:
            self.held.result().release(remove=True)

    def keep(self) -> None:
        """Let it come, and leave it where it is."""
        _KEPT.add(self._unwanted)
        self.held.add_done_callback(self._leave)

    def _leave(self, held: Future[Held]) -> None:
        _KEPT.discard(self._unwanted)
        if held.exception() is None:
            held.result().release()


_KEPT: set[threading.Event] = set()


def give_up_following() -> None:
    """Give up fetching what this process fetches for units to come."""
    for unwanted in list(_KEPT):
        unwanted.set()


@contextlib.contextmanager
def _as_clip_errors() -> Iterator[None]:
    """Have what is wrong with an object be told of its clips; the scratch folder's own errors name a file."""
    try:
        yield
    except FileNotFoundError as error:
        if error.filename is None:
            raise ClipError(Reason.MISSING, str(error.strerror)) from None
        raise
    except PermissionError as error:
        if error.filename is None:
            raise ClipError(Reason.UNREADABLE, str(error.strerror)) from None
        raise
    except ChangedError as error:
        remedy = "--retry-failed takes it as it is now"
        raise ClipError(Reason.CHANGED, f"{error.strerror}; {remedy}") from None


@contextlib.contextmanager
def _told_of(place: ListedPath, path: Path) -> Iterator[None]:
    """Have errors name the object instead of its copy in scratch."""
    try:
        yield
    except ClipError as error:
        raise ClipError(error.reason, error.message.replace(str(path), str(place))) from None
