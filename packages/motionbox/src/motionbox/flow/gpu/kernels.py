# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call,assignment"
# ruff: noqa: N803, RUF005  (compile-time parameters are written in capitals; Triton has no unpacking)
"""Triton kernels of the TV-L1 GPU engine: warp, iterate, decide, median.

Every kernel works on a batch of pairs; a pair's `control` row says what to do with it, so nothing is decided on the
host. All arrays are float32, planes of height x width pixels, contiguous; `control` is int32 (pairs, 4).

Temporal blocking: one launch of `iterate_kernel` runs up to HALO iterations on a tile held in registers. A program
loads a tile of pixels and owns all but HALO at each edge: an iteration moves wrong values one pixel inwards from
the tile's edge, so after HALO of them the owned pixels are still what plain iterations give, bit for bit. Neighbours
in the tile are reached by `tl.gather` (shuffles or shared memory, never device memory).

The stopping rule looks at every iteration, a launch holds several: the launch leaves its input in place (two slots),
`decide_kernel` looks at the errors of its iterations, and a pair that had to stop in the middle of the launch is run
once more from the same input for exactly that many iterations. So results equal those of the CPU engine's rule.
"""

from __future__ import annotations

import triton
import triton.language as tl

from motionbox.flow.gpu.median import medians
from motionbox.flow.gpu.tile import after_of, before_of, first_pixels, load_tile, store_tile, tile_masks

CONTROL_MODE = tl.constexpr(0)
CONTROL_COUNT = tl.constexpr(1)
CONTROL_SLOT = tl.constexpr(2)
CONTROL_FILTERED = tl.constexpr(3)
NUM_CONTROLS = tl.constexpr(4)
"""Columns of `control`: mode; iterations of the repeated launch; slot that holds the state; median output is newer."""

RUNNING = tl.constexpr(0)
REPEATING = tl.constexpr(1)
DONE = tl.constexpr(2)
"""Modes of a pair."""

FILTERED_SLOT = tl.constexpr(2)
NUM_FLOW_SLOTS = tl.constexpr(3)
NUM_DUAL_SLOTS = tl.constexpr(2)
"""Slots of the flow (two in turn, one for the median's output) and of the dual variable."""

SMALLEST_NORM = tl.constexpr(1.1920929e-07)

# The interpreter knows this function by identity and sums with numpy; `tl.sum` would be bound to the mode that was on
# when triton was first imported.
_add = tl.standard._sum_combine


@triton.jit
def _cubic_weight(t, a, TAP: tl.constexpr):
    """Return the weight of tap TAP (0..3, at -1..2) of cubic interpolation at fraction t."""
    if TAP == 0:
        weight = ((a * (t + 1.0) - 5.0 * a) * (t + 1.0) + 8.0 * a) * (t + 1.0) - 4.0 * a
    elif TAP == 1:
        weight = ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0
    elif TAP == 2:
        weight = ((a + 2.0) * (1.0 - t) - (a + 3.0)) * (1.0 - t) * (1.0 - t) + 1.0
    else:
        s = 2.0 - t
        weight = ((a * s - 5.0 * a) * s + 8.0 * a) * s - 4.0 * a
    return weight


@triton.jit(do_not_specialize=["width", "height"])
def warp_kernel(
    images_ptr,
    index0_ptr,
    index1_ptr,
    flow_ptr,
    data_ptr,
    control_ptr,
    width,
    height,
    cubic_a,
    BLOCK: tl.constexpr,
    ZERO_BORDER: tl.constexpr,
):
    """Warp frame 1 and its gradient by the flow and write the data term: Ix, Iy, rho_c, 1 / |grad|^2.

    images: (frames, 3, height, width), grey 0..255 and its x and y derivative; index0, index1: int32 (pairs,);
    flow: (pairs, 3, 2, height, width); data: (pairs, 4, height, width). Grid: (blocks of pixels, pairs).
    """
    pair = tl.program_id(1).to(tl.int64)
    plane = height * width
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = pixel < plane
    y = pixel // width
    x = pixel - y * width
    slot = tl.load(control_ptr + pair * NUM_CONTROLS + CONTROL_SLOT)
    flow = flow_ptr + (pair * NUM_FLOW_SLOTS + slot) * 2 * plane
    u1 = tl.load(flow + pixel, mask=valid, other=0.0)
    u2 = tl.load(flow + plane + pixel, mask=valid, other=0.0)
    image0 = images_ptr + tl.load(index0_ptr + pair).to(tl.int64) * 3 * plane
    image1 = images_ptr + tl.load(index1_ptr + pair).to(tl.int64) * 3 * plane

    at_x = tl.minimum(tl.maximum(x + u1, -4.0), width + 4.0)
    at_y = tl.minimum(tl.maximum(y + u2, -4.0), height + 4.0)
    floor_x = tl.floor(at_x)
    floor_y = tl.floor(at_y)
    first_x = floor_x.to(tl.int32) - 1
    first_y = floor_y.to(tl.int32) - 1
    t_x = at_x - floor_x
    t_y = at_y - floor_y
    value = tl.full((BLOCK,), 0.0, tl.float32)
    value_x = tl.full((BLOCK,), 0.0, tl.float32)
    value_y = tl.full((BLOCK,), 0.0, tl.float32)
    for j in tl.static_range(4):
        weight_y = _cubic_weight(t_y, cubic_a, j)
        tap_y = first_y + j
        for i in tl.static_range(4):
            weight = _cubic_weight(t_x, cubic_a, i) * weight_y
            tap_x = first_x + i
            if ZERO_BORDER:
                inside = valid & (tap_x >= 0) & (tap_x < width) & (tap_y >= 0) & (tap_y < height)
                offset = tap_y * width + tap_x
            else:
                inside = valid
                clamped_x = tl.minimum(tl.maximum(tap_x, 0), width - 1)
                offset = tl.minimum(tl.maximum(tap_y, 0), height - 1) * width + clamped_x
            value += weight * tl.load(image1 + offset, mask=inside, other=0.0)
            value_x += weight * tl.load(image1 + plane + offset, mask=inside, other=0.0)
            value_y += weight * tl.load(image1 + 2 * plane + offset, mask=inside, other=0.0)

    data = data_ptr + pair * 4 * plane + pixel
    grey0 = tl.load(image0 + pixel, mask=valid, other=0.0)
    tl.store(data, value_x, mask=valid)
    tl.store(data + plane, value_y, mask=valid)
    tl.store(data + 2 * plane, value - value_x * u1 - value_y * u2 - grey0, mask=valid)
    tl.store(data + 3 * plane, 1.0 / tl.maximum(value_x * value_x + value_y * value_y, SMALLEST_NORM), mask=valid)


@triton.jit
def _primal_step(
    u1,
    u2,
    p11,
    p12,
    p21,
    p22,
    i_x,
    i_y,
    rho_c,
    inverse_norm,
    l_t,
    theta,
    owned,
    GROUPS: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Return the flow after thresholding the data term and adding `theta div p`, and the squared update where owned."""
    left11, left21, above12, above22 = before_of(p11, p21, p12, p22, GROUPS, LANES, ROWS)
    error = tl.full((GROUPS, LANES), 0.0, tl.float32)
    new1 = ()
    new2 = ()
    for cell in tl.static_range(2 * ROWS):
        rho = rho_c[cell] + i_x[cell] * u1[cell] + i_y[cell] * u2[cell]
        step = tl.minimum(tl.maximum(rho * inverse_norm[cell], -l_t), l_t)
        change1 = theta * (p11[cell] - left11[cell] + p12[cell] - above12[cell]) - step * i_x[cell]
        change2 = theta * (p21[cell] - left21[cell] + p22[cell] - above22[cell]) - step * i_y[cell]
        error += tl.where(owned[cell], change1 * change1 + change2 * change2, 0.0)
        new1 = new1 + (u1[cell] + change1,)
        new2 = new2 + (u2[cell] + change2,)
    return new1, new2, error


@triton.jit
def _dual_step(u, right, below, px, py, has_right, has_below, taut, ROWS: tl.constexpr, APPROXIMATE: tl.constexpr):
    """Return the dual variable of one flow component after `p = (p + taut Du) / (1 + taut |Du|)`."""
    new_x = ()
    new_y = ()
    for cell in tl.static_range(2 * ROWS):
        u_x = tl.where(has_right[cell % 2], right[cell] - u[cell], 0.0)
        u_y = tl.where(has_below[cell // 2], below[cell] - u[cell], 0.0)
        square = u_x * u_x + u_y * u_y
        if APPROXIMATE:  # To about 1e-7, denormal numbers taken as 0: half of the instructions of sqrt and division.
            norm = tl.inline_asm_elementwise("sqrt.approx.ftz.f32 $0, $1;", "=f,f", [square], tl.float32, True, 1)
            grown = 1.0 + taut * norm
            scale = tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [grown], tl.float32, True, 1)
        else:
            scale = 1.0 / (1.0 + taut * tl.sqrt(square))
        new_x = new_x + ((px[cell] + taut * u_x) * scale,)
        new_y = new_y + ((py[cell] + taut * u_y) * scale,)
    return new_x, new_y


@triton.jit
def _inner_edges(y0, x0, width, height, GROUPS: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr):
    """Return which pixels have a right neighbour in the image (per column cell), and which one below (per row cell)."""
    x = x0 + tl.arange(0, LANES)[None, :] * 2
    y = y0 + tl.arange(0, GROUPS)[:, None] * ROWS
    has_below = ()
    for row in tl.static_range(ROWS):
        has_below = has_below + ((y + row >= 0) & (y + row < height - 1),)
    return ((x >= 0) & (x < width - 1), (x + 1 >= 0) & (x + 1 < width - 1)), has_below


@triton.jit(do_not_specialize=["width", "height", "tiles_x", "count"])
def iterate_kernel(
    flow_ptr,
    dual_ptr,
    data_ptr,
    control_ptr,
    error_ptr,
    width,
    height,
    tiles_x,
    count,
    l_t,
    theta,
    taut,
    GROUPS: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
    HALO: tl.constexpr,
    APPROXIMATE: tl.constexpr,
):
    """Run `count` (at most HALO) fixed-point iterations of every pair that is not done, tile by tile.

    flow: (pairs, 3, 2, height, width); dual: (pairs, 2, 4, height, width); data: (pairs, 4, height, width);
    error: (pairs, tiles, HALO), the tile's sum of squared updates of each iteration. Grid: (tiles, pairs).
    """
    tile = tl.program_id(0)
    pair = tl.program_id(1).to(tl.int64)
    control = control_ptr + pair * NUM_CONTROLS
    mode = tl.load(control + CONTROL_MODE)
    steps = tl.where(mode == REPEATING, tl.load(control + CONTROL_COUNT), tl.where(mode == RUNNING, count, 0))
    if steps == 0:
        return
    slot = tl.load(control + CONTROL_SLOT)
    flow_slot = tl.where(tl.load(control + CONTROL_FILTERED) != 0, FILTERED_SLOT, slot)
    plane = height * width
    y0 = (tile // tiles_x) * (GROUPS * ROWS - 2 * HALO) - HALO
    x0 = (tile % tiles_x) * (2 * LANES - 2 * HALO) - HALO
    first = first_pixels(y0, x0, width, GROUPS, LANES, ROWS)
    inside = tile_masks(y0, x0, width, height, GROUPS, LANES, ROWS, 0)
    owned = tile_masks(y0, x0, width, height, GROUPS, LANES, ROWS, HALO)
    counted = ()
    for cell in tl.static_range(2 * ROWS):
        counted = counted + (tl.reshape(owned[cell], (GROUPS, LANES)),)
    has_right, has_below = _inner_edges(y0, x0, width, height, GROUPS, LANES, ROWS)

    flow = flow_ptr + (pair * NUM_FLOW_SLOTS + flow_slot) * 2 * plane
    dual = dual_ptr + (pair * NUM_DUAL_SLOTS + slot) * 4 * plane
    data = data_ptr + pair * 4 * plane
    u1, u2 = load_tile(flow + first, plane, width, inside, 2, GROUPS, LANES, ROWS)
    p11, p12, p21, p22 = load_tile(dual + first, plane, width, inside, 4, GROUPS, LANES, ROWS)
    i_x, i_y, rho_c, inverse_norm = load_tile(data + first, plane, width, inside, 4, GROUPS, LANES, ROWS)

    errors = error_ptr + (pair * tl.num_programs(0) + tile) * HALO
    for k in range(steps):
        u1, u2, error = _primal_step(
            u1, u2, p11, p12, p21, p22, i_x, i_y, rho_c, inverse_norm, l_t, theta, counted, GROUPS, LANES, ROWS
        )
        tl.store(errors + k, tl.reduce(tl.reduce(error, 1, _add), 0, _add))
        right1, right2, below1, below2 = after_of(u1, u2, GROUPS, LANES, ROWS)
        p11, p12 = _dual_step(u1, right1, below1, p11, p12, has_right, has_below, taut, ROWS, APPROXIMATE)
        p21, p22 = _dual_step(u2, right2, below2, p21, p22, has_right, has_below, taut, ROWS, APPROXIMATE)

    flow = flow_ptr + (pair * NUM_FLOW_SLOTS + 1 - slot) * 2 * plane
    dual = dual_ptr + (pair * NUM_DUAL_SLOTS + 1 - slot) * 4 * plane
    store_tile(flow + first, plane, (u1, u2), width, owned, 2, GROUPS, LANES, ROWS)
    store_tile(dual + first, plane, (p11, p12, p21, p22), width, owned, 4, GROUPS, LANES, ROWS)


@triton.jit(do_not_specialize=["first_iteration", "count"])
def decide_kernel(
    control_ptr,
    previous_ptr,
    error_ptr,
    num_tiles,
    first_iteration,
    count,
    threshold,
    HALO: tl.constexpr,
    TILES: tl.constexpr,
    SPARSE_CHECKS: tl.constexpr,
):
    """Apply the stopping rule to the errors of the last `iterate_kernel` launch and set every pair's `control`.

    error: (pairs, tiles, HALO); previous: (pairs,), the sparse rule's last error, lowered by the threshold per
    unchecked iteration. Tiles are added in a fixed order: no atomics, the same result every time. Grid: (pairs,).
    """
    pair = tl.program_id(0).to(tl.int64)
    control = control_ptr + pair * NUM_CONTROLS
    mode = tl.load(control + CONTROL_MODE)
    steps = tl.where(mode == RUNNING, count, 0)
    previous = tl.load(previous_ptr + pair)
    stop = tl.full((), 0, tl.int32)  # iterations to keep; 0: go on
    lanes = tl.arange(0, TILES)
    for k in range(steps):
        total = tl.full((TILES,), 0.0, tl.float32)
        for first in range(0, num_tiles, TILES):
            at = first + lanes
            total += tl.load(error_ptr + (pair * num_tiles + at) * HALO + k, mask=at < num_tiles, other=0.0)
        error = tl.reduce(total, 0, _add)
        if SPARSE_CHECKS:
            checked = ((first_iteration + k) % 2 == 1) & (previous < threshold)
            previous = tl.where(checked, error, previous - threshold)
        else:
            checked = error == error
        stop = tl.where((stop == 0) & checked & (error <= threshold), k + 1, stop)
    tl.store(previous_ptr + pair, previous)

    repeat = (stop > 0) & (stop < steps)
    moved = (mode == REPEATING) | ((steps > 0) & (repeat == 0))
    new_mode = tl.where(mode == RUNNING, tl.where(stop > 0, tl.where(repeat, REPEATING, DONE), RUNNING), DONE)
    slot = tl.load(control + CONTROL_SLOT)
    filtered = tl.load(control + CONTROL_FILTERED)
    tl.store(control + CONTROL_MODE, new_mode)
    tl.store(control + CONTROL_COUNT, stop)
    tl.store(control + CONTROL_SLOT, tl.where(moved, 1 - slot, slot))
    tl.store(control + CONTROL_FILTERED, tl.where(moved, 0, filtered))


@triton.jit(do_not_specialize=["width", "height"])
def median_kernel(flow_ptr, control_ptr, width, height, BLOCK: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr):
    """Write the SIZE x SIZE median (border repeated) of the flow of every running pair to the filtered slot.

    flow: (pairs, 3, 2, height, width). Grid: (blocks of columns of ROWS pixels, 2 components, pairs).
    """
    pair = tl.program_id(2).to(tl.int64)
    control = control_ptr + pair * NUM_CONTROLS
    if tl.load(control + CONTROL_MODE) != RUNNING:
        return
    component = tl.program_id(1)
    plane = height * width
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = place % width
    y = place // width * ROWS
    valid = y < height
    slot = tl.load(control + CONTROL_SLOT)
    source = flow_ptr + ((pair * NUM_FLOW_SLOTS + slot) * 2 + component) * plane
    middles = medians(source, x, y, width, height, valid, SIZE, ROWS)
    target = flow_ptr + ((pair * NUM_FLOW_SLOTS + FILTERED_SLOT) * 2 + component) * plane
    for k in tl.static_range(ROWS):
        tl.store(target + (y + k) * width + x, middles[k], mask=y + k < height)
    tl.store(control + CONTROL_FILTERED, 1)  # every program writes the same; none of this launch reads it


MULTIPLY_ADD_BLOCK = tl.constexpr(1024)
MULTIPLY_ADDS_PER_LOOP = tl.constexpr(32)


@triton.jit(do_not_specialize=["num_loops"])
def multiply_add_kernel(values_ptr, num_loops, factor, term):
    """Do num_loops x MULTIPLY_ADDS_PER_LOOP times `value = value * factor + term`: the arithmetic roof.

    values: (programs * MULTIPLY_ADD_BLOCK,). Grid: (programs,).
    """
    at = tl.program_id(0) * MULTIPLY_ADD_BLOCK + tl.arange(0, MULTIPLY_ADD_BLOCK)
    value = tl.load(values_ptr + at)
    for _ in range(num_loops):
        for _ in tl.static_range(MULTIPLY_ADDS_PER_LOOP):
            value = value * factor + term
    tl.store(values_ptr + at, value)
