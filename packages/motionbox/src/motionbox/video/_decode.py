"""Video files through PyAV: opening with limits, decoding in order with timestamps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import av
import av.container
import av.error
import av.stream
import av.video.frame

from motionbox.errors import ClipError, Reason
from motionbox.video.frames import DEFAULT_FRAME_FPS, MIN_SIDE_PX, DecodeLimits, VideoInfo

if TYPE_CHECKING:
    from av.video.stream import VideoStream

DEMUXERS = ("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "ogg", "asf")
DECODERS = (
    *("h264", "hevc", "vp8", "vp9", "libvpx", "libvpx-vp9", "av1", "libdav1d", "mpeg4", "mpeg1video", "mpeg2video"),
    *("mjpeg", "png", "ffv1", "prores", "dnxhd", "theora", "h263", "flv", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2"),
    *("wmv3", "vc1", "rawvideo", "huffyuv", "ffvhuff", "vvc"),
)
_SEEKABLE = {"mov", "matroska"}  # demuxers whose timestamps can be trusted after a seek
_UNTIMED = {"avi"}  # containers without timestamps: time is position over rate
_SEEK_MARGIN_SECONDS = 1.0
_ERRORS = (av.error.FFmpegError, EOFError, ValueError)


@dataclass(frozen=True)
class RawFrame:
    """A decoded frame before conversion: position, time in seconds, PyAV's frame, upright rotation in degrees."""

    index: int
    time_seconds: float
    picture: av.video.frame.VideoFrame
    rotation_degrees: int


class VideoFile:
    """An open video file with checked limits; a context manager."""

    def __init__(self, path: Path, limits: DecodeLimits) -> None:
        self.path = path
        self.limits = limits
        self._container = _open(path)
        try:
            self._stream = self._video_stream()
            self._check_header()
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
        own = self._stream_duration()
        if own is not None:
            return own
        return None if self._container.duration is None else self._container.duration / av.time_base

    def info(self) -> VideoInfo:
        """Decode the first frame and describe the video."""
        first = next(self.read(None))  # `read` raises where there is no frame
        width, height = first.picture.width, first.picture.height
        if first.rotation_degrees in (90, 270):
            width, height = height, width
        return VideoInfo(
            width=width,
            height=height,
            fps=self.fps,
            duration_seconds=self.duration_seconds,
            num_frames_hint=self._stream.frames or None,
            codec=self._stream.codec_context.name,
            container=self.container_name,
            rotation_degrees=first.rotation_degrees,
        )

    def read(self, start_seconds: float | None) -> Iterator[RawFrame]:
        """Decode in order from the start, or from the first frame at or after `start_seconds` where that can be found.

        Raises:
            ClipError: No frame, or decoding broke; what was decoded before is yielded first.
        """
        start = 0.0 if start_seconds is None else start_seconds
        moved = False
        for entry in self._entry_points(start):
            if entry is not None or moved:
                self._seek(entry or 0.0)
                moved = True
            frames = self._decode()
            first = next(frames, None)
            if entry is None or (first is not None and first.time_seconds <= start):
                break
        if first is None:
            raise ClipError(Reason.NO_FRAMES, f"{self.path}: holds no decodable video frame; fetch the file again")
        for frame in itertools.chain([first], frames):
            if start_seconds is None or frame.time_seconds >= start_seconds:
                yield frame

    def _entry_points(self, start_seconds: float) -> Iterator[float | None]:
        """Yield times to seek to, further and further before the start, at last None: decode from the beginning.

        A seek may land behind the start where a file's index is sparse or its pictures are reordered.
        """
        margin = _SEEK_MARGIN_SECONDS
        while self.container_name in _SEEKABLE and margin < start_seconds:
            yield start_seconds - margin
            margin *= 8
        yield None

    def _seek(self, seconds: float) -> None:
        offset = 0
        if self._stream.time_base:
            offset = int((seconds + self._origin_seconds()) / self._stream.time_base)
        try:
            self._container.seek(max(offset, 0), stream=self._stream, backward=True)
        except _ERRORS as error:
            raise ClipError(Reason.DECODE_ERROR, f"{self.path}: cannot seek to {seconds:.3f} s: {error}") from None

    def _origin_seconds(self) -> float:
        start = self._container.start_time
        return 0.0 if start is None else start / av.time_base

    def _decode(self) -> Iterator[RawFrame]:
        clock = _Clock(origin=self._origin_seconds(), step=1.0 / self.fps, timed=self.container_name not in _UNTIMED)
        index = 0
        for picture in self._pictures():
            time_seconds = clock.tick(picture, index)
            self._check_frame(picture, time_seconds, index)
            yield RawFrame(index, time_seconds, picture, round(picture.rotation / 90) * 90 % 360)
            index += 1
        if index:
            self._check_complete(clock.end_seconds)

    def _pictures(self) -> Iterator[av.video.frame.VideoFrame]:
        """Yield the pictures; after a fault those that the decoder still holds and believes in, then the error."""
        packets = self._container.demux(self._stream)
        codec = self._stream.codec_context
        seen = False
        packet = None
        while True:
            try:
                packet = next(packets, None)
                pictures = [] if packet is None else codec.decode(packet if packet.size else None)
            except _ERRORS as error:
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

    def _flush(self) -> list[av.video.frame.VideoFrame]:
        try:
            return [picture for picture in self._stream.codec_context.decode(None) if not picture.is_corrupt]
        except _ERRORS:
            return []

    def _decode_failure(self, error: object, *, truncated: bool) -> ClipError:
        if truncated:
            return ClipError(Reason.TRUNCATED, f"{self.path}: the file ends in the middle of a frame; fetch it again")
        return ClipError(Reason.DECODE_ERROR, f"{self.path}: decoding broke: {error}; fetch the file again")

    def _video_stream(self) -> VideoStream:
        streams = [s for s in self._container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            raise ClipError(Reason.NO_VIDEO_STREAM, f"{self.path}: has no video stream, only sound or data")
        best = self._container.streams.best("video")
        return next((s for s in streams if best is not None and s.index == best.index), streams[0])

    def _check_header(self) -> None:
        codec = self._stream.codec_context
        name = getattr(codec, "name", "unknown")  # PyAV gives None where FFmpeg knows no decoder
        if name not in DECODERS:
            raise ClipError(Reason.UNSUPPORTED, f"{self.path}: codec {name!r} is not read; convert it to H.264 or VP9")
        codec.thread_count = 1
        self._check_size(codec.width, codec.height, in_header=True)
        duration = self.duration_seconds
        if duration is not None and duration > self.limits.max_duration_seconds:
            raise self._too_long(duration)

    def _check_frame(self, picture: av.video.frame.VideoFrame, time_seconds: float, index: int) -> None:
        self._check_size(picture.width, picture.height, in_header=False)
        if time_seconds > self.limits.max_duration_seconds:
            raise self._too_long(time_seconds)
        if index >= self.limits.max_frames:
            raise ClipError(
                Reason.TOO_LONG, f"{self.path}: frames must be at most {self.limits.max_frames}; raise max_frames"
            )

    def _too_long(self, seconds: float) -> ClipError:
        limit = self.limits.max_duration_seconds
        return ClipError(
            Reason.TOO_LONG,
            f"{self.path}: duration must be at most {limit:.0f} s, got {seconds:.0f}; raise max_duration_seconds",
        )

    def _check_size(self, width: int, height: int, *, in_header: bool) -> None:
        if width * height > self.limits.max_pixels:
            raise ClipError(
                Reason.TOO_LARGE,
                f"{self.path}: frame size must be at most {self.limits.max_pixels} pixels, got {width}x{height}",
            )
        if min(width, height) < MIN_SIDE_PX and not (in_header and min(width, height) == 0):
            raise ClipError(
                Reason.TOO_SMALL, f"{self.path}: frame sides must be at least {MIN_SIDE_PX} px, got {width}x{height}"
            )

    def _stream_duration(self) -> float | None:
        stream = self._stream
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        return _parse_duration(stream.metadata.get("DURATION"))

    def _check_complete(self, end_seconds: float) -> None:
        """Raise where the header promises clearly more video than came: a download that stopped at a clean boundary."""
        expected = self._stream_duration()
        if expected is None and len(self._container.streams) == 1:
            expected = self.duration_seconds
        if expected is not None and expected - end_seconds > max(1.0, 0.05 * expected):
            raise ClipError(
                Reason.TRUNCATED,
                f"{self.path}: ends at {end_seconds:.2f} s, its header says {expected:.2f} s; fetch the file again",
            )


class _Clock:
    """Presentation times that always increase.

    A frame without timestamp, or with one not after its predecessor's, is shown one mean frame duration after it, in
    decoding order. AVI keeps no timestamps: there time is position over rate.
    """

    def __init__(self, *, origin: float, step: float, timed: bool) -> None:
        self._origin, self._step, self._timed = origin, step, timed
        self._last: float | None = None
        self.end_seconds = 0.0

    def tick(self, picture: av.video.frame.VideoFrame, index: int) -> float:
        base = picture.time_base
        if not self._timed or base is None:
            time_seconds = index * self._step
        elif picture.pts is None:
            time_seconds = 0.0 if self._last is None else self._last
        else:
            time_seconds = picture.pts * base.numerator / base.denominator - self._origin
        if self._last is not None and time_seconds <= self._last:
            time_seconds = self._last + self._step
        self._last = time_seconds
        length = picture.duration * float(base) if picture.duration and base is not None else self._step
        self.end_seconds = time_seconds + length
        return time_seconds


def _open(path: Path) -> av.container.InputContainer:
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(DEMUXERS),
    }
    try:
        return av.open(f"file:{path}", mode="r", options=options, metadata_errors="replace")
    except (OSError, *_ERRORS) as error:
        raise _open_failure(path, error) from None


def _open_failure(path: Path, error: Exception) -> ClipError:
    if not path.exists():
        return ClipError(Reason.MISSING, f"{path}: does not exist")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as failure:
        return ClipError(Reason.UNREADABLE, f"{path}: cannot be read: {failure.strerror or failure}")
    if not head:
        return ClipError(Reason.EMPTY_FILE, f"{path}: is empty (0 bytes); fetch the file again")
    if head.startswith(b"version https://git-lfs"):
        return ClipError(Reason.LFS_POINTER, f"{path}: is a Git LFS pointer, not the video; run `git lfs pull`")
    if isinstance(error, EOFError):
        return ClipError(Reason.NO_FRAMES, f"{path}: ends before its first video frame; fetch the file again")
    if head[4:8] == b"ftyp" or head[:4] in (b"\x1aE\xdf\xa3", b"RIFF"):
        return ClipError(
            Reason.TRUNCATED, f"{path}: begins like a video but its index is missing or broken; fetch the file again"
        )
    return ClipError(Reason.NOT_A_VIDEO, f"{path}: is no video that can be read (MP4, MKV, WebM, AVI, ...)")


def _parse_duration(text: str | None) -> float | None:
    """Read Matroska's per-stream `DURATION` tag, `HH:MM:SS.fraction`."""
    parts = (text or "").split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        return None
    return hours * 3600 + minutes * 60 + seconds
