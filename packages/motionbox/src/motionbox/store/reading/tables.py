"""The tables of a snapshot: a row for each clip, and rows for its frames in the arrays beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from motionbox.errors import StoreError
from motionbox.storage import StorePath
from motionbox.storage.files import read_table
from motionbox.storage.local_copies import local_copy
from motionbox.store.areas.blocks import frame_cells_wh
from motionbox.store.areas.files import open_array

FrameIndices = Sequence[int] | npt.NDArray[np.integer]
"""Positions among a clip's frames."""


class SnapshotTables:
    """Finds the rows of a clip; its arrays have one row for each frame of each clip.

    Attributes:
        clips: The clip table, columns for readers alone included.
        boxes: int16 (N, 4), stabilised boxes.
        times: float64 (N,), seconds.
        sources: uint8 (N,), values of `boxes.BoxSource`.
        confidences: float32 (N,).
        maps: int32 (N, 2), where each frame's map is.
    """

    def __init__(self, store: StorePath, directory: StorePath, run_info: Callable[[], dict[str, Any]]) -> None:
        """Open the files of a snapshot.

        Args:
            store: The store, for errors.
            directory: Where the snapshot's files are.
            run_info: Returns the content of `run.json`; called when a grid is asked for.

        Raises:
            StoreError: A file is missing or damaged.
        """
        self._store = store
        self._run_info = run_info
        self.clips = read_table(local_copy(directory / "clips.parquet"))
        self.boxes = open_array(directory / "boxes.npy")
        self.times = open_array(directory / "times.npy")
        self.sources = open_array(directory / "sources.npy")
        self.confidences = open_array(directory / "confidences.npy")
        self.maps = open_array(directory / "maps.npy")
        self._rows: dict[str, int] | None = None
        self._first = self.clips.column("first_row").to_numpy()
        self._count = self.clips.column("num_frames").to_numpy()
        self._map_size = [self.clips.column(name).fill_null(0).to_numpy() for name in ("map_height", "map_width")]
        self._grid: tuple[int, int] | None = None

    def row(self, clip_id: str) -> int:
        """Return the row of a clip in the clip table.

        Raises:
            StoreError: The store has no such clip.
        """
        if self._rows is None:
            self._rows = {name: row for row, name in enumerate(self.clips.column("clip_id").to_pylist())}
        try:
            return self._rows[clip_id]
        except KeyError:
            some = ", ".join(repr(name) for name in list(self._rows)[:3]) or "none"
            raise StoreError(
                f"clip_id must be a clip of store {self._store}, got {clip_id!r}; its clips begin with {some}"
            ) from None

    def frames(self, clip_id: str) -> slice:
        """Return the rows of a clip's frames in the arrays.

        Raises:
            StoreError: The store has no such clip.
        """
        row = self.row(clip_id)
        first = int(self._first[row])
        return slice(first, first + int(self._count[row]))

    def num_frames(self, clip_id: str) -> int:
        """Return how many frames a clip has.

        Raises:
            StoreError: The store has no such clip.
        """
        return int(self._count[self.row(clip_id)])

    def chosen(self, clip_id: str, frame_indices: FrameIndices | None) -> slice | npt.NDArray[np.int64]:
        """Return positions among a clip's frames after checking them; None stands for all.

        Raises:
            StoreError: The store has no such clip.
            ValueError: A position lies outside.
        """
        return slice(None) if frame_indices is None else self.positions(clip_id, frame_indices)

    def positions(self, clip_id: str, frame_indices: FrameIndices, *, at_least: int = 0) -> npt.NDArray[np.int64]:
        """Return positions among a clip's frames as int64 (n,) after checking them.

        Raises:
            StoreError: The store has no such clip.
            ValueError: A position lies outside, or there are fewer than `at_least`.
        """
        count = self.num_frames(clip_id)
        wanted = np.asarray(frame_indices, np.int64)
        outside = ((wanted < 0) | (wanted >= count)).any()
        if wanted.ndim != 1 or outside or len(wanted) < at_least:
            raise ValueError(f"frame_indices must be some of 0 to {count - 1}, got {frame_indices!r}; {clip_id}")
        return wanted

    def frame_size(self, clip_id: str) -> tuple[int, int]:
        """Return width and height of a clip's frames, see `Store.frame_size`."""
        row = self.row(clip_id)
        width, height = (int(self.clips.column(name)[row].as_py() or 0) for name in ("width", "height"))
        return width, height

    def frame_cells_wh(self, clip_id: str) -> tuple[float, float]:
        """Return width and height of a clip's frames in cells, see `Store.frame_cells_wh`."""
        width, height = self.frame_size(clip_id)
        if not width:
            return 0.0, 0.0
        if self._grid is None:
            settings = self._run_info()["config"]
            self._grid = (settings["frames"]["short_side_px"], settings["store"]["map_scale"])
        return frame_cells_wh(width, height, *self._grid)

    def grid_hw(self, clip_id: str) -> tuple[int, int]:
        """Return height and width of a clip's grid of cells, see `Store.grid_hw`."""
        row = self.row(clip_id)
        known = (int(self._map_size[0][row]), int(self._map_size[1][row]))
        if all(known):
            return known
        width, height = self.frame_cells_wh(clip_id)
        return math.ceil(height), math.ceil(width)
