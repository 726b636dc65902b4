"""What a unit's attempt holds (`UnitTables`), its files, and the one commit record that makes it visible.

Execution is at least once, visibility exactly once: whatever number of attempts at a unit run, one commit record names
one attempt, and that attempt was complete, on disk and read back before the record appeared.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from motionbox.errors import StoreError
from motionbox.storage import StorePath, storage_of
from motionbox.storage.failpoints import failpoint
from motionbox.storage.files import fsync_directory, parquet_bytes, sha256_hex, to_json, write_file
from motionbox.store.layout import (
    BLOCKS_FILE,
    CLIPS_FILE,
    FRAMES_FILE,
    MAPS_ARRAY,
    MAPS_DIRECTORY,
    MissingError,
    RunPaths,
    read_json,
)

FRAMES_SCHEMA = pa.schema(
    [
        ("video_id", pa.dictionary(pa.int32(), pa.string())),
        ("time_seconds", pa.float64()),
        ("x1", pa.int16()),
        ("y1", pa.int16()),
        ("x2", pa.int16()),
        ("y2", pa.int16()),
        ("energy", pa.float32()),
        ("confidence", pa.float32()),
        ("origin", pa.uint8()),
        ("map_index", pa.int32()),
    ]
)

BLOCKS_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("block", pa.int64()),
        ("num_frames", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("map_width", pa.int32()),
        ("map_height", pa.int32()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("digest", pa.binary(16)),
        ("clip_offset", pa.int64()),
        ("clip_bytes", pa.int64()),
        ("clip_error", pa.string()),
    ]
)

_MAPS_PER_CHUNK = 64
_READS_AT_ONCE = 32

Digests = dict[str, dict[str, Any]]
"""Path of a file relative to its attempt -> {bytes, sha256}."""


@dataclass(frozen=True)
class UnitTables:
    """What the files of a unit hold, without its flows, which are written as they come.

    Attributes:
        frames: `FRAMES_SCHEMA`, one row per decoded frame, raw boxes.
        blocks: `BLOCKS_SCHEMA`, one row per block of a video, with the digest of its content or what went wrong.
        maps: uint8 (N, h, w) motion maps, each in the upper left corner; None when the config keeps none.
        clips: Clip blocks (see `clip_blocks`) of the rows of `blocks`, whose `clip_offset` and `clip_bytes` say where;
            None when the config keeps none.
    """

    frames: pa.Table
    blocks: pa.Table
    maps: npt.NDArray[np.uint8] | None
    clips: bytes | None = None


def publish_commit(
    run: RunPaths, unit_id: str, attempt_id: str, digests: Digests, *, life: int = 0, **facts: Any
) -> bool:
    """Publish the commit record of an attempt whose files are on disk and verified.

    Args:
        run: The run's directories.
        unit_id: The unit.
        attempt_id: The attempt.
        digests: As `write_tables` returns them.
        life: What `Storage.life` said of the unit before the attempt began.
        **facts: Further JSON values of the record, `num_frames` and `num_failed_videos` among them.

    Returns:
        True if this attempt was published, False if the unit was committed before.

    Raises:
        OSError: The disk is full or broken.
    """
    record = {
        "unit_id": unit_id,
        "attempt": attempt_id,
        "committed_unix": time.time(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        **facts,
        "files": digests,
    }
    return storage_of(run.root).publish_record(run.commits, unit_id, life, to_json(record), point="commit")


def is_committed(run: RunPaths, unit_id: str, attempt_id: str) -> bool:
    """Return whether the commit record names this attempt; an unreadable record counts as naming it."""
    try:
        return bool(read_json(run.commit(unit_id)).get("attempt") == attempt_id)
    except StoreError:
        return run.commit(unit_id).exists()


def write_tables(directory: Path, tables: UnitTables) -> Digests:
    """Write a unit's tables into its attempt directory and force them to disk.

    Returns:
        Relative path -> {bytes, sha256}, of what was meant to be written.
    """
    files = {FRAMES_FILE: parquet_bytes(tables.frames), BLOCKS_FILE: parquet_bytes(tables.blocks)}
    if tables.maps is not None:
        files.update(_maps_files(tables.maps))
    if tables.clips is not None:
        files[CLIPS_FILE] = tables.clips
    directories = {directory}
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        directories.update(parent for parent in path.parents if parent.is_relative_to(directory))
        write_file(path, data)
    failpoint("attempt.fsync_directory")
    for path in sorted(directories, key=lambda p: len(p.parts), reverse=True):
        fsync_directory(path)
    return {name: {"bytes": len(data), "sha256": sha256_hex(data)} for name, data in files.items()}


def _maps_files(maps: npt.NDArray[np.uint8]) -> dict[str, bytes]:
    """Return the files of a Zarr 3 group with one array `maps`, chunked, compressed and whole in one shard."""
    import zarr
    from zarr.codecs import ZstdCodec
    from zarr.storage import MemoryStore

    memory: dict[str, Any] = {}
    group = zarr.open_group(MemoryStore(memory), mode="w", zarr_format=3)
    count, height, width = maps.shape
    chunks = (_MAPS_PER_CHUNK, max(height, 1), max(width, 1))
    shards = (-(-max(count, 1) // _MAPS_PER_CHUNK) * _MAPS_PER_CHUNK, chunks[1], chunks[2])
    array = group.create_array(
        MAPS_ARRAY, shape=maps.shape, dtype="uint8", chunks=chunks, shards=shards, compressors=ZstdCodec()
    )
    if maps.size:
        array[...] = maps
    return {f"{MAPS_DIRECTORY}/{key}": buffer.to_bytes() for key, buffer in sorted(memory.items())}


def verify_files(directory: StorePath, digests: Digests) -> None:
    """Read files again and compare them with their digests.

    Raises:
        StoreError: One is missing or differs; the first is named.
    """
    failpoint("attempt.verify")
    found = storage_of(directory).digests([directory / name for name in digests])
    for (name, expected), now in zip(digests.items(), found, strict=True):
        if now is None:
            raise StoreError(f"{directory / name} is missing")
        if now != (expected["bytes"], expected["sha256"]):
            raise StoreError(f"{directory / name} is damaged: its digest is not the one recorded when it was written")


def read_commits(run: RunPaths, unit_ids: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Read commit records, many at a time.

    Args:
        run: The run's directories.
        unit_ids: Units, of which some may not be committed, each looked for by its name; None: those that a listing
            shows, sorted.

    Returns:
        Unit id -> record, in that order.

    Raises:
        StoreError: One is unreadable.
    """
    storage = storage_of(run.root)
    places = storage.records(run.commits) if unit_ids is None else storage.places(run.commits, unit_ids)
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        found = pool.map(_read_record, places.values())
        return {unit: record for unit, record in zip(places, found, strict=True) if record is not None}


def _read_record(place: StorePath) -> dict[str, Any] | None:
    try:
        return read_json(place)
    except MissingError:
        return None


def read_commit(run: RunPaths, unit_id: str) -> dict[str, Any]:
    """Read a unit's commit record.

    Raises:
        StoreError: There is none or it is unreadable.
    """
    return read_json(run.commit(unit_id))
