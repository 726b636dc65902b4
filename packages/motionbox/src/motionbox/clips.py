"""Training clips: a clip's colour frames in one block of bytes, made for reading a few frames of it at random.

Layout, little-endian: the magic `MBCLIP1` and a newline; uint32 number of frames T, width, height, form (0 JPEG, 1
H.264); float64 (T,) times in seconds; uint64 (T + 1,) offsets of the frames' data from the start of the block; the
data. A JPEG frame's data is a JPEG file. An H.264 frame's data is one Annex B access unit, in display order without
B-frames, with a keyframe (and its parameter sets) at every `GROUP_FRAMES`-th; odd sizes are padded to even ones and
cut again when read. So a reader touches only the data of the frames it wants, or from the keyframe before them on.

`docs/datasets.md` compares the forms: JPEG reads fastest, H.264 takes a quarter of its bytes at the same quality.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from motionbox.errors import ClipError, Reason
from motionbox.frames import ColourFrame, DecodeLimits

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame

ClipForm = Literal["jpeg", "h264"]

MAGIC = b"MBCLIP1\n"
GROUP_FRAMES = 8
"""Frames from one H.264 keyframe to the next."""

JPEG_QUALITY = 75
H264_CRF = 24
_HEAD = struct.Struct("<8s4I")
_FORMS: tuple[ClipForm, ...] = ("jpeg", "h264")
_H264_OPTIONS = {
    "crf": str(H264_CRF),
    "preset": "medium",
    "tune": "fastdecode",
    # one reference, whole blocks: a quarter less time to decode for 2 % more bytes
    "x264-params": f"keyint={GROUP_FRAMES}:min-keyint={GROUP_FRAMES}:scenecut=0:bframes=0:ref=1:weightp=0:"
    "partitions=none:8x8dct=0:threads=1:open-gop=0:repeat-headers=1",
}


@dataclass(frozen=True)
class ClipIndex:
    """The head of a block.

    Attributes:
        form: How the frames are coded.
        width: Width of every frame in pixels.
        height: Height of every frame in pixels.
        times_seconds: float64 (T,), as in the source.
        offsets: uint64 (T + 1,), where each frame's data begins and the last one's ends.
    """

    form: ClipForm
    width: int
    height: int
    times_seconds: NDArray[np.float64]
    offsets: NDArray[np.uint64]

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return len(self.times_seconds)


class _Encoder(Protocol):
    def add(self, rgb: NDArray[np.uint8]) -> list[bytes]: ...
    def finish(self) -> list[bytes]: ...


def write_clip(frames: Iterable[ColourFrame], *, form: ClipForm = "h264") -> bytes:
    """Code a clip's frames into one block.

    Args:
        frames: At least one, all of one size, with rising times: `video.read_colour_frames(short_side_px=256)`.
        form: `h264` (CRF 24) or `jpeg` (quality 75).

    Raises:
        ValueError: No frame, frames of several sizes, or an unknown form.
        ClipError: Whatever reading the frames raises.
    """
    if form not in _FORMS:
        raise ValueError(f"form must be one of {', '.join(_FORMS)}, got {form!r}")
    encoder: _Encoder | None = None
    times: list[float] = []
    data: list[bytes] = []
    size = (0, 0)
    for frame in frames:
        height, width = frame.rgb.shape[:2]
        if encoder is None:
            size = (width, height)
            encoder = _JpegEncoder() if form == "jpeg" else _H264Encoder(width, height)
        elif (width, height) != size:
            raise ValueError(f"frames must all be {size[0]}x{size[1]}, got {width}x{height}")
        data.extend(encoder.add(frame.rgb))
        times.append(frame.time_seconds)
    if encoder is None:
        raise ValueError("frames must hold at least one frame, got none")
    data.extend(encoder.finish())
    if len(data) != len(times):
        raise AssertionError(f"{len(times)} frames must give as many access units, got {len(data)}")
    return _pack(form, size, times, data)


def clip_from_video(
    path: Path,
    *,
    form: ClipForm = "h264",
    short_side_px: int = 256,
    start_seconds: float | None = None,
    stop_seconds: float | None = None,
    frame_fps: float | None = None,
    limits: DecodeLimits | None = None,
) -> tuple[bytes, ClipError | None]:
    """Decode a span of a video and code it as a block; what came before a fault is kept.

    Args:
        path: Video file, folder of frames or tar of frames.
        form: As `write_clip`.
        short_side_px: Frames are shrunk to this short side at most.
        start_seconds: As a manifest's column.
        stop_seconds: As a manifest's column.
        frame_fps: As a manifest's column: not None for numbered frame files.
        limits: What is refused.

    Returns:
        The block, and the fault that ended decoding early, None where nothing did.

    Raises:
        ClipError: Not one frame could be read.
    """
    from motionbox.video import read_colour_frames

    faults: list[ClipError] = []
    num_frames = 0

    def frames() -> Iterator[ColourFrame]:
        nonlocal num_frames
        source = read_colour_frames(
            path,
            short_side_px=short_side_px,
            start_seconds=start_seconds,
            stop_seconds=stop_seconds,
            limits=limits,
            fps=frame_fps,
            numbered=frame_fps is not None,
        )
        try:
            for frame in source:
                num_frames += 1
                yield frame
        except ClipError as fault:
            if num_frames == 0:
                raise
            faults.append(fault)

    block = write_clip(frames(), form=form)
    return block, (faults[0] if faults else None)


def read_index(data: bytes | memoryview) -> ClipIndex:
    """Read the head of a block.

    Raises:
        ClipError: The bytes are no clip, or cut off.
    """
    if len(data) < _HEAD.size:
        raise ClipError(Reason.TRUNCATED, f"training clip must have at least {_HEAD.size} bytes, got {len(data)}")
    magic, num_frames, width, height, form = _HEAD.unpack_from(data)
    if magic != MAGIC or form >= len(_FORMS) or num_frames == 0:
        raise ClipError(Reason.NOT_A_VIDEO, f"training clip must begin with {MAGIC!r}, got {bytes(magic)!r}")
    body = _HEAD.size + 16 * num_frames + 8
    if len(data) < body:
        raise ClipError(Reason.TRUNCATED, f"training clip of {num_frames} frames is cut off at {len(data)} bytes")
    times = np.frombuffer(data, "<f8", num_frames, _HEAD.size)
    offsets = np.frombuffer(data, "<u8", num_frames + 1, _HEAD.size + 8 * num_frames)
    if int(offsets[-1]) > len(data) or int(offsets[0]) != body or (offsets[1:] < offsets[:-1]).any():
        raise ClipError(Reason.TRUNCATED, f"training clip of {num_frames} frames is cut off at {len(data)} bytes")
    return ClipIndex(_FORMS[form], width, height, times, offsets)


def read_clip_frames(
    data: bytes | memoryview,
    indices: Sequence[int],
    *,
    crop_xywh: tuple[int, int, int, int] | None = None,
    size_wh: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """Decode some frames of a block, in any order, repeats allowed.

    Args:
        data: A block of `write_clip`.
        indices: Positions counted from 0.
        crop_xywh: Left, top, width and height in pixels, cut out before resizing; None keeps the frame.
        size_wh: Width and height to resize to (bilinear; area where it shrinks); None keeps the crop's size.

    Returns:
        uint8 (N, h, w, 3) RGB, in the order of `indices`.

    Raises:
        ValueError: An index or the crop lies outside.
        ClipError: The block is broken.
    """
    import cv2

    index = read_index(data)
    crop = crop_xywh or (0, 0, index.width, index.height)
    x, y, width, height = crop
    if not (0 <= x < x + width <= index.width and 0 <= y < y + height <= index.height):
        raise ValueError(f"crop_xywh must lie within {index.width}x{index.height}, got {crop!r}")
    wanted = sorted(set(indices))
    if wanted and not 0 <= wanted[0] <= wanted[-1] < index.num_frames:
        raise ValueError(f"indices must be from 0 to {index.num_frames - 1}, got {wanted[0]} to {wanted[-1]}")
    out_width, out_height = size_wh or (width, height)
    decoded: dict[int, NDArray[np.uint8]] = {}
    for position, image in (_read_jpeg if index.form == "jpeg" else _read_h264)(data, index, wanted, crop):
        if (out_width, out_height) != (width, height):
            shrinks = out_width < width and out_height < height
            how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image = np.asarray(cv2.resize(image, (out_width, out_height), interpolation=how), dtype=np.uint8)
        decoded[position] = image
    frames = np.empty((len(indices), out_height, out_width, 3), dtype=np.uint8)
    for row, position in enumerate(indices):
        frames[row] = decoded[position]
    return frames


def _pack(form: ClipForm, size: tuple[int, int], times: list[float], data: list[bytes]) -> bytes:
    head = _HEAD.pack(MAGIC, len(times), *size, _FORMS.index(form))
    start = len(head) + 16 * len(times) + 8
    offsets = np.cumsum([start, *map(len, data)], dtype="<u8")
    return b"".join([head, np.asarray(times, "<f8").tobytes(), offsets.tobytes(), *data])


def _payload(data: bytes | memoryview, index: ClipIndex, position: int) -> memoryview:
    return memoryview(data)[int(index.offsets[position]) : int(index.offsets[position + 1])]


def _broken(position: int, error: object) -> ClipError:
    return ClipError(Reason.DECODE_ERROR, f"training clip: frame {position} cannot be decoded: {error}")


class _JpegEncoder:
    def add(self, rgb: NDArray[np.uint8]) -> list[bytes]:
        import cv2

        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)  # raises where it fails
        return [data.tobytes()]

    def finish(self) -> list[bytes]:
        return []


def _read_jpeg(
    data: bytes | memoryview, index: ClipIndex, wanted: list[int], crop: tuple[int, int, int, int]
) -> Iterable[tuple[int, NDArray[np.uint8]]]:
    import cv2

    x, y, width, height = crop
    for position in wanted:
        coded = np.frombuffer(_payload(data, index, position), np.uint8)
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION) if len(coded) else None
        if image is None or image.shape != (index.height, index.width, 3):
            raise _broken(position, "no intact JPEG of the clip's size")
        yield position, np.asarray(image[y : y + height, x : x + width], dtype=np.uint8)


class _H264Encoder:
    def __init__(self, width: int, height: int) -> None:
        import av

        self._pad = ((0, height % 2), (0, width % 2), (0, 0))
        codec: VideoCodecContext = av.CodecContext.create("libx264", "w")
        codec.width, codec.height = width + width % 2, height + height % 2
        codec.pix_fmt = "yuv420p"
        codec.time_base, codec.framerate = Fraction(1, 30), Fraction(30)
        codec.options = dict(_H264_OPTIONS)
        self._codec = codec
        self._num_frames = 0

    def add(self, rgb: NDArray[np.uint8]) -> list[bytes]:
        import av

        frame = av.VideoFrame.from_ndarray(np.pad(rgb, self._pad, mode="edge"), format="rgb24")
        frame.pts = self._num_frames
        self._num_frames += 1
        return [bytes(packet) for packet in self._codec.encode(frame)]

    def finish(self) -> list[bytes]:
        return [bytes(packet) for packet in self._codec.encode(None)]


def _read_h264(
    data: bytes | memoryview, index: ClipIndex, wanted: list[int], crop: tuple[int, int, int, int]
) -> Iterable[tuple[int, NDArray[np.uint8]]]:
    import av

    codec: VideoCodecContext = av.CodecContext.create("h264", "r")
    codec.thread_count = 1
    keep = set(wanted)
    num_out = 0
    for position in [*_needed(wanted), None]:
        packet = None
        if position is not None:
            packet = av.Packet(bytes(_payload(data, index, position)))
            packet.pts = position
        try:
            pictures = codec.decode(packet)
        except (av.error.FFmpegError, EOFError) as error:
            raise _broken(wanted[-1] if position is None else position, error) from None
        for picture in pictures:
            if picture.pts in keep:
                num_out += 1
                yield picture.pts, _crop_rgb(picture, index, crop)
    if num_out != len(wanted):
        raise _broken(wanted[-1], "fewer frames came than were coded")


def _needed(wanted: list[int]) -> list[int]:
    """Return the positions to decode: from the keyframe of each group that holds a wanted frame to its last one."""
    last_of_group: dict[int, int] = {}
    for position in wanted:
        last_of_group[position // GROUP_FRAMES] = position
    return [p for group, last in last_of_group.items() for p in range(group * GROUP_FRAMES, last + 1)]


def _crop_rgb(picture: VideoFrame, index: ClipIndex, crop: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Convert only the crop, widened to even edges, from planar YUV to RGB."""
    import cv2

    x, y, width, height = crop
    left, top = x - x % 2, y - y % 2
    right, bottom = x + width + (x + width) % 2, y + height + (y + height) % 2
    if picture.format.name not in ("yuv420p", "yuvj420p") or right > picture.width or bottom > picture.height:
        raise _broken(picture.pts or 0, f"no yuv420p picture of {index.width}x{index.height}")
    even_width, even_height = right - left, bottom - top
    packed = np.empty((even_height * 3 // 2, even_width), dtype=np.uint8)
    packed[:even_height] = _plane(picture, 0)[top:bottom, left:right]
    chroma = packed[even_height:].reshape(2, even_height // 2, even_width // 2)
    for plane in (1, 2):
        chroma[plane - 1] = _plane(picture, plane)[top // 2 : bottom // 2, left // 2 : right // 2]
    rgb = cv2.cvtColor(packed, cv2.COLOR_YUV2RGB_I420)
    return np.asarray(rgb[y - top : y - top + height, x - left : x - left + width], dtype=np.uint8)


def _plane(picture: VideoFrame, number: int) -> NDArray[np.uint8]:
    plane = picture.planes[number]
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
