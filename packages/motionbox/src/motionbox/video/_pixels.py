"""Decoded pictures -> upright full-range grey or RGB images."""

from __future__ import annotations

import contextlib
import functools
import math
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from motionbox.video._decode import RawFrame

_LIMITED_RANGE, _FULL_RANGE = 1, 2  # FFmpeg's AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG
_BLACK, _LIMITED_LEVELS = 16, 219  # of limited range at 8 bits: the code of black, and how far above it white lies
_DEPTHS = (8, 9, 10, 12, 14, 16)
_GREY_OF_RGB = (9798, 19235, 3735)  # BT.601's weights of red, green and blue times 2**15, as OpenCV rounds them

# Loading numba costs 0.65 s of processor time, which its kernel saves on 0.64 G pixels (695 frames of 720p).
_LOADING_PAYS_PIXELS = 1 << 29


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


class GreyConverter:
    """Turns the pictures of one source into grey, shrunk by area means as `cv2.resize` shrinks them, to the bit.

    OpenCV does so until the process has shrunk `_LOADING_PAYS_PIXELS`, and goes on with what the kernel does not do:
    whole factors, pictures to be enlarged, and processors on which OpenCV's own sums round in another way.
    """

    _num_pixels = 0  # of all sources of the process

    def __init__(self) -> None:
        """Set nothing up: the first picture does."""
        self._means: _AreaMeans | None = None

    def __call__(self, frame: RawFrame, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
        """Return an upright picture of the given size as full-range grey, uint8 (h, w), see `to_grey`."""
        if frame.size_wh == size_wh:
            return np.array(to_grey(frame))  # memory of its own, where it may be the picture's
        import cv2

        codes, limited = _grey_codes(frame)
        GreyConverter._num_pixels += codes.size
        if GreyConverter._num_pixels < _LOADING_PAYS_PIXELS or not _AreaMeans.can(frame.size_wh, size_wh):
            grey = cv2.LUT(codes, _range_table(8, full=False)) if limited else codes
            return np.asarray(cv2.resize(grey, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
        if self._means is None or self._means.sizes_wh != (frame.size_wh, size_wh):
            self._means = _AreaMeans(frame.size_wh, size_wh)
        return self._means(codes, limited=limited)


class _AreaMeans:
    """Shrinks grey pictures of one size to another by area means; not for two threads at once.

    OpenCV sums the pixels of a row one by one. Here the sums of all rows are formed side by side, in vectors: of a
    transposed picture a column is a row. They are float32 sums of the same products in the same order.
    """

    def __init__(self, source_wh: tuple[int, int], target_wh: tuple[int, int]) -> None:
        self.sizes_wh = (source_wh, target_wh)
        (self._across, self._down) = (_shares(*sides) for sides in zip(source_wh, target_wh, strict=True))
        self._turned = np.empty(source_wh, np.uint8)
        self._narrow_turned = np.empty((target_wh[0], source_wh[1]), np.float32)
        self._narrow = np.empty(self._narrow_turned.shape[::-1], np.float32)
        self._small = np.empty(target_wh[::-1], np.float32)

    @staticmethod
    def can(source_wh: tuple[int, int], target_wh: tuple[int, int]) -> bool:
        """Tell whether OpenCV means a picture of one size to another in this way."""
        whole = all(source % target == 0 for source, target in zip(source_wh, target_wh, strict=True))
        shrinks = all(source >= target for source, target in zip(source_wh, target_wh, strict=True))
        return shrinks and not whole and platform.machine() in ("x86_64", "AMD64")

    def __call__(self, codes: NDArray[np.uint8], *, limited: bool) -> NDArray[np.uint8]:
        """Return the shrunk picture, uint8 (h, w), of uint8 (H, W); of limited range, it is stretched on the way."""
        import cv2

        sum_rows = _compiled_sum_rows()
        sum_rows(cv2.transpose(codes, self._turned), *self._across, self._narrow_turned, limited)
        sum_rows(cv2.transpose(self._narrow_turned, self._narrow), *self._down, self._small, False)
        return np.rint(self._small, out=self._small).astype(np.uint8)


def _shares(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return which pixels of a line make up each pixel of a shorter one: first, how many, the share of each.

    The rules are those of OpenCV: double precision, shares of under a thousandth of a pixel left out.

    Returns:
        int64 (target,), int64 (target,), float32 (most, target).
    """
    scale = 1.0 / (target / source)
    shares: list[list[float]] = []
    firsts = []
    for number in range(target):
        begin = number * scale
        end, width = begin + scale, min(scale, source - begin)
        stop = min(math.floor(end), source - 1)
        start = min(math.ceil(begin), stop)
        head = [(start - begin) / width] if start - begin > 1e-3 else []
        tail = [min(end - stop, 1.0, width) / width] if end - stop > 1e-3 else []
        shares.append([*head, *[1.0 / width] * (stop - start), *tail])
        firsts.append(start - len(head))
    counts = [len(parts) for parts in shares]
    table = np.array([parts + [0.0] * (max(counts) - len(parts)) for parts in shares], np.float32)
    return np.array(firsts, np.int64), np.array(counts, np.int64), np.ascontiguousarray(table.T)


def _sum_rows(
    rows: NDArray[Any],
    firsts: NDArray[np.int64],
    counts: NDArray[np.int64],
    shares: NDArray[np.float32],
    sums: NDArray[np.float32],
    limited: bool,  # compiled, it takes no keywords
) -> None:
    """Write weighted sums of neighbouring rows, `counts` of them from `firsts` on, added one after the other.

    Rows of limited range are first stretched as `_range_table` does it: no code lies near the middle of two levels.
    """
    low, gain = np.float32(_BLACK), np.float32(255 / _LIMITED_LEVELS)
    none, most = np.float32(0), np.float32(255)
    for number in range(sums.shape[0]):
        total = sums[number]
        total[:] = none
        for k in range(counts[number]):
            row, share = rows[firsts[number] + k], shares[k, number]
            if limited:
                for x in range(total.size):
                    level = np.rint((np.float32(row[x]) - low) * gain)
                    total[x] += min(max(level, none), most) * share
            else:
                for x in range(total.size):
                    total[x] += np.float32(row[x]) * share


@functools.cache
def _compiled_sum_rows() -> Callable[..., None]:
    """Return `_sum_rows` as machine code, kept on disk where numba finds a writable folder."""
    import numba

    compiled: Any = numba.njit(nogil=True)(_sum_rows)
    with contextlib.suppress(RuntimeError):
        compiled.enable_caching()
    return compiled  # type: ignore[no-any-return]


def to_grey(frame: RawFrame) -> NDArray[np.uint8]:
    """Return the luma of an upright picture as full-range grey, uint8 (h, w) of its own size.

    Planar YUV and grey pictures give their luma plane: limited range (16 to 235, at 8 bits) is stretched to 0 to 255,
    full range kept, more than 8 bits rounded to 8. That is the Y' of the video's own colour matrix: equal to RGB ->
    grey (BT.601 weights) within rounding for BT.601 video, and for neutral colours of any video; for saturated
    colours of BT.709 video the two weightings differ. Other pixel formats go through RGB. A picture that does not say
    its range is limited, unless its format is `yuvj*` or `gray*`, as in FFmpeg.
    """
    codes, limited = _grey_codes(frame)
    return _look_up(codes, _range_table(8, full=False)) if limited else codes


def _grey_codes(frame: RawFrame) -> tuple[NDArray[np.uint8], bool]:
    """Return the grey of an upright picture, uint8 (h, w), and whether it is still of limited range."""
    picture, layout = frame.picture, frame.picture.format
    if not _has_luma_plane(layout):
        return rgb_to_grey(RgbConverter()(frame, frame.size_wh)), False
    implied = layout.name.startswith(("yuvj", "gray"))
    full = picture.color_range == _FULL_RANGE or (implied and picture.color_range != _LIMITED_RANGE)
    bits = layout.components[0].bits
    if bits > 8:
        table = _range_table(bits, full)
        codes = _plane(picture, np.dtype(">u2" if layout.is_big_endian else "<u2"), picture.width)
        return upright(np.take(table, np.minimum(codes, len(table) - 1)), frame), False
    return upright(_plane(picture, np.dtype(np.uint8), picture.width), frame), not full


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
    share = codes / (2**bits - 1) if full else (codes - _BLACK * unit) / (_LIMITED_LEVELS * unit)
    table: NDArray[np.uint8] = np.clip(np.rint(share * 255), 0, 255).astype(np.uint8)
    table.setflags(write=False)
    return table
