"""Reading the stored motion maps of frames, wherever the units are that hold them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from motionbox.store.layout import MAPS_ARRAY, MAPS_DIRECTORY, RunPaths
from motionbox.store.unit_arrays import UnitArrays


class MapReader:
    """Reads motion maps of committed units."""

    def __init__(self, paths: RunPaths, units: Sequence[Sequence[str]]) -> None:
        """Take the run's paths and its units: unit id and attempt id, by unit number."""
        self._arrays = UnitArrays(paths, units)

    def read(self, places: npt.NDArray[np.int32], height: int, width: int) -> npt.NDArray[np.uint8]:
        """Return the maps of frames.

        Args:
            places: int32 (T, 2), unit number and index of the map in the unit, -1 where a frame has no map.
            height: Height of the maps.
            width: Width of the maps.

        Returns:
            uint8 (T, height, width), zeros where a frame has no map.
        """
        result = np.zeros((len(places), height, width), np.uint8)
        for unit in np.unique(places[:, 0]).tolist():
            if unit < 0:
                continue
            frames = np.flatnonzero(places[:, 0] == unit)
            indices = places[frames, 1]
            low, high = int(indices.min()), int(indices.max()) + 1
            stored = np.asarray(self._arrays.get(unit, MAPS_DIRECTORY, MAPS_ARRAY)[low:high, :height, :width])
            result[frames] = stored[indices - low]
        return result
