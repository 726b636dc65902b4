# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call,assignment,misc"
# ruff: noqa: N803, RUF005  (compile-time parameters are written in capitals; Triton has no unpacking)
"""Triton functions for the medians of 3x3 and 5x5 windows by sorting networks; parts of `kernels.median_kernel`.

A thread filters ROWS pixels below each other: a row of a window is read and sorted once and serves every window that
it is part of. Arguments of all: a plane's pointer, the x and the first y of the pixels (int32 vectors), the plane's
size and which pixels count; what is outside the plane repeats its border.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _sort3(a, b, c):
    a, b = tl.minimum(a, b), tl.maximum(a, b)
    b, c = tl.minimum(b, c), tl.maximum(b, c)
    a, b = tl.minimum(a, b), tl.maximum(a, b)
    return a, b, c


@triton.jit
def _sort5(a, b, c, d, e):
    a, b = tl.minimum(a, b), tl.maximum(a, b)
    d, e = tl.minimum(d, e), tl.maximum(d, e)
    c, e = tl.minimum(c, e), tl.maximum(c, e)
    c, d = tl.minimum(c, d), tl.maximum(c, d)
    a, d = tl.minimum(a, d), tl.maximum(a, d)
    a, c = tl.minimum(a, c), tl.maximum(a, c)
    b, e = tl.minimum(b, e), tl.maximum(b, e)
    b, d = tl.minimum(b, d), tl.maximum(b, d)
    b, c = tl.minimum(b, c), tl.maximum(b, c)
    return a, b, c, d, e


@triton.jit
def _columns(x, width, REACH: tl.constexpr):
    """Return a tuple: the columns from x - REACH to x + REACH, clamped to the plane."""
    columns = ()
    for offset in tl.static_range(-REACH, REACH + 1):
        columns = columns + (tl.minimum(tl.maximum(x + offset, 0), width - 1),)
    return columns


@triton.jit
def _sorted_row(source, y, columns, width, height, valid, SIZE: tl.constexpr):
    row = source + tl.minimum(tl.maximum(y, 0), height - 1) * width
    taps = ()
    for k in tl.static_range(SIZE):
        taps = taps + (tl.load(row + columns[k], mask=valid, other=0.0),)
    if SIZE == 5:
        return _sort5(taps[0], taps[1], taps[2], taps[3], taps[4])
    else:  # noqa: RET505  (chosen when the kernel is compiled)
        return _sort3(taps[0], taps[1], taps[2])


@triton.jit
def _median25(a, b, c, d, e):
    """Return the median of five sorted rows of five.

    Rows, then columns are sorted: entry (i, j) of the table is then at least all entries up and left of it. Counting
    what must lie below and above leaves the three middle antidiagonals, and of these only the largest of the first,
    the median of the second and the smallest of the third; their median is the window's.
    """
    _, _, _, d0, e0 = _sort5(a[0], b[0], c[0], d[0], e[0])
    _, _, c1, d1, e1 = _sort5(a[1], b[1], c[1], d[1], e[1])
    _, b2, c2, d2, _ = _sort5(a[2], b[2], c[2], d[2], e[2])
    a3, b3, c3, _, _ = _sort5(a[3], b[3], c[3], d[3], e[3])
    a4, b4, _, _, _ = _sort5(a[4], b[4], c[4], d[4], e[4])
    low = tl.maximum(tl.maximum(d0, c1), tl.maximum(b2, a3))
    _, _, centre, _, _ = _sort5(e0, d1, c2, b3, a4)
    high = tl.minimum(tl.minimum(e1, d2), tl.minimum(c3, b4))
    _, middle, _ = _sort3(low, centre, high)
    return middle


@triton.jit
def _median9(a, b, c):
    """Return the median of three sorted rows of three: of the largest low, the middle mid and the smallest high."""
    low = tl.maximum(tl.maximum(a[0], b[0]), c[0])
    _, centre, _ = _sort3(a[1], b[1], c[1])
    high = tl.minimum(tl.minimum(a[2], b[2]), c[2])
    _, middle, _ = _sort3(low, centre, high)
    return middle


@triton.jit
def medians(source, x, y, width, height, valid, SIZE: tl.constexpr, ROWS: tl.constexpr):
    """Return a tuple: the medians of the SIZE x SIZE windows (3 or 5) at (x, y), (x, y + 1), ..."""
    columns = _columns(x, width, SIZE // 2)
    rows = ()
    for k in tl.static_range(ROWS + SIZE - 1):
        rows = rows + (_sorted_row(source, y + k - SIZE // 2, columns, width, height, valid, SIZE),)
    middles = ()
    for k in tl.static_range(ROWS):
        if SIZE == 5:
            middles = middles + (_median25(rows[k], rows[k + 1], rows[k + 2], rows[k + 3], rows[k + 4]),)
        else:
            middles = middles + (_median9(rows[k], rows[k + 1], rows[k + 2]),)
    return middles
