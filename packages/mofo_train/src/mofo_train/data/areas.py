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
_SPACING_PX = PATCH_PX / _POINTS


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
        spots = np.arange(_SPACING_PX / 2, out_px, _SPACING_PX, dtype=np.float64)
        slots = self.strength.reshape(-1, TUBELET_FRAMES, *self.strength.shape[1:]).sum(1, dtype=np.float32)
        scale = np.array([[self.cells_wh[0] / frame_wh[0]], [self.cells_wh[1] / frame_wh[1]]])
        to_cells = to_frame * scale
        straight = to_frame[0, 1] == to_frame[1, 0] == 0  # all but turns and shears
        summed = (_sum_straight if straight else _sum_slanted)(slots, self.cells_wh, to_cells, spots)
        return torch.from_numpy(np.ceil(summed / (_POINTS**2 * TUBELET_FRAMES)).astype(np.uint8))


def crop_map(crop: Crop, out_px: int) -> NDArray[np.float64]:
    """Return float64 (2, 3) that takes pixels of a crop resized to `out_px` to pixels of its frame."""
    return np.array([[crop.width / out_px, 0, crop.x], [0, crop.height / out_px, crop.y]], np.float64)


def after(outer: NDArray[np.float64], inner: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the map (2, 3) that applies `inner`, then `outer`."""
    joined = outer[:, :2] @ inner
    joined[:, 2] += outer[:, 2]
    return joined


def _sum_straight(
    slots: NDArray[np.float32], cells_wh: tuple[float, float], to_cells: NDArray[np.float64], spots: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Sum the strength at all points of each patch where rows of the view are rows of the frame, by two products."""
    width, height = cells_wh
    columns = _points_in_cells(to_cells[0, 0] * spots + to_cells[0, 2], width, slots.shape[2])
    rows = _points_in_cells(to_cells[1, 1] * spots + to_cells[1, 2], height, slots.shape[1])
    across = torch.from_numpy(slots).flatten(0, 1) @ torch.from_numpy(columns).T
    summed: NDArray[np.float32] = (torch.from_numpy(rows) @ across.view(*slots.shape[:2], -1)).numpy()
    return summed


def _points_in_cells(place: NDArray[np.float64], extent: float, num_cells: int) -> NDArray[np.float32]:
    """Count, for each row or column of patches, its points in each row or column of cells, float32 (side, cells)."""
    cell = np.where(place < extent, np.floor(place), -1)  # -1: in none
    found = cell[:, None] == np.arange(num_cells)
    counts: NDArray[np.float32] = found.reshape(-1, _POINTS, num_cells).sum(1, dtype=np.float32)
    return counts


def _sum_slanted(
    slots: NDArray[np.float32], cells_wh: tuple[float, float], to_cells: NDArray[np.float64], spots: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Sum the strength at all points of each patch, point by point."""
    x, y = (row[0] * spots + row[1] * spots[:, None] + row[2] for row in to_cells)
    there = (x >= 0) & (x < cells_wh[0]) & (y >= 0) & (y < cells_wh[1])
    flat = np.where(there, y.astype(np.intp) * slots.shape[2] + x.astype(np.intp), 0)
    read = slots.reshape(len(slots), -1).take(flat, axis=1) * there
    side = len(spots) // _POINTS
    summed: NDArray[np.float32] = read.reshape(-1, side, _POINTS, side, _POINTS).sum((2, 4), dtype=np.float32)
    return summed
