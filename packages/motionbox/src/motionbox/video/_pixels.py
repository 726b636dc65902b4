"""Decoded pictures -> upright full-range grey or RGB images."""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from numpy.typing import NDArray

_ROTATIONS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
_LIMITED_RANGE, _FULL_RANGE = 1, 2  # FFmpeg's AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG
_DEPTHS = (8, 9, 10, 12, 14, 16)


def to_grey(picture: VideoFrame) -> NDArray[np.uint8]:
    """Return the picture's luma as full-range grey, uint8 (h, w), not rotated.

    Planar YUV and grey pictures give their luma plane: limited range (16 to 235, at 8 bits) is stretched to 0 to 255,
    full range kept, more than 8 bits rounded to 8. That is the Y' of the video's own colour matrix: equal to RGB ->
    grey (BT.601 weights) within rounding for BT.601 video, and for neutral colours of any video; for saturated
    colours of BT.709 video the two weightings differ. Other pixel formats go through RGB. A picture that does not say
    its range is limited, unless its format is `yuvj*` or `gray*`, as in FFmpeg.
    """
    layout = picture.format
    if not _has_luma_plane(layout):
        return np.asarray(cv2.cvtColor(to_rgb(picture), cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    implied = layout.name.startswith(("yuvj", "gray"))
    full = picture.color_range == _FULL_RANGE or (implied and picture.color_range != _LIMITED_RANGE)
    bits = layout.components[0].bits
    table = _range_table(bits, full)
    if bits > 8:
        codes = _first_plane(picture, np.dtype(">u2" if layout.is_big_endian else "<u2"))
        return np.asarray(np.take(table, np.minimum(codes, len(table) - 1)), dtype=np.uint8)
    luma = np.asarray(_first_plane(picture, np.dtype(np.uint8)), dtype=np.uint8)
    return luma.copy() if full else np.asarray(cv2.LUT(luma, table), dtype=np.uint8)


def to_rgb(picture: VideoFrame) -> NDArray[np.uint8]:
    """Return the picture as RGB by its own colour matrix and range, uint8 (h, w, 3), not rotated."""
    return np.asarray(picture.to_ndarray(format="rgb24", threads=1), dtype=np.uint8)


def upright(image: NDArray[np.uint8], rotation_degrees: int) -> NDArray[np.uint8]:
    """Rotate an image counter-clockwise by 0, 90, 180 or 270 degrees."""
    code = _ROTATIONS.get(rotation_degrees)
    return image if code is None else np.asarray(cv2.rotate(image, code), dtype=np.uint8)


def _has_luma_plane(layout: VideoFormat) -> bool:
    """Tell whether the first plane holds luma alone, one code per pixel in its lowest bits."""
    first = layout.components[0]
    shifted = layout.name.startswith(("p0", "p2", "p4"))  # P010 and kin keep their codes in the highest bits
    lone = layout.is_planar or layout.name.startswith("gray")
    return first.is_luma and first.plane == 0 and first.bits in _DEPTHS and lone and not shifted


def _first_plane(picture: VideoFrame, dtype: np.dtype[Any]) -> NDArray[Any]:
    plane = picture.planes[0]
    rows = np.frombuffer(memoryview(plane), dtype=dtype).reshape(-1, plane.line_size // dtype.itemsize)
    return rows[: picture.height, : picture.width]


@functools.cache
def _range_table(bits: int, full: bool) -> NDArray[np.uint8]:
    """Return the uint8 (2**bits,) table from luma codes to full-range grey."""
    codes = np.arange(2**bits, dtype=np.float64)
    unit = 2 ** (bits - 8)
    share = codes / (2**bits - 1) if full else (codes - 16 * unit) / (219 * unit)
    table: NDArray[np.uint8] = np.clip(np.rint(share * 255), 0, 255).astype(np.uint8)
    table.setflags(write=False)
    return table
