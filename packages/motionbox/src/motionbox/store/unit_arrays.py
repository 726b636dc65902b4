"""Reading the stored motion maps and flow of frames, wherever the units are that hold them.

Loads Zarr when the first array is opened.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from motionbox.storage import StorePath
from motionbox.store.flow_form import FlowForm, dequantise_flow
from motionbox.store.layout import FLOW_DIRECTORY, MAPS_ARRAY, MAPS_DIRECTORY

if TYPE_CHECKING:
    import zarr

_OPEN_ARRAYS = 16
_FLOWS_AT_ONCE = 32


class UnitArrays:
    """Opens Zarr arrays of committed units and keeps those used last."""

    def __init__(self, attempts: Sequence[StorePath]) -> None:
        """Take the directories of the units' attempts, or local copies of them, by unit number."""
        self._attempts = attempts
        self._arrays: OrderedDict[tuple[int, str, str], zarr.Array[Any]] = OrderedDict()

    def get(self, number: int, directory: str, name: str) -> zarr.Array[Any]:
        """Return an array of the group in `directory` of a unit's attempt."""
        key = (number, directory, name)
        if key not in self._arrays:
            import zarr

            group = zarr.open_group(_zarr_store(self._attempts[number] / directory), mode="r")
            self._arrays[key] = cast("zarr.Array[Any]", group[name])
            while len(self._arrays) > _OPEN_ARRAYS:
                self._arrays.popitem(last=False)
        self._arrays.move_to_end(key)
        return self._arrays[key]


def _zarr_store(place: StorePath) -> Any:
    """Return what Zarr reads a place through."""
    if isinstance(place, Path):
        return place
    from zarr.storage import ObjectStore
    from zarr.storage import StorePath as ZarrPath

    return ZarrPath(ObjectStore(place.client.store, read_only=True), place.key)


def read_maps(arrays: UnitArrays, places: npt.NDArray[np.int32], size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return the motion maps of frames.

    Args:
        arrays: The run's units.
        places: int32 (T, 2), unit number and number of the map in the unit, -1 where a frame has none.
        size_hw: Height and width of the maps.

    Returns:
        uint8 (T, h, w), zeros where a frame has no map.
    """
    height, width = size_hw
    result = np.zeros((len(places), height, width), np.uint8)
    for unit in np.unique(places[:, 0]).tolist():
        if unit < 0:
            continue
        rows = np.flatnonzero(places[:, 0] == unit)
        numbers = places[rows, 1]
        low, high = int(numbers.min()), int(numbers.max()) + 1
        stored = np.asarray(arrays.get(unit, MAPS_DIRECTORY, MAPS_ARRAY)[low:high, :height, :width])
        result[rows] = stored[numbers - low]
    return result


def read_flow(
    arrays: UnitArrays,
    places: npt.NDArray[np.int32],
    size_hw: tuple[int, int],
    form: FlowForm,
    bound_px: float,
) -> npt.NDArray[np.float32]:
    """Return the flow of frames.

    Args:
        arrays: The run's units.
        places: int32 (T, 2), unit number and number of the flow in the unit, -1 where a frame has none.
        size_hw: Height and width of the flow.
        form: As it was stored.
        bound_px: As it was stored.

    Returns:
        float32 (T, H, W, 2), pixels; zeros where a frame has no flow.
    """
    height, width = size_hw
    result = np.zeros((len(places), height, width, 2), np.float32)
    for unit in np.unique(places[:, 0]).tolist():
        if unit < 0:
            continue
        array = arrays.get(unit, FLOW_DIRECTORY, f"{height}x{width}")
        rows = np.flatnonzero(places[:, 0] == unit)
        numbers = np.unique(places[rows, 1])
        for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1):
            for begin in range(int(run[0]), int(run[-1]) + 1, _FLOWS_AT_ONCE):
                end = min(begin + _FLOWS_AT_ONCE, int(run[-1]) + 1)
                flows = dequantise_flow(np.asarray(array[begin:end]), form, bound_px)
                own = rows[(places[rows, 1] >= begin) & (places[rows, 1] < end)]
                result[own] = flows[places[own, 1] - begin]
    return result
