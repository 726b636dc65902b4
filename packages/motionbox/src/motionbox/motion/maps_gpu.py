"""Motion maps of batches of flows on the device that computed them, with the results of `motion.maps`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import pad

from motionbox.motion.maps import _FIT_ITERATIONS, _FIT_STEP_PX, _LEVELS, _MIN_FIT_SCALE_PX, ROBUST_STD

if TYPE_CHECKING:
    from motionbox.config import MotionConfig


class BatchMotionAccumulator:
    """`motionbox.motion.maps.MotionAccumulator` for batches: the flows of one video, pushed in order, into motion maps.

    The map of flow `t` uses the mean of flows `t - window + 1 ... t` (fewer at the start); how the flows are split
    into batches does not change the maps.
    """

    def __init__(self, config: MotionConfig) -> None:
        if config.explained_weight != 1:
            raise ValueError(
                f"explained_weight must be 1 on the device, got {config.explained_weight}; take the flows to the host "
                "and push them with their frames to motion.MotionAccumulator"
            )
        self._config = config
        self._past: torch.Tensor | None = None

    def push(self, flows: torch.Tensor) -> torch.Tensor:
        """Add the next flows and return their motion maps.

        Args:
            flows: float32 (B, H, W, 2), pixels per frame step; H and W the same at every call and at least 3.

        Returns:
            float32 (B, H, W) on the flows' device, >= 0; pixels per frame step and pixel, or pixels per frame step for
            the cue `residual`.

        Raises:
            ValueError: `flows` has another shape than the contract's or than before.
        """
        if flows.ndim != 4 or flows.shape[3] != 2 or min(flows.shape[1:3]) < 3:
            raise ValueError(f"flows must be (B, H, W, 2) with H and W at least 3, got shape {tuple(flows.shape)}")
        if self._past is not None and self._past.shape[1:] != flows.shape[1:]:
            raise ValueError(
                f"flows must be of shape (B, {', '.join(map(str, self._past.shape[1:]))}) as before, "
                f"got {tuple(flows.shape)}"
            )
        config = self._config
        if config.quantise_bound_px is not None:
            flows = _quantise(flows, config.quantise_bound_px)
        return _magnitude(self._windowed_mean(flows), config)

    def _windowed_mean(self, flows: torch.Tensor) -> torch.Tensor:
        window = self._config.window
        if window == 1:
            return flows
        known = flows if self._past is None else torch.cat([self._past, flows])
        num_past = len(known) - len(flows)
        self._past = known[max(0, len(known) - window + 1) :].clone()
        total = torch.zeros_like(flows)
        for age in reversed(range(window)):
            # Flow t takes flow t - age, where there is one; the oldest is added first.
            first = max(0, age - num_past)
            if first < len(flows):
                total[first:] += known[num_past + first - age : len(known) - age]
        counts = torch.arange(num_past + 1, len(known) + 1, device=flows.device).clamp(max=window)
        return total / counts.reshape(-1, 1, 1, 1)


def _quantise(flows: torch.Tensor, bound_px: float) -> torch.Tensor:
    level = torch.round((flows.clamp(-bound_px, bound_px) + bound_px) * (_LEVELS / (2 * bound_px)))
    return level * (2 * bound_px / _LEVELS) - bound_px


def _magnitude(flows: torch.Tensor, config: MotionConfig) -> torch.Tensor:
    if config.cue == "residual":
        return _residual_motion(flows)
    channels = (1,) if config.channels == "vertical" else (0, 1)
    squares = [_squared_gradient(flows[..., channel], config.derivative) for channel in channels]
    if config.combine == "joint" or len(squares) == 1:
        return torch.sqrt(sum(squares[1:], squares[0]))
    return (torch.sqrt(squares[0]) + torch.sqrt(squares[1])) * 0.5


def _squared_gradient(channel: torch.Tensor, derivative: str) -> torch.Tensor:
    """Return the squared norm of the gradient of (B, H, W): central differences or Prewitt's, the border repeated."""
    padded = pad(channel[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    wide = (padded[:, :, 2:] - padded[:, :, :-2]) * 0.5
    tall = (padded[:, 2:] - padded[:, :-2]) * 0.5
    if derivative == "central":
        dx, dy = wide[:, 1:-1], tall[:, :, 1:-1]
    else:
        dx = (wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]) / 3
        dy = (tall[:, :, :-2] + tall[:, :, 1:-1] + tall[:, :, 2:]) / 3
    return dx * dx + dy * dy


def _residual_motion(flows: torch.Tensor) -> torch.Tensor:
    """Return how far each pixel of (B, H, W, 2) moves against its frame's affine camera motion."""
    camera = _fit_camera(flows).float()
    height, width = flows.shape[1:3]
    x = torch.arange(width, dtype=torch.float32, device=flows.device)[None, None, :, None]
    y = torch.arange(height, dtype=torch.float32, device=flows.device)[None, :, None, None]
    constant, by_x, by_y = (camera[:, None, None, row] for row in range(3))
    moved: torch.Tensor = torch.linalg.vector_norm(flows - ((constant + by_x * x) + by_y * y), dim=3)
    return moved


def _fit_camera(flows: torch.Tensor) -> torch.Tensor:
    """Return float64 (B, 3, 2), the fit of `motionbox.motion.maps.fit_camera` to each flow of (B, H, W, 2)."""
    height, width = flows.shape[1:3]
    columns, rows = max(2, width // _FIT_STEP_PX), max(2, height // _FIT_STEP_PX)
    down, across = (
        torch.from_numpy(_area_weights(old, new)).to(flows) for old, new in ((height, rows), (width, columns))
    )
    small = torch.einsum("rh,bhwc,kw->brkc", down, flows, across).reshape(len(flows), -1, 2).double()
    y, x = np.mgrid[:rows, :columns].reshape(2, -1)
    table = np.stack([np.ones(x.size), (2 * x + 1) / columns - 1, (2 * y + 1) / rows - 1], axis=1)
    design = torch.from_numpy(table).to(small)
    solution = torch.stack([median_along(small), *[torch.zeros_like(small[:, 0])] * 2], dim=1)
    ridge = 1e-9 * torch.eye(3).to(small)
    for _ in range(_FIT_ITERATIONS):
        residual = torch.linalg.vector_norm(small - design @ solution, dim=2)
        scale = (ROBUST_STD * median_along(residual)).clamp(min=_MIN_FIT_SCALE_PX)
        weighted = design * (1 + (residual / scale[:, None]) ** 2)[:, :, None] ** -2
        solution = torch.linalg.solve(weighted.mT @ design + ridge, weighted.mT @ small)
    by_x, by_y = solution[:, 1] * 2 / width, solution[:, 2] * 2 / height
    return torch.stack([solution[:, 0] - by_x * (width - 1) / 2 - by_y * (height - 1) / 2, by_x, by_y], dim=1)


def median_along(values: torch.Tensor) -> torch.Tensor:
    """Return the median along axis 1 (as NumPy: the mean of the middle two for even lengths); the axis is gone."""
    ordered = values.sort(dim=1).values
    return 0.5 * (ordered[:, (values.shape[1] - 1) // 2] + ordered[:, values.shape[1] // 2])


def _area_weights(old: int, new: int) -> npt.NDArray[np.float64]:
    """Return (new, old): row i averages the pixels that the i-th of `new` equal parts of the axis covers."""
    edges = np.arange(new + 1) * (old / new)
    pixels = np.arange(old)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: npt.NDArray[np.float64] = np.maximum(covered, 0) * (new / old)
    return weights
