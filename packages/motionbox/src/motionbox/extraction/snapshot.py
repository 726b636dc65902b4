"""Snapshots: what readers read, made from everything that is committed.

Raw frame boxes are stored once per video frame; here each clip cuts its range out of its video's frames and stabilises
its boxes. Nothing of it depends on how the videos were split into units.
"""

from __future__ import annotations

import bisect
import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from motionbox.errors import Reason
from motionbox.inputs.schema import REFUSED
from motionbox.motion.area_parts import areas_in_parts, joined_boxes
from motionbox.motion.boxes import StabilisedBoxes, clip_box, has_box, is_static, stabilise
from motionbox.storage import storage_of
from motionbox.storage.failpoints import failpoint
from motionbox.storage.files import parquet_bytes, sha256_file, write_file
from motionbox.store.areas.blocks import frame_cells_wh
from motionbox.store.layout import FORMAT_NAME, FORMAT_VERSION
from motionbox.store.unit_arrays import UnitArrays, read_maps
from motionbox.store.units import BLOCK_SECONDS, Unit, block_of, stop_block_of, units_of
from motionbox.store.video_rows import VideoPart, join_parts, read_parts
from motionbox.store.writing.commit import read_commits
from motionbox.store.writing.fetched_units import FetchedUnits
from motionbox.store.writing.runs import Run
from motionbox.store.writing.snapshot_files import AreaFile, ArrayFile, FrameRows


@dataclass
class _Video:
    """A video's committed frames, in order of time."""

    video_id: str
    parts: list[VideoPart] = field(default_factory=list)
    clip_blocks: list[tuple[int, int, int, int]] = field(default_factory=list)
    first_clip_block: int = 0
    size: dict[str, Any] | None = None
    errors: list[tuple[int, str, str]] = field(default_factory=list)
    complete: bool = True


@dataclass(frozen=True)
class _Clip:
    row: int
    clip_id: str
    start_seconds: float | None
    stop_seconds: float | None


class _Cut(NamedTuple):
    """A clip's part of its video's frames.

    Attributes:
        times: float64 (T,), seconds.
        boxes: int16 (T, 4), raw boxes, xyxy display pixels; -1 rows where a frame has none.
        confidences: float32 (T,), of the raw boxes.
        places: int32 (T, 2), where each frame's map is.
        static: Whether nothing moves in it; then no frame has a box.
    """

    times: npt.NDArray[np.float64]
    boxes: npt.NDArray[np.int16]
    confidences: npt.NDArray[np.float32]
    places: npt.NDArray[np.int32]
    static: bool


def make_snapshot(run: Run) -> int:
    """Publish a snapshot of everything committed.

    Clips of videos with units that are not committed are left out; MANIFEST.json says whether any are.

    Args:
        run: The run.

    Returns:
        The snapshot's number; that of the newest one where it already shows all that is committed.

    Raises:
        OSError: The disk is full or broken; nothing was published.
    """
    numbers = run.paths.snapshot_numbers()
    units = read_commits(run.paths, [unit.unit_id for unit in units_of(run.plan())])
    if numbers:
        newest = run.paths.snapshot_info(numbers[-1])
        committed = [[unit, record["attempt"]] for unit, record in units.items()]
        has_areas = "areas" in newest or not run.config.store.motion_maps  # one of before may lack them
        if sorted(newest["units"]) == sorted(committed) and has_areas:
            return numbers[-1]
    failpoint("snapshot.write")
    with storage_of(run.paths.root).new_number(run.paths.snapshots) as version:
        with FetchedUnits(run.paths, units, with_maps=run.config.store.motion_maps) as fetched:
            manifest = _SnapshotWriter(run, version.directory, units, fetched).write()
        return version.publish(manifest, point="snapshot")


class _SnapshotWriter:
    """Streams the clips of one run into a directory; memory holds a video's rows, the clip table, a part's areas."""

    def __init__(
        self, run: Run, directory: Path, records: Mapping[str, Mapping[str, Any]], fetched: FetchedUnits
    ) -> None:
        self._run = run
        self._records = records
        self._fetched = fetched
        self._directory = directory
        self._digest = hashlib.sha256()
        self._manifest = run.manifest()
        self._clips = _clips_by_video(self._manifest)
        self._columns: dict[str, list[Any]] = {name: [] for name in _RESULT_SCHEMA.names}
        self._units: list[list[str]] = []
        self._rows_of: Counter[str] = Counter()
        self._unit_arrays = UnitArrays(fetched.folders)
        self._num_rows = 0
        self._num_clip_blocks = 0
        self._clip_bytes = 0
        self._areas = AreaFile(directory) if run.config.store.motion_maps else None

    def write(self) -> dict[str, Any]:
        """Write all files but MANIFEST.json; return what that must say."""
        arrays = {
            "boxes": ArrayFile(self._directory / "boxes.npy", "<i2", 4),
            "times": ArrayFile(self._directory / "times.npy", "<f8", None),
            "sources": ArrayFile(self._directory / "sources.npy", "|u1", None),
            "confidences": ArrayFile(self._directory / "confidences.npy", "<f4", None),
            "maps": ArrayFile(self._directory / "maps.npy", "<i4", 2),
            "clip_blocks": ArrayFile(self._directory / "clip_blocks.npy", "<i8", 4),
        }
        frames = FrameRows(self._directory)
        for video in self._videos():
            if video.complete:
                self._add_clip_blocks(video, arrays["clip_blocks"])
            for clip in self._clips.pop(video.video_id, []) if video.complete else []:
                self._add_clip(clip, video, arrays, frames)
        for array in arrays.values():
            array.close()
        frames.close()
        areas = {}
        if self._areas is not None:
            areas["areas"] = {"digest": self._areas.close(), "num_bytes": self._areas.num_bytes}
        clips = self._clip_table()
        write_file(self._directory / "clips.parquet", parquet_bytes(clips), point="run")
        statuses = clips.column("status").to_pylist()
        files = sorted(path for path in self._directory.iterdir())
        return {
            "format": FORMAT_NAME,
            "version": FORMAT_VERSION,
            "run_id": self._run.run_id,
            "created_unix": time.time(),
            "num_clips": clips.num_rows,
            "num_clips_planned": self._manifest.num_rows,
            "num_frame_rows": self._num_rows,
            "statuses": {status: statuses.count(status) for status in sorted(set(statuses))},
            "motion_maps": self._run.config.store.motion_maps,
            "training_clips": {
                "form": self._run.config.store.clips,
                "num_clips": sum(count > 0 for count in clips.column("num_clip_blocks").to_pylist()),
                "num_bytes": self._clip_bytes,
            },
            **areas,
            **({"rows_of": dict(self._rows_of)} if self._rows_of else {}),
            "content_digest": self._digest.hexdigest(),
            "files": {path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in files},
            "units": self._units,
        }

    def _videos(self) -> Iterator[_Video]:
        """Yield the videos of the plan in its order, with the frames of their committed pieces."""
        video: _Video | None = None
        for unit in units_of(self._run.plan()):
            committed = unit.unit_id in self._records
            parts = self._read_unit(unit) if committed else {}
            for video_id in dict.fromkeys(piece.video_id for piece in unit.pieces):
                if video is None or video.video_id != video_id:
                    if video is not None:
                        yield video
                        self._fetched.drop_before(len(self._units) - committed)
                    video = _Video(video_id)
                if video_id in parts:
                    self._extend(video, parts[video_id])
                elif not committed:
                    video.complete = False
        if video is not None:
            yield video

    def _extend(self, video: _Video, part: VideoPart) -> None:
        video.parts.append(part)
        for row in part.blocks:
            if row.get("clip_bytes") is not None:
                video.clip_blocks.append((row["block"], row["unit"], row["clip_offset"], row["clip_bytes"]))
            self._digest.update(f"{video.video_id}\0{row['block']}\0".encode(errors="surrogatepass") + row["digest"])
            if row["reason"]:
                video.errors.append((row["block"], row["reason"], row["message"]))
            elif video.size is None or (row["map_width"] and not video.size["map_width"]):
                video.size = self._with_grid(row)

    def _with_grid(self, size: dict[str, Any]) -> dict[str, Any]:
        """Return a block's row, with the size that its maps would have where it has none (a video of one frame)."""
        if size["map_width"] or self._areas is None:
            return size
        settings = self._run.config
        cells = frame_cells_wh(size["width"], size["height"], settings.frames.short_side_px, settings.store.map_scale)
        return {**size, "map_width": math.ceil(cells[0]), "map_height": math.ceil(cells[1])}

    def _read_unit(self, unit: Unit) -> dict[str, VideoPart]:
        record, number = self._records[unit.unit_id], len(self._units)
        if "rows_of" in record:
            self._rows_of[record["rows_of"]] += 1
        self._units.append([unit.unit_id, str(record["attempt"])])
        folder = self._fetched.take()
        return read_parts(folder, number, copied_from=self._fetched.attempts[number])

    def _add_clip(self, clip: _Clip, video: _Video, arrays: dict[str, ArrayFile], frames: FrameRows) -> None:
        """Cut a clip out of its video's frames, and write its rows: one of the clip, and one for each frame."""
        cut = _cut(clip, video, self._run.config.store.static_energy)
        status, reason = _status(clip, video, cut.boxes)
        row: dict[str, Any] = {"row": clip.row, "num_frames": len(cut.times), "status": status, "reason": reason}
        row |= {"first_row": self._num_rows, "num_clip_blocks": 0, "num_area_blocks": 0}
        if video.size is not None:
            row |= {name: video.size[name] for name in _SIZE_COLUMNS}
            if len(cut.times):
                row |= self._add_frames(clip, video, cut, arrays, frames)
        # The digest is of what a reader sees, not of how it is laid out: messages may change, reasons may not.
        self._digest.update(f"{clip.clip_id}\0{status}\0{reason.split(':')[0]}\0".encode(errors="surrogatepass"))
        self._num_rows += len(cut.times)
        for name, column in self._columns.items():
            column.append(row.get(name))

    def _add_frames(
        self, clip: _Clip, video: _Video, cut: _Cut, arrays: dict[str, ArrayFile], frames: FrameRows
    ) -> dict[str, Any]:
        """Stabilise a clip's boxes and write its frames; return the columns of the clip that follow from them."""
        if video.size is None:
            raise AssertionError("frames without a size")
        columns = _clip_block_range(video, cut.times)
        found = self._add_areas(columns, cut, video.size)
        size_wh = (video.size["width"], video.size["height"])
        stable = found or stabilise(cut.boxes, cut.times, *size_wh, self._run.config.boxes, cut.confidences)
        for name, values in (
            ("boxes", stable.boxes),
            ("times", cut.times),
            ("sources", stable.source),
            ("confidences", stable.confidence),
            ("maps", cut.places),
        ):
            arrays[name].append(values)
        frames.append(clip.clip_id, cut.times, stable)
        self._digest.update(stable.boxes.tobytes() + stable.source.tobytes() + stable.confidence.tobytes())
        x1, y1, x2, y2 = clip_box(stable.boxes).tolist()
        return columns | {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "confidence": stable.clip_confidence}

    def _add_clip_blocks(self, video: _Video, array: ArrayFile) -> None:
        video.first_clip_block = self._num_clip_blocks
        self._num_clip_blocks += len(video.clip_blocks)
        self._clip_bytes += sum(num_bytes for *_, num_bytes in video.clip_blocks)
        array.append(np.array(video.clip_blocks, np.int64).reshape(-1, 4))

    def _add_areas(self, columns: dict[str, Any], cut: _Cut, size: dict[str, Any]) -> StabilisedBoxes | None:
        """Write a clip's areas where the run keeps maps; return the boxes around them where those are its boxes."""
        if self._areas is None:
            return None
        columns["first_area_block"] = self._areas.num_blocks
        frame_wh, grid_hw = (size["width"], size["height"]), (size["map_height"], size["map_width"])
        # Where nothing moves the maps hold noise: none of them counts.
        places = np.full_like(cut.places, -1) if cut.static else cut.places
        boxes = []
        for part in areas_in_parts(
            lambda rows: read_maps(self._unit_arrays, places[rows], grid_hw),
            cut.times,
            grid_hw,
            frame_wh,
            self._run.config,
        ):
            self._areas.append(part.areas)
            boxes.append(part.stabilised_boxes())
        columns["num_area_blocks"] = self._areas.num_blocks - columns["first_area_block"]
        return joined_boxes(boxes, cut.times) if self._run.config.boxes.stabilise == "areas" else None

    def _clip_table(self) -> pa.Table:
        results = pa.table(self._columns, schema=_RESULT_SCHEMA).sort_by("row")
        manifest = self._manifest.take(results.column("row"))
        table = pa.table({name: manifest.column(name) for name in _LEADING})
        for name in _RESULT_SCHEMA.names[1:-1]:
            table = table.append_column(_RESULT_SCHEMA.field(name), results.column(name))
        last = _RESULT_SCHEMA.names[-1]
        for name in manifest.column_names:
            if name not in (*table.column_names, last, REFUSED):
                table = table.append_column(manifest.schema.field(name), manifest.column(name))
        return table.append_column(_RESULT_SCHEMA.field(last), results.column(last))


_LEADING = ("clip_id", "video_id", "start_seconds", "stop_seconds")
_SIZE_COLUMNS = ("width", "height", "fps", "map_width", "map_height")
_RESULT_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("num_frames", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("x1", pa.int16()),
        ("y1", pa.int16()),
        ("x2", pa.int16()),
        ("y2", pa.int16()),
        ("first_row", pa.int64()),
        ("map_width", pa.int32()),
        ("map_height", pa.int32()),
        ("first_clip_block", pa.int64()),
        ("num_clip_blocks", pa.int32()),
        ("first_area_block", pa.int64()),
        ("num_area_blocks", pa.int32()),
        ("confidence", pa.float32()),
    ]
)


def _clips_by_video(manifest: pa.Table) -> dict[str, list[_Clip]]:
    columns = (manifest.column(name).to_pylist() for name in ("video_id", "clip_id", "start_seconds", "stop_seconds"))
    clips: dict[str, list[_Clip]] = {}
    for row, (video_id, clip_id, start, stop) in enumerate(zip(*columns, strict=True)):
        clips.setdefault(video_id, []).append(_Clip(row, clip_id, start, stop))
    return clips


def _merged(video: _Video) -> VideoPart:
    """Join a video's pieces, once."""
    if len(video.parts) != 1:
        video.parts = [join_parts(video.parts)]
    return video.parts[0]


def _cut(clip: _Clip, video: _Video, static_energy: float) -> _Cut:
    """Cut a clip out of its video's frames: those with start <= time < stop."""
    whole = _merged(video)
    first = 0 if clip.start_seconds is None else bisect.bisect_left(whole.times, clip.start_seconds)
    stop = len(whole.times) if clip.stop_seconds is None else bisect.bisect_left(whole.times, clip.stop_seconds)
    own = slice(first, stop)
    boxes, confidences = whole.boxes[own], whole.confidences[own]
    static = is_static(whole.energy[own], static_energy)
    if static:
        boxes, confidences = np.full_like(boxes, -1), np.zeros_like(confidences)
    return _Cut(whole.times[own], boxes, confidences, whole.places[own], static)


def _clip_block_range(video: _Video, times: npt.NDArray[np.float64]) -> dict[str, int]:
    """Return where the clip blocks of a clip's frames are; none where one of them could not be coded."""
    if not video.clip_blocks:
        return {}
    wanted = set(np.unique(times // BLOCK_SECONDS).astype(int).tolist())
    found = [i for i, (block, *_, num_bytes) in enumerate(video.clip_blocks) if block in wanted and num_bytes]
    if len(found) < len(wanted):
        return {}
    return {"first_clip_block": video.first_clip_block + found[0], "num_clip_blocks": len(found)}


def _status(clip: _Clip, video: _Video, raw: npt.NDArray[np.int16]) -> tuple[str, str]:
    """Return status and reason of a clip from its raw boxes and its video's errors."""
    first = None if clip.start_seconds is None else block_of(clip.start_seconds)
    stop = None if clip.stop_seconds is None else stop_block_of(clip.stop_seconds)
    before = [error for error in video.errors if stop is None or error[0] < stop]
    if len(raw) == 0:
        if before:
            return "failed", f"{before[0][1]}: {before[0][2]}"
        return "failed", f"{Reason.EMPTY_SPAN}: no frame lies in the clip's time range"
    inside = [error for error in before if first is None or error[0] >= first]
    if inside:
        return "partial", f"{inside[0][1]}: {inside[0][2]}"
    if not has_box(raw).any():
        if len(raw) == 1:
            return "no_motion", f"{Reason.ONE_FRAME}: motion needs two frames; the centre half stands in"
        return "no_motion", f"{Reason.STATIC}: nothing moves; the centre half stands in"
    return "ok", ""
