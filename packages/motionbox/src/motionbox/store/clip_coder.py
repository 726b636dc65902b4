"""Writing clip blocks (see `clip_blocks`): colour frames in, blocks of bytes out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from motionbox.errors import ClipError, Reason
from motionbox.store.clip_blocks import FORMS, GROUP_FRAMES, NUM_CHAINS, ClipForm, pack_block, runs_back
from motionbox.store.units import Piece, block_of
from motionbox.video.frames import ColourFrame, Frame

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame

_JPEG_QUALITY = 75
_H264_OPTIONS = {
    "crf": "22.5",
    "preset": "medium",
    "tune": "fastdecode",
    # one reference, whole blocks of motion: a quarter less time to decode for 2 % more bytes; 8x8 transform, small
    # intra blocks, no psychovisual bits: a few per cent less of both; the same bytes on every processor
    "g": str(GROUP_FRAMES),
    "keyint_min": str(GROUP_FRAMES),
    "x264-params": "scenecut=0:bframes=0:ref=1:weightp=0:"
    "no-psy=1:partitions=i4x4,i8x8:8x8dct=1:threads=1:open-gop=0:repeat-headers=1:cpu-independent=1",
}


class _Encoder(Protocol):
    def add(self, rgb: NDArray[np.uint8]) -> None: ...
    def finish(self) -> list[bytes]: ...


class ClipCoder:
    """Codes frames into one block, one at a time."""

    def __init__(self, form: ClipForm) -> None:
        """Take the form: `h264` (CRF 22.5) or `jpeg` (quality 75).

        Raises:
            ValueError: An unknown form.
        """
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
        self._form: ClipForm = form
        self._encoder: _Encoder | None = None
        self._size_wh = (0, 0)
        self._times: list[float] = []

    def add(self, rgb: NDArray[np.uint8], time_seconds: float) -> None:
        """Code the next frame.

        Args:
            rgb: uint8 (h, w, 3), of the size of the frames before.
            time_seconds: Greater than that of the frames before.

        Raises:
            ValueError: It has another size.
            ClipError: It cannot be coded.
        """
        height, width = rgb.shape[:2]
        if self._encoder is None:
            self._size_wh = (width, height)
            self._encoder = _JpegEncoder() if self._form == "jpeg" else _H264Encoder(width, height)
        elif (width, height) != self._size_wh:
            raise ValueError(f"frames must all be {self._size_wh[0]}x{self._size_wh[1]}, got {width}x{height}")
        self._encoder.add(rgb)
        self._times.append(time_seconds)

    def finish(self) -> bytes:
        """Return the block.

        Raises:
            ValueError: No frame was added.
            ClipError: The frames cannot be coded.
        """
        if self._encoder is None:
            raise ValueError("frames must hold at least one frame, got none")
        data = self._encoder.finish()
        if len(data) != len(self._times):
            raise ClipError(
                Reason.ENCODE_ERROR, f"{len(self._times)} frames must give as many access units, got {len(data)}"
            )
        return pack_block(self._form, self._size_wh, self._times, data)


def write_clip(frames: Iterable[ColourFrame], *, form: ClipForm = "h264") -> bytes:
    """Code frames into one block: `ClipCoder` from the first to the last.

    Raises:
        ValueError: No frame, frames of several sizes, or an unknown form.
        ClipError: They cannot be coded, or whatever reading them raises.
    """
    coder = ClipCoder(form)
    for frame in frames:
        coder.add(frame.rgb, frame.time_seconds)
    return coder.finish()


class PieceClips:
    """Codes a piece's colour frames on their way to the flow, one clip block for each of the piece's blocks."""

    def __init__(self, piece: Piece, form: ClipForm) -> None:
        self._piece = piece
        self._form = form
        self._coders: dict[int, ClipCoder | ClipError] = {}

    def watch(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Yield the frames without their colour, which is coded by then."""
        for frame in frames:
            self._add(frame)
            yield replace(frame, rgb=None)

    def take(self, block: int) -> bytes:
        """Return the clip block of a block whose frames have all been seen.

        Raises:
            ClipError: They could not be coded.
        """
        coder = self._coders.pop(block)
        if isinstance(coder, ClipError):
            raise coder
        return coder.finish()

    def _add(self, frame: Frame) -> None:
        block = block_of(frame.time_seconds)
        first, stop = self._piece.first_block, self._piece.stop_block
        if (first is not None and block < first) or (stop is not None and block >= stop):
            return
        if frame.rgb is None:
            raise AssertionError("the source must give colour where clips are kept")
        coder = self._coders.setdefault(block, ClipCoder(self._form))
        if isinstance(coder, ClipCoder):
            try:
                coder.add(frame.rgb, frame.time_seconds)
            except ClipError as error:
                self._coders[block] = error


class _JpegEncoder:
    def __init__(self) -> None:
        self._data: list[bytes] = []

    def add(self, rgb: NDArray[np.uint8]) -> None:
        import cv2

        options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        try:
            _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
        except cv2.error as error:
            raise _failure(error) from None
        self._data.append(data.tobytes())

    def finish(self) -> list[bytes]:
        return self._data


class _H264Encoder:
    """Hands frame i to chain i modulo the number of chains."""

    def __init__(self, width: int, height: int) -> None:
        self._chains = [_Chain(width, height) for _ in range(NUM_CHAINS)]
        self._num_frames = 0

    def add(self, rgb: NDArray[np.uint8]) -> None:
        self._chains[self._num_frames % NUM_CHAINS].add(rgb)
        self._num_frames += 1

    def finish(self) -> list[bytes]:
        coded = [chain.finish() for chain in self._chains[: self._num_frames]]  # x264 cannot end before it has begun
        rows = itertools.zip_longest(*coded)
        return [unit for row in rows for unit in row if unit is not None]


class _Chain:
    """One H.264 stream, coded group by group, some of them backwards."""

    def __init__(self, width: int, height: int) -> None:
        import av

        self._pad = ((0, height % 2), (0, width % 2), (0, 0))
        codec: VideoCodecContext = av.CodecContext.create("libx264", "w")
        codec.width, codec.height = width + width % 2, height + height % 2
        codec.pix_fmt = "yuv420p"
        codec.time_base, codec.framerate = Fraction(1, 30), Fraction(30)
        codec.options = dict(_H264_OPTIONS)
        self._codec = codec
        self._group: list[VideoFrame] = []
        self._order: list[int] = []  # positions of the frames in the chain, as they are coded
        self._units: list[bytes] = []

    def add(self, rgb: NDArray[np.uint8]) -> None:
        import av

        self._group.append(av.VideoFrame.from_ndarray(np.pad(rgb, self._pad, mode="edge"), format="rgb24"))
        if len(self._group) == GROUP_FRAMES:
            self._code_group()

    def finish(self) -> list[bytes]:
        self._code_group()
        self._encode(None)
        return [unit for _, unit in sorted(zip(self._order, self._units, strict=False))]

    def _code_group(self) -> None:
        first = len(self._order)
        numbered = list(enumerate(self._group, first))
        for position, frame in reversed(numbered) if runs_back(first // GROUP_FRAMES) else numbered:
            frame.pts = len(self._order)
            self._order.append(position)
            self._encode(frame)
        self._group.clear()

    def _encode(self, frame: VideoFrame | None) -> None:
        import av

        try:
            self._units.extend(bytes(packet) for packet in self._codec.encode(frame))
        except av.error.FFmpegError as error:
            raise _failure(error) from None


def _failure(error: Exception) -> ClipError:
    return ClipError(Reason.ENCODE_ERROR, f"training clip: a frame cannot be coded: {error}")
