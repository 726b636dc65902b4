"""One attempt at a unit: a private directory that takes blocks as they come, and becomes visible all at once."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from motionbox.config import StoreConfig
from motionbox.storage import storage_of
from motionbox.storage.failpoints import failpoint
from motionbox.storage.files import make_directory
from motionbox.store.layout import RunPaths
from motionbox.store.units import BlockResult, BlockRows, VideoError
from motionbox.store.writing.commit import (
    BLOCKS_SCHEMA,
    FRAMES_SCHEMA,
    UnitTables,
    is_committed,
    publish_commit,
    verify_files,
    write_tables,
)
from motionbox.store.writing.flow_writer import FlowWriter
from motionbox.wording import one_line


class Attempt:
    """Takes the rows of a unit and commits them; a context manager that leaves nothing behind without a commit.

    Flows go to disk at once; the other rows wait in memory for `commit`.

    Attributes:
        attempt_id: Name of its directory.
        rows: What it has taken.
    """

    def __init__(self, run: RunPaths, unit_id: str, config: StoreConfig) -> None:
        """Take the run's directories, the unit and what is kept."""
        self._run = run
        self._unit_id = unit_id
        self.attempt_id = uuid.uuid4().hex
        self._place = run.attempt(unit_id, self.attempt_id)
        self._storage = storage_of(self._place)
        self._life = self._storage.life(run.commits, unit_id)
        self._directory = self._storage.staging(self._place)
        self._outcome_unknown = False
        self.rows = UnitRows(config)
        self._flow = None if config.flow == "none" else FlowWriter(self._directory, config.flow)

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._storage.clear(self._directory)
        if not self._outcome_unknown and not is_committed(self._run, self._unit_id, self.attempt_id):
            with contextlib.suppress(OSError):
                self._storage.remove(self._place)

    def add(self, rows: BlockRows | VideoError) -> None:
        """Take the next rows.

        Raises:
            OSError: Flows cannot be written.
        """
        if self._flow is not None and isinstance(rows, BlockRows):
            self._flow.add(self.rows.num_kept, rows.result.flows)
        self.rows.add(rows)

    def commit(self, **facts: Any) -> bool:
        """Write everything, read it again, and make it visible, unless another attempt already is.

        Args:
            **facts: Further JSON values of the commit record (seconds, backend).

        Returns:
            True if this attempt was published, False if the unit was committed before.

        Raises:
            OSError: The disk is full or broken; nothing was published.
            StoreError: What was read back is not what was written; nothing was published.
        """
        failpoint("attempt.create")
        make_directory(self._directory)
        tables = self.rows.tables()
        flows = {} if self._flow is None else self._flow.finish()
        digests = write_tables(self._directory, tables) | flows
        self._storage.settle(self._directory, self._place)
        verify_files(self._place, digests)
        counts = {"num_frames": self.rows.num_frames, "num_failed_videos": len(self.rows.failed_videos)}
        self._outcome_unknown = self._storage.answers_late
        published = publish_commit(
            self._run, self._unit_id, self.attempt_id, digests, life=self._life, **counts, **facts
        )
        self._outcome_unknown = self._outcome_unknown and published  # nothing to remove, or surely lost
        return published


class UnitRows:
    """The rows of a unit, column by column.

    Attributes:
        num_frames: Frames so far.
        num_kept: Flows so far that something is stored of: the number of the next map.
    """

    def __init__(self, config: StoreConfig) -> None:
        """Take what is kept."""
        self._config = config
        self._frames: dict[str, list[Any]] = {name: [] for name in FRAMES_SCHEMA.names}
        self._blocks: list[dict[str, Any]] = []
        self._maps: list[npt.NDArray[np.uint8]] = []
        self._clips: list[bytes] = []
        self._num_clip_bytes = 0
        self.num_kept = 0
        self.num_frames = 0

    def add(self, rows: BlockRows | VideoError) -> None:
        """Append a block, or a row that says what went wrong with a video."""
        if isinstance(rows, VideoError):
            self._add_error(rows)
        else:
            self._add_block(rows)
            self._add_frames(rows.video_id, rows.result)

    @property
    def failed_videos(self) -> tuple[str, ...]:
        """Return the videos with an error so far."""
        return tuple(dict.fromkeys(row["video_id"] for row in self._blocks if row["reason"]))

    def tables(self) -> UnitTables:
        """Return everything as tables."""
        columns: dict[str, Any] = dict(self._frames)
        for name in ("energy", "confidence"):
            columns[name] = np.concatenate([np.empty(0, np.float32), *columns[name]])
        arrays = [
            pa.array(columns[entry.name], pa.string()).dictionary_encode()
            if entry.name == "video_id"
            else pa.array(columns[entry.name], entry.type)
            for entry in FRAMES_SCHEMA
        ]
        return UnitTables(
            frames=pa.Table.from_arrays(arrays, schema=FRAMES_SCHEMA),
            blocks=pa.Table.from_pylist(self._blocks, schema=BLOCKS_SCHEMA),
            maps=_pad_maps(self._maps) if self._config.motion_maps else None,
            clips=None if self._config.clips == "none" else b"".join(self._clips),
        )

    def _add_error(self, error: VideoError) -> None:
        self._blocks.append(
            {
                "video_id": error.video_id,
                "block": error.number,
                "num_frames": 0,
                "reason": str(error.reason),
                "message": one_line(error.message),
                "digest": hashlib.blake2b(str(error.reason).encode(), digest_size=16).digest(),
            }
        )

    def _add_block(self, rows: BlockRows) -> None:
        map_height, map_width = rows.result.maps[0].shape if rows.result.maps else (0, 0)
        row = {
            "video_id": rows.video_id,
            "block": rows.number,
            "num_frames": len(rows.result.times),
            "width": rows.info.width,
            "height": rows.info.height,
            "fps": rows.info.fps,
            "map_width": map_width,
            "map_height": map_height,
            "reason": "",
            "message": "",
            "digest": rows.digest(),
        }
        if rows.clip is not None:
            row |= {
                "clip_offset": self._num_clip_bytes,
                "clip_bytes": len(rows.clip),
                "clip_error": one_line(rows.clip_error),
            }
            self._clips.append(rows.clip)
            self._num_clip_bytes += len(rows.clip)
        self._blocks.append(row)

    def _add_frames(self, video_id: str, result: BlockResult) -> None:
        columns, offset = self._frames, self.num_kept
        columns["video_id"].extend([video_id] * len(result.times))
        columns["time_seconds"].extend(result.times.tolist())
        for position, name in enumerate(("x1", "y1", "x2", "y2")):
            columns[name].extend(None if value < 0 else value for value in result.boxes[:, position].tolist())
        columns["energy"].append(result.energy)
        columns["confidence"].append(result.confidence)
        columns["origin"].extend(result.origin.tolist())
        columns["map_index"].extend(None if index < 0 else index + offset for index in result.map_index.tolist())
        self._maps.extend(result.maps)
        self.num_kept += result.num_kept
        self.num_frames += len(result.times)


def _pad_maps(maps: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Stack maps of several sizes, each in the upper left corner."""
    height = max((stored.shape[0] for stored in maps), default=1)
    width = max((stored.shape[1] for stored in maps), default=1)
    stacked = np.zeros((len(maps), height, width), np.uint8)
    for target, stored in zip(stacked, maps, strict=True):
        target[: stored.shape[0], : stored.shape[1]] = stored
    return stacked
