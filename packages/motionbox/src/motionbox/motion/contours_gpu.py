"""Smoothing and thresholds of batches of motion maps on the device that holds them, as in `motion.contours`.

What is left for the host is one byte per pixel and the contours themselves (Suzuki and Abe 1985), which are serial.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from motionbox.motion.contours import smooth_map, wide_smooth
from motionbox.motion.maps import ROBUST_STD
from motionbox.motion.maps_gpu import median_along

if TYPE_CHECKING:
    from motionbox.config import ContourConfig

_NOISE_STEP_SIZE = 128 * 128

Filter = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


class BatchAreaFinder:
    """`motionbox.motion.contours.motion_area` for batches of maps of one size.

    Both Gaussians, with their borders, shrinking and enlarging, are linear and separable: each is a matrix per axis,
    read off the CPU's filter by its answers to unit lines, so it cannot drift from it. Two small products per map.
    """

    def __init__(self, config: ContourConfig, height: int, width: int, device: str | torch.device) -> None:
        """Prepare for maps of `height` x `width` pixels on `device`."""
        self._config = config
        self._smooth = _SeparableFilter(lambda image: smooth_map(image, config.sigma_px), height, width, device)
        sigma_px = config.wide_sigma_share * min(height, width)
        self._wide = _SeparableFilter(lambda image: wide_smooth(image, sigma_px), height, width, device)

    def areas(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the mask of the area that stands out in each map.

        Args:
            maps: float32 (B, H, W), finite and >= 0, on the device.

        Returns:
            uint8 (B, H, W) on the device, 1 inside; all 0 where `motion_area` returns None.

        Raises:
            ValueError: `maps` has another shape.
        """
        height, width = self._smooth.shape
        if maps.ndim != 3 or maps.shape[1:] != (height, width):
            raise ValueError(f"maps must be (B, {height}, {width}), got shape {tuple(maps.shape)}")
        config = self._config
        smooth = self._smooth(maps)
        peak = smooth.amax(dim=(1, 2), keepdim=True)
        threshold = config.threshold_max * peak
        if config.threshold_noise > 0:
            step = 4 if height * width > _NOISE_STEP_SIZE else 1
            noise = ROBUST_STD * median_along(smooth[:, ::step, ::step].flatten(1))
            threshold = torch.maximum(threshold, config.threshold_noise * noise[:, None, None])
        moves = peak > config.min_peak
        if config.wide_sigma_share == 0:
            return ((smooth > threshold) & moves).to(torch.uint8)
        wide = self._wide(torch.where(smooth >= threshold, smooth, 0.0))
        exact = wide.double()
        mean = exact.mean(dim=(1, 2), keepdim=True)
        std = exact.std(dim=(1, 2), keepdim=True, unbiased=False)
        uneven = exact.amax(dim=(1, 2), keepdim=True) > (1 + config.min_contrast) * mean
        return ((exact > mean + config.threshold_std * std) & moves & uneven).to(torch.uint8)


class _SeparableFilter:
    """A linear filter that treats both axes alone and leaves even images as they are, as two matrices."""

    def __init__(self, filtered: Filter, height: int, width: int, device: str | torch.device) -> None:
        self.shape = (height, width)
        rows, columns = np.empty((height, height), np.float32), np.empty((width, width), np.float32)
        for index in range(height):
            image = np.zeros(self.shape, np.float32)
            image[index] = 1
            rows[:, index] = filtered(image)[:, 0]
        for index in range(width):
            image = np.zeros(self.shape, np.float32)
            image[:, index] = 1
            columns[index] = filtered(image)[0]
        self._rows, self._columns = (torch.from_numpy(matrix).to(device) for matrix in (rows, columns))

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        return self._rows @ maps @ self._columns
