"""Reading the raw rows of videos: every frame that was processed, inside and outside of clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from motionbox.errors import StoreError
from motionbox.storage import StorePath
from motionbox.storage.files import read_table
from motionbox.store.layout import BLOCKS_FILE, FRAMES_FILE, RunPaths

COLUMNS = ("time_seconds", "x1", "y1", "x2", "y2", "energy", "confidence", "origin")


@dataclass(frozen=True)
class VideoPart:
    """One video's rows of one unit, in order of time.

    Attributes:
        times: float64 (T,), seconds of the video.
        boxes: int16 (T, 4), raw frame boxes, xyxy display pixels, -1 rows where a frame has none.
        energy: float32 (T,), mean of the frame's motion map.
        confidences: float32 (T,), of the raw boxes.
        origins: uint8 (T,), where the raw boxes come from, see `units.FLOW`.
        places: int32 (T, 2), unit number and number of the map and flow in the unit; -1 where there is none.
        blocks: The rows of its blocks, `commit.BLOCKS_SCHEMA`, and the unit's number as `unit`.
    """

    times: npt.NDArray[np.float64]
    boxes: npt.NDArray[np.int16]
    energy: npt.NDArray[np.float32]
    confidences: npt.NDArray[np.float32]
    origins: npt.NDArray[np.uint8]
    places: npt.NDArray[np.int32]
    blocks: list[dict[str, Any]]


_NO_ROWS = VideoPart(
    times=np.empty(0, np.float64),
    boxes=np.empty((0, 4), np.int16),
    energy=np.empty(0, np.float32),
    confidences=np.empty(0, np.float32),
    origins=np.empty(0, np.uint8),
    places=np.empty((0, 2), np.int32),
    blocks=[],
)


def read_parts(directory: StorePath, unit_number: int, *, copied_from: StorePath | None = None) -> dict[str, VideoPart]:
    """Read a committed attempt's rows, video by video.

    Args:
        directory: The attempt's directory, or a local copy.
        unit_number: Number that stands for the unit in `places`.
        copied_from: The attempt's directory, for messages, where the other one is a copy.

    Raises:
        StoreError: A file is missing or damaged.
    """
    try:
        frames = read_table(directory / FRAMES_FILE).combine_chunks()
        blocks = read_table(directory / BLOCKS_FILE).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"{copied_from or directory} is damaged: {error}; run `motionbox verify` on the store"
        ) from None
    times = frames.column("time_seconds").to_numpy()
    energy = frames.column("energy").to_numpy()
    boxes = np.stack([frames.column(name).fill_null(-1).to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1)
    confidences = frames.column("confidence").to_numpy()
    origins = frames.column("origin").to_numpy()
    index = frames.column("map_index").fill_null(-1).to_numpy()
    places = np.stack([np.where(index < 0, -1, unit_number), index], axis=1).astype(np.int32)
    rows_of: dict[str, list[dict[str, Any]]] = {}
    for row in blocks:
        rows_of.setdefault(row["video_id"], []).append({**row, "unit": unit_number})
    parts, begin = {}, 0
    for video_id, rows in rows_of.items():
        end = begin + sum(row["num_frames"] for row in rows)
        own = slice(begin, end)
        parts[video_id] = VideoPart(
            times[own], boxes[own], energy[own], confidences[own], origins[own], places[own], rows
        )
        begin = end
    return parts


def join_parts(parts: Sequence[VideoPart]) -> VideoPart:
    """Return the rows of a video's parts as one; the rows of blocks are left out."""
    every = [_NO_ROWS, *parts]
    return VideoPart(
        times=np.concatenate([part.times for part in every]),
        boxes=np.concatenate([part.boxes for part in every]),
        energy=np.concatenate([part.energy for part in every]),
        confidences=np.concatenate([part.confidences for part in every]),
        origins=np.concatenate([part.origins for part in every]),
        places=np.concatenate([part.places for part in every]),
        blocks=[],
    )


def read_video_rows(paths: RunPaths, units: Sequence[Sequence[str]], video_id: str) -> pa.Table:
    """Return the raw rows of a video from its committed units, in order of time.

    Args:
        paths: The run's paths.
        units: Unit id and attempt id of the units to read from.
        video_id: The video.

    Returns:
        `COLUMNS` of `commit.FRAMES_SCHEMA`.

    Raises:
        StoreError: None of these units holds the video, or a file is damaged.
    """
    import pyarrow.compute as pc  # here, so that importing the store stays fast

    tables = []
    try:
        plan = read_table(paths.plan, columns=["unit_id", "video_id"])
        planned = set(plan.filter(pc.equal(plan["video_id"], video_id))["unit_id"].to_pylist())
        for unit_id, attempt_id in units:
            if unit_id in planned:
                rows = read_table(paths.attempt(unit_id, attempt_id) / FRAMES_FILE, columns=["video_id", *COLUMNS])
                tables.append(rows.filter(pc.equal(rows["video_id"].cast(pa.string()), video_id)).select(COLUMNS))
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{paths.root} is damaged: {error}; run `motionbox verify` on the store") from None
    if not tables:
        raise StoreError(f"video_id must be a finished video of run {paths.root}, got {video_id!r}")
    return pa.concat_tables(tables).sort_by("time_seconds")
