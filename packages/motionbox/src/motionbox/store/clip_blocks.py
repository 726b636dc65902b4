"""Clip blocks: colour frames in one block of bytes, made for reading a few of them at random.

A store keeps one such block for each block of a video (see `plan`), so that annotated segments that overlap share
their frames and nothing depends on how a video was split. `Store.clip_frames` finds the blocks of a clip.

Layout, little-endian: the magic `MBCLIP1` and a newline; uint32 number of frames T, width, height, coding (0 JPEG,
2 and 3 H.264 in two chains); float64 (T,) times in seconds; uint64 (T + 1,) offsets of the frames' data from the start
of the block; the data. A JPEG frame's data is a JPEG file. An H.264 frame's
data is one Annex B access unit without B-frames; odd sizes are padded to even ones and cut again when read.

Frames of even and of odd position are two chains of H.264, each coded as if the other were not there, in groups of
`GROUP_FRAMES` of its frames that begin with a keyframe (and its parameter sets). So a reader touches only the data of
the frames it wants, or those of their group from its keyframe on: for training's every second frame, nothing between.
In coding 3, which is written, every other group of a chain, its first among them, is coded from its last frame back to
its first: the keyframes of two groups are neighbours, and frames around them are read without any others.

`docs/how-fast.md` compares the forms: H.264 takes a quarter of JPEG's bytes, JPEG reads frames of both chains faster.
Importing this loads NumPy alone, reading frames PyAV.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from motionbox.errors import ClipError, Reason
from motionbox.store.clip_decoder import Decoder, borrow_decoder
from motionbox.video.frames import working_size

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.plane import VideoPlane

ClipForm = Literal["jpeg", "h264"]

SHORT_SIDE_PX = 256
"""Larger frames are shrunk to this short side before they are coded."""

NUM_CHAINS = 2
"""H.264 frame i is predicted from frame i - NUM_CHAINS."""

GROUP_FRAMES = 12
"""Frames of a chain that hang on one H.264 keyframe."""

FORMS: tuple[ClipForm, ...] = ("jpeg", "h264")
_MAGIC = b"MBCLIP1\n"
_START_CODE = b"\0\0\1"
_MOST_PARAMETER_BYTES = 256
_HEAD = struct.Struct("<8s4I")
# By number in the head: form, chains, frames of a chain that hang on a keyframe, whether every other group runs back.
_CODINGS: dict[int, tuple[ClipForm, int, int, bool]] = {
    0: ("jpeg", 1, 1, False),
    2: ("h264", NUM_CHAINS, GROUP_FRAMES, False),
    3: ("h264", NUM_CHAINS, GROUP_FRAMES, True),
}
_WRITTEN: dict[ClipForm, int] = {"jpeg": 0, "h264": 3}
Place = Callable[["VideoFrame", Decoder, NDArray[np.uint8]], None]


@dataclass(frozen=True)
class ClipIndex:
    """The head of a block.

    Attributes:
        form: How the frames are coded.
        num_chains: Frame i is predicted from frame i - num_chains or, where its group runs back, i + num_chains.
        group_frames: Frames of a chain that hang on one keyframe.
        turns: Every other group of a chain runs back from its last frame, see `runs_back`; else all run forward.
        width: Width of every frame in pixels.
        height: Height of every frame in pixels.
        times_seconds: float64 (T,), as in the source.
        offsets: uint64 (T + 1,), where each frame's data begins and the last one's ends.
    """

    form: ClipForm
    num_chains: int
    group_frames: int
    turns: bool
    width: int
    height: int
    times_seconds: NDArray[np.float64]
    offsets: NDArray[np.uint64]

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return len(self.times_seconds)


def padded(side: int) -> int:
    """Return how long a side of H.264 frames is as they are coded: even, one pixel more than an odd one."""
    return side + side % 2


def runs_back(group: int) -> bool:
    """Return whether a group of a chain, counted from 0, is coded from its last frame back to its first."""
    return group % 2 == 0


def pack_block(form: ClipForm, size_wh: tuple[int, int], times_seconds: list[float], data: list[bytes]) -> bytes:
    """Put the coded frames of a block behind its head.

    Args:
        form: How they are coded.
        size_wh: Width and height of every frame in pixels.
        times_seconds: Time of each frame, increasing.
        data: JPEG file or access unit of each frame.
    """
    head = _HEAD.pack(_MAGIC, len(times_seconds), *size_wh, _WRITTEN[form])
    start = len(head) + 16 * len(times_seconds) + 8
    offsets = np.cumsum([start, *map(len, data)], dtype="<u8")
    return b"".join([head, np.asarray(times_seconds, "<f8").tobytes(), offsets.tobytes(), *data])


def read_index(data: bytes | memoryview) -> ClipIndex:
    """Read the head of a block.

    Raises:
        ClipError: The bytes are no block, or cut off.
    """
    if len(data) < _HEAD.size:
        raise ClipError(Reason.TRUNCATED, f"training clip must have at least {_HEAD.size} bytes, got {len(data)}")
    magic, num_frames, width, height, coding = _HEAD.unpack_from(data)
    if magic != _MAGIC or coding not in _CODINGS or num_frames == 0:
        raise ClipError(
            Reason.NOT_A_VIDEO,
            f"training clip must begin with {_MAGIC!r} and hold frames of coding 0, 2 or 3, got {bytes(magic)!r} and "
            f"{num_frames} frames of coding {coding}; run `motionbox verify` on the store",
        )
    body = _HEAD.size + 16 * num_frames + 8
    if len(data) < body:
        raise ClipError(Reason.TRUNCATED, f"training clip of {num_frames} frames is cut off at {len(data)} bytes")
    times = np.frombuffer(data, "<f8", num_frames, _HEAD.size)
    offsets = np.frombuffer(data, "<u8", num_frames + 1, _HEAD.size + 8 * num_frames)
    if int(offsets[-1]) > len(data) or int(offsets[0]) != body or (offsets[1:] < offsets[:-1]).any():
        raise ClipError(Reason.TRUNCATED, f"training clip of {num_frames} frames is cut off at {len(data)} bytes")
    return ClipIndex(*_CODINGS[coding], width, height, times, offsets)


def read_clip_frames(
    data: bytes | memoryview,
    indices: Sequence[int],
    *,
    short_side_px: int | None = None,
    out: NDArray[np.uint8] | None = None,
    index: ClipIndex | None = None,
) -> NDArray[np.uint8]:
    """Decode some frames of a block, in any order, repeats allowed.

    Args:
        data: A block.
        indices: Positions counted from 0.
        short_side_px: Larger frames are reduced (area mean) to this short side; None: as stored.
        out: Where to write the frames; None: new memory.
        index: The block's head where it was read before.

    Returns:
        uint8 (N, h, w, 3) RGB, in the order of `indices`.

    Raises:
        ValueError: An index lies outside.
        ClipError: The block is broken, or its frames are of another size than `out`.
    """
    index = index or read_index(data)
    size = (index.width, index.height)
    if short_side_px is not None and min(size) > 0:
        size = working_size(*size, short_side_px)

    def place(picture: VideoFrame, decoder: Decoder, room: NDArray[np.uint8]) -> None:
        room[:] = _to_rgb(picture, index, size, decoder)

    return _gather(data, index, indices, (size[1], size[0], 3), place, out)


def read_clip_planes(
    data: bytes | memoryview,
    indices: Sequence[int],
    *,
    window_xywh: tuple[int, int, int, int] | None = None,
    out: NDArray[np.uint8] | None = None,
    index: ClipIndex | None = None,
) -> NDArray[np.uint8]:
    """Decode some frames of a block and leave them as they come: no conversion, half the bytes.

    Args:
        data: A block of H.264.
        indices: Positions counted from 0, in any order, repeats allowed.
        window_xywh: Left, top, width and height in pixels, all even: the part of each frame that is copied; None: all
            of it, odd sides padded by one pixel.
        out: Where to write the planes; None: new memory.
        index: The block's head where it was read before.

    Returns:
        uint8 (N, h * 3 / 2, w), YUV 4:2:0 of BT.601's colours in limited range, h and w even: h rows of luma; below
        them the h / 2 x w / 2 blue differences and as many red ones, row after row.

    Raises:
        ValueError: An index or the window lies outside, or the window is not even.
        ClipError: The block is broken, its frames are JPEG files, or of another size than `out`.
    """
    index = index or read_index(data)
    if index.form != "h264":
        raise ClipError(Reason.UNSUPPORTED, f"training clip must be H.264 to be read as planes, got {index.form}")
    coded_wh = _coded_wh(index)
    x, y, width, height = window = window_xywh or (0, 0, *coded_wh)
    within = 0 <= x < x + width <= coded_wh[0] and 0 <= y < y + height <= coded_wh[1]
    if not within or any(number % 2 for number in window):
        raise ValueError(f"window_xywh must be even and within {coded_wh[0]}x{coded_wh[1]}, got {window_xywh!r}")

    def place(picture: VideoFrame, _: Decoder, room: NDArray[np.uint8]) -> None:
        _copy_planes(picture, window, room)

    return _gather(data, index, indices, (height * 3 // 2, width), place, out)


def planes_to_rgb(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert frames that `read_clip_planes` gave, as `read_clip_frames` converts them.

    Args:
        planes: uint8 (N, h * 3 / 2, w).

    Returns:
        uint8 (N, h, w, 3) RGB.
    """
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()
    rgb = np.empty((len(planes), planes.shape[1] * 2 // 3, planes.shape[2], 3), np.uint8)
    for picture, room in zip(planes, rgb, strict=True):
        converted = reformatter.reformat(VideoFrame.from_ndarray(picture, format="yuv420p"), format="rgb24", threads=1)
        room[:] = _pixels_of(converted, room.shape[1], room.shape[0])
    return rgb


def _gather(
    data: bytes | memoryview,
    index: ClipIndex,
    indices: Sequence[int],
    shape: tuple[int, ...],
    place: Place,
    out: NDArray[np.uint8] | None,
) -> NDArray[np.uint8]:
    """Return the pictures in the order of `indices`, each of that shape as `place` writes it."""
    wanted = sorted(set(indices))
    if not wanted:
        return np.empty((0, *shape), np.uint8)
    if not 0 <= wanted[0] <= wanted[-1] < index.num_frames:
        raise ValueError(f"indices must be from 0 to {index.num_frames - 1}, got {wanted[0]} to {wanted[-1]}")
    if out is not None and out.shape != (len(indices), *shape):
        raise ClipError(Reason.UNSUPPORTED, f"training clip must have frames of shape {out.shape[1:]}, got {shape}")
    rows: dict[int, list[int]] = {}
    for row, position in enumerate(indices):
        rows.setdefault(position, []).append(row)
    frames = out
    first = int(index.offsets[_needed(wanted[:1], index)[0]])
    parameters = _parameter_sets(bytes(data[first : first + _MOST_PARAMETER_BYTES])) if index.form == "h264" else b""
    with borrow_decoder(index.form, _coded_wh(index), parameters) as decoder:
        for position, picture in _decode(data, index, wanted, decoder):
            if frames is None:  # only once a picture is there: a broken head may ask for any size
                frames = np.empty((len(indices), *shape), np.uint8)
            first, *others = rows[position]
            place(picture, decoder, frames[first])
            if others:
                frames[others] = frames[first]
    return cast("NDArray[np.uint8]", frames)


def _broken(position: int, error: object) -> ClipError:
    return ClipError(Reason.DECODE_ERROR, f"training clip: frame {position} cannot be decoded: {error}")


def _decode(
    data: bytes | memoryview, index: ClipIndex, wanted: list[int], decoder: Decoder
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield the wanted positions with their pictures, group by group and chain by chain."""
    import av

    coded_wh, keep, needed = _coded_wh(index), set(wanted), _needed(wanted, index)
    expected = [position for position in reversed(needed) if position in keep]
    for position, packet in zip([*needed, None], [*_packets(data, index, needed), None], strict=True):
        if not expected:
            return
        try:
            pictures = decoder.codec.decode(packet)
        except (av.error.FFmpegError, EOFError) as error:
            raise _broken(wanted[-1] if position is None else position, error) from None
        for picture in pictures:
            if picture.pts in keep:
                if not expected or picture.pts != expected.pop() or picture.is_corrupt:
                    raise _broken(picture.pts, "the decoder marks it as corrupt")
                if (picture.width, picture.height) != coded_wh:
                    raise _broken(picture.pts, f"it must be {coded_wh}, got {picture.width}x{picture.height}")
                yield picture.pts, picture
    if expected:
        raise _broken(wanted[-1], "fewer frames came than were coded")


def _packets(data: bytes | memoryview, index: ClipIndex, positions: list[int]) -> list[Packet[Any]]:
    """Return the data of frames for a decoder, which takes a copy of its own."""
    import av

    content, edges, packets = memoryview(data), index.offsets.tolist(), []
    for position in positions:
        packet: Packet[Any] = av.Packet(cast("bytes", content[edges[position] : edges[position + 1]]))
        packet.pts = position
        packets.append(packet)
    return packets


def _parameter_sets(unit: bytes) -> bytes:
    """Return a keyframe's two parameter sets: what comes before its third start code."""
    return b"".join(part.strip(b"\0") for part in unit.split(_START_CODE, 3)[:3])


def _needed(wanted: list[int], index: ClipIndex) -> list[int]:
    """Return the positions to decode, a chain's group after the other: from its keyframe to the farthest wanted one."""
    step = index.num_chains
    reach = step * index.group_frames
    groups: dict[tuple[int, int], list[int]] = {}
    for position in wanted:
        groups.setdefault((position // reach, position % step), []).append(position)
    needed: list[int] = []
    for (group, chain), own in groups.items():
        first = group * reach + chain
        if index.turns and runs_back(group):
            last = range(first, min(first + reach, index.num_frames), step)[-1]
            needed += range(last, own[0] - 1, -step)
        else:
            needed += range(first, own[-1] + 1, step)
    return needed


def _to_rgb(picture: VideoFrame, index: ClipIndex, size_wh: tuple[int, int], decoder: Decoder) -> NDArray[np.uint8]:
    """Convert a picture to RGB without the padding of odd sizes."""
    # One thread, that of the caller: a converter left to itself starts one for each core of the machine.
    if size_wh == (index.width, index.height):
        rgb = decoder.reformatter.reformat(picture, format="rgb24", threads=1)
    else:
        rgb = decoder.reformatter.reformat(picture, *size_wh, format="rgb24", interpolation="AREA", threads=1)
    return _pixels_of(rgb, *size_wh)


def _pixels_of(rgb: VideoFrame, width: int, height: int) -> NDArray[np.uint8]:
    """Return the upper left pixels of an RGB picture, uint8 (height, width, 3)."""
    plane = rgb.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(rgb.height, plane.line_size)
    return rows[:height, : 3 * width].reshape(height, width, 3)


def _copy_planes(picture: VideoFrame, window_xywh: tuple[int, int, int, int], room: NDArray[np.uint8]) -> None:
    """Write a window of the planes of a YUV 4:2:0 picture below each other, without the padding of their rows."""
    if picture.format.name != "yuv420p":
        raise _broken(picture.pts or 0, f"its pixels must be yuv420p, got {picture.format.name}")
    x, y, width, height = window_xywh
    luma, blue, red = picture.planes
    room[:height] = _part(luma, x, y, width, height)
    half = (x // 2, y // 2, width // 2, height // 2)
    chroma = room[height:].reshape(2, height // 2, width // 2)
    chroma[0] = _part(blue, *half)
    chroma[1] = _part(red, *half)


def _part(plane: VideoPlane, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
    """Return a rectangle of a plane without copying it, uint8 (height, width)."""
    line = plane.line_size
    return np.ndarray((height, width), np.uint8, cast("bytes", plane), y * line + x, (line, 1))


def _coded_wh(index: ClipIndex) -> tuple[int, int]:
    """Return width and height of the pictures as they are coded."""
    size = index.width, index.height
    return (padded(size[0]), padded(size[1])) if index.form == "h264" else size
