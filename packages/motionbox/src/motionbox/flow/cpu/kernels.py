"""The compiled kernels of TV-L1 on the CPU: the fixed-point iteration, and a level as a whole.

Layout. A level of width W has rows of S floats: 16 zeros, W pixels, zeros. `state` holds the fields of a row one after
the other, rows -1 to H: so that what an iteration touches is close together. Its fields, for flow u = (u1, u2):
    0, 1     d I1(x + u0) / taut                    the gradient of the warped frame
    2        -taut^2 / |grad|^2, or 0
    3        I1(x + u0) - u0 . grad - I0
    4, 5     taut * u                               the flow, scaled so that the dual update needs no multiplication
    6 to 9   p11, p12, p21, p22                     the dual variables
    10, 11   second place of 4, 5                   a median filter or sweep reads from one and writes to the other
    12 to 15 second place of 6 to 9
Padding pixels hold zeros and stay zero: the iteration has no border cases but its first and last row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from motionbox.flow.cpu.compiling import kernel, part
from motionbox.flow.cpu.median import median_filter
from motionbox.flow.cpu.simd import (
    keep_lanes,
    load,
    maximum,
    minimum,
    norm,
    reciprocal,
    shift_left,
    shift_right,
    splat,
    store,
    sum_lanes,
)
from motionbox.flow.cpu.warp import GRADIENT_X, GRADIENT_Y, INVERSE, PAD, RHO, warp_level

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

NUM_FIELDS = 16
_FLOW, _DUAL, _OTHER_FLOW, _OTHER_DUAL = 4, 6, 10, 12
MAX_BLOCK = 8  # iterations of one sweep: rows in use at a time, see `_sweep`
FORECAST_SHARE = 0.8
USUAL_RATIO = 0.8


class Level(NamedTuple):
    """One level of the pyramid: the solver's fields (see above) and their size.

    Numba passes a named tuple's parts as if each were a parameter, so grouping costs nothing in machine code.
    """

    state: Floats
    stride: int
    width: int
    height: int


class Inputs(NamedTuple):
    """What a level is linearised from: the first frame, and the second one with its gradient as `make_taps` lays it."""

    image0: Floats
    planes: Floats
    taps: Floats


class Rules(NamedTuple):
    """The numbers of TV-L1, see `plan_tvl1`; `taut` is tau / theta, `l_t` is lambda * theta."""

    num_warps: int
    num_rounds: int
    num_iterations: int
    median_size: int
    l_t: float
    taut: float
    theta: float
    epsilon: float
    sparse_checks: bool
    cubic_a: float


class Scratch(NamedTuple):
    """Memory of a solver that no result depends on: five rows for the median filter, corners for the warping."""

    lines: Floats
    corner: Ints


@part
def _primal(
    state: Floats,
    row: int,
    above: int,
    stride: int,
    flow: int,
    dual: int,
    x: int,
    limit: Any,
    tau: Any,
    left1: Any,
    left2: Any,
) -> Any:
    """Return the new flow of 16 pixels, the old one, and p11 and p21 as the next pixels' left neighbours."""
    u1, u2 = load(state, row + flow * stride + x), load(state, row + (flow + 1) * stride + x)
    gradient_x = load(state, row + GRADIENT_X * stride + x)
    gradient_y = load(state, row + GRADIENT_Y * stride + x)
    rho = load(state, row + RHO * stride + x) + gradient_x * u1 + gradient_y * u2
    step = maximum(minimum(rho * load(state, row + INVERSE * stride + x), limit), splat(np.float32(0)) - limit)
    p, p_above = row + dual * stride + x, above + dual * stride + x
    p11, p21 = load(state, p), load(state, p + 2 * stride)
    div1 = p11 - shift_right(left1, p11) + load(state, p + stride) - load(state, p_above + stride)
    div2 = p21 - shift_right(left2, p21) + load(state, p + 3 * stride) - load(state, p_above + 3 * stride)
    return u1 + step * gradient_x + tau * div1, u2 + step * gradient_y + tau * div2, u1, u2, p11, p21


@part
def _dual(
    state: Floats, source: int, target: int, stride: int, u: Any, following: Any, below: Any, inside: int, last: bool
) -> None:
    ux = shift_left(u, following) - u
    if last:
        ux = keep_lanes(ux, inside)
    uy = below - u
    shrink = reciprocal(splat(np.float32(1)) + norm(ux, uy))
    store(state, target, (load(state, source) + ux) * shrink)
    store(state, target + stride, (load(state, source + stride) + uy) * shrink)


@part
def _iterate_row(
    state: Floats,
    row: int,
    stride: int,
    source: Any,
    target: Any,
    width: int,
    limit: Any,
    tau: Any,
    primal: bool,
    dual: bool,
) -> Any:
    """Update the flow of a row and the dual variables of the row above it; return the sum of squared updates.

    `source` and `target` are the fields (flow, dual) that are read and written.
    """
    above = row - NUM_FIELDS * stride
    count = (width + 15) // 16
    error = left1 = left2 = splat(np.float32(0))
    u1_above, u2_above = above + target[0] * stride, above + (target[0] + 1) * stride
    next1, next2 = load(state, u1_above + PAD), load(state, u2_above + PAD)
    for i in range(count):
        x = PAD + 16 * i
        here1, here2 = next1, next2
        next1, next2 = load(state, u1_above + x + 16), load(state, u2_above + x + 16)
        if primal:
            u1, u2, old1, old2, left1, left2 = _primal(
                state, row, above, stride, source[0], source[1], x, limit, tau, left1, left2
            )
            store(state, row + target[0] * stride + x, u1)
            store(state, row + (target[0] + 1) * stride + x, u2)
            change1, change2 = u1 - old1, u2 - old2
            error = error + change1 * change1 + change2 * change2
        else:
            u1, u2 = here1, here2
        if dual:
            old_p, new_p = above + source[1] * stride + x, above + target[1] * stride + x
            inside, last = width - 1 - 16 * i, i == count - 1
            _dual(state, old_p, new_p, stride, here1, next1, u1, inside, last)
            _dual(state, old_p + 2 * stride, new_p + 2 * stride, stride, here2, next2, u2, inside, last)
    return sum_lanes(error)


@part
def _sweep(level: Level, source: Any, target: Any, limit: Any, tau: Any, count: int, errors: Any) -> None:
    """Do `count` iterations in one pass: each follows the one before it at a distance of one row.

    Only count + 2 rows are in use at a time; they stay in the second-level cache. The first iteration reads the fields
    `source` and writes `target`, where the others stay: what was before the sweep is kept. `errors[k]` becomes the sum
    of squared updates of taut * u in iteration k.
    """
    state, stride, width, height = level
    size = NUM_FIELDS * stride
    errors[:count] = 0
    for step in range(height + count):
        for k in range(max(step - height, 0), min(step + 1, count)):
            y = step - k
            origin = source if k == 0 else target
            errors[k] += np.float64(
                _iterate_row(state, (y + 1) * size, stride, origin, target, width, limit, tau, y < height, y > 0)
            )


@part
def _block(error: float, previous: float, threshold: float, remaining: int) -> int:
    """Return how many iterations to do in the next sweep: most of what a geometric forecast says remains."""
    if threshold == 0:
        return min(MAX_BLOCK, remaining)
    if not threshold < error < np.inf:
        return 1
    ratio = error / previous if error < previous < np.inf else USUAL_RATIO
    forecast = FORECAST_SHARE * np.log(threshold / error) / np.log(ratio)
    return max(1, min(int(min(forecast, float(MAX_BLOCK))), remaining))


@part
def _block_of_sparse_checks(index: int, previous: float, threshold: float, remaining: int) -> int:
    """Return how many iterations there are up to the next one whose error counts in the CUDA variant."""
    count = 1
    while count < min(MAX_BLOCK, remaining) and not ((index + count - 1) % 2 == 1 and previous < threshold):
        previous -= threshold
        count += 1
    return count


@part
def _last_sparse_check(errors: Any, count: int, index: int, previous: float, threshold: float) -> Any:
    """Return the error after iterations from `index` on (infinite where the last one is unchecked), and `previous`."""
    error = np.inf
    for k in range(count):
        if (index + k) % 2 == 1 and previous < threshold:
            previous = error = errors[k]
        else:
            error = np.inf
            previous -= threshold
    return error, previous


@part
def _first_at_most(errors: Any, count: int, threshold: float) -> int:
    """Return how many iterations a check of every error would have done."""
    for k in range(count):
        if errors[k] <= threshold:
            return k + 1
    return count


@part
def _filtered(level: Level, fields: Any, median_size: int, lines: Floats) -> Any:
    """Filter the flow by a median from its place to the other one; return the fields of the result."""
    flow, other = fields[0], _FLOW + _OTHER_FLOW - fields[0]
    size = NUM_FIELDS * level.stride
    for c in range(2):
        median_filter(
            level.state, level.stride, size, flow + c, other + c, level.width, level.height, median_size, lines
        )
    return other, fields[1]


@part
def _iterate(
    level: Level, fields: Any, rules: Rules, limit: Any, tau: Any, threshold: float, lines: Floats, errors: Any
) -> Any:
    """Iterate until the error is not above `threshold`; return the fields (flow, dual) of the result and the number.

    Several iterations are done in one sweep, as many as the errors so far let expect. A sweep that went past the
    iteration where the error got small is done again with the right number, so that the result is that of a check after
    every iteration (`sparse_checks`: of those that OpenCV's CUDA variant makes).
    """
    sparse = rules.sparse_checks
    error, previous, total = np.inf, 0.0 if sparse else np.inf, 0
    for _ in range(rules.num_rounds):
        if error <= threshold:
            break
        if rules.median_size > 1:
            fields = _filtered(level, fields, rules.median_size, lines)
        done = 0
        while done < rules.num_iterations and error > threshold:
            remaining = rules.num_iterations - done
            if sparse:
                block = _block_of_sparse_checks(total, previous, threshold, remaining)
            else:
                block = _block(error, previous, threshold, remaining)
            # A sweep that may have to be repeated must not write where it reads.
            target = fields
            if block > 1 and not sparse and threshold > 0:
                target = (_FLOW + _OTHER_FLOW - fields[0], _DUAL + _OTHER_DUAL - fields[1])
            _sweep(level, fields, target, limit, tau, block, errors)
            if sparse:
                error, previous = _last_sparse_check(errors, block, total, previous, threshold)
            else:
                needed = _first_at_most(errors, block, threshold)
                if needed < block:  # too far: once more, from what was kept
                    block = needed
                    _sweep(level, fields, target, limit, tau, block, errors)
                previous, error = errors[block - 2] if block > 1 else error, errors[block - 1]
            fields = target
            done += block
            total += block
    return fields, total


@kernel
def solve_level(level: Level, inputs: Inputs, rules: Rules, scratch: Scratch, counts: Ints) -> int:
    """Solve one level of the pyramid from the flow in fields 4, 5; return the field where the flow is now.

    The data term is linearised around the flow so far (a warping), then the flow is iterated; and so on, `num_warps`
    times. `counts` receives the number of iterations of every warping.
    """
    state, stride, width, height = level
    taut = rules.taut
    # The solver's flow is scaled by taut: so are its step and the error that stops it, a sum over all pixels.
    limit = splat(np.float32(rules.l_t * taut * taut))
    tau = splat(np.float32(taut * rules.theta))
    threshold = rules.epsilon * rules.epsilon * taut * taut * width * height
    errors = np.empty(MAX_BLOCK, np.float64)
    state.reshape((height + 2, NUM_FIELDS, stride))[:, _DUAL : _DUAL + 4] = 0
    fields = (_FLOW, _DUAL)
    for warp in range(rules.num_warps):
        warp_level(
            state,
            NUM_FIELDS,
            stride,
            fields[0],
            width,
            height,
            inputs.image0,
            inputs.planes,
            inputs.taps,
            rules.cubic_a,
            taut,
            scratch.lines,
            scratch.corner,
        )
        fields, counts[warp] = _iterate(level, fields, rules, limit, tau, threshold, scratch.lines, errors)
    return fields[0]
