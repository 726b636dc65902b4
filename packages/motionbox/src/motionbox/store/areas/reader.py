"""Reading motion areas: those that a snapshot holds, and those of older snapshots from their motion maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from motionbox.errors import StoreError
from motionbox.storage import StorePath
from motionbox.store.areas.blocks import BLOCK_FRAMES, Areas, decode_block, stored_areas
from motionbox.store.areas.files import damaged_file, open_array, open_bytes
from motionbox.store.layout import AREA_BLOCKS_FILE, AREAS_FILE

if TYPE_CHECKING:
    from motionbox.config import ExtractConfig


class AreaReader:
    """Gives the areas of clips from the two files that `snapshot_files.AreaFile` writes.

    Safe to use after a fork; opens its files when it is made.
    """

    def __init__(self, directory: StorePath, clips: pa.Table) -> None:
        """Open the files of a directory.

        Args:
            directory: A snapshot, or a guidance.
            clips: Its table with the columns first_area_block and num_area_blocks.

        Raises:
            StoreError: A file is missing or damaged.
        """
        self._path = directory / AREAS_FILE
        self._first = clips.column("first_area_block").fill_null(0).to_numpy()
        self._count = clips.column("num_area_blocks").to_numpy()
        self._blocks = open_array(directory / AREA_BLOCKS_FILE)
        self._bytes = open_bytes(self._path)

    def read(self, row: int, size_hw: tuple[int, int], positions: npt.NDArray[np.int64]) -> Areas:
        """Return areas of a clip.

        Args:
            row: The clip's row in the table.
            size_hw: Height and width of its grid.
            positions: int64 (n,), of its frames; each inside.

        Returns:
            uint8 (n, h, w); zeros for a clip without blocks.

        Raises:
            StoreError: A block is damaged.
        """
        areas = np.zeros((len(positions), *size_hw), np.uint8)
        if not self._count[row] or not len(positions):
            return areas
        numbers = positions // BLOCK_FRAMES
        if (numbers == numbers[0]).all():
            return self._block(row, int(numbers[0]), size_hw, positions % BLOCK_FRAMES)
        for number in np.unique(numbers).tolist():
            own = numbers == number
            areas[own] = self._block(row, number, size_hw, positions[own] % BLOCK_FRAMES)
        return areas

    def _block(self, row: int, number: int, size_hw: tuple[int, int], frames: npt.NDArray[np.int64]) -> Areas:
        offset, num_bytes = self._blocks[int(self._first[row]) + number].tolist()
        try:
            return decode_block(self._bytes[offset : offset + num_bytes].tobytes(), size_hw, frames)
        except ValueError as error:
            raise damaged_file(self._path, error) from None


def computed_areas(
    maps: npt.NDArray[np.uint8], times: npt.NDArray[np.float64], width: int, height: int, config: ExtractConfig
) -> Areas:
    """Return the areas of a clip as a snapshot made now would hold them. Loads OpenCV.

    Args:
        maps: uint8 (T, h, w), the stored motion maps, T > 0; zeros for a clip that stands still.
        times: float64 (T,), seconds.
        width: Width of the frame in display pixels.
        height: Height of the frame in display pixels.
        config: The config that made the maps.

    Raises:
        StoreError: OpenCV is not installed.
    """
    try:
        from motionbox.motion.area_parts import areas_in_parts
    except ImportError as error:
        raise StoreError(
            f"the store must hold motion areas where {error.name} is not installed, got motion maps alone; run the "
            "same `motionbox extract` on it once more, which adds them, or install 'motionbox[extract]' here"
        ) from None
    parts = areas_in_parts(lambda rows: maps[rows], times, (maps.shape[1], maps.shape[2]), (width, height), config)
    return stored_areas(np.concatenate([part.areas for part in parts]))
