"""Motion maps of whole batches of flows on the device that computed them, with the results of `motionbox.motion`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

if TYPE_CHECKING:
    from motionbox.config import MotionConfig

_STEPS_OF_8_BITS = 255


class BatchMotionAccumulator:
    """`motionbox.motion.MotionAccumulator` for batches: the flows of one video, pushed in order, into motion maps.

    The map of flow `t` uses the mean of flows `t - window + 1 ... t` (fewer at the start); how the flows are split
    into batches does not change the maps.
    """

    def __init__(self, config: MotionConfig) -> None:
        self._config = config
        self._past: torch.Tensor | None = None

    def push(self, flows: torch.Tensor) -> torch.Tensor:
        """Add the next flows and return their motion maps.

        Args:
            flows: float32 (B, H, W, 2), pixels per frame step; H and W the same at every call and at least 3.

        Returns:
            float32 (B, H, W) on the flows' device, pixels per frame step and pixel, >= 0.

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
    level = torch.round((flows.clamp(-bound_px, bound_px) + bound_px) * (_STEPS_OF_8_BITS / (2 * bound_px)))
    return level * (2 * bound_px / _STEPS_OF_8_BITS) - bound_px


def _magnitude(flows: torch.Tensor, config: MotionConfig) -> torch.Tensor:
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
