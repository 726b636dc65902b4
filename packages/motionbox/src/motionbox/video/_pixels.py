"""Decoded pictures -> upright full-range grey or RGB images."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from motionbox.video._decode import RawFrame

_LIMITED_RANGE, _FULL_RANGE = 1, 2  # FFmpeg's AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG
_DEPTHS = (8, 9, 10, 12, 14, 16)
_GREY_OF_RGB = (9798, 19235, 3735)  # BT.601's weights of red, green and blue times 2**15, as OpenCV rounds them

LookUp = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[Any]]


class RgbConverter:
    """Turns the pictures of one source into RGB, reduced while they are converted.

    Keeps libswscale's set-up from picture to picture, in one thread: a converter left to itself starts one for each
    core of the machine.
    """

    def __init__(self) -> None:
        """Set nothing up: the first picture does."""
        self._reformatter = VideoReformatter()

    def __call__(self, frame: RawFrame, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
        """Return an upright picture of the given size by its own colour matrix and range, uint8 (h, w, 3) RGB.

        Smaller sizes are area means of the planes as they were decoded. Rows may be padded: the array is libswscale's
        own memory where nothing is to be turned.
        """
        picture = frame.picture
        width, height = size_wh[::-1] if frame.turns % 2 else size_wh
        if (width, height) == (picture.width, picture.height):
            rgb = self._reformatter.reformat(picture, format="rgb24", threads=1)
        else:
            shrinks = width <= picture.width and height <= picture.height
            way = "AREA" if shrinks else "BILINEAR"
            rgb = self._reformatter.reformat(picture, width, height, format="rgb24", interpolation=way, threads=1)
        rows = _plane(rgb, np.dtype(np.uint8), 3 * width)
        return upright(rows.reshape(height, width, 3), frame)


def to_grey(frame: RawFrame, look_up: LookUp | None = None) -> NDArray[np.uint8]:
    """Return the luma of an upright picture as full-range grey, uint8 (h, w) of its own size.

    `look_up` applies a table of 256 grey levels to a plane: OpenCV's is twice as fast as the one used where it is None.

    Planar YUV and grey pictures give their luma plane: limited range (16 to 235, at 8 bits) is stretched to 0 to 255,
    full range kept, more than 8 bits rounded to 8. That is the Y' of the video's own colour matrix: equal to RGB ->
    grey (BT.601 weights) within rounding for BT.601 video, and for neutral colours of any video; for saturated
    colours of BT.709 video the two weightings differ. Other pixel formats go through RGB. A picture that does not say
    its range is limited, unless its format is `yuvj*` or `gray*`, as in FFmpeg.
    """
    picture, layout = frame.picture, frame.picture.format
    if not _has_luma_plane(layout):
        return rgb_to_grey(RgbConverter()(frame, frame.size_wh))
    implied = layout.name.startswith(("yuvj", "gray"))
    full = picture.color_range == _FULL_RANGE or (implied and picture.color_range != _LIMITED_RANGE)
    bits = layout.components[0].bits
    table = _range_table(bits, full)
    if bits > 8:
        codes = _plane(picture, np.dtype(">u2" if layout.is_big_endian else "<u2"), picture.width)
        return upright(np.take(table, np.minimum(codes, len(table) - 1)), frame)
    luma = _plane(picture, np.dtype(np.uint8), picture.width)
    return upright(luma if full else (look_up or _look_up)(luma, table), frame)


def _look_up(plane: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.frombuffer(plane.tobytes().translate(table.tobytes()), np.uint8).reshape(plane.shape)


def rgb_to_grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return uint8 (h, w) full-range grey of an RGB picture, uint8 (h, w, 3), by BT.601's weights."""
    red, green, blue = (rgb[..., channel] * np.uint32(weight) for channel, weight in enumerate(_GREY_OF_RGB))
    return np.asarray((red + green + blue + np.uint32(1 << 14)) >> np.uint32(15), np.uint8)


def upright(image: NDArray[np.uint8], frame: RawFrame) -> NDArray[np.uint8]:
    """Mirror and turn an image of a frame, (h, w, ...), until it is upright."""
    if frame.mirrored:
        image = image[:, ::-1]
    return np.ascontiguousarray(np.rot90(image, frame.turns)) if frame.mirrored or frame.turns else image


def _has_luma_plane(layout: VideoFormat) -> bool:
    """Tell whether the first plane holds luma alone, one code per pixel in its lowest bits."""
    first = layout.components[0]
    shifted = layout.name.startswith(("p0", "p2", "p4"))  # P010 and kin keep their codes in the highest bits
    lone = layout.is_planar or layout.name.startswith("gray")
    return first.is_luma and first.plane == 0 and first.bits in _DEPTHS and lone and not shifted


def _plane(picture: VideoFrame, dtype: np.dtype[Any], row_length: int) -> NDArray[Any]:
    """Return the first plane without the padding of its rows, (height, row_length)."""
    plane = picture.planes[0]
    rows = np.frombuffer(memoryview(plane), dtype=dtype).reshape(-1, plane.line_size // dtype.itemsize)
    return rows[: picture.height, :row_length]


@functools.cache
def _range_table(bits: int, full: bool) -> NDArray[np.uint8]:
    """Return the uint8 (2**bits,) table from luma codes to full-range grey."""
    codes = np.arange(2**bits, dtype=np.float64)
    unit = 2 ** (bits - 8)
    share = codes / (2**bits - 1) if full else (codes - 16 * unit) / (219 * unit)
    table: NDArray[np.uint8] = np.clip(np.rint(share * 255), 0, 255).astype(np.uint8)
    table.setflags(write=False)
    return table
