"""Reading video: files, folders of frames and tars of frames -> grey or colour frames with timestamps.

Rules, the same for every source:

* Order and time: frames come in presentation order with strictly increasing times, counted from the start of the
  file. A frame without a timestamp, or with one that does not increase, follows its predecessor by one mean frame
  duration; AVI, which keeps none, is timed by position. Frame files are timed by position or by their number.
* Spans are half-open, [start, stop), by time. MP4 and Matroska/WebM are entered at the keyframe before the start,
  other containers are decoded from their beginning.
* Pixels: `width` and `height` are the decoded picture after the rotation of the metadata; the pixel aspect ratio is not
  applied. Where the size changes within a file, pictures are resized to the first one's size.
* Faults: what was decoded before a fault is yielded, then `ClipError` says what broke.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from motionbox.errors import ClipError, Reason
from motionbox.inputs.media import FRAME_SUFFIXES, TAR_SUFFIXES, VIDEO_SUFFIXES, is_frame_folder, natural_key
from motionbox.video._frame_files import FrameFile, decode_image, frame_files, frame_info
from motionbox.video.frames import ColourFrame, DecodeLimits, Frame, VideoInfo, working_size

if TYPE_CHECKING:
    from motionbox.video._decode import RawFrame

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
    "working_size",
]

_Render = Callable[[bool], NDArray[np.uint8]]
_Picture = tuple[int, float, _Render]


def probe(path: Path | str, *, limits: DecodeLimits | None = None, fps: float | None = None) -> VideoInfo:
    """Describe a video, checked by decoding its first frame.

    Args:
        path: Video file, folder of frames or tar of frames.
        limits: What is refused.
        fps: Rate of a folder or tar of frames, 30 where None.

    Raises:
        ClipError: The file is missing, broken, no video, or outside the limits; `reason` says which.
    """
    path, limits = Path(path), limits or DecodeLimits()
    if _is_frame_source(path):
        return frame_info(path, limits, fps=fps)
    from motionbox.video._decode import VideoFile

    with VideoFile(path, limits) as video:
        return video.info()


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
    grey = _OneSize(short_side_px)
    rgb = None if colour_short_side_px is None else _OneSize(colour_short_side_px)
    for index, time_seconds, render in _pictures(
        Path(path), limits or DecodeLimits(), fps, numbered, (start_seconds, stop_seconds)
    ):
        yield Frame(index, time_seconds, grey(render(False)), None if rgb is None else rgb(render(True)))


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
    rgb = _OneSize(short_side_px)
    for index, time_seconds, render in _pictures(
        Path(path), limits or DecodeLimits(), fps, numbered, (start_seconds, stop_seconds)
    ):
        yield ColourFrame(index, time_seconds, rgb(render(True)))


def _is_frame_source(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() in TAR_SUFFIXES


def _pictures(
    path: Path,
    limits: DecodeLimits,
    fps: float | None,
    numbered: bool,
    span: tuple[float | None, float | None],
) -> Iterator[_Picture]:
    """Yield (index, time, renderer) of the span, then the error if there is one; an empty span is one.

    A renderer gives the upright full-size picture, uint8 (h, w, 3) RGB for True, (h, w) grey for False; it works until
    the next picture is asked for.
    """
    empty = True
    for picture in _span_pictures(path, limits, fps, numbered, span):
        empty = False
        yield picture
    if empty:
        first = "start" if span[0] is None else f"{span[0]:.3f}"
        last = "end" if span[1] is None else f"{span[1]:.3f}"
        raise ClipError(Reason.EMPTY_SPAN, f"{path}: has no frame between {first} and {last} s")


def _span_pictures(
    path: Path,
    limits: DecodeLimits,
    fps: float | None,
    numbered: bool,
    span: tuple[float | None, float | None],
) -> Iterator[_Picture]:
    if _is_frame_source(path):
        for file in frame_files(path, fps=fps, numbered=numbered, start_seconds=span[0], stop_seconds=span[1]):
            yield file.index, file.time_seconds, _file_renderer(path, file, limits)
        return
    from motionbox.video._decode import VideoFile

    with VideoFile(path, limits) as video:
        for raw in video.read(span[0]):
            if span[1] is not None and raw.time_seconds >= span[1]:
                return
            yield raw.index, raw.time_seconds, _renderer(raw)


def _file_renderer(path: Path, file: FrameFile, limits: DecodeLimits) -> _Render:
    return lambda colour: decode_image(path, file, limits, colour=colour)


def _renderer(raw: RawFrame) -> _Render:
    from motionbox.video._pixels import to_grey, to_rgb, upright

    return lambda colour: upright((to_rgb if colour else to_grey)(raw.picture), raw.rotation_degrees)


class _OneSize:
    """Shrinks every image to the working size of the first one; None keeps that one's own size."""

    def __init__(self, short_side_px: int | None) -> None:
        self._short_side_px = short_side_px
        self._size: tuple[int, int] | None = None

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        if self._size is None:
            short = self._short_side_px
            self._size = (width, height) if short is None else working_size(width, height, short)
        if (width, height) == self._size:
            return image
        return np.asarray(cv2.resize(image, self._size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
