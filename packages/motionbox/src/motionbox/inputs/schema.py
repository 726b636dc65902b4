"""The rules of a manifest: the list of clips to extract, as one validated Arrow table.

Columns, in this order, then the label columns of the data set:

========================= ======= =====================================================================================
clip_id                   string  unique
video_id                  string  clips of one video share it
path                      string  video file, folder of frames or tar of frames, relative to the data root ("." is the
                                  data root itself, where that is one file or one frame folder)
start_seconds             double  first time of the clip, null: the video's beginning
stop_seconds              double  first time after the clip, null: the video's end
start_frame, stop_frame   int64   first and last frame number by the data set's own counting, both inclusive, else null
split                     string  null where the data set has none
frame_fps                 double  not null: `path` holds numbered frame files, number n has time n / frame_fps
========================= ======= =====================================================================================

Nothing here imports a decoder, OpenCV or Ray: trainers read manifests too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from motionbox.errors import InputError

MAX_ID_CHARS = 1024
"""Longest clip id, video id or path."""

SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video_id", pa.string()),
        ("path", pa.string()),
        ("start_seconds", pa.float64()),
        ("stop_seconds", pa.float64()),
        ("start_frame", pa.int64()),
        ("stop_frame", pa.int64()),
        ("split", pa.string()),
        ("frame_fps", pa.float64()),
    ]
)
"""The columns that every manifest has."""

REFUSED = "refused"
"""Column of a manifest with entries that nothing can be read from: why; such rows fail with this reason."""

ASSUMED_FRAME_FPS = 30.0
"""Rate of a folder or tar of frames where nobody says another."""

ASSUMED_RATE = "frame_fps_assumed"
"""Column of a manifest with frames of unknown rate: whether a clip's rate is assumed for want of another."""

NUM_CLASSES = "num_classes"
"""Key in the metadata of a label column's field: the data set's number of classes, whatever a part of it shows."""

RESULT_COLUMNS = (
    *("row", "num_frames", "width", "height", "fps", "status", "reason", "x1", "y1", "x2", "y2", "first_row"),
    *("map_width", "map_height", "first_clip_block", "num_clip_blocks", "confidence"),
    *("first_area_block", "num_area_blocks"),
    *(REFUSED, ASSUMED_RATE),
)
"""Columns that results have, or the reading of a manifest adds; label columns are not named so."""

_NOTES = b"notes"


def build_table(
    columns: Mapping[str, Sequence[object] | pa.Array | pa.ChunkedArray],
    labels: Mapping[str, pa.Array | pa.ChunkedArray] | None = None,
    notes: Sequence[str] = (),
) -> pa.Table:
    """Build a manifest table: given columns of `SCHEMA`, nulls for the others, then label columns.

    Args:
        columns: Columns of `SCHEMA`; clip_id, video_id and path at least.
        labels: Further columns.
        notes: What a user should be told of, see `notes_of`.
    """
    num_rows = len(columns["clip_id"])
    arrays = []
    for field in SCHEMA:
        values = columns.get(field.name)
        if values is None:
            arrays.append(pa.nulls(num_rows, field.type))
        elif isinstance(values, pa.Array | pa.ChunkedArray):
            arrays.append(values.cast(field.type))
        else:
            arrays.append(pa.array(values, field.type))
    extra = labels or {}
    table = pa.table([*arrays, *extra.values()], names=[*SCHEMA.names, *extra])
    return table.replace_schema_metadata({_NOTES: json.dumps(list(notes))}) if notes else table


def notes_of(table: pa.Table) -> list[str]:
    """Return what reading a manifest found worth telling, a line each: columns renamed, labels left out."""
    metadata = table.schema.metadata or {}
    return [str(note) for note in json.loads(metadata.get(_NOTES, b"[]"))]


def refused_videos(table: pa.Table) -> dict[str, str]:
    """Return video id -> why nothing can be read from it."""
    if REFUSED not in table.column_names:
        return {}
    refused = table.filter(pc.is_valid(table[REFUSED]))
    return dict(zip(refused["video_id"].to_pylist(), refused[REFUSED].to_pylist(), strict=True))


def num_assumed_rates(table: pa.Table) -> int:
    """Return how many videos of a manifest are frames whose rate is assumed."""
    if ASSUMED_RATE not in table.column_names:
        return 0
    return len(pc.unique(table["video_id"].filter(table[ASSUMED_RATE])))


def select_split(table: pa.Table, split: str) -> pa.Table:
    """Keep the rows of one split.

    Raises:
        InputError: The manifest has no such split; names those it has.
    """
    chosen = table.filter(pc.equal(table["split"], split))
    if chosen.num_rows == 0:
        known = sorted(value for value in pc.unique(table["split"]).to_pylist() if value is not None)
        choices = f"one of {', '.join(known)}" if known else "left out (the data set has no splits)"
        raise InputError(f"split must be {choices}, got {split!r}")
    return chosen


def validate_manifest(table: pa.Table) -> None:
    """Check every row against the rules of a manifest.

    Raises:
        InputError: The first broken rule, with the clip, the number of such clips and the remedy.
    """
    for field in SCHEMA:
        if field.name not in table.column_names or table.schema.field(field.name).type != field.type:
            raise InputError(f"manifest column {field.name} must be {field.type}, and present")
    if table.num_rows == 0:
        raise InputError("manifest must name at least one clip; the annotation files or folders hold none")
    for name in ("clip_id", "video_id", "path"):
        _check_names(table, name)
    counts = pc.value_counts(table["clip_id"])
    doubled = pc.greater(counts.field("counts"), 1)
    _refuse(table, pc.is_in(table["clip_id"], counts.field("values").filter(doubled)), "clip_id", "must be unique")
    _check_paths(table)
    _check_one_file(table)
    _check_spans(table)


def _check_one_file(table: pa.Table) -> None:
    """Refuse a video id that stands for two files: the frames of one would be taken for the other's."""
    pairs = table.select(["video_id", "path", "frame_fps"]).group_by(["video_id", "path", "frame_fps"]).aggregate([])
    if pairs.num_rows == len(pc.unique(table["video_id"])):
        return
    first: dict[str, tuple[str, float | None]] = {}
    for row in pairs.to_pylist():
        path, fps = first.setdefault(row["video_id"], (row["path"], row["frame_fps"]))
        video = _shorten(row["video_id"])
        if path != row["path"]:
            raise InputError(
                f"video_id must stand for one file, got {video} for {_shorten(path)} and {_shorten(row['path'])}; give "
                "each its own, or leave the column out"
            )
        if fps != row["frame_fps"]:
            raise InputError(f"frame_fps must be one for a video, got {fps} and {row['frame_fps']} for {video}")


def _check_names(table: pa.Table, name: str) -> None:
    column = table[name]
    empty = pc.fill_null(pc.equal(pc.utf8_length(column), 0), True)
    _refuse(table, empty, name, "must not be empty")
    _refuse(
        table, pc.greater(pc.utf8_length(column), MAX_ID_CHARS), name, f"must have at most {MAX_ID_CHARS} characters"
    )
    _refuse(table, pc.match_substring_regex(column, r"[\x00-\x1f\x7f]"), name, "must not contain control characters")


def _check_paths(table: pa.Table) -> None:
    column = table["path"]
    absolute = pc.match_substring_regex(column, r"^([/\\]|[A-Za-z]:[/\\])")
    _refuse(table, absolute, "path", "must be relative to the data root")
    climbing = pc.match_substring_regex(column, r"(^|[/\\])\.\.([/\\]|$)")
    _refuse(table, climbing, "path", "must stay below the data root (no '..')")


def _check_spans(table: pa.Table) -> None:
    for name in ("start_seconds", "stop_seconds", "start_frame", "stop_frame"):
        values = table[name].cast(pa.float64())
        bad = pc.or_kleene(pc.less(values, 0), pc.invert(pc.is_finite(values)))
        _refuse(table, bad, name, "must be a finite number, 0 or more")
    start, stop = table["start_seconds"], table["stop_seconds"]
    _refuse(table, pc.greater_equal(start, stop), "start_seconds", "must be less than stop_seconds", "stop_seconds")
    first, last = table["start_frame"], table["stop_frame"]
    _refuse(table, pc.greater(first, last), "start_frame", "must be at most stop_frame", "stop_frame")
    fps = table["frame_fps"]
    _refuse(table, pc.invert(pc.and_(pc.greater(fps, 0), pc.is_finite(fps))), "frame_fps", "must be greater than 0")


def _refuse(table: pa.Table, bad: pa.ChunkedArray, name: str, rule: str, other: str | None = None) -> None:
    """Raise with the first row of the mask `bad`; nulls in it are not bad."""
    rows = np.flatnonzero(pc.fill_null(bad, False).to_numpy(zero_copy_only=False))
    if len(rows) == 0:
        return
    row = int(rows[0])
    got = _shorten(table[name][row].as_py())
    if other is not None:
        got = f"{got} and {_shorten(table[other][row].as_py())}"
    clip = _shorten(table["clip_id"][row].as_py())
    raise InputError(f"{name} must {rule.removeprefix('must ')}, got {got}; clip {clip} ({len(rows)} such); correct it")


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text) - 2} characters)"


def merge_spans(table: pa.Table, margin_seconds: float = 0.0) -> pa.Table:
    """Return the union of the annotated spans of each video: what has to be decoded at all.

    Args:
        table: A manifest.
        margin_seconds: Every span is widened by this on both sides; spans that then touch or overlap become one.

    Returns:
        Columns video_id, path, start_seconds (null: from the video's beginning), stop_seconds (null: to its end) and
        frame_fps, by video in order of first appearance, then by time.

    Raises:
        ValueError: `margin_seconds` is negative.
    """
    if not margin_seconds >= 0:
        raise ValueError(f"margin_seconds must be at least 0, got {margin_seconds!r}")
    videos = pc.unique(table["video_id"])
    video = pc.index_in(table["video_id"], value_set=videos).to_numpy().astype(np.int64)
    start = np.maximum(pc.fill_null(table["start_seconds"], 0.0).to_numpy() - margin_seconds, 0.0)
    start[table["start_seconds"].is_null().to_numpy()] = -np.inf
    stop = pc.fill_null(table["stop_seconds"], np.inf).to_numpy() + margin_seconds
    order = np.lexsort((start, video))
    video, start, stop = video[order], start[order], stop[order]
    first_of_span = []
    stops: list[float] = []
    reach, current = -np.inf, -1
    for row, (number, low, high) in enumerate(zip(video.tolist(), start.tolist(), stop.tolist(), strict=True)):
        if number != current or low > reach:
            first_of_span.append(row)
            stops.append(high)
            current, reach = number, high
        elif high > reach:
            reach = stops[-1] = high
    rows = order[first_of_span]
    begins = start[first_of_span]
    ends = pa.array(stops, pa.float64(), mask=np.isinf(stops))
    return pa.table(
        {
            "video_id": table["video_id"].take(rows),
            "path": table["path"].take(rows),
            "start_seconds": pa.array(begins, pa.float64(), mask=np.isinf(begins)),
            "stop_seconds": ends,
            "frame_fps": table["frame_fps"].take(rows),
        }
    )
