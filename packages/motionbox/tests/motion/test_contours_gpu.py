"""Areas of batches must be those of `motionbox.motion.contours`."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from motionbox.config import ContourConfig
from motionbox.motion.contours import motion_area

torch = pytest.importorskip("torch")

CONFIGS = [
    {},
    {"sigma_px": 0},
    {"threshold_noise": 4.0},
    {"wide_sigma_share": 0},
    {"wide_sigma_share": 0, "threshold_noise": 3.0, "threshold_max": 0.1},
    {"sigma_px": 3.0, "wide_sigma_share": 0.03, "threshold_std": 0.5},
]


def make_maps(height: int, width: int) -> np.ndarray:
    """Maps with blobs over noise, then one of noise, one below the smallest peak and one of zeros."""
    rng = np.random.default_rng(width)
    maps = np.abs(rng.normal(0, 0.05, (6, height, width)))
    for index in range(3):
        for _ in range(index + 1):
            blob = np.zeros((height, width))
            blob[rng.integers(height), rng.integers(width)] = 1
            blob = cv2.GaussianBlur(blob, (0, 0), height / 12)
            maps[index] += blob / blob.max()
    maps[4] *= 0.01
    maps[5] = 0
    return maps.astype(np.float32)


@pytest.mark.parametrize("values", CONFIGS, ids=str)
@pytest.mark.parametrize("size_hw", [(61, 87), (144, 160)], ids=str)
def test_areas_are_those_of_the_cpu(values: dict[str, Any], size_hw: tuple[int, int]) -> None:
    from motionbox.motion.contours_gpu import BatchAreaFinder

    config, maps = ContourConfig(**values), make_maps(*size_hw)
    areas = BatchAreaFinder(config, *size_hw, "cpu").areas(torch.from_numpy(maps)).numpy()
    assert areas.dtype == np.uint8
    expected = [motion_area(motion_map, config) for motion_map in maps]
    assert sum(area is not None for area in expected) >= 3
    for area, want in zip(areas, expected, strict=True):
        if want is None:
            assert not area.any()
        else:
            # Rounding may move a pixel that lies on the threshold.
            assert (area != want).sum() <= 2
            assert want.any()


def test_wrong_shape_is_named() -> None:
    from motionbox.motion.contours_gpu import BatchAreaFinder

    finder = BatchAreaFinder(ContourConfig(), 40, 48, "cpu")
    with pytest.raises(ValueError, match=r"maps must be \(B, 40, 48\)"):
        finder.areas(torch.zeros(3, 48, 40))
