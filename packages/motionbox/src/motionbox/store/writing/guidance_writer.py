"""Writing a named guidance: boxes and areas of clips that come from elsewhere, published like a snapshot."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import numpy.typing as npt
import pyarrow as pa

from motionbox.errors import InputError, StoreError
from motionbox.storage import storage_of
from motionbox.storage.failpoints import failpoint
from motionbox.storage.files import parquet_bytes, sha256_file, write_file
from motionbox.store.areas.blocks import Areas
from motionbox.store.areas.guidance import MOTION
from motionbox.store.layout import FORMAT_NAME, FORMAT_VERSION, RunPaths
from motionbox.store.writing.snapshot_files import AreaFile, ArrayFile

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_CLIPS_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("first_row", pa.int64()),
        ("num_frames", pa.int32()),
        ("map_width", pa.int32()),
        ("map_height", pa.int32()),
        ("first_area_block", pa.int64()),
        ("num_area_blocks", pa.int32()),
    ]
)


class GuidanceWriter:
    """Collects a guidance's clips in a private directory; `publish` makes it visible at once, leaving drops it.

    Memory holds what is given of one clip, and the clip table.
    """

    def __init__(self, paths: RunPaths, name: str) -> None:
        """Begin a version of a guidance.

        Raises:
            InputError: The name is not one that a directory and a recipe can bear.
            StoreError: The store cannot be written.
        """
        self._name = check_name(name)
        self._made = contextlib.ExitStack()
        self._rows: list[dict[str, Any]] = []
        self._num_frames = 0
        try:
            failpoint("guidance.write")
            self._version = self._made.enter_context(storage_of(paths.root).new_number(paths.guidances / name))
            self._directory = self._version.directory
            self._boxes = ArrayFile(self._directory / "boxes.npy", "<i2", 4)
            self._areas = AreaFile(self._directory)
        except OSError as error:
            raise StoreError(f"store {paths.root} cannot be written: {error.strerror or error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._made.close()

    def add(self, clip_id: str, boxes: npt.NDArray[Any], areas: Iterable[Areas]) -> None:
        """Add a clip.

        Args:
            clip_id: The clip.
            boxes: (T, 4) xyxy half-open display pixels, -1 rows where there is none.
            areas: uint8 (n, h, w) that follow each other, T frames in all; each but the last a multiple of
                `areas.blocks.BLOCK_FRAMES`.

        Raises:
            ValueError: There are more or fewer areas than boxes.
        """
        first_block, count, size_hw = self._areas.num_blocks, 0, (0, 0)
        for part in areas:
            self._areas.append(part)
            count, size_hw = count + len(part), (part.shape[1], part.shape[2])
        if count != len(boxes):
            raise ValueError(f"areas must be those of {len(boxes)} frames, got {count}; {clip_id}")
        self._boxes.append(boxes)
        row = (
            clip_id,
            self._num_frames,
            count,
            size_hw[1],
            size_hw[0],
            first_block,
            self._areas.num_blocks - first_block,
        )
        self._rows.append(dict(zip(_CLIPS_SCHEMA.names, row, strict=True)))
        self._num_frames += count

    def publish(self, facts: dict[str, Any]) -> int:
        """Make the guidance visible under the next number of its name.

        Args:
            facts: What MANIFEST.json says of how it was made.

        Returns:
            The number.

        Raises:
            OSError: The disk is full or broken; nothing was published.
        """
        digest = self._areas.close()
        self._boxes.close()
        clips = pa.Table.from_pylist(self._rows, schema=_CLIPS_SCHEMA)
        write_file(self._directory / "clips.parquet", parquet_bytes(clips), point="run")
        files = sorted(self._directory.iterdir())
        info = {
            "format": FORMAT_NAME,
            "version": FORMAT_VERSION,
            "name": self._name,
            "created_unix": time.time(),
            "num_clips": len(self._rows),
            "num_frames": self._num_frames,
            **facts,
            "areas": {"digest": digest, "num_bytes": self._areas.num_bytes},
            "files": {path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in files},
        }
        return self._version.publish(info, point="guidance")


def check_name(name: str) -> str:
    """Return a name that a guidance can bear.

    Raises:
        InputError: It is not one.
    """
    if name == MOTION or not _NAME.fullmatch(name):
        raise InputError(
            f"--name must be a word of small letters, digits, - and _ other than {MOTION!r} (what extraction made), "
            f"got {name!r}"
        )
    return name
