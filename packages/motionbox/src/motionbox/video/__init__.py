"""Reading video: files, folders of frames and tars of frames -> grey or colour frames with timestamps.

Extraction and training read by these rules alone, which are the same for every source:

* Which pictures: the best video stream as FFmpeg judges it, never a cover picture.
* Order and time: frames come in presentation order with strictly increasing times, counted from the start of the
  file, see `_clock`. Frame files are timed by position or by their number.
* Spans are half-open, [start, stop), by time. MP4 and Matroska/WebM are entered at the keyframe before the start;
  where no seek leads to one, where times jump back, and in other containers, decoding begins at the beginning.
* Pixels: `width` and `height` are the decoded picture after the rotation of the metadata; the pixel aspect ratio is not
  applied. Where the size changes within a file, pictures are brought to the size of the file's first one.
* Faults: what was decoded before a fault is yielded, then `ClipError` says what broke.

PyAV and NumPy do all of it, but for one thing: grey frames are shrunk by OpenCV, loaded at the first that is, and by a
kernel of numba's that gives the same, loaded once there have been many.

`_opening` (containers, streams, limits), `_decode` (pictures in order or at given times), `_clock` (their times),
`_frame_files` and `_image_header` (JPEG and PNG files), `_pixels` (grey and RGB); `frames` (what comes out), `sources`,
`decode_child` and `messages` (decoding in a child process), `encode` (the way back).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from motionbox.errors import ClipError, Reason
from motionbox.inputs.media import FRAME_SUFFIXES, TAR_SUFFIXES, VIDEO_SUFFIXES, is_frame_folder, natural_key
from motionbox.video.frames import ColourFrame, DecodeLimits, Frame, VideoInfo, working_size

if TYPE_CHECKING:
    from motionbox.video._decode import RawFrame, VideoFile
    from motionbox.video._frame_files import FrameFiles

__all__ = [
    "FRAME_SUFFIXES",
    "TAR_SUFFIXES",
    "VIDEO_SUFFIXES",
    "ColourFrame",
    "DecodeLimits",
    "Frame",
    "VideoInfo",
    "is_frame_folder",
    "natural_key",
    "probe",
    "read_colour_frames",
    "read_frames",
    "read_frames_at",
    "working_size",
]


def probe(path: Path | str, *, limits: DecodeLimits | None = None, fps: float | None = None) -> VideoInfo:
    """Describe a video, checked by decoding its first frame.

    Args:
        path: Video file, folder of frames or tar of frames.
        limits: What is refused.
        fps: Rate of a folder or tar of frames, 30 where None.

    Raises:
        ClipError: The file is missing, broken, no video, or outside the limits; `reason` says which.
    """
    with _open(Path(path), limits, fps) as source:
        return source.info()


def read_frames(
    path: Path | str,
    *,
    short_side_px: int = 256,
    start_seconds: float | None = None,
    stop_seconds: float | None = None,
    limits: DecodeLimits | None = None,
    fps: float | None = None,
    numbered: bool = False,
    colour_short_side_px: int | None = None,
) -> Iterator[Frame]:
    """Decode to grey frames of the working size, once, in order.

    Args:
        path: Video file, folder of JPEG or PNG frames, or tar of such frames.
        short_side_px: Frames are shrunk (area interpolation) until the short side is at most this; never enlarged.
        start_seconds: First time of the span, None for the beginning.
        stop_seconds: First time after the span, None for the end.
        limits: What is refused.
        fps: Rate of a folder or tar of frames, 30 where None; no meaning for video files.
        numbered: Folders and tars only: the file with number n has time n / fps, as EPIC-KITCHENS counts, instead of
            the file at position i having time i / fps.
        colour_short_side_px: Give each frame in RGB, too, with a short side of at most this; None: in grey only.

    Yields:
        Frames with uint8 (h, w) full-range grey, see `frames.Frame`.

    Raises:
        ClipError: Broken, missing or refused input, or no frame within the span. Frames decoded before a fault are
            yielded first.
    """
    from motionbox.video._pixels import GreyConverter, RgbConverter

    to_grey, to_rgb = GreyConverter(), RgbConverter()
    with _open(Path(path), limits, fps, numbered=numbered) as source:
        for raw in _span(source, start_seconds, stop_seconds):
            grey = to_grey(raw, working_size(*source.size_wh, short_side_px))
            rgb = None
            if colour_short_side_px is not None:
                rgb = np.ascontiguousarray(to_rgb(raw, working_size(*source.size_wh, colour_short_side_px)))
            yield Frame(raw.index, raw.time_seconds, grey, rgb)


def read_colour_frames(
    path: Path | str,
    *,
    short_side_px: int | None = None,
    start_seconds: float | None = None,
    stop_seconds: float | None = None,
    limits: DecodeLimits | None = None,
    fps: float | None = None,
    numbered: bool = False,
) -> Iterator[ColourFrame]:
    """Decode to RGB frames: `read_frames` in colour; `short_side_px` None keeps the size.

    Yields:
        Frames with uint8 (h, w, 3) RGB, see `frames.ColourFrame`.

    Raises:
        ClipError: As `read_frames`.
    """
    from motionbox.video._pixels import RgbConverter

    to_rgb = RgbConverter()
    with _open(Path(path), limits, fps, numbered=numbered) as source:
        for raw in _span(source, start_seconds, stop_seconds):
            rgb = np.ascontiguousarray(to_rgb(raw, _reduced(source, short_side_px)))
            yield ColourFrame(raw.index, raw.time_seconds, rgb)


def read_frames_at(
    path: Path | str,
    times_seconds: NDArray[np.float64],
    *,
    short_side_px: int | None = None,
    limits: DecodeLimits | None = None,
    fps: float | None = None,
    numbered: bool = False,
) -> NDArray[np.uint8]:
    """Decode the RGB frames at the given times: those that `read_colour_frames` gives there, to the bit.

    Args:
        path: As `read_frames`.
        times_seconds: (n,) times of frames in any order; repeated times repeat their frame.
        short_side_px: Larger frames are reduced (area mean) to this short side while they are converted; None keeps
            the size.
        limits: As `read_frames`.
        fps: As `read_frames`.
        numbered: As `read_frames`.

    Returns:
        uint8 (n, h, w, 3), full range, upright.

    Raises:
        ClipError: Broken, missing or refused input, or no frame at one of the times.
        ValueError: There are no times.
    """
    from motionbox.video._pixels import RgbConverter

    if len(times_seconds) == 0:
        raise ValueError(f"times_seconds must hold at least one time, got {times_seconds!r}")
    wanted, places = np.unique(times_seconds, return_inverse=True)
    to_rgb = RgbConverter()
    with _open(Path(path), limits, fps, numbered=numbered) as source:
        pictures = source.read_at(wanted)
        first = next(pictures)  # it comes, or the error does
        width, height = _reduced(source, short_side_px)
        frames = np.empty((len(places), height, width, 3), np.uint8)
        for place, raw in enumerate(itertools.chain([first], pictures)):
            frames[places == place] = to_rgb(raw, (width, height))
    return frames


def _open(
    path: Path, limits: DecodeLimits | None, fps: float | None, *, numbered: bool = False
) -> VideoFile | FrameFiles:
    """Open a source; PyAV is loaded here, so that names alone cost nothing."""
    limits = limits or DecodeLimits()
    if path.is_dir() or path.suffix.lower() in TAR_SUFFIXES:
        from motionbox.video._frame_files import FrameFiles

        return FrameFiles(path, limits, fps=fps, numbered=numbered)
    from motionbox.video._decode import VideoFile

    return VideoFile(path, limits)


def _span(
    source: VideoFile | FrameFiles, start_seconds: float | None, stop_seconds: float | None
) -> Iterator[RawFrame]:
    """Yield the pictures of the span, then the error if there is one; an empty span is one."""
    empty = True
    for raw in source.read(start_seconds):
        if stop_seconds is not None and raw.time_seconds >= stop_seconds:
            break
        empty = False
        yield raw
    if empty:
        first = "start" if start_seconds is None else f"{start_seconds:.3f}"
        last = "end" if stop_seconds is None else f"{stop_seconds:.3f}"
        raise ClipError(Reason.EMPTY_SPAN, f"{source.path}: has no frame between {first} and {last} s")


def _reduced(source: VideoFile | FrameFiles, short_side_px: int | None) -> tuple[int, int]:
    size = source.size_wh
    return size if short_side_px is None else working_size(*size, short_side_px)
