"""TV-L1 in plain NumPy, one formula after the other as in OpenCV's sources: slow, and the measure of the GPU engine."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from motionbox.config import TVL1Params
from motionbox.flow.tvl1 import make_plan

Array = npt.NDArray[np.float32]


def stopping_iteration(errors: list[float], threshold: float, *, sparse: bool) -> int | None:
    """Return how many iterations the rule runs when iteration n would have error `errors[n]`; None: all of them."""
    previous = 0.0
    for n, error in enumerate(errors):
        if sparse:
            if n % 2 == 1 and previous < threshold:
                previous = error
            else:
                previous -= threshold
                continue
        if error <= threshold:
            return n + 1
    return None


def reference_flow(frame0: Array, frame1: Array, params: TVL1Params, *, extra_iterations: int = 0) -> Array:
    """Return the flow (H, W, 2); `extra_iterations` more after every stop plant a fault."""
    plan = make_plan(params, frame0.shape[1], frame0.shape[0])
    images = [(frame0.astype(np.float32), frame1.astype(np.float32))]
    for size in plan.sizes_wh[1:]:
        step = 1 / plan.scale_step
        images.append(tuple(_resize(image, size, (step, step), plan.half_pixel) for image in images[-1]))
    u = np.zeros((2, *images[-1][0].shape), np.float32)
    for level in reversed(range(len(images))):
        u = _solve_level(*images[level], u, plan, extra_iterations)
        if level:
            (width, height), fine = plan.sizes_wh[level], plan.sizes_wh[level - 1]
            ratio = (width / fine[0], height / fine[1])
            u = np.stack([_resize(c, fine, ratio, plan.half_pixel) for c in u]) / np.float32(plan.scale_step)
    return np.moveaxis(u, 0, 2)


def _solve_level(image0, image1, u, plan, extra_iterations):
    rows, columns = (np.clip(np.arange(-1, n + 1), 0, n - 1) for n in image1.shape)
    padded = image1[rows][:, columns]
    i_x, i_y = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2, (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
    p = np.zeros((2, 2, *image1.shape), np.float32)
    threshold = plan.epsilon**2 * image1.size
    for _ in range(plan.num_warps):
        warped, w_x, w_y = (_warp(image, u, plan) for image in (image1, i_x, i_y))
        norm = w_x**2 + w_y**2
        rho_c = warped - w_x * u[0] - w_y * u[1] - image0
        errors: list[float] = []
        left = plan.num_rounds * plan.num_iterations
        while left:
            if len(errors) % plan.num_iterations == 0 and plan.median_size > 1:
                u = np.stack([cv2.medianBlur(np.ascontiguousarray(c), plan.median_size) for c in u])
            u, p, error = _iterate(u, p, w_x, w_y, norm, rho_c, plan)
            errors.append(error)
            left -= 1
            if stopping_iteration(errors, threshold, sparse=plan.sparse_checks):
                for _ in range(extra_iterations):
                    u, p, _ = _iterate(u, p, w_x, w_y, norm, rho_c, plan)
                break
    return u


def _iterate(u, p, w_x, w_y, norm, rho_c, plan):
    rho = rho_c + w_x * u[0] + w_y * u[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        middle = np.where(norm > np.finfo(np.float32).eps, -rho / norm, 0)
    step = np.select([rho < -plan.l_t * norm, rho > plan.l_t * norm], [plan.l_t, -plan.l_t], middle)
    new = np.empty_like(u)
    for c, w in enumerate((w_x, w_y)):
        px, py = p[c]
        divergence = px + py
        divergence[:, 1:] -= px[:, :-1]
        divergence[1:] -= py[:-1]
        new[c] = u[c] + step * w + plan.theta * divergence
    p = p.copy()
    for c in range(2):
        u_x, u_y = np.zeros_like(new[c]), np.zeros_like(new[c])
        u_x[:, :-1] = new[c][:, 1:] - new[c][:, :-1]
        u_y[:-1] = new[c][1:] - new[c][:-1]
        p[c] = (p[c] + plan.taut * np.stack([u_x, u_y])) / (1 + plan.taut * np.hypot(u_x, u_y))
    return new, p, float(((new - u) ** 2).sum())


def _warp(image, u, plan):
    """Interpolate with the separable cubic of coefficient a; outside: zero (OpenCV's remap) or the border pixel."""
    height, width = image.shape
    grid_y, grid_x = np.mgrid[:height, :width].astype(np.float32)
    at_x, at_y = np.clip(grid_x + u[0], -4, width + 4), np.clip(grid_y + u[1], -4, height + 4)
    first_x, first_y = np.floor(at_x).astype(int) - 1, np.floor(at_y).astype(int) - 1
    total = np.zeros_like(image)
    for j in range(4):
        for i in range(4):
            x, y = first_x + i, first_y + j
            value = image[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
            if plan.zero_border:
                value = np.where((x >= 0) & (x < width) & (y >= 0) & (y < height), value, 0)
            total += _cubic(at_x - x, plan.cubic_a) * _cubic(at_y - y, plan.cubic_a) * value
    return total


def _cubic(distance, a):
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0)).astype(np.float32)


def _resize(image, size_wh, step_xy, half_pixel):
    offset = 0.5 if half_pixel else 0.0
    for axis, length, step in ((1, size_wh[0], step_xy[0]), (0, size_wh[1], step_xy[1])):
        old = image.shape[axis]
        at = np.clip((np.arange(length) + offset) * step - offset, 0, old - 1)
        image = np.apply_along_axis(lambda line, at=at, old=old: np.interp(at, np.arange(old), line), axis, image)
    return image.astype(np.float32)
