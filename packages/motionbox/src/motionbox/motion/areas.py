"""Motion areas of a clip: per frame and cell of the stored motion maps, how strongly it belongs to the action.

A pure function of what the store keeps per frame (motion maps and times), so it does not depend on how the video was
split into work units. Frame boxes are the boxes of the areas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from motionbox.motion import boxes as bx
from motionbox.motion.clip_boxes import clip_evidence

if TYPE_CHECKING:
    from motionbox.config import ExtractConfig

_LEVELS = 255


@dataclass(frozen=True)
class ClipAreas:
    """The motion areas of one clip and the boxes around them, one row per frame.

    Attributes:
        areas: uint8 (T, h, w), the grid of the motion maps: 0 outside, 255 strongest of the clip. All 0 where the clip
            has no motion.
        boxes: int16 (T, 4), xyxy half-open display pixels: the box of the frame's area; always a box, the centre half
            where the clip has no motion.
        source: uint8 (T,), a `boxes.BoxSource` per frame.
        confidence: float32 (T,), in [0, 1]: the expected IoU of the frame's box with the action's; 0 for `CENTRE`.
        clip_confidence: The same for the clip, in [0, 1]: where it is low, plain tube masking is the safer choice.
    """

    areas: npt.NDArray[np.uint8]
    boxes: bx.Boxes
    source: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.float32]
    clip_confidence: float

    def stabilised_boxes(self) -> bx.StabilisedBoxes:
        """Return the boxes without the areas."""
        return bx.StabilisedBoxes(self.boxes, self.source, self.confidence, self.clip_confidence)


def clip_areas(
    maps: npt.NDArray[np.uint8], times: npt.NDArray[np.float64], width: int, height: int, config: ExtractConfig
) -> ClipAreas:
    """Return the motion areas of one clip.

    Args:
        maps: uint8 (T, h, w), the stored motion maps, T > 0.
        times: float64 (T,), seconds, not decreasing.
        width: Width of the frame in display pixels.
        height: Height of the frame in display pixels.
        config: The config that made the maps; `boxes`, `store` and `frames` are read.

    Raises:
        ValueError: The shapes disagree.
    """
    found, evidence, cells_wh = clip_evidence(maps, times, width, height, config)
    strength = evidence / max(float(evidence.max()), 1e-9)
    areas = np.ceil(_LEVELS * np.sqrt(strength)).astype(np.uint8)
    scale = np.array([*cells_wh, *cells_wh]) / np.array([width, height, width, height])
    cells = found.boxes * scale
    x, y = np.arange(maps.shape[2]), np.arange(maps.shape[1])
    x1, y1, x2, y2 = (side[:, None] for side in cells.T)
    columns, rows = (x + 1 > x1) & (x < x2), (y + 1 > y1) & (y < y2)
    areas[~(rows[:, :, None] & columns[:, None, :])] = 0
    return ClipAreas(areas, found.boxes, found.source, found.confidence, found.clip_confidence)
