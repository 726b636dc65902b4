"""The row files of a snapshot: arrays that readers map into memory, and the same as Parquet for other programs."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from motionbox.motion.boxes import StabilisedBoxes
from motionbox.storage.files import parquet_bytes, write_file
from motionbox.store.areas.blocks import Areas, encode_blocks, stored_areas
from motionbox.store.layout import AREA_BLOCKS_FILE, AREAS_FILE

_ROWS_PER_FILE = 1 << 20
_NPY_HEADER_BYTES = 128

FRAME_ROWS_SCHEMA = pa.schema(
    [
        ("clip_id", pa.dictionary(pa.int32(), pa.string())),
        ("time_seconds", pa.float64()),
        ("x1", pa.int16()),
        ("y1", pa.int16()),
        ("x2", pa.int16()),
        ("y2", pa.int16()),
        ("source", pa.uint8()),
        ("confidence", pa.float32()),
    ]
)


class ArrayFile:
    """An .npy file that grows by appending; its header is written when its length is known."""

    def __init__(self, path: Path, dtype: str, columns: int | None) -> None:
        self._dtype = np.dtype(dtype)
        self._columns = columns
        self._count = 0
        self._file = path.open("xb")
        self._file.write(b"\0" * _NPY_HEADER_BYTES)

    def append(self, values: npt.NDArray[Any]) -> None:
        """Add rows."""
        self._count += len(values)
        self._file.write(np.ascontiguousarray(values, dtype=self._dtype).tobytes())

    def close(self) -> None:
        """Write the header and force the file to disk."""
        shape = (self._count,) if self._columns is None else (self._count, self._columns)
        text = repr({"descr": self._dtype.str, "fortran_order": False, "shape": shape})
        length = _NPY_HEADER_BYTES - 10
        self._file.seek(0)
        self._file.write(b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class AreaFile:
    """The areas of clips, one behind the other in `areas.bin`, and where each block of them is in `area_blocks.npy`."""

    def __init__(self, directory: Path) -> None:
        self._file = (directory / AREAS_FILE).open("xb")
        self._blocks = ArrayFile(directory / AREA_BLOCKS_FILE, "<i8", 2)
        self._digest = hashlib.sha256()
        self._num_blocks = 0
        self.num_bytes = 0

    @property
    def num_blocks(self) -> int:
        """Return how many blocks there are."""
        return self._num_blocks

    def append(self, areas: Areas) -> None:
        """Add frames of a clip; all but its last call take a multiple of `area_blocks.BLOCK_FRAMES` of them."""
        for block in encode_blocks(areas):
            self._blocks.append(np.array([[self.num_bytes, len(block)]], np.int64))
            self._file.write(block)
            self.num_bytes += len(block)
            self._num_blocks += 1
        self._digest.update(np.array(areas.shape, "<i8").tobytes() + stored_areas(areas).tobytes())

    def close(self) -> str:
        """Force the files to disk and return the SHA-256 of all areas as they will be read."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._blocks.close()
        return self._digest.hexdigest()


class FrameRows:
    """The Parquet copies of the frame rows, for other programs: files of a few million rows."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number = 0
        self._num_rows = 0
        self._clip_ids: list[str] = []
        self._counts: list[int] = []
        self._times: list[npt.NDArray[np.float64]] = []
        self._stable: list[StabilisedBoxes] = []

    def append(self, clip_id: str, times: npt.NDArray[np.float64], stable: StabilisedBoxes) -> None:
        """Add a clip."""
        self._clip_ids.append(clip_id)
        self._counts.append(len(times))
        self._times.append(times)
        self._stable.append(stable)
        self._num_rows += len(times)
        if self._num_rows >= _ROWS_PER_FILE:
            self._flush()

    def close(self) -> None:
        """Write what is left; at least one file is written."""
        if self._counts or self._number == 0:
            self._flush()

    def _flush(self) -> None:
        indices = np.repeat(np.arange(len(self._counts), dtype=np.int32), self._counts)
        boxes = np.concatenate([np.empty((0, 4), np.int16), *(stable.boxes for stable in self._stable)])
        columns = [
            pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(self._clip_ids, pa.string())),
            pa.array(np.concatenate([np.empty(0, np.float64), *self._times])),
            *(pa.array(boxes[:, position]) for position in range(4)),
            pa.array(np.concatenate([np.empty(0, np.uint8), *(stable.source for stable in self._stable)])),
            pa.array(np.concatenate([np.empty(0, np.float32), *(stable.confidence for stable in self._stable)])),
        ]
        table = pa.Table.from_arrays(columns, schema=FRAME_ROWS_SCHEMA)
        write_file(self._directory / f"frames-{self._number:05d}.parquet", parquet_bytes(table), point="run")
        self._number, self._num_rows = self._number + 1, 0
        self._clip_ids, self._counts, self._times, self._stable = [], [], [], []
