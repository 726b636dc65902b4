"""Opening a video file: which containers and codecs, which stream, within which limits, and what to say otherwise."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import TYPE_CHECKING

import av
import av.container
import av.error
import av.stream

from motionbox.errors import ClipError, Reason
from motionbox.video.frames import MIN_SIDE_PX, DecodeLimits

if TYPE_CHECKING:
    from av.video.stream import VideoStream

DEMUXERS = ("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "ogg", "asf")
DECODERS = (
    *("h264", "hevc", "vp8", "vp9", "libvpx", "libvpx-vp9", "av1", "libdav1d", "mpeg4", "mpeg1video", "mpeg2video"),
    *("mjpeg", "png", "ffv1", "prores", "dnxhd", "theora", "h263", "flv", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2"),
    *("wmv3", "vc1", "rawvideo", "huffyuv", "ffvhuff", "vvc"),
)
ERRORS = (av.error.FFmpegError, EOFError, ValueError)
"""What PyAV raises over a broken file."""


def open_container(path: Path) -> av.container.InputContainer:
    """Open a local video file.

    Raises:
        ClipError: Missing, unreadable, or none of the containers that are read.
    """
    options = {"protocol_whitelist": "file", "format_whitelist": ",".join(DEMUXERS)}
    try:
        return av.open(f"file:{path}", mode="r", options=options, metadata_errors="replace")
    except (OSError, *ERRORS) as error:
        raise _open_failure(path, error) from None


def video_stream(container: av.container.InputContainer, path: Path) -> VideoStream:
    """Return the best video stream as FFmpeg judges it; never a cover picture, whatever its place.

    Raises:
        ClipError: There is none, or its codec is not read.
    """
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        raise ClipError(Reason.NO_VIDEO_STREAM, f"{path}: has no video stream, only sound or data")
    best = container.streams.best("video")
    stream = next((s for s in streams if best is not None and s.index == best.index), streams[0])
    name = getattr(stream.codec_context, "name", "unknown")  # PyAV gives None where FFmpeg knows no decoder
    if name not in DECODERS:
        raise ClipError(Reason.UNSUPPORTED, f"{path}: codec {name!r} is not read; convert it to H.264 or VP9")
    return stream


def check_size(path: Path, width: int, height: int, limits: DecodeLimits) -> None:
    """Refuse a picture outside the limits.

    Raises:
        ClipError: Too many pixels, or a side under `MIN_SIDE_PX`.
    """
    if width * height > limits.max_pixels:
        raise ClipError(
            Reason.TOO_LARGE,
            f"{path}: frame size must be at most {limits.max_pixels} pixels, got {width}x{height}",
        )
    if min(width, height) < MIN_SIDE_PX:
        raise ClipError(
            Reason.TOO_SMALL,
            f"{path}: frame sides must be at least {MIN_SIDE_PX} px, got {width}x{height}",
        )


def check_duration(path: Path, seconds: float, limits: DecodeLimits) -> None:
    """Refuse a time beyond the longest video.

    Raises:
        ClipError: It is.
    """
    if seconds > limits.max_duration_seconds:
        raise ClipError(
            Reason.TOO_LONG,
            f"{path}: duration must be at most {limits.max_duration_seconds:.0f} s, got {seconds:.0f}; "
            "raise max_duration_seconds",
        )


def times_rise(path: Path) -> bool:
    """Tell whether the times of a video rise from picture to picture: only then does a time lead to one place in it.

    Reads the packets to the end or the first fault, and decodes none. Where pictures are stored in another order than
    they are shown in, FFmpeg's time of decoding rises, and what is stored before a keyframe is shown before it.

    Raises:
        ClipError: As `open_container`.
    """
    latest, last_stored = -math.inf, -math.inf
    with open_container(path) as container, contextlib.suppress(*ERRORS):
        for packet in container.demux(video_stream(container, path)):
            shown, stored = packet.pts, packet.dts
            if (stored is not None and stored <= last_stored) or (
                packet.is_keyframe and shown is not None and shown < latest
            ):
                return False
            last_stored = last_stored if stored is None else stored
            latest = latest if shown is None else max(latest, shown)
    return True


def stream_duration(stream: VideoStream) -> float | None:
    """Return the duration in seconds that the header gives a stream, None where it gives none."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return _parse_duration(stream.metadata.get("DURATION"))


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
