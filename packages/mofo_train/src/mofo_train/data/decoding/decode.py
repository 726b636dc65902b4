"""Frames of a video, frame folder or frame tar at given times, in colour, reduced while they are converted.

The times are the store's: presentation time since the file's start. Only what training needs is here; `motionbox`
reads whole videos and reports their faults in detail.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import av
import av.error
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from mofo_train.data.decoding.frame_files import TAR_SUFFIX, read_frame_files
from mofo_train.errors import DataError

_SEEK_MARGIN_SECONDS = 0.5
_TOLERANCE_SECONDS = 1e-3  # The store's times come from the same formula.
_SEEKABLE = ("matroska", "webm", "mov", "mp4")
_DEFAULT_FPS = 30.0
_ERRORS = (av.error.FFmpegError, tarfile.TarError, OSError, ValueError, EOFError, StopIteration)


class ClipUnreadableError(DataError):
    """One clip cannot be decoded; training goes on without it."""


def decode_frames(
    path: Path, times_seconds: NDArray[np.float64], *, short_side_px: int, frame_fps: float | None = None
) -> NDArray[np.uint8]:
    """Decode the frames at the given times.

    Args:
        path: Video file, or folder or tar of JPEG or PNG frames.
        times_seconds: (n,) presentation times, not decreasing; repeated times repeat their frame.
        short_side_px: Larger frames are reduced (area mean) to this short side.
        frame_fps: For a folder or tar: file number n has time n / frame_fps; None: file at position i has time i / 30.

    Returns:
        uint8 (n, h, w, 3) RGB, upright.

    Raises:
        ClipUnreadableError: The file is missing or broken, or has no frame at one of the times.
    """
    wanted = np.unique(times_seconds)
    convert = _Converter(short_side_px)
    try:
        if path.is_dir() or path.suffix.lower() == TAR_SUFFIX:
            pictures = _file_pictures(path, wanted, frame_fps, convert)
        else:
            pictures = _video_pictures(path, wanted, convert)
    except _ERRORS as error:
        reason = (str(error) or "no picture").split("\n", 1)[0]
        raise ClipUnreadableError(
            f"{path} must be a readable video, frame folder or frame tar, got: {reason}"
        ) from None
    return np.stack([pictures[place] for place in np.searchsorted(wanted, times_seconds)])


def _video_pictures(path: Path, wanted: NDArray[np.float64], convert: _Converter) -> list[NDArray[np.uint8]]:
    with av.open(str(path), mode="r", metadata_errors="replace") as container:
        if not container.streams.video:
            raise ClipUnreadableError(f"{path} must have a video stream, got none")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # one core per worker: the workers are the threads
        formats = container.format.name.split(",")
        start = float(wanted[0]) - _SEEK_MARGIN_SECONDS
        entries: list[float | None] = [start] if start > 0 and any(name in _SEEKABLE for name in formats) else []
        for entry in [*entries, None]:
            if entry is not None or entries:
                _seek(container, stream, entry or 0.0)
            found = _pick(_timed(container, stream, "avi" not in formats), wanted, convert)
            if found is not None:
                return found
    raise ClipUnreadableError(
        f"{path} must have frames from {wanted[0]:.3f} to {wanted[-1]:.3f} s, got fewer; was it exchanged since the "
        "store was made?"
    )


def _seek(container: av.container.InputContainer, stream: av.video.stream.VideoStream, seconds: float) -> None:
    origin = 0.0 if container.start_time is None else container.start_time / av.time_base
    base = stream.time_base
    container.seek(int((seconds + origin) / base) if base else 0, stream=stream, backward=True)


def _timed(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, has_times: bool
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield frames with presentation times that always increase, as the store counts them."""
    origin = 0.0 if container.start_time is None else container.start_time / av.time_base
    step = 1.0 / float(stream.average_rate or stream.base_rate or _DEFAULT_FPS)
    last: float | None = None
    for index, picture in enumerate(container.decode(stream)):
        base = picture.time_base
        if not has_times or base is None:
            time_seconds = index * step
        elif picture.pts is None:
            time_seconds = 0.0 if last is None else last
        else:
            time_seconds = picture.pts * base.numerator / base.denominator - origin
        if last is not None and time_seconds <= last:
            time_seconds = last + step
        last = time_seconds
        yield time_seconds, picture


def _pick(
    pictures: Iterator[tuple[float, av.VideoFrame]], wanted: NDArray[np.float64], convert: _Converter
) -> list[NDArray[np.uint8]] | None:
    """Convert the pictures at the wanted times; None where one of them does not come."""
    found: list[NDArray[np.uint8]] = []
    for time_seconds, picture in pictures:
        if time_seconds < wanted[len(found)] - _TOLERANCE_SECONDS:
            continue
        if time_seconds > wanted[len(found)] + _TOLERANCE_SECONDS:
            return None
        found.append(convert(picture))
        if len(found) == len(wanted):
            return found
    return None


class _Converter:
    """Turns the pictures of one source into RGB; keeps the conversion set up from picture to picture, in one thread."""

    def __init__(self, short_side_px: int) -> None:
        self._short_side_px = short_side_px
        self._reformatter = VideoReformatter()

    def __call__(self, picture: av.VideoFrame) -> NDArray[np.uint8]:
        """Return uint8 (h, w, 3), upright, reduced to the short side."""
        scale = self._short_side_px / min(picture.width, picture.height)
        if scale < 1:
            size = (round(picture.width * scale), round(picture.height * scale))
            rgb = self._reformatter.reformat(picture, *size, format="rgb24", interpolation="AREA", threads=1)
        else:
            rgb = self._reformatter.reformat(picture, format="rgb24", threads=1)
        image = rgb.to_ndarray()
        turns = round(picture.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else np.asarray(image, np.uint8)


def _file_pictures(
    path: Path, wanted: NDArray[np.float64], frame_fps: float | None, convert: _Converter
) -> list[NDArray[np.uint8]]:
    found = []
    for data in read_frame_files(path, wanted, frame_fps):
        with av.open(io.BytesIO(data), mode="r") as container:
            found.append(convert(next(container.decode(video=0))))
    return found
