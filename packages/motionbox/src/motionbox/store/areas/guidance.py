"""Named guidances of a run: boxes and areas that came from elsewhere, beside those that extraction made."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from motionbox.errors import StoreError
from motionbox.storage.files import read_table
from motionbox.storage.local_copies import hold_files, local_copy, nothing_held
from motionbox.storage.paths import children
from motionbox.store.areas.blocks import Areas
from motionbox.store.areas.files import Pin, open_array
from motionbox.store.areas.reader import AreaReader
from motionbox.store.layout import SNAPSHOT_FILE, RunPaths, files_of

MOTION = "motion"
"""The guidance that extraction makes: the boxes and areas of the snapshot itself."""


class Guidance:
    """One version of a named guidance, read-only.

    Attributes:
        name: Its name.
        info: Its MANIFEST.json.
    """

    def __init__(self, paths: RunPaths, name: str) -> None:
        """Open the newest version.

        Raises:
            StoreError: There is none, or it is damaged.
        """
        numbers = paths.guidance_numbers(name)
        if not numbers:
            raise StoreError(f"run {paths.root} has no guidance {name!r}")
        self.name = name
        self._pin = Pin(paths.guidance(name, numbers[-1]) / SNAPSHOT_FILE)
        version = paths.guidance(name, numbers[-1])
        self.info: dict[str, Any] = paths.guidance_info(name, numbers[-1])
        self._directory = files_of(version, self.info)
        self._let_go = hold_files(self._directory, self.info["files"])
        clips = read_table(local_copy(self._directory / "clips.parquet"))
        self._rows = {clip_id: row for row, clip_id in enumerate(clips.column("clip_id").to_pylist())}
        names = ("first_row", "num_frames", "map_height", "map_width")
        self._first, self._count, self._height, self._width = (clips.column(column).to_numpy() for column in names)
        self._boxes = open_array(self._directory / "boxes.npy")
        self._areas = AreaReader(self._directory, clips)

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._rows

    def close(self) -> None:
        """Let go of it, so that `motionbox gc` may remove it."""
        self._pin.release()
        let_go, self._let_go = self._let_go, nothing_held
        let_go()

    def boxes(self, clip_id: str, num_frames: int) -> npt.NDArray[np.int32]:
        """Return the boxes of a clip, int32 (T, 4), xyxy half-open display pixels; -1 rows for a clip without any.

        Args:
            clip_id: The clip.
            num_frames: T, how many frames the snapshot has of it.

        Raises:
            StoreError: It was made for another number of frames.
        """
        row = self._row(clip_id, num_frames)
        if row is None:
            return np.full((num_frames, 4), -1, np.int32)
        first = int(self._first[row])
        return self._boxes[first : first + num_frames].astype(np.int32)

    def areas(self, clip_id: str, num_frames: int, positions: npt.NDArray[np.int64], size_hw: tuple[int, int]) -> Areas:
        """Return areas of a clip, uint8 (n, h, w); zeros for a clip without any.

        Args:
            clip_id: The clip.
            num_frames: How many frames the snapshot has of it.
            positions: int64 (n,), of its frames.
            size_hw: Height and width of its grid.

        Raises:
            StoreError: It was made for another number of frames or another grid, or is damaged.
        """
        row = self._row(clip_id, num_frames)
        if row is None:
            return np.zeros((len(positions), *size_hw), np.uint8)
        own = (int(self._height[row]), int(self._width[row]))
        if own != size_hw:
            raise self._another(clip_id, f"a grid of {own[0]} x {own[1]} cells", f"{size_hw[0]} x {size_hw[1]}")
        return self._areas.read(row, size_hw, positions)

    def _row(self, clip_id: str, num_frames: int) -> int | None:
        row = self._rows.get(clip_id)
        if row is not None and self._count[row] != num_frames:
            raise self._another(clip_id, f"{self._count[row]} frames", str(num_frames))
        return row

    def _another(self, clip_id: str, made_for: str, now: str) -> StoreError:
        return StoreError(
            f"guidance {self.name!r} must fit the snapshot, got one made for {made_for} of clip {clip_id!r}, which has "
            f"{now}; run the same `motionbox import-boxes` again"
        )


def guidance_names(paths: RunPaths) -> list[str]:
    """Return the names of a run's guidances, sorted; `MOTION` is not one of them."""
    names = (entry.name for entry in children(paths.guidances) if not entry.name.startswith("."))
    return sorted(name for name in names if paths.guidance_numbers(name))
