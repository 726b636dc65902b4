"""The kernels of TV-L1 on the CPU that resample: resizing between pyramid levels, and warping.

The layout of a level's state is that of `kernels`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from motionbox.flow.cpu.compiling import kernel, part
from motionbox.flow.cpu.simd import (
    add_taps,
    add_window,
    floor,
    keep_lanes,
    lane_numbers,
    load,
    load_channel,
    maximum,
    minimum,
    select_above,
    span_lanes,
    splat,
    store,
    store_int,
)

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

PAD = 16
"""Zeros before the pixels of a row."""
GRADIENT_X, GRADIENT_Y, INVERSE, RHO = 0, 1, 2, 3
"""Fields of the state that a warping writes."""
TAP_MARGIN = 5
_FLOAT_EPSILON = np.float32(1.1920929e-07)


def taps_size_hw(width: int, height: int) -> tuple[int, int]:
    """Return the rows and columns of `planes` and `taps` of a level, see `make_taps`.

    A window of five by five around any position within `TAP_MARGIN` - 2 pixels of a whole number of vectors fits.
    """
    return height + 2 * TAP_MARGIN + 1, -(-width // 16) * 16 + 2 * TAP_MARGIN + 1


@kernel
def resize(
    src: Floats,
    src_start: int,
    src_stride: int,
    rows: Ints,
    row_weights: Floats,
    dst: Floats,
    dst_start: int,
    dst_stride: int,
    columns: Ints,
    column_weights: Floats,
    width: int,
    factor: float,
    line: Floats,
) -> None:
    """Resize bilinearly: row y is between source rows `rows[y]` and `rows[y] + 1`, columns alike; times `factor`."""
    scale = np.float32(factor)
    out_width = len(columns)
    for y in range(len(rows)):
        top = src_start + rows[y] * src_stride
        weight = splat(row_weights[y])
        for x in range(0, width, 16):
            upper = load(src, top + x)
            store(line, x, upper + weight * (load(src, top + src_stride + x) - upper))
        out = dst[dst_start + y * dst_stride : dst_start + y * dst_stride + out_width]
        for x in range(out_width):
            column = np.uint32(columns[x])
            left = line[column]
            out[x] = scale * (left + column_weights[x] * (line[column + np.uint32(1)] - left))


@kernel
def make_taps(
    image: Floats, width: int, height: int, stride: int, zero_border: bool, planes: Floats, taps: Floats
) -> None:
    """Lay a frame and its centred gradient out for the warping, `TAP_MARGIN` pixels of border around.

    `planes` (3, rows, columns) gets I, Ix and Iy apart, `taps` (rows, columns, 4) gets (I, Ix, Iy, 0) per pixel. With
    `zero_border` what is outside the frame is not written: it holds zeros from the start.
    """
    num_rows = height + 2 * TAP_MARGIN
    for row in range(TAP_MARGIN if zero_border else 0, num_rows - TAP_MARGIN if zero_border else num_rows):
        y = min(max(row - TAP_MARGIN, 0), height - 1)
        upper, lower = (max(y - 1, 0) + 1) * stride + PAD, (min(y + 1, height - 1) + 1) * stride + PAD
        middle = image[(y + 1) * stride + PAD : (y + 1) * stride + PAD + width]
        inner = planes[:, row, TAP_MARGIN : TAP_MARGIN + width]
        inner[0] = middle
        inner[1, 1:-1] = np.float32(0.5) * (middle[2:] - middle[:-2])
        inner[1, 0] = np.float32(0.5) * (middle[1] - middle[0])
        inner[1, -1] = np.float32(0.5) * (middle[-1] - middle[-2])
        inner[2] = np.float32(0.5) * (image[lower : lower + width] - image[upper : upper + width])
        if not zero_border:
            for channel in range(3):
                planes[channel, row, :TAP_MARGIN] = inner[channel, 0]
                planes[channel, row, TAP_MARGIN + width :] = inner[channel, -1]
        for x in range(taps.shape[1]):
            for channel in range(3):
                taps[row, x, channel] = planes[channel, row, x]


@part
def _cubic_weights(t: Any, a: Any) -> Any:
    """Return the weights of the pixels at -1, 0, 1, 2 for a position `t` in [0, 1) after pixel 0."""
    one = splat(np.float32(1))
    s = one - t
    after = a * t * t * s  # symmetric to the first weight
    first = a * s * s * t
    second = one + t * t * ((a + splat(np.float32(2))) * t - (a + splat(np.float32(3))))
    return first, second, one - first - second - after, after


@part
def _store_weights(weights: Any, scratch: Floats, start: int) -> None:
    for k in range(4):
        store(scratch, start + 16 * k, weights[k])


@part
def _shifted_weights(weights: Any, shift: Any) -> Any:
    """Return the weights of five pixels: those of four, one pixel further on in the lanes where `shift` is 1, not 0."""
    keep = splat(np.float32(1)) - shift
    return (
        weights[0] * keep,
        weights[1] * keep + weights[0] * shift,
        weights[2] * keep + weights[1] * shift,
        weights[3] * keep + weights[2] * shift,
        weights[3] * shift,
    )


@part
def _interpolate(sx: Any, sy: Any, cubic_a: Any, planes: Floats, taps: Floats, scratch: Floats, corner: Ints) -> Any:
    """Return I, Ix and Iy at the positions (sx, sy) of 16 pixels side by side.

    Where all 16 move by nearly the same, their neighbours are side by side: whole vectors are loaded from a window of
    five by five instead of four by four pixels one by one.
    """
    left, top = floor(sx), floor(sy)
    weights_x, weights_y = _cubic_weights(sx - left, cubic_a), _cubic_weights(sy - top, cubic_a)
    moved = left - lane_numbers()
    span_x, span_y = span_lanes(moved), span_lanes(top)
    num_columns = taps.shape[1]
    if span_x[1] - span_x[0] <= np.float32(1) and span_y[1] - span_y[0] <= np.float32(1):
        across = _shifted_weights(weights_x, moved - splat(span_x[0]))
        down = _shifted_weights(weights_y, top - splat(span_y[0]))
        at = (np.intp(span_y[0]) + (TAP_MARGIN - 1)) * num_columns + np.intp(span_x[0]) + (TAP_MARGIN - 1)
        size = taps.shape[0] * num_columns
        return (
            add_window(planes, at, num_columns, across, down),
            add_window(planes, at + size, num_columns, across, down),
            add_window(planes, at + 2 * size, num_columns, across, down),
        )
    _store_weights(weights_x, scratch, 0)
    _store_weights(weights_y, scratch, 64)
    store_int(corner, 0, left)
    store_int(corner, 16, top)
    flat_taps, warped = taps.reshape(-1), scratch[128:192]
    for lane in range(16):
        first = (corner[16 + lane] + (TAP_MARGIN - 1)) * 4 * num_columns + 4 * (corner[lane] + (TAP_MARGIN - 1))
        add_taps(flat_taps, first, 4 * num_columns, scratch, lane, warped)
    return load_channel(warped, 0), load_channel(warped, 1), load_channel(warped, 2)


@part
def _warp_row(
    state: Floats,
    row: int,
    stride: int,
    flow: int,
    y: int,
    width: int,
    height: int,
    image0: Floats,
    planes: Floats,
    taps: Floats,
    cubic_a: Any,
    taut: Any,
    scratch: Floats,
    corner: Ints,
) -> None:
    """Linearise the data term of a row around the flow in the fields `flow`, `flow + 1`.

    `planes` (flat) and `taps` are those of `make_taps`; `scratch` has 192 floats, `corner` 32 numbers.
    """
    inverse_taut = splat(np.float32(1)) / taut
    low, right = splat(np.float32(-3)), splat(np.float32((width + 15) // 16 * 16 + 2))
    for i in range((width + 15) // 16):
        x = PAD + 16 * i
        u1 = load(state, row + flow * stride + x) * inverse_taut
        u2 = load(state, row + (flow + 1) * stride + x) * inverse_taut
        sx = minimum(maximum(lane_numbers() + splat(np.float32(16 * i)) + u1, low), right)
        sy = minimum(maximum(splat(np.float32(y)) + u2, low), splat(np.float32(height + 2)))
        value, gradient_x, gradient_y = _interpolate(sx, sy, splat(cubic_a), planes, taps, scratch, corner)
        square = gradient_x * gradient_x + gradient_y * gradient_y
        inverse = select_above(square, splat(_FLOAT_EPSILON), splat(np.float32(0)) - taut * taut / square)
        rho = value - gradient_x * u1 - gradient_y * u2 - load(image0, (y + 1) * stride + x)
        count = width - 16 * i
        store(state, row + GRADIENT_X * stride + x, keep_lanes(gradient_x * inverse_taut, count))
        store(state, row + GRADIENT_Y * stride + x, keep_lanes(gradient_y * inverse_taut, count))
        store(state, row + INVERSE * stride + x, keep_lanes(inverse, count))
        store(state, row + RHO * stride + x, keep_lanes(rho, count))


@part
def warp_level(
    state: Floats,
    num_fields: int,
    stride: int,
    flow: int,
    width: int,
    height: int,
    image0: Floats,
    planes: Floats,
    taps: Floats,
    cubic_a: float,
    taut: float,
    scratch: Floats,
    corner: Ints,
) -> None:
    """Linearise the data term of a level, row by row, around the flow in the fields `flow`, `flow + 1` of a row.

    `planes` and `taps` are those of `make_taps`; `scratch` has 192 floats, `corner` 32 numbers.
    """
    flat_planes, a, scale = planes.reshape(-1), np.float32(cubic_a), splat(np.float32(taut))
    for y in range(height):
        row = (y + 1) * num_fields * stride
        _warp_row(state, row, stride, flow, y, width, height, image0, flat_planes, taps, a, scale, scratch, corner)
