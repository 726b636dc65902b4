"""Reading the stored flow of frames, wherever the units are that hold it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from motionbox.store.flow_writer import FlowForm, dequantise_flow
from motionbox.store.layout import FLOW_DIRECTORY
from motionbox.store.unit_arrays import UnitArrays

_FLOWS_AT_ONCE = 32


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
