"""Which motion the frames themselves bear out: flow against the camera's motion alone, as predictions of the frame.

Flow bleeds over the edge of what moves, slips along stripes and grain, and invents motion where there is nothing to
see. In such places the next frame looks as the camera's motion alone predicts it, or as badly predicted by either.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from motionbox.motion.robust import median

Array = npt.NDArray[np.float32]
Grey = npt.NDArray[np.uint8]
Camera = npt.NDArray[np.float64]
HalfSizes = tuple[Array, Array]
"""The two frames of a flow, each as `half_size` makes it."""

_PIXEL_SIGMA = 1.0
_CELL_PX = 4
_SMOOTHING_CELLS = 1.0
_GAIN = 4.0
_LEAST_NOISE = 0.3  # grey levels; of a still clip without noise


def camera_flow(camera: Camera, x: Array, y: Array) -> tuple[Array, Array]:
    """Return by how much the camera moves pixels, (dx, dy).

    Args:
        camera: float64 (3, 2), see `motion.fit_camera`.
        x: float32, where the pixels are; with `y` of shapes that broadcast.
        y: The same.
    """
    dx, dy = ((constant + by_x * x) + by_y * y for constant, by_x, by_y in camera.astype(np.float32).T)
    return dx, dy


def half_size(frame: Grey) -> Array:
    """Return the picture that predictions are held against: half as large, and smoothed.

    Without the Gaussian, what bilinear reading loses of fine texture would count against every prediction.

    Args:
        frame: uint8 (H, W), grey; H and W at least 16.

    Returns:
        float32 (H // 2, W // 2), grey levels.
    """
    height, width = frame.shape
    return _smooth(cv2.resize(frame, (width // 2, height // 2), interpolation=cv2.INTER_AREA), _PIXEL_SIGMA)


def weigh_motion(motion: Array, flow: Array, camera: Camera, halves: HalfSizes, least_weight: float) -> Array:
    """Return a motion map in which motion that the camera explains as well as the flow counts less.

    Args:
        motion: float32 (H, W), >= 0, the map of `flow`.
        flow: float32 (H, W, 2), pixels per frame step.
        camera: float64 (3, 2), the camera's motion, see `motion.fit_camera`.
        halves: The two frames of the flow, see `half_size`.
        least_weight: Weight of motion that the camera explains, in [0, 1].

    Returns:
        float32 (H, W), between `least_weight` x `motion` and `motion`.
    """
    weight = np.maximum(unexplained_share(flow, camera, halves), np.float32(least_weight))
    height, width = motion.shape
    return cast("Array", motion * cv2.resize(weight, (width, height), interpolation=cv2.INTER_LINEAR))


def unexplained_share(flow: Array, camera: Camera, halves: HalfSizes) -> Array:
    """Say where the flow predicts the next frame better than the camera's motion alone does.

    With e the mean absolute difference between a frame and its prediction around a cell and n the typical e of the
    flow: 4 (e_camera - e_flow) / (e_flow + n), cut to [0, 1].

    Args:
        flow: float32 (H, W, 2), pixels per frame step; H and W at least 16.
        camera: float64 (3, 2), the camera's motion, see `motion.fit_camera`.
        halves: The two frames of the flow, see `half_size`.

    Returns:
        float32 (about H / 4, W / 4), in [0, 1]; 0 where the camera's motion explains all.
    """
    height, width = flow.shape[:2]
    grid = _half_grid(width, height)
    scale = (np.float32(grid[0].size / width), np.float32(grid[1].size / height))
    small_flow = cv2.resize(flow, (grid[0].size, grid[1].size), interpolation=cv2.INTER_AREA)
    full_x, full_y = ((place + 0.5) / by - 0.5 for place, by in zip(grid, scale, strict=True))
    by_flow, by_camera = [], []
    for axis, expected in enumerate(camera_flow(camera, full_x, full_y)):
        own = small_flow[..., axis] * scale[axis]
        expected *= scale[axis]
        by_flow.append(np.add(own, grid[axis], out=own))
        by_camera.append(np.add(expected, grid[axis], out=expected))
    error, error_by_camera = _error(*halves, *by_flow), _error(*halves, *by_camera)
    noise = median(error) + _LEAST_NOISE
    return cast("Array", np.clip(_GAIN * (error_by_camera - error) / (error + np.float32(noise)), 0, 1))


@lru_cache(maxsize=16)
def _half_grid(width: int, height: int) -> tuple[Array, Array]:
    """Return x (1, W // 2) and y (H // 2, 1) of the pixels of a frame of half size."""
    return np.arange(width // 2, dtype=np.float32)[None, :], np.arange(height // 2, dtype=np.float32)[:, None]


def _error(frame0: Array, frame1: Array, x: Array, y: Array) -> Array:
    """Return the mean absolute difference of frame 0 and frame 1 read at (x, y), around cells of 2 x 2 half pixels."""
    predicted = cv2.remap(frame1, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    step = _CELL_PX // 2
    cells = (max(2, frame0.shape[1] // step), max(2, frame0.shape[0] // step))
    mean = cv2.resize(cv2.absdiff(frame0, predicted), cells, interpolation=cv2.INTER_AREA)
    return _smooth(mean, _SMOOTHING_CELLS)


def _smooth(image: npt.NDArray[Any], sigma_px: float) -> Array:
    return cast("Array", cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma_px))
