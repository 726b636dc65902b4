# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call,assignment"
# ruff: noqa: N803, RUF005  (compile-time parameters are written in capitals; Triton has no unpacking)
"""Triton functions for a tile of pixels that lives in registers: reading, writing, and the pixels next to each pixel.

A tile is `GROUPS * ROWS` pixels high and `2 * LANES` wide. A field on it is a tuple of 2 ROWS tensors (GROUPS, LANES),
its *cells*: cell 2 r + c holds the pixels of row `group * ROWS + r` and column `2 * lane + c`. With 32 lanes a thread
owns a block of ROWS x 2 pixels, so of the four neighbours of a pixel most are other cells of the same thread and cost
nothing; one column in two comes from the next lane (a shuffle), one row in ROWS from the next group (shared memory).

What lies beyond the tile's edge is not known: there a pixel is its own neighbour, and the caller must not use it.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile_masks(
    y0, x0, width, height, GROUPS: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr, MARGIN: tl.constexpr
):
    """Return per cell which pixels of the tile at (y0, x0) lie in the image and MARGIN or more from the tile's edge.

    The masks are vectors (GROUPS * LANES,), as `load_tile` and `store_tile` take them.
    """
    place = tl.arange(0, GROUPS * LANES)
    masks = ()
    for cell in tl.static_range(2 * ROWS):
        row = place // LANES * ROWS + cell // 2
        column = place % LANES * 2 + cell % 2
        within = (row >= MARGIN) & (row < GROUPS * ROWS - MARGIN)
        within = within & (column >= MARGIN) & (column < 2 * LANES - MARGIN)
        y = y0 + row
        x = x0 + column
        masks = masks + (within & (y >= 0) & (y < height) & (x >= 0) & (x < width),)
    return masks


@triton.jit
def first_pixels(y0, x0, width, GROUPS: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr):
    """Return where in a plane the first cell of the tile at (y0, x0) lies: int32 (GROUPS * LANES,)."""
    place = tl.arange(0, GROUPS * LANES)
    return (y0 + place // LANES * ROWS) * width + x0 + place % LANES * 2


@triton.jit
def load_tile(
    first, plane, width, masks, NUM: tl.constexpr, GROUPS: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr
):
    """Return a tuple: the NUM fields that planes (NUM, height, width) hold on a tile; 0 where masked out.

    `first` are pointers to the `first_pixels` of the first plane, `plane` is height * width. Vectors are loaded and
    then shaped: for matrices whose columns are not contiguous the compiler might choose a layout across groups, and
    every load would pass through shared memory.
    """
    fields = ()
    for number in tl.static_range(NUM):
        field = ()
        for cell in tl.static_range(2 * ROWS):
            values = tl.load(first + number * plane + cell // 2 * width + cell % 2, mask=masks[cell], other=0.0)
            field = field + (tl.reshape(values, (GROUPS, LANES)),)
        fields = fields + (field,)
    return fields


@triton.jit
def store_tile(
    first, plane, fields, width, masks, NUM: tl.constexpr, GROUPS: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr
):
    """Write NUM fields to planes (NUM, height, width) where the masks allow it; `first` and `plane` as above."""
    for number in tl.static_range(NUM):
        for cell in tl.static_range(2 * ROWS):
            values = tl.reshape(fields[number][cell], (GROUPS * LANES,))
            tl.store(first + number * plane + cell // 2 * width + cell % 2, values, mask=masks[cell])


@triton.jit
def before_of(across1, across2, down1, down2, GROUPS: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr):
    """Return four fields: the left neighbours' values of the first two, those of the neighbours above of the others."""
    lane = tl.broadcast_to(tl.maximum(tl.arange(0, LANES) - 1, 0)[None, :], (GROUPS, LANES))
    left1 = ()
    left2 = ()
    for row in tl.static_range(ROWS):
        left1 = left1 + (tl.gather(across1[2 * row + 1], lane, 1), across1[2 * row])
        left2 = left2 + (tl.gather(across2[2 * row + 1], lane, 1), across2[2 * row])
    group = tl.maximum(tl.arange(0, GROUPS) - 1, 0)
    last: tl.constexpr = 2 * ROWS - 2
    edges = _of_groups(group, down1[last], down2[last], down1[last + 1], down2[last + 1])
    above1 = (edges[0], edges[2])
    above2 = (edges[1], edges[3])
    for cell in tl.static_range(2 * ROWS - 2):
        above1 = above1 + (down1[cell],)
        above2 = above2 + (down2[cell],)
    return left1, left2, above1, above2


@triton.jit
def after_of(one, two, GROUPS: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr):
    """Return four fields: the right neighbours' values of both, then those of the neighbours below."""
    lane = tl.broadcast_to(tl.minimum(tl.arange(0, LANES) + 1, LANES - 1)[None, :], (GROUPS, LANES))
    right1 = ()
    right2 = ()
    for row in tl.static_range(ROWS):
        right1 = right1 + (one[2 * row + 1], tl.gather(one[2 * row], lane, 1))
        right2 = right2 + (two[2 * row + 1], tl.gather(two[2 * row], lane, 1))
    below1 = ()
    below2 = ()
    for cell in tl.static_range(2, 2 * ROWS):
        below1 = below1 + (one[cell],)
        below2 = below2 + (two[cell],)
    edges = _of_groups(tl.minimum(tl.arange(0, GROUPS) + 1, GROUPS - 1), one[0], two[0], one[1], two[1])
    return right1, right2, below1 + (edges[0], edges[2]), below2 + (edges[1], edges[3])


@triton.jit
def _of_groups(group, a, b, c, d):
    """Return (GROUPS, LANES) tensors whose row g is row group[g]; four at once, since an exchange costs barriers."""
    packed = tl.join(tl.join(a, b), tl.join(c, d))
    moved = tl.gather(packed, tl.broadcast_to(group[:, None, None, None], packed.shape), 0)
    ac, bd = tl.split(tl.permute(moved, (0, 1, 3, 2)))
    a, c = tl.split(ac)
    b, d = tl.split(bd)
    return a, b, c, d
