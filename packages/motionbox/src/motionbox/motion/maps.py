"""Flow -> motion map: motion boundaries, eq. (1) of the paper, or motion against the camera's.

A moving camera makes smooth flow and a moving object makes an edge in it, so the spatial derivatives of the flow
(*motion boundaries*, Dalal, Triggs and Schmid 2006) answer to objects and not to translation of the camera.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import numpy.typing as npt

from motionbox.motion.photometric import HalfSizes, camera_flow, half_size, weigh_motion
from motionbox.motion.robust import ROBUST_STD, median

if TYPE_CHECKING:
    from motionbox.config import MotionConfig

Array = npt.NDArray[np.float32]
Grey = npt.NDArray[np.uint8]

_LEVELS = 255
_FIT_STEP_PX = 8
_FIT_ITERATIONS = 8
_MIN_FIT_SCALE_PX = 0.05


def motion_map(flow: Array) -> Array:
    """Return the motion map of one flow: sqrt(u_x^2 + u_y^2 + v_x^2 + v_y^2), eq. (1).

    Args:
        flow: float32 (H, W, 2), (dx, dy) in pixels per frame step; H and W at least 3.

    Returns:
        float32 (H, W), pixels per frame step and pixel, >= 0. Derivatives are central differences, the flow mirrored at
        the border. Zero for a translation of the whole frame; a rotation by a small angle a gives sqrt(2) a.

    Raises:
        ValueError: `flow` has another shape.
    """
    _check_flow(flow)
    return _joint_magnitude(*_central(flow[..., 0]), *_central(flow[..., 1]))


def residual_motion(flow: Array, camera: npt.NDArray[np.float64] | None = None) -> Array:
    """Return how far each pixel moves against the camera: |flow - affine camera motion|.

    Args:
        flow: float32 (H, W, 2), pixels per frame step; H and W at least 16.
        camera: As `fit_camera` returns it; None fits it.

    Returns:
        float32 (H, W), pixels per frame step, >= 0.

    Raises:
        ValueError: `flow` has another shape.
    """
    _check_flow(flow)
    camera = fit_camera(flow) if camera is None else camera
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32)[None, :]
    y = np.arange(height, dtype=np.float32)[:, None]
    expected = camera_flow(camera, x, y)
    return _magnitude(*(np.subtract(flow[..., axis], part, out=part) for axis, part in enumerate(expected)))


def fit_camera(flow: Array) -> npt.NDArray[np.float64]:
    """Fit an affine camera motion to a flow: iteratively reweighted least squares with Geman-McClure weights.

    It starts from the median, so up to half of the frame may move otherwise. It sees the mean flow of 8 x 8 blocks.

    Args:
        flow: float32 (H, W, 2), pixels per frame step.

    Returns:
        float64 (3, 2): the camera moves the pixel (x, y) by row 0 + x * row 1 + y * row 2.
    """
    height, width = flow.shape[:2]
    columns, rows = max(2, width // _FIT_STEP_PX), max(2, height // _FIT_STEP_PX)
    small = cv2.resize(flow, (columns, rows), interpolation=cv2.INTER_AREA).reshape(-1, 2).astype(np.float64)
    moved, design = np.ascontiguousarray(small.T), _fit_design(columns, rows)
    solution = np.zeros((2, 3))
    solution[:, 0] = [median(channel) for channel in moved]
    for _ in range(_FIT_ITERATIONS):
        error_x, error_y = moved - solution @ design
        squared = error_x * error_x + error_y * error_y
        scale = max(ROBUST_STD * median(np.sqrt(squared)), _MIN_FIT_SCALE_PX)
        root = squared / scale**2 + 1
        weighted = design / (root * root)
        solution = np.linalg.solve(weighted @ design.T + 1e-9 * np.eye(3), weighted @ moved.T).T
    solution = solution.T
    by_x, by_y = solution[1] * 2 / width, solution[2] * 2 / height
    return np.stack([solution[0] - by_x * (width - 1) / 2 - by_y * (height - 1) / 2, by_x, by_y])


@lru_cache(maxsize=16)
def _fit_design(columns: int, rows: int) -> npt.NDArray[np.float64]:
    """Return float64 (3, rows * columns): one, x and y of the blocks' centres, within [-1, 1]: well conditioned."""
    y, x = np.mgrid[:rows, :columns].reshape(2, -1)
    return np.stack([np.ones(x.size), (2 * x + 1) / columns - 1, (2 * y + 1) / rows - 1])


class MotionAccumulator:
    """Turn the flows of one video, pushed in order, into motion maps with the temporal window of a config.

    The map of flow `t` uses the mean of flows `t - window + 1 ... t` (fewer at the start): differentiation is linear,
    so the derivative of the mean flow is the mean of the derivatives. The sum is formed anew, oldest first, for every
    map: a map depends on its `window` flows alone, never on where a work unit began.

    Attributes:
        context_frames: Number of flows before the first wanted one that must be pushed to get its full window.
    """

    def __init__(self, config: MotionConfig) -> None:
        self._config = config
        self._flows: deque[Array] = deque(maxlen=config.window)
        self._newest: tuple[Grey, Array] | None = None  # the frame that the next pair begins with, mostly
        self.context_frames: int = config.window - 1

    def push(self, flow: Array, pair: tuple[Grey, Grey] | None = None) -> Array:
        """Add the next flow and return its motion map.

        Args:
            flow: float32 (H, W, 2), pixels per frame step; the same shape at every call. It is not kept.
            pair: The flow's two frames, uint8 (H, W) grey; needed where the config's `explained_weight` is below 1.

        Returns:
            float32 (H, W), >= 0; pixels per frame step and pixel, or pixels per frame step for the cue `residual`.

        Raises:
            ValueError: `flow` has another shape than the contract's or than the flow before, or frames are missing.
        """
        _check_flow(flow)
        if self._flows and self._flows[-1].shape != flow.shape:
            raise ValueError(f"flow must be of shape {self._flows[-1].shape} as before, got {flow.shape}")
        config = self._config
        if config.quantise_bound_px is not None:
            flow = quantise_flow(flow, config.quantise_bound_px)
        if config.window == 1:
            mean = flow
        else:
            self._flows.append(np.array(flow, dtype=np.float32))
            mean = self._flows[0].copy()
            for past in list(self._flows)[1:]:
                mean += past
            mean /= len(self._flows)
        return _map_of(mean, config, None if pair is None or config.explained_weight == 1 else self._half_sizes(pair))

    def _half_sizes(self, pair: tuple[Grey, Grey]) -> HalfSizes:
        """Return two frames as `half_size` makes them; the first is known from the pair before where it is the same."""
        (first, second), newest = pair, self._newest
        is_known = newest is not None and np.array_equal(newest[0], first)
        halves = (newest[1] if newest is not None and is_known else half_size(first), half_size(second))
        self._newest = (second.copy(), halves[1])
        return halves


def quantise_flow(flow: Array, bound_px: float) -> Array:
    """Round a flow to the 256 values that an 8-bit flow image holds, as the authors' extraction tool does.

    Args:
        flow: float32 (H, W, 2), pixels.
        bound_px: Values outside [-bound, bound] saturate.

    Returns:
        float32, same shape: `bound * (2 k / 255 - 1)` for whole k; zero itself is not among the values.
    """
    level = np.rint((np.clip(flow, -bound_px, bound_px) + bound_px) * (_LEVELS / (2 * bound_px)))
    return cast("Array", (level * (2 * bound_px / _LEVELS) - bound_px).astype(np.float32))


def shrink_map(motion_map: Array, map_scale: int) -> Array:
    """Average a motion map over blocks of `map_scale` x `map_scale` pixels.

    Args:
        motion_map: float32 (H, W).
        map_scale: Side of a block in pixels.

    Returns:
        float32 (ceil(H / map_scale), ceil(W / map_scale)); blocks cut by the border average their real pixels.
    """
    height, width = motion_map.shape
    rows, columns = -(-height // map_scale), -(-width // map_scale)
    bottom, right = rows * map_scale - height, columns * map_scale - width
    padded = cv2.copyMakeBorder(motion_map, 0, bottom, 0, right, cv2.BORDER_CONSTANT) if bottom or right else motion_map
    means = cast("Array", cv2.resize(padded, (columns, rows), interpolation=cv2.INTER_AREA))
    means[-1] *= map_scale / (map_scale - bottom)
    means[:, -1] *= map_scale / (map_scale - right)
    return means


def quantise_map(motion_map: Array, full_scale: float) -> npt.NDArray[np.uint8]:
    """Round a motion map to 8 bits for the store: 255 * sqrt(value / full_scale).

    The square root keeps slow motion, most of what there is, apart from none: the smallest kept value is
    full_scale / 260,100, the relative rounding error at 1 % of full scale is 4 %.

    Args:
        motion_map: float32, any shape, >= 0, pixels per frame step and pixel.
        full_scale: Value that becomes 255; larger ones saturate.

    Returns:
        uint8, same shape.
    """
    share = np.clip(motion_map / np.float32(full_scale), 0, 1)
    return cast("npt.NDArray[np.uint8]", np.rint(_LEVELS * np.sqrt(share)).astype(np.uint8))


def dequantise_map(stored: npt.NDArray[np.uint8], full_scale: float) -> Array:
    """Return the motion map that `quantise_map` rounded.

    Args:
        stored: uint8, any shape.
        full_scale: As given to `quantise_map`; `store.map_full_scale` of the run's config.

    Returns:
        float32, same shape, pixels per frame step and pixel, in [0, full_scale].
    """
    return cast("Array", (np.square(stored.astype(np.float32) / _LEVELS) * np.float32(full_scale)).astype(np.float32))


def _check_flow(flow: Array) -> None:
    if flow.ndim != 3 or flow.shape[2] != 2 or min(flow.shape[:2]) < 3:
        raise ValueError(f"flow must be (H, W, 2) with H and W at least 3, got shape {flow.shape}")


def _map_of(flow: Array, config: MotionConfig, halves: HalfSizes | None) -> Array:
    if config.cue == "residual":
        camera = fit_camera(flow)
        motion = residual_motion(flow, camera)
        if config.explained_weight == 1:
            return motion
        if halves is None:
            raise ValueError("pair must be the flow's two frames where motion.explained_weight is below 1, got None")
        return weigh_motion(motion, flow, camera, halves, config.explained_weight)
    derive = _central if config.derivative == "central" else _prewitt
    vertical = derive(flow[..., 1])
    if config.channels == "vertical":
        return _magnitude(*vertical)
    horizontal = derive(flow[..., 0])
    if config.combine == "joint":
        return _joint_magnitude(*horizontal, *vertical)
    return (_magnitude(*horizontal) + _magnitude(*vertical)) * np.float32(0.5)


def _magnitude(x: Array, y: Array) -> Array:
    """Return sqrt(x^2 + y^2), each step rounded once; `x` and `y` are overwritten.

    `cv2.magnitude` is quicker, but the last bit of what it returns depends on where in memory the arrays happen to lie.
    """
    np.multiply(x, x, out=x)
    np.multiply(y, y, out=y)
    x += y
    return cast("Array", np.sqrt(x, out=x))


def _joint_magnitude(ux: Array, uy: Array, vx: Array, vy: Array) -> Array:
    total = ux * ux
    for part in (uy, vy, vx):
        total += part * part
    return cast("Array", np.sqrt(total, out=total))


def _central(channel: Array) -> tuple[Array, Array]:
    """Return (d/dx, d/dy): central differences, the channel mirrored at the border.

    (A one-sided difference there would double the noise, and the frame's largest response would sit at its border.)
    """
    dx = np.empty(channel.shape, np.float32)
    dx[:, 1:-1] = (channel[:, 2:] - channel[:, :-2]) * np.float32(0.5)
    dx[:, 0] = (channel[:, 1] - channel[:, 0]) * np.float32(0.5)
    dx[:, -1] = (channel[:, -1] - channel[:, -2]) * np.float32(0.5)
    dy = np.empty(channel.shape, np.float32)
    dy[1:-1] = (channel[2:] - channel[:-2]) * np.float32(0.5)
    dy[0] = (channel[1] - channel[0]) * np.float32(0.5)
    dy[-1] = (channel[-1] - channel[-2]) * np.float32(0.5)
    return dx, dy


def _prewitt(channel: Array) -> tuple[Array, Array]:
    """Return (d/dx, d/dy) by Prewitt's 3x3 masks, divided by 6 so that a ramp of slope 1 gives 1."""
    difference = np.array([-0.5, 0, 0.5], np.float32)
    average = np.full(3, 1 / 3, np.float32)
    source = np.ascontiguousarray(channel, dtype=np.float32)
    dx = cv2.sepFilter2D(source, cv2.CV_32F, difference, average, borderType=cv2.BORDER_REFLECT)
    dy = cv2.sepFilter2D(source, cv2.CV_32F, average, difference, borderType=cv2.BORDER_REFLECT)
    return cast("Array", dx), cast("Array", dy)
