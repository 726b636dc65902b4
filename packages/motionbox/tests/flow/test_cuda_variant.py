"""The `opencv-cuda` parameter set against an independent plain NumPy version of the same algorithm."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from motionbox.flow import TVL1Params, compute_flow
from motionbox.flow.cpu.engine import NumbaTVL1Estimator
from motionbox.scoring.known_flow import warped_pair

Array = npt.NDArray[np.float64]


def resize(image: Array, width: int, height: int, step_x: float, step_y: float) -> Array:
    """cv::cuda::resize, linear: target pixel x samples the source at x * step, without the half-pixel shift."""

    def corner(count: int, step: float, size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Array]:
        at = np.arange(count) * step
        low = np.minimum(np.floor(at).astype(int), size - 1)
        return low, np.minimum(low + 1, size - 1), at - low

    y0, y1, wy = corner(height, step_y, image.shape[0])
    x0, x1, wx = corner(width, step_x, image.shape[1])
    rows = image[y0] * (1 - wy)[:, None] + image[y1] * wy[:, None]
    return rows[:, x0] * (1 - wx) + rows[:, x1] * wx


def cubic(distance: Array) -> Array:
    d = np.abs(distance)
    near = d * d * (1.5 * d - 2.5) + 1
    far = d * (d * (-0.5 * d + 2.5) - 4) + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def warp(image: Array, x: Array, y: Array) -> Array:
    """Sum over every pixel within two pixels, divided by the sum of weights; coordinates clamp to the border."""
    total, weights = np.zeros_like(x), np.zeros_like(x)
    for j in range(-2, 4):
        for i in range(-2, 4):
            cx, cy = np.floor(x) + i, np.floor(y) + j
            weight = cubic(x - cx) * cubic(y - cy)
            column = np.clip(cx, 0, image.shape[1] - 1).astype(int)
            total += weight * image[np.clip(cy, 0, image.shape[0] - 1).astype(int), column]
            weights += weight
    return total / weights


def gradient(image: Array) -> tuple[Array, Array]:
    padded = np.pad(image, 1, mode="edge")
    return 0.5 * (padded[1:-1, 2:] - padded[1:-1, :-2]), 0.5 * (padded[2:, 1:-1] - padded[:-2, 1:-1])


def divergence(px: Array, py: Array) -> Array:
    return np.diff(px, axis=1, prepend=0) + np.diff(py, axis=0, prepend=0)


def solve(image0: Array, image1: Array, u: list[Array], params: TVL1Params) -> list[int]:
    taut, l_t = params.tau / params.theta, params.lambda_ * params.theta
    threshold = params.epsilon**2 * image0.size
    grid_y, grid_x = np.mgrid[: image0.shape[0], : image0.shape[1]].astype(float)
    gradients = gradient(image1)
    p = [[np.zeros_like(image0), np.zeros_like(image0)] for _ in range(2)]
    counts = []
    for _ in range(params.num_warps):
        where = grid_x + u[0], grid_y + u[1]
        g = [warp(part, *where) for part in gradients]
        square = g[0] ** 2 + g[1] ** 2
        constant = warp(image1, *where) - g[0] * u[0] - g[1] * u[1] - image0
        error, previous, n = np.inf, 0.0, 0
        while error > threshold and n < params.inner_iterations:
            rho = constant + g[0] * u[0] + g[1] * u[1]
            with np.errstate(divide="ignore", invalid="ignore"):
                exact = np.where(square > np.finfo(np.float32).eps, -rho / square, 0)
            step = np.where(rho < -l_t * square, l_t, np.where(rho > l_t * square, -l_t, exact))
            old = [channel.copy() for channel in u]
            for c in range(2):
                u[c] += step * g[c] + params.theta * divergence(*p[c])
            if n % 2 == 1 and previous < threshold:
                previous = error = sum(((new - before) ** 2).sum() for new, before in zip(u, old, strict=True))
            else:
                error = np.inf
                previous -= threshold
            for c in range(2):
                ux = np.diff(u[c], axis=1, append=u[c][:, -1:])
                uy = np.diff(u[c], axis=0, append=u[c][-1:])
                norm = 1 + taut * np.hypot(ux, uy)
                p[c] = [(p[c][0] + taut * ux) / norm, (p[c][1] + taut * uy) / norm]
            n += 1
        counts.append(n)
    return counts


def reference_flow(
    frame0: npt.NDArray[np.uint8], frame1: npt.NDArray[np.uint8], params: TVL1Params
) -> tuple[Array, list[list[int]]]:
    pyramid = [(frame0.astype(float), frame1.astype(float))]
    step = 1 / params.scale_step
    for _ in range(1, params.num_scales):
        height, width = pyramid[-1][0].shape
        size = round(width * params.scale_step), round(height * params.scale_step)
        if min(size) < 16:
            break
        pyramid.append(tuple(resize(image, *size, step, step) for image in pyramid[-1]))  # type: ignore[arg-type]
    u = [np.zeros_like(pyramid[-1][0]) for _ in range(2)]
    counts = []
    for index in reversed(range(len(pyramid))):
        counts.insert(0, solve(*pyramid[index], u, params))
        if index:
            height, width = pyramid[index - 1][0].shape
            ratio = u[0].shape[1] / width, u[0].shape[0] / height
            u = [resize(channel, width, height, *ratio) / params.scale_step for channel in u]
    return np.stack(u, axis=-1), counts


@pytest.mark.parametrize(("kind", "amount"), [("translation", 1.0), ("rotation", 2.0), ("zoom", 1.5)])
def test_cuda_variant_follows_the_reference(kind: str, amount: float) -> None:
    params = TVL1Params(variant="opencv-cuda")
    pair = warped_pair(kind, width=53, height=42, amount=amount)
    reference, counts = reference_flow(pair.frame0, pair.frame1, params)
    estimator = NumbaTVL1Estimator(params)
    flow = estimator(pair.frame0, pair.frame1)
    distance = np.hypot(*np.moveaxis(flow - reference, 2, 0))
    assert distance.mean() <= 0.005
    assert (distance <= 0.1).mean() >= 0.99
    # The stopping rule looks at odd iterations only, and at fewer of them after a large error.
    ours = estimator.num_iterations()
    assert np.abs(ours - np.array(counts)).mean() <= 2
    assert (ours % 2 == 0).all()


def test_the_two_variants_differ() -> None:
    pair = warped_pair("rotation", width=53, height=42, amount=2.0)
    cpu = compute_flow(pair.frame0, pair.frame1)
    cuda = compute_flow(pair.frame0, pair.frame1, params=TVL1Params(variant="opencv-cuda"))
    assert np.abs(cpu - cuda).mean() > 0.005
