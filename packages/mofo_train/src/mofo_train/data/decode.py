"""Frames of a video or frame folder at given times, in colour, reduced while they are converted.

The times are the store's: presentation time since the file's start. Only what training needs is here; `motionbox`
reads whole videos and reports their faults in detail.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from mofo_train.errors import DataError

_SEEK_MARGIN_SECONDS = 0.5
_TOLERANCE_SECONDS = 1e-3  # The store's times come from the same formula.
_SEEKABLE = ("matroska", "webm", "mov", "mp4")
_FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
_DEFAULT_FRAME_FPS = 30.0
_ERRORS = (av.error.FFmpegError, OSError, ValueError, EOFError)


class ClipUnreadableError(DataError):
    """One clip cannot be decoded; training goes on without it."""


def decode_frames(
    path: Path, times_seconds: NDArray[np.float64], *, short_side_px: int, frame_fps: float | None = None
) -> NDArray[np.uint8]:
    """Decode the frames at the given times.

    Args:
        path: Video file, or folder of JPEG or PNG frames.
        times_seconds: (n,) presentation times, not decreasing; repeated times repeat their frame.
        short_side_px: Larger frames are reduced (area mean) to this short side.
        frame_fps: For a folder: file number n has time n / frame_fps; None: file at position i has time i / 30.

    Returns:
        uint8 (n, h, w, 3) RGB, upright.

    Raises:
        ClipUnreadableError: The file is missing or broken, or has no frame at one of the times.
    """
    wanted = np.unique(times_seconds)
    try:
        pictures = (
            _folder_pictures(path, wanted, frame_fps, short_side_px)
            if path.is_dir()
            else _video_pictures(path, wanted, short_side_px)
        )
    except _ERRORS as error:
        reason = str(error).split("\n", 1)[0]
        raise ClipUnreadableError(f"{path} must be a readable video or frame folder, got: {reason}") from None
    return np.stack([pictures[place] for place in np.searchsorted(wanted, times_seconds)])


def _video_pictures(path: Path, wanted: NDArray[np.float64], short_side_px: int) -> list[NDArray[np.uint8]]:
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
            found = _pick(_timed(container, stream, "avi" not in formats), wanted, short_side_px)
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
    step = 1.0 / float(stream.average_rate or stream.base_rate or _DEFAULT_FRAME_FPS)
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
    pictures: Iterator[tuple[float, av.VideoFrame]], wanted: NDArray[np.float64], short_side_px: int
) -> list[NDArray[np.uint8]] | None:
    """Convert the pictures at the wanted times; None where one of them does not come."""
    found: list[NDArray[np.uint8]] = []
    for time_seconds, picture in pictures:
        if time_seconds < wanted[len(found)] - _TOLERANCE_SECONDS:
            continue
        if time_seconds > wanted[len(found)] + _TOLERANCE_SECONDS:
            return None
        found.append(_convert(picture, short_side_px))
        if len(found) == len(wanted):
            return found
    return None


def _convert(picture: av.VideoFrame, short_side_px: int) -> NDArray[np.uint8]:
    scale = short_side_px / min(picture.width, picture.height)
    if scale < 1:
        width, height = round(picture.width * scale), round(picture.height * scale)
        picture = picture.reformat(width=width, height=height, format="rgb24", interpolation="AREA")
    image = picture.to_ndarray(format="rgb24")
    turns = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else np.asarray(image, np.uint8)


def _folder_pictures(
    path: Path, wanted: NDArray[np.float64], frame_fps: float | None, short_side_px: int
) -> list[NDArray[np.uint8]]:
    names = [entry.name for entry in path.iterdir() if entry.suffix.lower() in _FRAME_SUFFIXES]
    names = sorted((name for name in names if not name.startswith(".")), key=_numbers)
    rate = frame_fps or _DEFAULT_FRAME_FPS
    if frame_fps is None:
        by_count = dict(enumerate(names))
    else:
        by_count = {_numbers(name)[-1][1]: name for name in names if _numbers(name)}
    found = []
    for time_seconds in wanted.tolist():
        name = by_count.get(round(time_seconds * rate))
        if name is None:
            raise ClipUnreadableError(f"{path} must have a frame at {time_seconds:.3f} s, got none")
        with av.open(str(path / name), mode="r") as container:
            found.append(_convert(next(container.decode(video=0)), short_side_px))
    return found


def _numbers(name: str) -> list[tuple[str, int]]:
    """Return the numbers of a name, each with the text before it: frame_2 sorts before frame_10."""
    return [(text, int(number)) for text, number in re.findall(r"([^0-9]*)([0-9]+)", name.rsplit(".", 1)[0])]
