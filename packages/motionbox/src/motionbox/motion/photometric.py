"""Which motion the frames themselves bear out: flow against the camera's motion alone, as predictions of the frame.

Flow bleeds over the edge of what moves, slips along stripes and grain, and invents motion where there is nothing to
see. In such places the next frame looks as the camera's motion alone predicts it, or as badly predicted by either.
"""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Grey = npt.NDArray[np.uint8]
Camera = npt.NDArray[np.float64]

_PIXEL_SIGMA = 1.0
_CELL_PX = 4
_SMOOTHING_CELLS = 1.0
_GAIN = 4.0
_LEAST_NOISE = 0.3  # grey levels; of a still clip without noise


def weigh_motion(motion: Array, flow: Array, camera: Camera, pair: tuple[Grey, Grey], least_weight: float) -> Array:
    """Return a motion map in which motion that the camera explains as well as the flow counts less.

    Args:
        motion: float32 (H, W), >= 0, the map of `flow`.
        flow: float32 (H, W, 2), pixels per frame step.
        camera: float64 (3, 2), the camera's motion, see `motion.fit_camera`.
        pair: The two frames of the flow, uint8 (H, W), grey.
        least_weight: Weight of motion that the camera explains, in [0, 1].

    Returns:
        float32 (H, W), between `least_weight` x `motion` and `motion`.
    """
    weight = np.maximum(unexplained_share(flow, camera, pair), np.float32(least_weight))
    height, width = motion.shape
    return cast("Array", motion * cv2.resize(weight, (width, height), interpolation=cv2.INTER_LINEAR))


def unexplained_share(flow: Array, camera: Camera, pair: tuple[Grey, Grey]) -> Array:
    """Say where the flow predicts the next frame better than the camera's motion alone does.

    With e the mean absolute difference between a frame and its prediction around a cell and n the typical e of the
    flow: 4 (e_camera - e_flow) / (e_flow + n), cut to [0, 1].

    Args:
        flow: float32 (H, W, 2), pixels per frame step; H and W at least 16.
        camera: float64 (3, 2), the camera's motion, see `motion.fit_camera`.
        pair: The two frames of the flow, uint8 (H, W), grey.

    Returns:
        float32 (about H / 4, W / 4), in [0, 1]; 0 where the camera's motion explains all.
    """
    height, width = flow.shape[:2]
    half_wh = (width // 2, height // 2)
    # Without the Gaussian, what bilinear reading loses of fine texture would count against both predictions.
    small0, small1 = (_smooth(cv2.resize(frame, half_wh, interpolation=cv2.INTER_AREA), _PIXEL_SIGMA) for frame in pair)
    scale = np.array([half_wh[0] / width, half_wh[1] / height], np.float32)
    small_flow = cv2.resize(flow, half_wh, interpolation=cv2.INTER_AREA) * scale
    x, y = np.arange(half_wh[0], dtype=np.float32)[None, :], np.arange(half_wh[1], dtype=np.float32)[:, None]
    full_x, full_y = (x + 0.5) / scale[0] - 0.5, (y + 0.5) / scale[1] - 0.5
    shift, by_x, by_y = camera.astype(np.float32)
    camera_dx, camera_dy = ((shift[i] + full_x * by_x[i] + full_y * by_y[i]) * scale[i] for i in (0, 1))
    by_flow = _error(small0, small1, x + small_flow[..., 0], y + small_flow[..., 1])
    by_camera = _error(small0, small1, x + camera_dx, y + camera_dy)
    noise = float(np.median(by_flow)) + _LEAST_NOISE
    return cast("Array", np.clip(_GAIN * (by_camera - by_flow) / (by_flow + np.float32(noise)), 0, 1))


def _error(frame0: Array, frame1: Array, x: Array, y: Array) -> Array:
    """Return the mean absolute difference of frame 0 and frame 1 read at (x, y), around cells of 2 x 2 half pixels."""
    predicted = cv2.remap(frame1, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    step = _CELL_PX // 2
    cells = (max(2, frame0.shape[1] // step), max(2, frame0.shape[0] // step))
    mean = cv2.resize(cv2.absdiff(frame0, predicted), cells, interpolation=cv2.INTER_AREA)
    return _smooth(mean, _SMOOTHING_CELLS)


def _smooth(image: npt.NDArray[Any], sigma_px: float) -> Array:
    return cast("Array", cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma_px))
