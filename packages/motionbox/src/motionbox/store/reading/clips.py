"""Reading the stored colour frames of clips, wherever the units are that hold their blocks."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from motionbox.errors import ClipError, Reason
from motionbox.storage import StorePath, storage_of
from motionbox.store.areas.files import open_array
from motionbox.store.clip_blocks import ClipIndex, read_index
from motionbox.store.layout import CLIPS_FILE, RunPaths
from motionbox.store.reading.ahead import Block, BlocksAhead

_OPEN_FILES = 64


class Decode(Protocol):
    """`clip_blocks.read_clip_frames` or its like."""

    def __call__(
        self, data: bytes, indices: Sequence[int], *, out: npt.NDArray[np.uint8] | None, index: ClipIndex
    ) -> npt.NDArray[np.uint8]:
        """Return frames of a block, written into `out` where there is one."""


class ClipFrames:
    """Reads frames out of clip blocks of committed units; keeps the files used last open. Loads PyAV at the first."""

    def __init__(self, paths: RunPaths, units: Sequence[Sequence[str]], directory: StorePath, clips: pa.Table) -> None:
        """Open the table of a snapshot's clip blocks.

        Args:
            paths: The run's paths.
            units: Unit id and attempt id, by unit number.
            directory: Where the snapshot's files are.
            clips: Its table with the columns first_clip_block and num_clip_blocks.

        Raises:
            StoreError: A file is missing or damaged.
        """
        # int64 (N, 4): block number, unit number, offset and bytes in the unit's file
        self._blocks = open_array(directory / "clip_blocks.npy")
        self._first = clips.column("first_clip_block").fill_null(0).to_numpy()
        self._count = clips.column("num_clip_blocks").to_numpy()
        self._files = _Files(paths, units)
        self._ahead = BlocksAhead(self._files.reader_of)

    def has(self, row: int) -> bool:
        """Return whether all frames of a clip are kept."""
        return bool(self._count[row] > 0)

    def read_ahead(self, wanted: Iterable[tuple[int, npt.NDArray[np.float64]]], *, keep: int) -> None:
        """Begin to fetch the blocks of frames that `read` will be asked for, see `BlocksAhead.announce`.

        Args:
            wanted: Rows of clips and times of frames, as `read` takes them.
            keep: How many calls before this one still hold.
        """
        from motionbox.store.units import BLOCK_SECONDS

        def blocks() -> Iterator[Block]:
            for row, times in wanted:
                numbers = set(np.floor(times / BLOCK_SECONDS).tolist())
                for number, unit, offset, num_bytes in self._blocks_of(row).tolist():
                    if number in numbers:
                        yield unit, offset, num_bytes

        self._ahead.announce(blocks(), keep=keep)

    def close(self) -> None:
        """Begin to fetch nothing more."""
        self._ahead.close()

    def _read(self, block: Block) -> bytes:
        data = self._ahead.take(block)
        if data is None:
            unit, offset, num_bytes = block
            data = self._files.reader_of(unit)(offset, num_bytes)
        return data

    def read(
        self,
        row: int,
        times_seconds: npt.NDArray[np.float64],
        decode: Decode,
        out: npt.NDArray[np.uint8] | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Return the frames at the given times.

        Args:
            row: The clip's row in the table.
            times_seconds: (T,) times of stored frames, in any order.
            decode: Block and positions in it -> uint8 (n, ...).
            out: Where to write them, uint8 (T, ...); None: new memory.

        Returns:
            uint8 (T, ...), as `decode` gives them.

        Raises:
            ClipError: A block is missing or broken, or has no frame at one of the times.
        """
        from motionbox.store.units import BLOCK_SECONDS

        numbers = np.floor(times_seconds / BLOCK_SECONDS).astype(np.int64)
        num_found = 0
        for number, unit, offset, num_bytes in self._blocks_of(row).tolist():
            rows = np.flatnonzero(numbers == number)
            if len(rows) == 0:
                continue
            num_found += len(rows)
            data = self._read((unit, offset, num_bytes))
            index = read_index(data)
            positions = _positions(index.times_seconds, times_seconds[rows]).tolist()
            neighbours = rows[-1] - rows[0] == len(rows) - 1
            room = out[rows[0] : rows[-1] + 1] if out is not None and neighbours else None
            part = decode(data, positions, out=room, index=index)
            if len(rows) == len(numbers):
                return part
            if out is None:
                out = np.empty((len(numbers), *part.shape[1:]), np.uint8)
            if room is None:
                if part.shape[1:] != out.shape[1:]:
                    raise ClipError(Reason.UNSUPPORTED, "training clip changes its size within the clip")
                out[rows] = part
        if out is None or num_found < len(numbers):
            raise _no_frame()
        return out

    def _blocks_of(self, row: int) -> npt.NDArray[np.int64]:
        first = int(self._first[row])
        return self._blocks[first : first + int(self._count[row])]


class _Files:
    """The files of units' clip blocks; those used last are kept open."""

    def __init__(self, paths: RunPaths, units: Sequence[Sequence[str]]) -> None:
        self._paths = paths
        self._units = units
        self._open: OrderedDict[int, _File] = OrderedDict()

    def reader_of(self, unit: int) -> Callable[[int, int], bytes]:
        """Return what reads a unit's file: offset, bytes -> the bytes."""
        if unit not in self._open:
            unit_id, attempt_id = self._units[unit]
            self._open[unit] = _File(self._paths.attempt(unit_id, attempt_id) / CLIPS_FILE)
            while len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
        self._open.move_to_end(unit)
        return self._open[unit].read


class _File:
    """A unit's clip blocks. Reads by position: safe after a fork, and a file that shrinks is an error, not a crash."""

    def __init__(self, path: StorePath) -> None:
        self._path = path
        self._descriptor = -1
        if not isinstance(path, Path):
            return
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ClipError(Reason.UNREADABLE, f"{path} cannot be read: {error.strerror}; {_REMEDY}") from None

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, offset: int, num_bytes: int) -> bytes:
        try:
            if isinstance(self._path, Path):
                data = os.pread(self._descriptor, num_bytes, offset)
            else:
                (data,) = storage_of(self._path).read_ranges(self._path, [(offset, num_bytes)])
        except OSError as error:
            raise ClipError(Reason.UNREADABLE, f"{self._path} cannot be read: {error.strerror}; {_REMEDY}") from None
        if len(data) < num_bytes:
            raise ClipError(Reason.TRUNCATED, f"{self._path} is cut off; {_REMEDY}")
        return data


_REMEDY = "run `motionbox verify` on the store"


def _positions(held: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    positions = np.searchsorted(held, wanted)
    if (positions >= len(held)).any() or (held[positions] != wanted).any():
        raise _no_frame()
    return positions


def _no_frame() -> ClipError:
    return ClipError(Reason.DECODE_ERROR, f"training clip has no frame at a time that the store knows; {_REMEDY}")
