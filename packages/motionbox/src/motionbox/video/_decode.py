"""Video files through PyAV: pictures with times, in order from the beginning or from a keyframe, or at given times."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import av.container
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from motionbox.errors import ClipError, Reason
from motionbox.video._clock import Clock
from motionbox.video._opening import (
    ERRORS,
    check_duration,
    check_size,
    open_container,
    stream_duration,
    times_rise,
    video_stream,
)
from motionbox.video.frames import DEFAULT_FRAME_FPS, DecodeLimits, VideoInfo

_SEEKABLE = {"mov", "matroska"}  # demuxers whose timestamps can be trusted after a seek
_UNTIMED = {"avi"}  # containers without timestamps: time is position over rate
_CUT_ANYWHERE = {"mpegts", "mpeg"}  # recordings of broadcasts, which may begin between keyframes
_NEAR_SECONDS = 0.5  # up to here the beginning is as near as a keyframe
_MARGINS_SECONDS = (0.0, 1.0, 8.0, 64.0)  # a seek may land too late where an index is sparse or pictures are reordered
_TOLERANCE_SECONDS = 1e-3  # who asks for a frame has its time from here, or from rate and position
_KEPT_FIRSTS = 1 << 16


@dataclass(frozen=True)
class RawFrame:
    """A decoded frame before conversion.

    Attributes:
        index: Position counted from 0, from the beginning or from where decoding began.
        time_seconds: Presentation time from the start of the file.
        picture: PyAV's frame.
        turns: Counter-clockwise quarter turns, 0 to 3, that make it upright.
        mirrored: It is to be mirrored left to right before it is turned.
    """

    index: int
    time_seconds: float
    picture: VideoFrame
    turns: int
    mirrored: bool = False

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels of the upright picture."""
        size = (self.picture.width, self.picture.height)
        return size[::-1] if self.turns % 2 else size


@dataclass(frozen=True)
class _First:
    """What is known of a file's first picture: upright size, time; None where it has no timestamp."""

    size_wh: tuple[int, int]
    time_seconds: float | None

    @classmethod
    def of(cls, frame: RawFrame) -> _First:
        return cls(frame.size_wh, None if frame.picture.pts is None else frame.time_seconds)


# By device, inode, time of change and bytes: training reads the same files again and again.
_firsts: dict[tuple[int, ...], _First] = {}
_rising: dict[tuple[int, ...], bool] = {}


class VideoFile:
    """An open video file with checked limits; a context manager."""

    def __init__(self, path: Path, limits: DecodeLimits) -> None:
        """Open a file.

        Raises:
            ClipError: It cannot be read, or its header is outside the limits.
        """
        self.path = path
        self._limits = limits
        self._first: _First | None = None
        self._from_start = True
        self._open()

    def _open(self) -> None:
        self._container = open_container(self.path)
        self._used = False  # packets have been read: the beginning is behind
        try:
            self._stream = video_stream(self._container, self.path)
            codec = self._stream.codec_context
            codec.thread_count = 1  # one core for one worker: the workers are the threads
            if min(codec.width, codec.height) > 0:
                check_size(self.path, codec.width, codec.height, self._limits)
            check_duration(self.path, self.duration_seconds or 0.0, self._limits)
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def container_name(self) -> str:
        """Name of the demuxer, e.g. `mov` or `matroska`."""
        return self._container.format.name.split(",")[0]

    @property
    def fps(self) -> float:
        """Average rate of the header; `DEFAULT_FRAME_FPS` where it gives none."""
        rate = self._stream.average_rate or self._stream.base_rate or self._stream.guessed_rate
        return float(rate) if rate else DEFAULT_FRAME_FPS

    @property
    def duration_seconds(self) -> float | None:
        """Duration of the video stream by the header, else of the file, else None."""
        own = stream_duration(self._stream)
        if own is not None:
            return own
        return None if self._container.duration is None else self._container.duration / av.time_base

    @property
    def size_wh(self) -> tuple[int, int]:
        """Upright width and height of the file's first picture, which all others are brought to."""
        return self._first_picture().size_wh

    def info(self) -> VideoInfo:
        """Decode the first frame and describe the video.

        Raises:
            ClipError: There is none.
        """
        first = next(self.read(None))  # `read` raises where there is no frame
        width, height = first.size_wh
        return VideoInfo(
            width=width,
            height=height,
            fps=self.fps,
            duration_seconds=self.duration_seconds,
            num_frames_hint=self._stream.frames or None,
            codec=self._stream.codec_context.name,
            container=self.container_name,
            rotation_degrees=90 * first.turns,
        )

    def read(self, start_seconds: float | None) -> Iterator[RawFrame]:
        """Decode in order from the beginning, or from the first frame at or after `start_seconds`.

        Raises:
            ClipError: No frame, or decoding broke; what was decoded before is yielded first.
        """
        if start_seconds is None:
            yield from self._from_beginning()
            return
        empty = True
        for frame in _from(start_seconds, self._enter(start_seconds)):
            empty = False
            yield frame
        if empty and not self._from_start:  # beyond the last time that the index knows
            yield from _from(start_seconds, self._from_beginning())

    def read_at(self, times_seconds: NDArray[np.float64]) -> Iterator[RawFrame]:
        """Yield the frames at the given times, which increase; decoded from the keyframe before the first of them.

        Raises:
            ClipError: There is no frame at one of the times, or decoding broke before the last one.
        """
        wanted = deque(times_seconds.tolist())
        tolerance = min(_TOLERANCE_SECONDS, 0.25 / self.fps)
        entered = self._enter(wanted[0])
        try:
            yield from _matching(entered, wanted, tolerance)
        except ClipError:
            if self._from_start:
                raise
        if wanted and not self._from_start:
            yield from _matching(self._from_beginning(), wanted, tolerance)
        if wanted:
            raise ClipError(
                Reason.EMPTY_SPAN,
                f"{self.path}: must have a frame at {wanted[0]:.3f} s, got none; was it exchanged since its frames "
                "were counted?",
            )

    def _enter(self, start_seconds: float) -> Iterator[RawFrame]:
        """Decode from a keyframe at or before the start, from the beginning where no seek leads to one."""
        if self.container_name in _SEEKABLE and start_seconds > _NEAR_SECONDS and self._times_rise():
            first = self._first_picture().time_seconds
            for margin in _MARGINS_SECONDS:
                if first is None or start_seconds - margin <= first:
                    break
                frames = self._from_keyframe(start_seconds - margin, start_seconds)
                if frames is not None:
                    return frames
        return self._from_beginning()

    def _from_beginning(self) -> Iterator[RawFrame]:
        if self._used:
            self._container.close()
            self._open()
        self._from_start = True
        frames = self._decode()
        first = next(frames, None)
        if first is None:
            raise ClipError(Reason.NO_FRAMES, f"{self.path}: holds no decodable video frame; fetch the file again")
        self._first = _First.of(first)
        return itertools.chain([first], frames)

    def _from_keyframe(self, seconds: float, start_seconds: float) -> Iterator[RawFrame] | None:
        """Seek, and decode from the first keyframe that comes; None where that is not at or before the start.

        Pictures shown before that keyframe may lack what they are predicted from.
        """
        self._used, self._from_start = True, False
        base = self._stream.time_base
        try:
            offset = math.floor((seconds + self._origin_seconds()) / base + 1e-6) if base else 0
            self._container.seek(offset, stream=self._stream, backward=True)
            frames = self._decode()
            for frame in frames:
                if frame.picture.pts is None or frame.time_seconds > start_seconds:
                    return None
                if frame.picture.key_frame:
                    return itertools.chain([frame], frames)
        except (ClipError, *ERRORS):
            return None
        return None

    def _first_picture(self) -> _First:
        if self._first is not None:
            return self._first
        key = self._key()
        if key not in _firsts:
            if len(_firsts) >= _KEPT_FIRSTS:
                _firsts.clear()
            _firsts[key] = _First.of(next(self._from_beginning()))
        self._first = _firsts[key]
        return self._first

    def _times_rise(self) -> bool:
        """Tell whether the file's times lead to one place each; an MP4 with one index is made so."""
        if self.container_name == "mov" and self._stream.frames:
            return True
        key = self._key()
        if key not in _rising:
            if len(_rising) >= _KEPT_FIRSTS:
                _rising.clear()
            _rising[key] = times_rise(self.path)
        return _rising[key]

    def _key(self) -> tuple[int, ...]:
        status = self.path.stat()
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size

    def _origin_seconds(self) -> float:
        start = self._container.start_time
        return 0.0 if start is None else start / av.time_base

    def _decode(self) -> Iterator[RawFrame]:
        base = None if self.container_name in _UNTIMED else self._stream.time_base
        clock = Clock(origin_seconds=self._origin_seconds(), step_seconds=1.0 / self.fps, time_base=base)
        index = 0
        for picture in self._pictures():
            time_seconds = clock.tick(picture, index)
            check_size(self.path, picture.width, picture.height, self._limits)
            check_duration(self.path, time_seconds, self._limits)
            if index >= self._limits.max_frames:
                message = f"{self.path}: frames must be at most {self._limits.max_frames}; raise max_frames"
                raise ClipError(Reason.TOO_LONG, message)
            yield RawFrame(index, time_seconds, picture, round(picture.rotation / 90) % 4)
            index += 1
        if index:
            self._check_complete(clock.end_seconds)

    def _pictures(self) -> Iterator[VideoFrame]:
        """Yield the pictures; after a fault those that the decoder still holds and believes in, then the error."""
        self._used = True
        packets = self._container.demux(self._stream)
        seen = False
        packet = None
        while True:
            try:
                packet = next(packets, None)
                pictures = [] if packet is None else self._sent(packet, begun=seen)
            except ERRORS as error:
                yield from self._flush()
                raise self._decode_failure(error, truncated=packet is not None and packet.is_corrupt) from None
            for picture in pictures:
                if picture.is_corrupt and seen:
                    raise self._decode_failure("the decoder marks a picture as corrupt", truncated=False)
                if not picture.is_corrupt:  # pictures before the first intact one only lead up to it
                    seen = True
                    yield picture
            if packet is None:
                break

    def _sent(self, packet: Packet[VideoStream], *, begun: bool) -> list[VideoFrame]:
        """Decode a packet; what a recording holds before its first keyframe cannot be, and is passed over."""
        try:
            return self._stream.codec_context.decode(packet if packet.size else None)
        except ERRORS:
            if begun or self.container_name not in _CUT_ANYWHERE or not packet.size:
                raise
            return []

    def _flush(self) -> list[VideoFrame]:
        try:
            return [picture for picture in self._stream.codec_context.decode(None) if not picture.is_corrupt]
        except ERRORS:
            return []

    def _decode_failure(self, error: object, *, truncated: bool) -> ClipError:
        if truncated:
            return ClipError(Reason.TRUNCATED, f"{self.path}: the file ends in the middle of a frame; fetch it again")
        what = getattr(error, "strerror", None) or error  # without FFmpeg's number and the name of its function
        return ClipError(Reason.DECODE_ERROR, f"{self.path}: decoding broke: {what}; fetch the file again")

    def _check_complete(self, end_seconds: float) -> None:
        """Raise where the header promises clearly more video than came: a download that stopped at a clean boundary."""
        expected = stream_duration(self._stream)
        if expected is None and len(self._container.streams) == 1:
            expected = self.duration_seconds
        if expected is not None and self.container_name == "matroska":
            expected -= max(0.0, self._origin_seconds())  # there the header says when the last frame ends
        if expected is None or expected - end_seconds <= max(1.0, 0.05 * expected):
            return
        # FFmpeg leaves samples of another codec out of an MP4's index; a file that is cut off has all in it.
        if self.container_name == "mov" and 0 < len(self._stream.index_entries) < self._stream.frames:
            raise ClipError(
                Reason.UNSUPPORTED,
                f"{self.path}: its track changes its codec at {end_seconds:.2f} s, of {expected:.2f} s; write it anew "
                "in one codec",
            )
        raise ClipError(
            Reason.TRUNCATED,
            f"{self.path}: ends at {end_seconds:.2f} s, its header says {expected:.2f} s; fetch the file again",
        )


def _from(start_seconds: float, frames: Iterator[RawFrame]) -> Iterator[RawFrame]:
    return (frame for frame in frames if frame.time_seconds >= start_seconds)


def _matching(frames: Iterator[RawFrame], wanted: deque[float], tolerance_seconds: float) -> Iterator[RawFrame]:
    """Yield the frame nearest to each wanted time and take that out; end at the first that does not come."""
    held: RawFrame | None = None  # the last frame before the next wanted time
    for frame in frames:
        while frame.time_seconds >= wanted[0]:
            nearest = frame
            if held is not None and wanted[0] - held.time_seconds < frame.time_seconds - wanted[0]:
                nearest = held
            if abs(nearest.time_seconds - wanted[0]) > tolerance_seconds:
                return
            wanted.popleft()
            yield nearest
            if not wanted:
                return
            if nearest is frame:
                break
            held = None
        held = frame
    if held is not None and wanted[0] - held.time_seconds <= tolerance_seconds:
        wanted.popleft()
        yield held
