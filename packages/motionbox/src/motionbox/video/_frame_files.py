"""Frames kept as JPEG or PNG files, in a folder or in a tar archive that is read without unpacking."""

from __future__ import annotations

import contextlib
import functools
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import av
import numpy as np
from numpy.typing import NDArray

from motionbox.errors import ClipError, Reason
from motionbox.inputs.media import frame_number, is_frame_name, natural_key
from motionbox.video._decode import RawFrame
from motionbox.video._image_header import image_orientation, image_size, is_cut_jpeg, is_png
from motionbox.video._opening import ERRORS, check_size
from motionbox.video.frames import DEFAULT_FRAME_FPS, DecodeLimits, VideoInfo

_MAX_FRAME_BYTES = 256 * 2**20
_KEPT_INDEXES = 1024
_LARGEST_NUMBER = 2**62
_TOLERANCE_SECONDS = 1e-3


@dataclass(frozen=True)
class _Index:
    """The frames of a folder or tar in natural order.

    Attributes:
        numbers: int64 (n,), the number in each file's name, -1 where there is none.
        spans: int64 (n, 2), offset and bytes of each frame in a tar; (0, 2) for a folder.
        names: File names of a folder; none for a tar, of which many are kept, with 200,000 frames each.
    """

    numbers: NDArray[np.int64]
    spans: NDArray[np.int64]
    names: tuple[str, ...] = ()


class FrameFiles:
    """A folder or tar of frames, read in natural order of the names; a context manager."""

    def __init__(self, path: Path, limits: DecodeLimits, *, fps: float | None, numbered: bool) -> None:
        """List the frames.

        Args:
            path: Folder or tar archive.
            limits: What is refused.
            fps: Frames per second; None takes `DEFAULT_FRAME_FPS`.
            numbered: File number n has time n / fps (EPIC-KITCHENS); else the file at position i has time i / fps.

        Raises:
            ClipError: Nothing there, unreadable, or numbers missing or doubled where `numbered` needs them.
            ValueError: `fps` is not positive.
        """
        self.path = path
        self._limits = limits
        self._fps = DEFAULT_FRAME_FPS if fps is None else fps
        if not self._fps > 0:
            raise ValueError(f"fps must be greater than 0, got {fps!r}")
        self._size_wh: tuple[int, int] | None = None
        self._index, self._archive = _open_index(path)
        numbers = self._index.numbers
        try:
            if len(numbers) == 0:
                raise ClipError(Reason.NO_FRAMES, f"{path}: holds no JPEG or PNG frame")
            if numbered and (numbers.min() < 0 or (np.diff(numbers) <= 0).any()):
                raise ClipError(
                    Reason.UNSUPPORTED,
                    f"{path}: frame files must be numbered without doubles, like frame_0000000001.jpg",
                )
        except ClipError:
            self.__exit__()
            raise
        self._times = (numbers if numbered else np.arange(len(numbers))) / self._fps

    def __enter__(self) -> FrameFiles:
        return self

    def __exit__(self, *_: object) -> None:
        if self._archive is not None:
            self._archive.close()

    @property
    def size_wh(self) -> tuple[int, int]:
        """Upright width and height of the first picture, which all others are brought to."""
        if self._size_wh is None:
            self._size_wh = self._decode(0).size_wh
        return self._size_wh

    def info(self) -> VideoInfo:
        """Describe the folder or tar; decodes the first frame.

        Raises:
            ClipError: It is broken or outside the limits.
        """
        width, height = self.size_wh
        return VideoInfo(
            width=width,
            height=height,
            fps=self._fps,
            duration_seconds=len(self._times) / self._fps,
            num_frames_hint=len(self._times),
            codec="png" if is_png(self._read(0)) else "jpeg",
            container="tar" if self._archive else "frames",
            rotation_degrees=0,
        )

    def read(self, start_seconds: float | None) -> Iterator[RawFrame]:
        """Decode in order from the first frame, or from the first at or after `start_seconds`.

        Raises:
            ClipError: A frame is empty, broken or outside the limits; those before it are yielded first.
        """
        first = 0 if start_seconds is None else int(np.searchsorted(self._times, start_seconds))
        return map(self._decode, range(first, len(self._times)))

    def read_at(self, times_seconds: NDArray[np.float64]) -> Iterator[RawFrame]:
        """Decode the frames at the given times and no others.

        Raises:
            ClipError: There is no frame at one of the times, or it is broken.
        """
        tolerance = min(_TOLERANCE_SECONDS, 0.25 / self._fps)
        places = np.searchsorted(self._times, times_seconds - tolerance)
        for place, time_seconds in zip(places.tolist(), times_seconds.tolist(), strict=True):
            if place == len(self._times) or self._times[place] > time_seconds + tolerance:
                raise ClipError(
                    Reason.EMPTY_SPAN,
                    f"{self.path}: has {len(self._times)} frames and no frame at {time_seconds:.3f} s",
                )
            yield self._decode(place)

    def _decode(self, place: int) -> RawFrame:
        data = self._read(place)
        if not data:
            raise ClipError(Reason.EMPTY_FILE, f"{self.path}: frame {self._name(place)} is empty (0 bytes)")
        size = image_size(data)
        if size is not None:
            self._check_size(size, place)
        try:
            intact = size is not None and not is_cut_jpeg(data)
            codec = av.CodecContext.create("png" if is_png(data) else "mjpeg", "r")
            codec.thread_count = 1
            pictures = [*codec.decode(av.Packet(data)), *codec.decode(None)] if intact else []
        except ERRORS:
            pictures = []
        if not pictures or pictures[0].is_corrupt:
            raise ClipError(
                Reason.DECODE_ERROR, f"{self.path}: frame {self._name(place)} is no intact JPEG or PNG; fetch it again"
            )
        turns, mirrored = image_orientation(data)
        frame = RawFrame(place, float(self._times[place]), pictures[0], turns, mirrored)
        if place == 0:
            self._size_wh = frame.size_wh
        return frame

    def _check_size(self, size_wh: tuple[int, int], place: int) -> None:
        try:
            check_size(self.path, *size_wh, self._limits)
        except ClipError as error:
            raise ClipError(error.reason, f"{error.message} in {self._name(place)}") from None

    def _read(self, place: int) -> bytes:
        """Return the bytes of a file."""
        try:
            if self._archive is None:
                file = self.path / self._index.names[place]
                num_bytes = file.stat().st_size
                data = b"" if num_bytes > _MAX_FRAME_BYTES else file.read_bytes()
            else:
                offset, num_bytes = self._index.spans[place].tolist()
                self._archive.seek(offset)
                data = b"" if num_bytes > _MAX_FRAME_BYTES else self._archive.read(num_bytes)
            if num_bytes > _MAX_FRAME_BYTES:
                raise OSError("file is too large for one frame")
            if len(data) < num_bytes:
                raise OSError("archive ends in the middle of the frame")
        except OSError as error:
            message = f"{self.path}: frame {self._name(place)} cannot be read: {error}"
            raise ClipError(Reason.TRUNCATED, message) from None
        return data

    def _name(self, place: int) -> str:
        """Return the name of a file, for a message: those of a tar are not kept."""
        return (
            self._index.names[place] if self._archive is None else sorted(_members(self.path), key=natural_key)[place]
        )


def _open_index(path: Path) -> tuple[_Index, IO[bytes] | None]:
    try:
        if path.is_dir():
            names = sorted((entry.name for entry in path.iterdir() if is_frame_name(entry.name)), key=natural_key)
            return _Index(_numbers(names), np.empty((0, 2), np.int64), tuple(names)), None
        status = path.stat()
        return _index_tar(path, status.st_mtime_ns, status.st_size), path.open("rb")
    except FileNotFoundError:
        raise ClipError(Reason.MISSING, f"{path}: does not exist") from None
    except tarfile.TarError as error:
        reason = Reason.EMPTY_FILE if path.stat().st_size == 0 else Reason.NOT_A_VIDEO
        raise ClipError(reason, f"{path}: is no readable tar of frames: {error}; fetch it again") from None
    except OSError as error:
        raise ClipError(Reason.UNREADABLE, f"{path}: cannot be read: {error.strerror or error}") from None


@functools.lru_cache(maxsize=_KEPT_INDEXES)
def _index_tar(path: Path, modified_ns: int, size: int) -> _Index:  # noqa: ARG001
    """List an archive once per process and state of the file."""
    members = _members(path)
    names = sorted(members, key=natural_key)
    return _Index(_numbers(names), np.array([members[name] for name in names], np.int64).reshape(-1, 2))


def _members(path: Path) -> dict[str, tuple[int, int]]:
    """Return name -> (offset, bytes) of the frames in a tar.

    An archive that is cut off ends the list; reading its last member says so, after the whole ones.
    """
    members: dict[str, tuple[int, int]] = {}
    with tarfile.open(path, mode="r:") as archive, contextlib.suppress(tarfile.TarError):
        members.update((m.name, (m.offset_data, m.size)) for m in archive if m.isreg() and is_frame_name(m.name))
    return members


def _numbers(names: list[str]) -> NDArray[np.int64]:
    found = [frame_number(name) for name in names]
    return np.array([-1 if number is None else min(number, _LARGEST_NUMBER) for number in found], np.int64)
