"""The Zarr arrays of committed units, kept open while they are read. Loads Zarr when the first one is opened."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from motionbox.store.layout import RunPaths

if TYPE_CHECKING:
    import zarr

_OPEN_ARRAYS = 16


class UnitArrays:
    """Opens arrays of units and keeps those used last."""

    def __init__(self, paths: RunPaths, units: Sequence[Sequence[str]]) -> None:
        """Take the run's paths and its units: unit id and attempt id, by unit number."""
        self._paths = paths
        self._units = units
        self._arrays: OrderedDict[tuple[int, str, str], zarr.Array[Any]] = OrderedDict()

    def get(self, number: int, directory: str, name: str) -> zarr.Array[Any]:
        """Return an array of the group in `directory` of a unit's attempt."""
        key = (number, directory, name)
        if key not in self._arrays:
            import zarr

            unit_id, attempt_id = self._units[number]
            group = zarr.open_group(self._paths.attempt(unit_id, attempt_id) / directory, mode="r")
            self._arrays[key] = cast("zarr.Array[Any]", group[name])
            while len(self._arrays) > _OPEN_ARRAYS:
                self._arrays.popitem(last=False)
        self._arrays.move_to_end(key)
        return self._arrays[key]
