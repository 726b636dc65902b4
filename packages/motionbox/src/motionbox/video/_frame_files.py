"""Frames kept as JPEG or PNG files, in a folder or in a tar archive that is read without unpacking."""

from __future__ import annotations

import contextlib
import functools
import itertools
import struct
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from motionbox.errors import ClipError, Reason
from motionbox.inputs.media import frame_number, is_frame_name, natural_key
from motionbox.video.frames import DEFAULT_FRAME_FPS, MIN_SIDE_PX, DecodeLimits, VideoInfo

_MAX_FRAME_BYTES = 256 * 2**20


@dataclass(frozen=True)
class FrameFile:
    """One frame file: position in natural order, time in seconds, name, and the bytes of the file."""

    index: int
    time_seconds: float
    name: str
    data: bytes


class _Source(Protocol):
    def names(self) -> list[str]: ...
    def read(self, name: str) -> bytes: ...
    def close(self) -> None: ...


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        return [entry.name for entry in self._path.iterdir() if is_frame_name(entry.name)]

    def read(self, name: str) -> bytes:
        file = self._path / name
        if file.stat().st_size > _MAX_FRAME_BYTES:
            raise OSError("file is too large for one frame")
        return file.read_bytes()

    def close(self) -> None:
        """Do nothing: every file is opened for itself."""


class _Tar:
    def __init__(self, path: Path) -> None:
        status = path.stat()
        self._members = _index_tar(path, status.st_mtime_ns, status.st_size)
        self._file = path.open("rb")

    def names(self) -> list[str]:
        return list(self._members)

    def read(self, name: str) -> bytes:
        offset, size = self._members[name]
        if size > _MAX_FRAME_BYTES:
            raise OSError("file is too large for one frame")
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise OSError("archive ends in the middle of the frame")
        return data

    def close(self) -> None:
        self._file.close()


@functools.lru_cache(maxsize=2)
def _index_tar(path: Path, modified_ns: int, size: int) -> dict[str, tuple[int, int]]:  # noqa: ARG001
    """Return name -> (offset, size) of the frames in a tar; long archives are indexed once, not once per span."""
    members: dict[str, tuple[int, int]] = {}
    with tarfile.open(path, mode="r:") as archive, contextlib.suppress(tarfile.TarError):
        # an archive cut in the middle ends the listing; reading its last member says so, after the whole ones
        members.update((m.name, (m.offset_data, m.size)) for m in archive if m.isreg() and is_frame_name(m.name))
    return members


def frame_files(
    path: Path,
    *,
    fps: float | None,
    numbered: bool,
    start_seconds: float | None = None,
    stop_seconds: float | None = None,
) -> Iterator[FrameFile]:
    """Read the frame files of a folder or tar in natural order, within the half-open span of time.

    Args:
        path: Folder or tar archive.
        fps: Frames per second; None takes `DEFAULT_FRAME_FPS`.
        numbered: File number n has time n / fps (EPIC-KITCHENS); else the file at position i has time i / fps.
        start_seconds: Start of the span, None for the first frame.
        stop_seconds: End of the span, None for the last frame.

    Raises:
        ClipError: Nothing there, unreadable, or numbers missing or doubled where `numbered` needs them.
    """
    rate = DEFAULT_FRAME_FPS if fps is None else fps
    if not rate > 0:
        raise ValueError(f"fps must be greater than 0, got {fps!r}")
    with closing(_open_source(path)) as source:
        names = sorted(source.names(), key=natural_key)
        if not names:
            raise ClipError(Reason.NO_FRAMES, f"{path}: holds no JPEG or PNG frame")
        counts = _numbers(path, names) if numbered else list(range(len(names)))
        for index, (name, count) in enumerate(zip(names, counts, strict=True)):
            time_seconds = count / rate
            if start_seconds is not None and time_seconds < start_seconds:
                continue
            if stop_seconds is not None and time_seconds >= stop_seconds:
                break
            try:
                data = source.read(name)
            except (OSError, tarfile.TarError) as error:
                raise ClipError(Reason.TRUNCATED, f"{path}: frame {name} cannot be read: {error}") from None
            yield FrameFile(index, time_seconds, name, data)


def frame_info(path: Path, limits: DecodeLimits, *, fps: float | None) -> VideoInfo:
    """Describe a folder or tar of frames; decodes the first one.

    Raises:
        ClipError: Nothing there, or the first frame is broken or outside the limits.
    """
    first = next(frame_files(path, fps=fps, numbered=False))
    height, width = decode_image(path, first, limits, colour=False).shape[:2]
    with closing(_open_source(path)) as source:
        num_frames = len(source.names())
    rate = DEFAULT_FRAME_FPS if fps is None else fps
    return VideoInfo(
        width=width,
        height=height,
        fps=rate,
        duration_seconds=num_frames / rate,
        num_frames_hint=num_frames,
        codec="png" if first.name.lower().endswith(".png") else "jpeg",
        container="frames" if path.is_dir() else "tar",
        rotation_degrees=0,
    )


def decode_image(path: Path, file: FrameFile, limits: DecodeLimits, *, colour: bool) -> NDArray[np.uint8]:
    """Decode one frame file, upright by its EXIF tag: uint8 (h, w) full-range grey, or (h, w, 3) RGB.

    Raises:
        ClipError: Empty, broken, too large or too small.
    """
    if not file.data:
        raise ClipError(Reason.EMPTY_FILE, f"{path}: frame {file.name} is empty (0 bytes)")
    size = image_size(file.data)
    if size is not None and size[0] * size[1] > limits.max_pixels:
        raise ClipError(
            Reason.TOO_LARGE,
            f"{path}: frame size must be at most {limits.max_pixels} pixels, got {size[0]}x{size[1]} in {file.name}",
        )
    flags = cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE
    try:
        image = None if size is None else cv2.imdecode(np.frombuffer(file.data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise ClipError(Reason.DECODE_ERROR, f"{path}: frame {file.name} is no intact JPEG or PNG; fetch it again")
    if min(image.shape[:2]) < MIN_SIDE_PX:
        height, width = image.shape[:2]
        raise ClipError(
            Reason.TOO_SMALL,
            f"{path}: frame sides must be at least {MIN_SIDE_PX} px, got {width}x{height} in {file.name}",
        )
    if colour:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return np.asarray(image, dtype=np.uint8)


def image_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) from a PNG's or JPEG's header without decoding, None where it is neither."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    if not data.startswith(b"\xff\xd8"):
        return None
    position = 2
    while position + 9 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            return width, height
        position += 2 + struct.unpack(">H", data[position + 2 : position + 4])[0]
    return None


def _open_source(path: Path) -> _Source:
    try:
        return _Folder(path) if path.is_dir() else _Tar(path)
    except FileNotFoundError:
        raise ClipError(Reason.MISSING, f"{path}: does not exist") from None
    except tarfile.TarError as error:
        reason = Reason.EMPTY_FILE if path.stat().st_size == 0 else Reason.NOT_A_VIDEO
        raise ClipError(reason, f"{path}: is no readable tar of frames: {error}; fetch it again") from None
    except OSError as error:
        raise ClipError(Reason.UNREADABLE, f"{path}: cannot be read: {error.strerror or error}") from None


def _numbers(path: Path, names: list[str]) -> list[int]:
    numbers = [frame_number(name) for name in names]
    found = [number for number in numbers if number is not None]
    increasing = all(a < b for a, b in itertools.pairwise(found))
    if len(found) < len(names) or not increasing:
        raise ClipError(
            Reason.UNSUPPORTED, f"{path}: frame files must be numbered without doubles, like frame_0000000001.jpg"
        )
    return found
