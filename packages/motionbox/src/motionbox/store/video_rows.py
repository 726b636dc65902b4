"""Reading the raw rows of a video: every frame that was processed, inside and outside of clips."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from motionbox.errors import StoreError
from motionbox.store.layout import FRAMES_FILE, RunPaths

COLUMNS = ("time_seconds", "x1", "y1", "x2", "y2", "energy", "confidence", "origin")


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
        plan = pq.read_table(paths.plan, columns=["unit_id", "video_id"])
        planned = set(plan.filter(pc.equal(plan["video_id"], video_id))["unit_id"].to_pylist())
        for unit_id, attempt_id in units:
            if unit_id in planned:
                rows = pq.read_table(paths.attempt(unit_id, attempt_id) / FRAMES_FILE, columns=["video_id", *COLUMNS])
                tables.append(rows.filter(pc.equal(rows["video_id"].cast(pa.string()), video_id)).select(COLUMNS))
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{paths.root} is damaged: {error}; run `motionbox verify` on the store") from None
    if not tables:
        raise StoreError(f"video_id must be a finished video of run {paths.root}, got {video_id!r}")
    return pa.concat_tables(tables).sort_by("time_seconds")
