"""Reading the stored colour frames of clips, wherever the units are that hold their blocks."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from motionbox.errors import ClipError, Reason
from motionbox.storage import StorePath, storage_of
from motionbox.store.clip_blocks import read_index
from motionbox.store.layout import CLIPS_FILE, RunPaths

_OPEN_FILES = 64
_READS_AT_ONCE = 32


class Decode(Protocol):
    """`clip_blocks.read_clip_frames` or its like."""

    def __call__(
        self, data: bytes, indices: Sequence[int], *, out: npt.NDArray[np.uint8] | None
    ) -> npt.NDArray[np.uint8]:
        """Return frames of a block, written into `out` where there is one."""


class ClipFrameReader:
    """Reads frames out of clip blocks of committed units; keeps the files used last open. Loads PyAV at the first."""

    def __init__(self, paths: RunPaths, units: Sequence[Sequence[str]]) -> None:
        """Take the run's paths and its units: unit id and attempt id, by unit number."""
        self._paths = paths
        self._units = units
        self._files: OrderedDict[int, _File] = OrderedDict()
        self._ahead: dict[tuple[int, int], Future[bytes]] = {}
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def read_ahead(self, wanted: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]) -> None:
        """Begin to read the blocks of frames that `read` will be asked for; let go of those begun before.

        Args:
            wanted: Blocks of clips and times of frames, as `read` takes them.
        """
        from motionbox.store.units import BLOCK_SECONDS

        if self._pool is None or self._pool[0] != os.getpid():  # threads do not live on in a forked process
            self._pool = (os.getpid(), ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="clips"))
            self._ahead = {}
        before, self._ahead = self._ahead, {}
        for blocks, times in wanted:
            numbers = np.unique(np.floor(times / BLOCK_SECONDS).astype(np.int64))
            for _, unit, offset, num_bytes in blocks[np.isin(blocks[:, 0], numbers)].tolist():
                key = (unit, offset)
                if key not in self._ahead:
                    file = self._file(unit)
                    begun = before.pop(key, None)
                    self._ahead[key] = begun or self._pool[1].submit(file.read, offset, num_bytes)
        for future in before.values():
            future.cancel()

    def _read(self, unit: int, offset: int, num_bytes: int) -> bytes:
        ahead = self._ahead.pop((unit, offset), None)
        if ahead is None or self._pool is None or self._pool[0] != os.getpid():
            return self._file(unit).read(offset, num_bytes)
        return ahead.result()

    def read(
        self,
        blocks: npt.NDArray[np.int64],
        times_seconds: npt.NDArray[np.float64],
        decode: Decode,
        out: npt.NDArray[np.uint8] | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Return the frames at the given times.

        Args:
            blocks: int64 (N, 4), the clip's blocks: block number, unit number, offset and bytes in the unit's file.
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
        for number, unit, offset, num_bytes in blocks.tolist():
            rows = np.flatnonzero(numbers == number)
            if len(rows) == 0:
                continue
            num_found += len(rows)
            data = self._read(unit, offset, num_bytes)
            positions = _positions(read_index(data).times_seconds, times_seconds[rows]).tolist()
            neighbours = rows[-1] - rows[0] == len(rows) - 1
            room = out[rows[0] : rows[-1] + 1] if out is not None and neighbours else None
            part = decode(data, positions, out=room)
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

    def _file(self, number: int) -> _File:
        if number not in self._files:
            unit_id, attempt_id = self._units[number]
            self._files[number] = _File(self._paths.attempt(unit_id, attempt_id) / CLIPS_FILE)
            while len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)
        self._files.move_to_end(number)
        return self._files[number]


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
