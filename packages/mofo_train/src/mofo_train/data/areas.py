"""Motion areas on their way to the model: from the grid of the stored maps to one number per tubelet.

Areas travel with a batch as small uint8 grids, (slots, side, side) for each crop, computed in the worker that reads the
clip: a slot is the time of one tubelet. They follow crops, mirrors and turns by the same map of pixels as the frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mofo_train.data.transforms import Crop

TUBELET_FRAMES = 2
"""Frames of a tubelet, of every model here."""
PATCH_PX = 16
"""Side of a tubelet."""
_POINTS = 4  # a side of each patch, where the strength is read


@dataclass(frozen=True)
class FrameAreas:
    """Motion areas of some frames of a clip.

    Attributes:
        strength: uint8 (T, h, w), 0 outside to 255 strongest.
        cells_wh: Width and height of the whole frame in these cells; the last ones may reach beyond it.
    """

    strength: NDArray[np.uint8]
    cells_wh: tuple[float, float]

    def on_tubelets(self, frame_wh: tuple[int, int], to_frame: NDArray[np.float64], out_px: int) -> Tensor:
        """Average the strength over the tubelets of a view.

        Args:
            frame_wh: Width and height of the frames that the view is taken of.
            to_frame: float64 (2, 3), takes (x, y, 1) of a pixel of the view to (x, y) of the frame; see `crop_map`.
            out_px: Side of the view.

        Returns:
            uint8 (T / TUBELET_FRAMES, side, side), side = out_px / PATCH_PX; at least 1 where there is any strength,
            0 for what lies beyond the frame.
        """
        side = out_px // PATCH_PX
        spots = (np.arange(side * _POINTS) + 0.5) * (PATCH_PX / _POINTS)
        x, y = (row[0] * spots + row[1] * spots[:, None] + row[2] for row in to_frame)
        (width, height), (columns, rows) = frame_wh, self.cells_wh
        there = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        h, w = self.strength.shape[1:]
        column = np.clip((x * (columns / width)).astype(np.intp), 0, w - 1)
        row = np.clip((y * (rows / height)).astype(np.intp), 0, h - 1)
        slots = self.strength.reshape(-1, TUBELET_FRAMES, h * w).sum(1, dtype=np.float32)
        read = slots.take(row * w + column, axis=1) * there
        summed = read.reshape(-1, side, _POINTS, side, _POINTS).sum((2, 4))
        return torch.from_numpy(np.ceil(summed / (_POINTS**2 * TUBELET_FRAMES)).astype(np.uint8))


def crop_map(crop: Crop, out_px: int) -> NDArray[np.float64]:
    """Return float64 (2, 3) that takes pixels of a crop resized to `out_px` to pixels of its frame."""
    return np.array([[crop.width / out_px, 0, crop.x], [0, crop.height / out_px, crop.y]], np.float64)


def after(outer: NDArray[np.float64], inner: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the map (2, 3) that applies `inner`, then `outer`."""
    joined = outer[:, :2] @ inner
    joined[:, 2] += outer[:, 2]
    return joined
