"""5x5 and 3x3 median filters as min/max networks over rows of 16 pixels."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from motionbox.flow.cpu import simd
from motionbox.flow.cpu.compiling import part
from motionbox.flow.cpu.simd import emitter, keep_lanes, load, maximum, minimum, store
from motionbox.flow.cpu.warp import PAD

SORT5 = ((0, 1), (3, 4), (2, 4), (2, 3), (1, 4), (0, 3), (0, 2), (1, 3), (1, 2))
"""Sorts five values: after (a, b) the smaller of the two is at a."""

CHOOSE_MIDDLE = (
    ((0, 0), (0, 1)),
    ((0, 3), (0, 4)),
    ((0, 2), (0, 4)),
    ((0, 2), (0, 3)),
    ((0, 1), (0, 4)),
    ((0, 0), (0, 3)),
    ((1, 0), (1, 1)),
    ((1, 3), (1, 4)),
    ((1, 2), (1, 4)),
    ((1, 2), (1, 3)),
    ((1, 0), (1, 3)),
    ((2, 0), (2, 2)),
    ((1, 1), (1, 4)),
    ((1, 1), (1, 3)),
    ((1, 1), (1, 2)),
    ((2, 3), (2, 4)),
    ((2, 0), (2, 1)),
    ((0, 1), (0, 3)),
    ((2, 1), (2, 2)),
    ((2, 0), (2, 3)),
    ((2, 1), (2, 4)),
    ((4, 0), (4, 1)),
    ((3, 3), (3, 4)),
    ((2, 2), (2, 4)),
    ((2, 1), (2, 3)),
    ((2, 2), (2, 3)),
    ((3, 0), (3, 1)),
    ((3, 0), (3, 2)),
    ((3, 1), (3, 2)),
    ((4, 3), (4, 4)),
    ((3, 0), (3, 3)),
    ((3, 1), (3, 4)),
    ((3, 1), (3, 3)),
    ((3, 2), (3, 3)),
    ((4, 0), (4, 2)),
    ((4, 1), (4, 4)),
    ((4, 1), (4, 2)),
    ((4, 0), (4, 3)),
    ((4, 1), (4, 3)),
    ((1, 3), (4, 0)),
    ((1, 2), (3, 1)),
    ((3, 1), (0, 3)),
    ((4, 1), (4, 0)),
    ((3, 2), (0, 4)),
    ((2, 1), (1, 3)),
    ((1, 3), (3, 0)),
    ((1, 4), (2, 3)),
    ((3, 2), (2, 2)),
    ((1, 4), (0, 3)),
    ((3, 2), (3, 0)),
    ((2, 2), (4, 1)),
    ((3, 0), (1, 4)),
    ((2, 2), (1, 4)),
    ((2, 2), (3, 0)),
)
"""Comparators ((row, column), (row, column)) that bring the median of a 5x5 block to `MIDDLE`.

Row r of the block holds the r-th smallest value of each column. Found by random search from sorting networks of the
rows, where a comparator was dropped when the result stayed right; the tests check it on all 6^5 blocks of zeros and
ones, which proves it (0-1 principle).
"""
MIDDLE = (3, 0)


def _compare(builder: Any, wires: dict[Any, Any], a: Any, b: Any) -> None:
    low = simd.emit_minimum(builder, wires[a], wires[b])
    wires[b] = simd.emit_maximum(builder, wires[a], wires[b])
    wires[a] = low


@emitter
def _sort5(_typing: Any, _v0: Any, _v1: Any, _v2: Any, _v3: Any, _v4: Any) -> Any:
    """Sort five vectors lane by lane."""
    vectors = [simd.f32x16] * 5

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        wires = dict(enumerate(args))
        for a, b in SORT5:
            _compare(builder, wires, a, b)
        return context.make_tuple(builder, sig.return_type, [wires[k] for k in range(5)])

    return types.UniTuple(simd.f32x16, 5)(*vectors), code


@emitter
def _median_of_sorted_columns(_typing: Any, lines: Any, _x: Any, _stride: Any) -> Any:
    """Return the median of the 5x5 blocks around pixels x to x + 15 of five lines of sorted columns."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x, stride = args[1], args[2]
        wires = {}
        for row in range(5):
            for column in range(5):
                at = builder.add(x, builder.mul(stride, ir.Constant(x.type, row)))
                at = builder.add(at, ir.Constant(x.type, column - 2))
                wires[row, column] = simd.emit_load(context, builder, sig.args[0], args[0], at)
        for a, b in CHOOSE_MIDDLE:
            _compare(builder, wires, a, b)
        return wires[MIDDLE]

    return simd.f32x16(lines, types.intp, types.intp), code


@part
def _median3(a: Any, b: Any, c: Any) -> Any:
    return maximum(minimum(a, b), minimum(maximum(a, b), c))


@part
def _repeat_border(lines: Any, stride: int, width: int, num_lines: int) -> None:
    for k in range(num_lines):
        start = k * stride + PAD
        for x in range(2):
            lines[start - 1 - x] = lines[start]
            lines[start + width + x] = lines[start + width - 1]


@part
def _row_start(y: int, height: int, row_size: int, offset: int) -> int:
    return (min(max(y, 0), height - 1) + 1) * row_size + offset


@part
def _median5_row(
    state: Any, stride: int, row_size: int, source: int, out: int, y: int, width: int, height: int, lines: Any
) -> None:
    row0 = _row_start(y - 2, height, row_size, source)
    row1 = _row_start(y - 1, height, row_size, source)
    row2 = _row_start(y, height, row_size, source)
    row3 = _row_start(y + 1, height, row_size, source)
    row4 = _row_start(y + 2, height, row_size, source)
    for x in range(0, width, 16):
        sorted5 = _sort5(
            load(state, row0 + x),
            load(state, row1 + x),
            load(state, row2 + x),
            load(state, row3 + x),
            load(state, row4 + x),
        )
        for k in range(5):
            store(lines, k * stride + PAD + x, sorted5[k])
    _repeat_border(lines, stride, width, 5)
    for x in range(0, width, 16):
        store(state, out + x, keep_lanes(_median_of_sorted_columns(lines, PAD + x, stride), width - x))


@part
def _median3_row(
    state: Any, stride: int, row_size: int, source: int, out: int, y: int, width: int, height: int, lines: Any
) -> None:
    upper = _row_start(y - 1, height, row_size, source)
    middle = _row_start(y, height, row_size, source)
    lower = _row_start(y + 1, height, row_size, source)
    for x in range(0, width, 16):
        a, b, c = load(state, upper + x), load(state, middle + x), load(state, lower + x)
        store(lines, PAD + x, minimum(minimum(a, b), c))
        store(lines, stride + PAD + x, _median3(a, b, c))
        store(lines, 2 * stride + PAD + x, maximum(maximum(a, b), c))
    _repeat_border(lines, stride, width, 3)
    for x in range(0, width, 16):
        low, mid, high = PAD + x, stride + PAD + x, 2 * stride + PAD + x
        largest_low = maximum(maximum(load(lines, low - 1), load(lines, low)), load(lines, low + 1))
        median_mid = _median3(load(lines, mid - 1), load(lines, mid), load(lines, mid + 1))
        smallest_high = minimum(minimum(load(lines, high - 1), load(lines, high)), load(lines, high + 1))
        store(state, out + x, keep_lanes(_median3(largest_low, median_mid, smallest_high), width - x))


@part
def median_filter(
    state: Any, stride: int, row_size: int, source: int, target: int, width: int, height: int, size: int, lines: Any
) -> None:
    """Filter field `source` of a state into field `target` by a median over 3 x 3 or 5 x 5; the border repeats.

    `lines` is scratch of at least 5 * stride floats. Layout: see `motionbox.flow.cpu.kernels`.
    """
    for y in range(height):
        out = (y + 1) * row_size + target * stride + PAD
        if size == 5:
            _median5_row(state, stride, row_size, source * stride + PAD, out, y, width, height, lines)
        else:
            _median3_row(state, stride, row_size, source * stride + PAD, out, y, width, height, lines)
