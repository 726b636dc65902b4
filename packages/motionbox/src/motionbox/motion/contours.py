"""Motion map -> smoothed map -> ranked contours -> frame box, section 3.1 of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from motionbox.config import ContourConfig, ExtractConfig
from motionbox.motion.robust import ROBUST_STD, median

Array = npt.NDArray[np.float32]
BoxXYXY = tuple[int, int, int, int]

# The wide Gaussian runs on a map shrunk until its sigma is this many pixels: the error stays below 1 % of the peak.
_REDUCED_SIGMA_PX = 4.0


@dataclass(frozen=True)
class FrameDetection:
    """What one motion map says about its frame.

    Attributes:
        box_xyxy: Raw frame box, half-open integer pixels of the map; None where nothing stands out.
        energy: Mean of the map, pixels per frame step and pixel.
        confidence: Share of the map's energy inside the box beyond what the box's area alone would hold, in [0, 1]:
            0 for a box no better than chance or None, 1 when all motion lies inside.
    """

    box_xyxy: BoxXYXY | None
    energy: float
    confidence: float


def frame_box(motion_map: Array, config: ContourConfig | ExtractConfig) -> BoxXYXY | None:
    """Return the bounding box of the kept contours of a motion map.

    Args:
        motion_map: float32 (H, W), >= 0.
        config: Smoothing, thresholds and the number of contours; or a whole config whose maps are those of eq. (1).

    Returns:
        (x1, y1, x2, y2), half-open integer pixels of the map, or None where no area stands out (zero, even or
        noise-like maps).

    Raises:
        ValueError: `motion_map` is not a finite 2-D array, or the config's thresholds are made for another kind of map.
    """
    if isinstance(config, ExtractConfig):
        if config.motion.cue != "boundaries":
            raise ValueError(
                f"config must be made for maps of eq. (1) (motion.cue boundaries), got {config.motion.cue!r} of preset "
                f"{config.preset}; use motionbox.clip_boxes(frames, fps, preset={config.preset!r}) for it"
            )
        config = config.contours
    return _bounding_box(motion_contours(motion_map, config))


def detect_frame(motion_map: Array, config: ContourConfig) -> FrameDetection:
    """Return the frame box with the frame's energy and the box's confidence.

    Args:
        motion_map: float32 (H, W), >= 0.
        config: Smoothing, thresholds and the number of contours.

    Raises:
        ValueError: `motion_map` is not a finite 2-D array.
    """
    box = frame_box(motion_map, config)
    return FrameDetection(box, float(motion_map.mean()), energy_concentration(motion_map, box))


def energy_concentration(motion_map: Array, box: BoxXYXY | None) -> float:
    """Return how much of a map's energy lies in a box beyond its share of the area: (e - a) / (1 - a), at least 0.

    Args:
        motion_map: float32 (H, W), >= 0.
        box: xyxy, half-open integer pixels of the map; None gives 0.
    """
    total = float(motion_map.sum())
    if box is None or total <= 0:
        return 0.0
    x1, y1, x2, y2 = box
    area = (x2 - x1) * (y2 - y1) / motion_map.size
    if area >= 1:
        return 0.0
    inside = float(motion_map[y1:y2, x1:x2].sum()) / total
    return float(np.clip((inside - area) / (1 - area), 0, 1))


def motion_contours(motion_map: Array, config: ContourConfig) -> list[npt.NDArray[np.int32]]:
    """Return the kept contours of a motion map, highest rank (area or energy) first.

    Args:
        motion_map: float32 (H, W), >= 0.
        config: Smoothing, thresholds and the number of contours.

    Returns:
        Contours (Suzuki and Abe 1985), each int32 (N, 2) of (x, y) pixels; empty where no area stands out.

    Raises:
        ValueError: `motion_map` is not a finite 2-D array.
    """
    mask = motion_area(motion_map, config)
    if mask is None:
        return []
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contours = [cast("npt.NDArray[np.int32]", contour.reshape(-1, 2)) for contour in found]
    rank = cv2.contourArea if config.rank_by == "area" else partial(_energy_inside, motion_map)
    contours.sort(key=lambda contour: (-rank(contour), *contour[0].tolist()))
    height, width = mask.shape
    return _near_first(contours[: config.num_contours], config.max_centre_distance * float(np.hypot(width, height)))


def motion_area(motion_map: Array, config: ContourConfig) -> npt.NDArray[np.uint8] | None:
    """Return the mask of the area that stands out, before contours are ranked.

    Weak response (under `threshold_max` of the peak or `threshold_noise` robust standard deviations) is suppressed,
    the rest is spread by the wide Gaussian, and what exceeds mean + `threshold_std` standard deviations is the area.
    Without the wide Gaussian (`wide_sigma_share` 0) the strong response itself is the area.

    Args:
        motion_map: float32 (H, W), >= 0.
        config: Smoothing and thresholds.

    Returns:
        uint8 (H, W), 1 inside; None where the map's peak is under `min_peak` or the widely smoothed map is even
        (its peak less than 1 + `min_contrast` times its mean).

    Raises:
        ValueError: `motion_map` is not a finite 2-D array.
    """
    if motion_map.ndim != 2 or motion_map.size == 0:
        raise ValueError(f"motion_map must be (H, W), got shape {motion_map.shape}")
    smooth = smooth_map(np.ascontiguousarray(motion_map, dtype=np.float32), config.sigma_px)
    peak = float(smooth.max())
    if not np.isfinite(peak):
        raise ValueError(f"motion_map must be finite, got a maximum of {peak!r}")
    if peak <= config.min_peak:
        return None
    threshold = config.threshold_max * peak
    if config.threshold_noise > 0:
        threshold = max(threshold, config.threshold_noise * robust_std(smooth))
    if config.wide_sigma_share == 0:
        mask = (smooth > threshold).astype(np.uint8)
        return mask if mask.any() else None
    strong = cast("Array", np.where(smooth >= threshold, smooth, np.float32(0)))
    wide = wide_smooth(strong, config.wide_sigma_share * min(strong.shape))
    mean, std = (float(value[0, 0]) for value in cv2.meanStdDev(wide))
    if float(wide.max()) <= (1 + config.min_contrast) * mean:
        return None
    mask = (wide > mean + config.threshold_std * std).astype(np.uint8)
    return mask if mask.any() else None


def robust_std(motion_map: Array) -> float:
    """Return 1.4826 times the median of a map: the noise level where most of the frame does not move.

    Args:
        motion_map: float32 (H, W), >= 0. Every fourth pixel of every fourth row is looked at in maps above 128 x 128.
    """
    step = 4 if motion_map.size > 128 * 128 else 1
    return ROBUST_STD * median(motion_map[::step, ::step])


def smooth_map(motion_map: Array, sigma_px: float) -> Array:
    """Return the map after a Gaussian; the border is mirrored.

    Args:
        motion_map: float32 (H, W).
        sigma_px: Standard deviation in pixels; 0 returns the map itself.
    """
    if sigma_px <= 0:
        return motion_map
    radius = int(4 * sigma_px + 0.5)
    size = (2 * radius + 1, 2 * radius + 1)
    return cast("Array", cv2.GaussianBlur(motion_map, size, sigma_px, borderType=cv2.BORDER_REFLECT))


def wide_smooth(motion_map: Array, sigma_px: float) -> Array:
    """Return the map after a wide Gaussian, computed on a map shrunk by a whole factor and enlarged again.

    Args:
        motion_map: float32 (H, W).
        sigma_px: Standard deviation in pixels of the map.

    Returns:
        float32 (H, W); the exact filter differs by less than 1 % of the peak.
    """
    factor = max(1, int(sigma_px / _REDUCED_SIGMA_PX))
    if factor == 1:
        return smooth_map(motion_map, sigma_px)
    height, width = motion_map.shape
    small_width, small_height = max(1, round(width / factor)), max(1, round(height / factor))
    small = cv2.resize(motion_map, (small_width, small_height), interpolation=cv2.INTER_AREA)
    # Averaging over blocks of f pixels is itself a filter of variance f^2 / 12, enlarging linearly one of f^2 / 6.
    spread_x, spread_y = (_remaining_sigma(sigma_px, ratio) for ratio in (width / small_width, height / small_height))
    size = (2 * int(4 * spread_x + 0.5) + 1, 2 * int(4 * spread_y + 0.5) + 1)
    small = cv2.GaussianBlur(small, size, spread_x, sigmaY=spread_y, borderType=cv2.BORDER_REFLECT)
    return cast("Array", cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


def _remaining_sigma(sigma_px: float, ratio: float) -> float:
    return float(np.sqrt(max((sigma_px / ratio) ** 2 - 1 / 4, 0.0)))


def _energy_inside(motion_map: Array, contour: npt.NDArray[np.int32]) -> float:
    x, y, width, height = cv2.boundingRect(contour)
    inside = np.zeros((height, width), np.uint8)
    cv2.drawContours(inside, [contour - np.array([x, y], np.int32)], 0, 1, cv2.FILLED)
    return float(motion_map[y : y + height, x : x + width][inside > 0].sum())


def _near_first(contours: list[npt.NDArray[np.int32]], limit_px: float) -> list[npt.NDArray[np.int32]]:
    """Drop the contours whose box centre is further than the limit from the first one's."""
    if not contours:
        return []
    centres = [(contour.min(axis=0) + contour.max(axis=0)) / 2 for contour in contours]
    return [
        contour
        for contour, centre in zip(contours, centres, strict=True)
        if float(np.hypot(*(centre - centres[0]))) <= limit_px
    ]


def _bounding_box(contours: list[npt.NDArray[np.int32]]) -> BoxXYXY | None:
    if not contours:
        return None
    points = np.concatenate(contours)
    x1, y1 = (int(value) for value in points.min(axis=0))
    x2, y2 = (int(value) + 1 for value in points.max(axis=0))
    return (x1, y1, x2, y2)
