"""Boxes of a clip by the rule that its config names: from raw frame boxes, or the boxes of its motion areas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from motionbox.motion import boxes as bx
from motionbox.motion.areas import clip_areas

if TYPE_CHECKING:
    from motionbox.config import ExtractConfig


def clip_boxes(
    raw: bx.AnyBoxes,
    maps: npt.NDArray[np.uint8] | None,
    times: npt.NDArray[np.float64],
    width: int,
    height: int,
    config: ExtractConfig,
    confidence: npt.NDArray[np.float32] | None = None,
) -> bx.StabilisedBoxes:
    """Return the boxes of one clip, by the rule that the config names.

    Args:
        raw: (T, 4) raw frame boxes, xyxy display pixels, -1 rows where a frame has none.
        maps: uint8 (T, h, w), the stored motion maps; None unless `boxes.stabilise` is `areas`.
        times: float64 (T,), seconds, not decreasing.
        width: Width of the frame in display pixels.
        height: Height of the frame in display pixels.
        config: Everything; `boxes`, `areas`, `store` and `frames` are read.
        confidence: float32 (T,), confidence of the raw boxes; only `nearest` and `none` use it.

    Raises:
        ValueError: The shapes disagree or maps are missing.
    """
    if config.boxes.stabilise != "areas":
        return bx.stabilise(raw, times, width, height, config.boxes, confidence)
    if maps is None:
        raise ValueError(f"maps must be (T, h, w) for {len(times)} > 0 times, got None")
    return clip_areas(maps, times, width, height, config).stabilised_boxes()
