"""When the frames of a folder or tar were taken: its rate, given or assumed, and what that makes of frame numbers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from motionbox.errors import InputError
from motionbox.inputs.data_root import DataRoot, place_below
from motionbox.inputs.media import TAR_SUFFIXES, is_frame_folder, is_video_name
from motionbox.inputs.schema import ASSUMED_FRAME_FPS, ASSUMED_RATE


def settle_frame_rates(table: pa.Table, root: DataRoot, frame_fps: float | None = None) -> pa.Table:
    """Give every folder or tar of frames its rate, and clips by frame numbers alone their times.

    File number n has time n / rate where a rate is given. Where none is, the files are timed by position at
    `ASSUMED_FRAME_FPS`, by number where a clip of the video is cut by frame numbers; then the column `ASSUMED_RATE`
    says so.

    Args:
        table: A manifest.
        root: Its data root.
        frame_fps: Rate of all frames that have none in the manifest; None: assumed.

    Raises:
        InputError: A rate is given and there are no frames to have it, or clips of a video file have frame numbers and
            no times.
    """
    paths = pc.unique(table["path"]).to_pylist()
    sources = pa.array([path for path in paths if _holds_frames(root, path)], pa.string())
    if frame_fps is not None and len(sources) == 0:
        raise InputError(f"frame_fps must be left out, got {frame_fps:g}: no clip lies in a folder or tar of frames")
    of_frames = pc.is_in(table["path"], sources)
    numbered = pc.or_(*(_untimed(table, end) for end in ("start", "stop")))
    _refuse_videos(table, pc.and_not(numbered, of_frames))
    unknown = pc.and_(of_frames, pc.is_null(table["frame_fps"]))
    cut = pc.is_in(table["path"], pc.unique(table["path"].filter(numbered)))
    timed = unknown if frame_fps is not None else pc.and_(unknown, cut)
    table = _with_column(table, "frame_fps", pc.if_else(timed, frame_fps or ASSUMED_FRAME_FPS, table["frame_fps"]))
    for end, offset in (("start", 0), ("stop", 1)):
        time = pc.divide(pc.add(table[f"{end}_frame"], offset).cast(pa.float64()), table["frame_fps"])
        known = table[f"{end}_seconds"]
        table = _with_column(table, f"{end}_seconds", pc.if_else(_untimed(table, end), time, known))
    if frame_fps is None and pc.any(unknown).as_py():
        table = table.append_column(ASSUMED_RATE, unknown)
    return table


def _untimed(table: pa.Table, end: str) -> pa.ChunkedArray:
    """Tell which clips have a frame number, but no time, for their start or stop."""
    return pc.and_(pc.is_valid(table[f"{end}_frame"]), pc.is_null(table[f"{end}_seconds"]))


def _holds_frames(root: DataRoot, path: str) -> bool:
    if path.lower().endswith(TAR_SUFFIXES) or (path == "." and root.suffix.lower() in TAR_SUFFIXES):
        return True
    try:
        return is_frame_folder(root) if path == "." else not is_video_name(path) and place_below(root, path).is_dir()
    except (OSError, ValueError):
        return False


def _refuse_videos(table: pa.Table, bad: pa.ChunkedArray) -> None:
    rows = np.flatnonzero(pc.fill_null(bad, False).to_numpy(zero_copy_only=False))
    if len(rows):
        clip, path = (table[name][int(rows[0])].as_py() for name in ("clip_id", "path"))
        raise InputError(
            f"clip {clip!r} must have start_seconds and stop_seconds, got frame numbers alone ({len(rows):,} such): "
            f"{path!r} is no folder or tar of frames, so they have no times; add the columns"
        )


def _with_column(table: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, table.schema.field(name), values)
