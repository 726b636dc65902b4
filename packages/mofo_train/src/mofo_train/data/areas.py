"""Motion areas and flow on their way to the model: from the grid of the whole frame to that of a view.

Areas travel with a batch as small uint8 grids, (slots, side, side) for each crop, computed in the worker that reads the
clip: a slot is the time of one tubelet. They follow crops, mirrors and turns by the same map of pixels as the frames.
Flow travels as float16, a few points for each patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from mofo_train.config import PATCH_PX
from mofo_train.data.transforms import Crop

TUBELET_FRAMES = 2
"""Frames of a tubelet, of every model here."""
POINTS = 4
"""Points on a side of each patch, where strength or flow is read."""


@dataclass(frozen=True)
class FrameAreas:
    """Motion areas of some frames of a clip.

    Attributes:
        strength: uint8 (T, h, w), 0 outside to 255 strongest.
        cells_wh: Width and height of the whole frame in these cells; the last ones may reach beyond it.
    """

    strength: NDArray[np.uint8]
    cells_wh: tuple[float, float]

    def on_tubelets(
        self, frame_wh: tuple[int, int], to_frame: NDArray[np.float64], out_px: int, patch_px: int = PATCH_PX
    ) -> Tensor:
        """Average the strength over the tubelets of a view.

        Args:
            frame_wh: Width and height of the frames that the view is taken of.
            to_frame: float64 (2, 3), takes (x, y, 1) of a pixel of the view to (x, y) of the frame; see `crop_map`.
            out_px: Side of the view.
            patch_px: Side of a tubelet.

        Returns:
            uint8 (T / TUBELET_FRAMES, side, side), side = out_px / patch_px; at least 1 where there is any strength,
            0 for what lies beyond the frame.
        """
        spacing_px = patch_px / POINTS
        spots = np.arange(spacing_px / 2, out_px, spacing_px, dtype=np.float64)
        slots = self.strength.reshape(-1, TUBELET_FRAMES, *self.strength.shape[1:]).sum(1, dtype=np.float32)
        scale = np.array([[self.cells_wh[0] / frame_wh[0]], [self.cells_wh[1] / frame_wh[1]]])
        to_cells = to_frame * scale
        straight = to_frame[0, 1] == to_frame[1, 0] == 0  # all but turns and shears
        summed = (_sum_straight if straight else _sum_slanted)(slots, self.cells_wh, to_cells, spots)
        return torch.from_numpy(np.ceil(summed / (POINTS**2 * TUBELET_FRAMES)).astype(np.uint8))


@dataclass(frozen=True)
class FrameFlow:
    """Flow along some frames of a clip.

    Attributes:
        steps: float16 (N, 2, h, w), dx and dy in cells, to the next frame, of every frame from the first chosen one to
            the one before the last.
        frames: int64 (T,), the chosen frames, counted from the first of them; not decreasing.
        cells_wh: As in `FrameAreas`.
    """

    steps: NDArray[np.float16]
    frames: NDArray[np.int64]
    cells_wh: tuple[float, float]

    def on_points(
        self, frame_wh: tuple[int, int], to_frame: NDArray[np.float64], out_px: int, patch_px: int = PATCH_PX
    ) -> Tensor:
        """Follow the points of a view from each chosen frame to the next, through the frames between.

        Args:
            frame_wh: As in `FrameAreas.on_tubelets`.
            to_frame: Likewise, of a view that is neither turned nor sheared.
            out_px: Side of the view.
            patch_px: Side of a tubelet.

        Returns:
            float16 (T - 1, 2, g, g), dx and dy in patches of the view, at `POINTS` points on each side of each of its
            patches, g = POINTS * out_px / patch_px.
        """
        spots = np.arange(0.5, POINTS * out_px // patch_px) * patch_px / POINTS
        scale = np.array([self.cells_wh[0] / frame_wh[0], self.cells_wh[1] / frame_wh[1]])
        across, down = (scale[axis] * (to_frame[axis, axis] * spots + to_frame[axis, 2]) for axis in (0, 1))
        begin = torch.from_numpy(np.stack(np.meshgrid(across, down))).float().expand(len(self.frames) - 1, -1, -1, -1)
        place = begin
        first, last = self.frames[:-1], self.frames[1:]
        for further in range(int((last - first).max())):
            on_its_way = torch.from_numpy(first + further < last)[:, None, None, None]
            field = torch.from_numpy(self.steps[(first + further).clip(max=len(self.steps) - 1)]).float()
            place = torch.where(on_its_way, place + _read_cells(field, place), place)
        cells_of_patch = torch.from_numpy(scale * (to_frame[0, 0], to_frame[1, 1]) * patch_px).float()
        return ((place - begin) / cells_of_patch[:, None, None]).half()


def _read_cells(field: Tensor, place: Tensor) -> Tensor:
    """Read (n, 2, h, w) at places (n, 2, g, g) in cells, bilinear; beyond the border the border's values."""
    size = torch.tensor([field.shape[3], field.shape[2]])
    grid = place.movedim(1, -1) * (2 / size) - 1
    return F.grid_sample(field, grid, mode="bilinear", padding_mode="border", align_corners=False)


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
    counts: NDArray[np.float32] = found.reshape(-1, POINTS, num_cells).sum(1, dtype=np.float32)
    return counts


def _sum_slanted(
    slots: NDArray[np.float32], cells_wh: tuple[float, float], to_cells: NDArray[np.float64], spots: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Sum the strength at all points of each patch, point by point."""
    x, y = (row[0] * spots + row[1] * spots[:, None] + row[2] for row in to_cells)
    there = (x >= 0) & (x < cells_wh[0]) & (y >= 0) & (y < cells_wh[1])
    flat = np.where(there, y.astype(np.intp) * slots.shape[2] + x.astype(np.intp), 0)
    read = slots.reshape(len(slots), -1).take(flat, axis=1) * there
    side = len(spots) // POINTS
    summed: NDArray[np.float32] = read.reshape(-1, side, POINTS, side, POINTS).sum((2, 4), dtype=np.float32)
    return summed
