# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"
"""Triton functions for the median of a 3x3 or 5x5 window, by sorting networks; parts of `_tvl1_triton.median_kernel`.

Arguments of all: a plane's pointer, the pixels' x and y (int32 vectors), the plane's size and which pixels count.
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
def _tap(source, x, y, width, height, valid, dx, dy):
    at_x = tl.minimum(tl.maximum(x + dx, 0), width - 1)
    at_y = tl.minimum(tl.maximum(y + dy, 0), height - 1)
    return tl.load(source + at_y * width + at_x, mask=valid, other=0.0)


@triton.jit
def _sorted_column5(source, x, y, width, height, valid, dx):
    return _sort5(
        _tap(source, x, y, width, height, valid, dx, -2),
        _tap(source, x, y, width, height, valid, dx, -1),
        _tap(source, x, y, width, height, valid, dx, 0),
        _tap(source, x, y, width, height, valid, dx, 1),
        _tap(source, x, y, width, height, valid, dx, 2),
    )


@triton.jit
def median25(source, x, y, width, height, valid):
    """Return the median of the 5x5 window.

    Columns, then rows are sorted: entry (i, j) of the table is then at least all entries up and left of it. Counting
    what must lie below and above leaves the three middle antidiagonals, and of these only the largest of the first,
    the median of the second and the smallest of the third; their median is the window's.
    """
    a0, a1, a2, a3, a4 = _sorted_column5(source, x, y, width, height, valid, -2)
    b0, b1, b2, b3, b4 = _sorted_column5(source, x, y, width, height, valid, -1)
    c0, c1, c2, c3, c4 = _sorted_column5(source, x, y, width, height, valid, 0)
    d0, d1, d2, d3, d4 = _sorted_column5(source, x, y, width, height, valid, 1)
    e0, e1, e2, e3, e4 = _sorted_column5(source, x, y, width, height, valid, 2)
    a0, b0, c0, d0, e0 = _sort5(a0, b0, c0, d0, e0)
    a1, b1, c1, d1, e1 = _sort5(a1, b1, c1, d1, e1)
    a2, b2, c2, d2, e2 = _sort5(a2, b2, c2, d2, e2)
    a3, b3, c3, d3, e3 = _sort5(a3, b3, c3, d3, e3)
    a4, b4, c4, d4, e4 = _sort5(a4, b4, c4, d4, e4)
    low = tl.maximum(tl.maximum(d0, c1), tl.maximum(b2, a3))
    _, _, centre, _, _ = _sort5(e0, d1, c2, b3, a4)
    high = tl.minimum(tl.minimum(e1, d2), tl.minimum(c3, b4))
    _, middle, _ = _sort3(low, centre, high)
    return middle


@triton.jit
def _sorted_column3(source, x, y, width, height, valid, dx):
    return _sort3(
        _tap(source, x, y, width, height, valid, dx, -1),
        _tap(source, x, y, width, height, valid, dx, 0),
        _tap(source, x, y, width, height, valid, dx, 1),
    )


@triton.jit
def median9(source, x, y, width, height, valid):
    """Return the median of the 3x3 window: that of the largest low, the middle mid and the smallest high."""
    a0, a1, a2 = _sorted_column3(source, x, y, width, height, valid, -1)
    b0, b1, b2 = _sorted_column3(source, x, y, width, height, valid, 0)
    c0, c1, c2 = _sorted_column3(source, x, y, width, height, valid, 1)
    low = tl.maximum(tl.maximum(a0, b0), c0)
    _, centre, _ = _sort3(a1, b1, c1)
    high = tl.minimum(tl.minimum(a2, b2), c2)
    _, middle, _ = _sort3(low, centre, high)
    return middle
