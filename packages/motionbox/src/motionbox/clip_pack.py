"""The training clips of one work unit: their blocks one after the other in one file, and an index of them.

A unit's attempt holds both; `motionbox.clips` says what a block is. Clips that overlap in their video are kept each on
its own, so that reading one touches one range of one file.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from motionbox.clips import ClipForm, ClipIndex, clip_from_video, read_clip_frames, read_index
from motionbox.errors import ClipError, StoreError
from motionbox.frames import DecodeLimits

INDEX_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("offset", pa.int64()),
        ("num_bytes", pa.int64()),
        ("num_frames", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("reason", pa.string()),
        ("message", pa.string()),
    ]
)
"""One row per clip; `num_bytes` 0 where not one frame could be read, `reason` empty where nothing broke."""


@dataclass(frozen=True)
class UnitClips:
    """What a unit stores of its clips.

    Attributes:
        data: Blocks, one after the other.
        index: `INDEX_SCHEMA`, in the order of the blocks.
    """

    data: bytes
    index: pa.Table


def encode_unit_clips(
    clips: pa.Table,
    data_root: Path,
    *,
    form: ClipForm = "h264",
    short_side_px: int = 256,
    limits: DecodeLimits | None = None,
    on_clip: Callable[[str], None] | None = None,
) -> UnitClips:
    """Decode and code the clips that a unit is in charge of; broken ones become rows with a reason.

    Args:
        clips: Rows of a manifest.
        data_root: What their paths are relative to.
        form: As `clips.write_clip`.
        short_side_px: Frames are shrunk to this short side at most.
        limits: What is refused.
        on_clip: Called with each clip's id before its work.
    """
    blocks: list[bytes] = []
    rows: list[dict[str, Any]] = []
    offset = 0
    for clip in clips.to_pylist():
        if on_clip is not None:
            on_clip(clip["clip_id"])
        block, fault = b"", None
        try:
            block, fault = clip_from_video(
                data_root / clip["path"],
                form=form,
                short_side_px=short_side_px,
                start_seconds=clip["start_seconds"],
                stop_seconds=clip["stop_seconds"],
                frame_fps=clip["frame_fps"],
                limits=limits,
            )
        except ClipError as error:
            fault = error
        index = read_index(block) if block else None
        rows.append(
            {
                "clip_id": clip["clip_id"],
                "offset": offset,
                "num_bytes": len(block),
                "num_frames": 0 if index is None else index.num_frames,
                "width": 0 if index is None else index.width,
                "height": 0 if index is None else index.height,
                "reason": "" if fault is None else str(fault.reason),
                "message": "" if fault is None else fault.message,
            }
        )
        blocks.append(block)
        offset += len(block)
    return UnitClips(b"".join(blocks), pa.Table.from_pylist(rows, schema=INDEX_SCHEMA))


class ClipPack:
    """Reads the clips of one unit from its file, mapped into memory; a context manager, for one thread."""

    def __init__(self, path: Path, index: pa.Table) -> None:
        self._path = path
        columns = (index[name].to_pylist() for name in ("clip_id", "offset", "num_bytes"))
        self._ranges = {clip_id: (offset, size) for clip_id, offset, size in zip(*columns, strict=True)}
        end = max((offset + size for offset, size in self._ranges.values()), default=0)
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if end else None
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from None
        if self._map is not None and len(self._map) < end:
            raise StoreError(f"{path}: must have {end} bytes, has {len(self._map)}; run `motionbox verify`")

    def __enter__(self) -> ClipPack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __contains__(self, clip_id: str) -> bool:
        return bool(self._ranges.get(clip_id, (0, 0))[1])

    def close(self) -> None:
        """Give the mapping back."""
        if self._map is not None:
            self._map.close()
            self._map = None

    def index(self, clip_id: str) -> ClipIndex:
        """Return a clip's form, size and frame times; the arrays are copies.

        Raises:
            StoreError: The pack has no such clip.
            ClipError: Its block is broken.
        """
        found = read_index(self._block(clip_id))
        return ClipIndex(found.form, found.width, found.height, found.times_seconds.copy(), found.offsets.copy())

    def read_frames(
        self,
        clip_id: str,
        indices: Sequence[int],
        *,
        crop_xywh: tuple[int, int, int, int] | None = None,
        size_wh: tuple[int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Decode some frames of a clip: uint8 (N, h, w, 3) RGB, see `clips.read_clip_frames`.

        Raises:
            StoreError: The pack has no such clip, or not one frame of it.
            ValueError: An index or the crop lies outside.
            ClipError: Its block is broken.
        """
        return read_clip_frames(self._block(clip_id), indices, crop_xywh=crop_xywh, size_wh=size_wh)

    def _block(self, clip_id: str) -> bytes:
        offset, size = self._ranges.get(clip_id, (0, 0))
        if size == 0 or self._map is None:
            raise StoreError(f"clip_id must be a clip with frames in {self._path}, got {clip_id!r}")
        return self._map[offset : offset + size]
