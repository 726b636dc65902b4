"""TV-L1 on the CPU, compiled by numba."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from motionbox.config import TVL1Params
from motionbox.flow import Flow, Frame, check_frames
from motionbox.flow.tvl1 import TVL1Plan, make_plan

Image = npt.NDArray[np.float32]
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _jit(function: _Function) -> _Function:
    compiled: Any = numba.njit(fastmath=True, error_model="numpy", cache=True, nogil=True)(function)
    return cast(_Function, compiled)


class NumbaTVL1Estimator:
    """TV-L1 on one core, without allocations once frames of a size were seen."""

    name = "numba"

    def __init__(self, params: TVL1Params, *, num_threads: int = 1) -> None:
        self._params = params
        self._num_threads = num_threads
        self._workspace: _Workspace | None = None

    def __call__(self, frame0: Frame, frame1: Frame, *, initial: Flow | None = None) -> Flow:
        """Return the flow, see `motionbox.flow.FlowEstimator`."""
        check_frames(frame0, frame1, initial)
        height, width = frame0.shape
        if self._workspace is None or self._workspace.plan.sizes_wh[0] != (width, height):
            self._workspace = _Workspace(make_plan(self._params, width, height))
        return self._workspace.run(frame0, frame1, initial)


class _Workspace:
    """The arrays for frames of one size and what is done on them."""

    def __init__(self, plan: TVL1Plan) -> None:
        self.plan = plan
        self._levels = [_Level(*size) for size in plan.sizes_wh]

    def run(self, frame0: Frame, frame1: Frame, initial: Flow | None) -> Flow:
        """Return the flow of checked frames."""
        finest = self._levels[0]
        scale = 1.0 if frame0.dtype == np.uint8 else 255.0
        np.multiply(frame0, scale, out=finest.image0, casting="unsafe")
        np.multiply(frame1, scale, out=finest.image1, casting="unsafe")
        if initial is not None:
            finest.u[:] = np.moveaxis(initial, 2, 0)
        self._build_pyramid(initial is not None)
        for index in reversed(range(len(self._levels))):
            self._solve_level(index)
            if index:
                self._refine_flow(index)
        return np.ascontiguousarray(np.moveaxis(finest.u, 0, 2))

    def _build_pyramid(self, with_flow: bool) -> None:
        step, half_pixel = 1 / self.plan.scale_step, self.plan.half_pixel
        for fine, coarse in pairwise(self._levels):
            _resize(fine.image0, coarse.image0, step, step, half_pixel, 1.0)
            _resize(fine.image1, coarse.image1, step, step, half_pixel, 1.0)
            if with_flow:
                for c in range(2):
                    _resize(fine.u[c], coarse.u[c], step, step, half_pixel, self.plan.scale_step)
        if not with_flow:
            self._levels[-1].u[:] = 0

    def _solve_level(self, index: int) -> None:
        plan, level = self.plan, self._levels[index]
        _gradient(level.image1, level.gradient)
        level.p[:] = 0
        for _ in range(plan.num_warps):
            _warp(level.image0, level.image1, level.gradient, level.u, plan.cubic_a, plan.zero_border, level.data)
            _iterate(
                level.u,
                level.p,
                level.data,
                plan.num_rounds,
                plan.num_iterations,
                plan.median_size,
                plan.l_t,
                plan.taut,
                plan.theta,
                plan.epsilon**2 * level.image0.size,
                plan.sparse_checks,
                level.scratch,
            )

    def _refine_flow(self, index: int) -> None:
        coarse, fine = self._levels[index], self._levels[index - 1]
        step_y, step_x = (a / b for a, b in zip(coarse.image0.shape, fine.image0.shape, strict=True))
        for c in range(2):
            _resize(coarse.u[c], fine.u[c], step_x, step_y, self.plan.half_pixel, 1 / self.plan.scale_step)


class _Level:
    """Workspace of one pyramid level; every array is float32 (..., height, width)."""

    def __init__(self, width: int, height: int) -> None:
        def zeros(*shape: int) -> Image:
            return np.zeros((*shape, height, width), np.float32)

        self.image0, self.image1 = zeros(), zeros()
        self.gradient = zeros(2)
        self.u = zeros(2)
        self.p = zeros(4)
        self.data = zeros(4)  # I1wx, I1wy, |grad|^2, rho_c
        self.scratch = zeros(2)


@_jit
def _resize(src: Image, dst: Image, step_x: float, step_y: float, half_pixel: bool, factor: float) -> None:
    height, width = src.shape
    offset = 0.5 if half_pixel else 0.0
    for y in range(dst.shape[0]):
        sy = min(max((y + offset) * step_y - offset, 0.0), height - 1.0)
        y0 = min(int(sy), height - 2)
        wy = np.float32(sy - y0)
        for x in range(dst.shape[1]):
            sx = min(max((x + offset) * step_x - offset, 0.0), width - 1.0)
            x0 = min(int(sx), width - 2)
            wx = np.float32(sx - x0)
            top = src[y0, x0] + wx * (src[y0, x0 + 1] - src[y0, x0])
            bottom = src[y0 + 1, x0] + wx * (src[y0 + 1, x0 + 1] - src[y0 + 1, x0])
            dst[y, x] = np.float32(factor) * (top + wy * (bottom - top))


@_jit
def _gradient(image: Image, gradient: Image) -> None:
    height, width = image.shape
    for y in range(height):
        for x in range(width):
            gradient[0, y, x] = np.float32(0.5) * (image[y, min(x + 1, width - 1)] - image[y, max(x - 1, 0)])
            gradient[1, y, x] = np.float32(0.5) * (image[min(y + 1, height - 1), x] - image[max(y - 1, 0), x])


@_jit
def _cubic(t: float, a: float) -> Any:
    w0 = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a
    w1 = ((a + 2) * t - (a + 3)) * t * t + 1
    w2 = ((a + 2) * (1 - t) - (a + 3)) * (1 - t) * (1 - t) + 1
    return w0, w1, w2, 1 - w0 - w1 - w2


@_jit
def _warp(
    image0: Image, image1: Image, gradient: Image, u: Image, cubic_a: float, zero_border: bool, data: Image
) -> None:
    height, width = image1.shape
    for y in range(height):
        for x in range(width):
            sx = min(max(x + u[0, y, x], np.float32(-4.0)), np.float32(width + 4.0))
            sy = min(max(y + u[1, y, x], np.float32(-4.0)), np.float32(height + 4.0))
            x0, y0 = int(np.floor(sx)), int(np.floor(sy))
            weights_x = _cubic(sx - x0, cubic_a)
            weights_y = _cubic(sy - y0, cubic_a)
            value = value_x = value_y = np.float32(0)
            for j in range(4):
                yy = y0 + j - 1
                for i in range(4):
                    xx = x0 + i - 1
                    if zero_border and (yy < 0 or yy >= height or xx < 0 or xx >= width):
                        continue
                    xc, yc = min(max(xx, 0), width - 1), min(max(yy, 0), height - 1)
                    weight = np.float32(weights_x[i] * weights_y[j])
                    value += weight * image1[yc, xc]
                    value_x += weight * gradient[0, yc, xc]
                    value_y += weight * gradient[1, yc, xc]
            data[0, y, x] = value_x
            data[1, y, x] = value_y
            data[2, y, x] = value_x * value_x + value_y * value_y
            data[3, y, x] = value - value_x * u[0, y, x] - value_y * u[1, y, x] - image0[y, x]


@_jit
def _iterate(
    u: Image,
    p: Image,
    data: Image,
    num_rounds: int,
    num_iterations: int,
    median_size: int,
    l_t: Any,
    taut: Any,
    theta: Any,
    threshold: float,
    sparse_checks: bool,
    scratch: Image,
) -> None:
    l_t, taut, theta = np.float32(l_t), np.float32(taut), np.float32(theta)
    error, previous = np.inf, 0.0
    for round_index in range(num_rounds):
        if error <= threshold:
            break
        if median_size > 1:
            for c in range(2):
                scratch[c] = u[c]
                _median(scratch[c], u[c], median_size)
        for index in range(num_iterations):
            error = _update_primal(u, p, data, l_t, theta)
            if sparse_checks:
                n = round_index * num_iterations + index
                if n % 2 == 1 and previous < threshold:
                    previous = error
                else:
                    error = np.inf
                    previous -= threshold
            _update_dual(u, p, taut)
            if error <= threshold:
                break


@_jit
def _update_primal(u: Image, p: Image, data: Image, l_t: float, theta: float) -> float:
    height, width = u.shape[1:]
    error: Any = 0.0
    for y in range(height):
        row_error = np.float32(0)
        for x in range(width):
            ix, iy, norm = data[0, y, x], data[1, y, x], data[2, y, x]
            rho = data[3, y, x] + ix * u[0, y, x] + iy * u[1, y, x]
            step: Any = np.float32(0)
            if rho < -l_t * norm:
                step = l_t
            elif rho > l_t * norm:
                step = -l_t
            elif norm > np.float32(1.1920929e-07):
                step = -rho / norm
            for c in range(2):
                div = p[2 * c, y, x] + p[2 * c + 1, y, x]
                if x > 0:
                    div -= p[2 * c, y, x - 1]
                if y > 0:
                    div -= p[2 * c + 1, y - 1, x]
                new = u[c, y, x] + step * data[c, y, x] + theta * div
                row_error += (new - u[c, y, x]) ** 2
                u[c, y, x] = new
        error += row_error
    return float(error)


@_jit
def _update_dual(u: Image, p: Image, taut: float) -> None:
    height, width = u.shape[1:]
    for c in range(2):
        for y in range(height):
            for x in range(width):
                ux = u[c, y, min(x + 1, width - 1)] - u[c, y, x]
                uy = u[c, min(y + 1, height - 1), x] - u[c, y, x]
                norm = np.float32(1) / (np.float32(1) + taut * np.sqrt(ux * ux + uy * uy))
                p[2 * c, y, x] = (p[2 * c, y, x] + taut * ux) * norm
                p[2 * c + 1, y, x] = (p[2 * c + 1, y, x] + taut * uy) * norm


@_jit
def _median(src: Image, dst: Image, size: int) -> None:
    height, width = src.shape
    window: Any = np.empty(size * size, np.float32)
    half = size // 2
    for y in range(height):
        for x in range(width):
            count = 0
            for yy in range(y - half, y + half + 1):
                for xx in range(x - half, x + half + 1):
                    value: Any = src[min(max(yy, 0), height - 1), min(max(xx, 0), width - 1)]
                    k = count
                    while k > 0 and window[k - 1] > value:
                        window[k] = window[k - 1]
                        k -= 1
                    window[k] = value
                    count += 1
            dst[y, x] = window[(size * size) // 2]
