"""Committed units on their way into a snapshot: local copies of those that are needed now, and of the next ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from motionbox.errors import StoreError
from motionbox.storage import StorePath, storage_of
from motionbox.store.layout import BLOCKS_FILE, FRAMES_FILE, MAPS_DIRECTORY, RunPaths

_UNITS_AHEAD = 8


class FetchedUnits:
    """The rows and maps of units, in the order in which they are asked for; a context manager that removes the copies.

    On a file system these are the units' own directories. In a bucket every file is one request, those of
    `_UNITS_AHEAD` units are under way together, and only those and the units that are in use lie on this machine.

    Attributes:
        folders: Where the units that were taken are, by their numbers; removed again before the first that is needed.
        attempts: Their directories in the store.
    """

    def __init__(self, paths: RunPaths, records: Mapping[str, Mapping[str, Any]], *, with_maps: bool) -> None:
        """Take the run's paths, the commit records of the units by unit id, in order, and whether maps are needed."""
        self._storage = storage_of(paths.root)
        self._with_maps = with_maps
        self._to_come = deque((paths.attempt(unit, str(record["attempt"])), record) for unit, record in records.items())
        self._pool = ThreadPoolExecutor(_UNITS_AHEAD, thread_name_prefix="units")
        self._ahead: deque[tuple[StorePath, Future[Path]]] = deque()
        self._first = 0
        self.folders: list[Path] = []
        self.attempts: list[StorePath] = []

    def __enter__(self) -> FetchedUnits:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, future in self._ahead:
            future.cancel()
        self._pool.shutdown()
        begun = [future for _, future in self._ahead if not future.cancelled() and future.exception() is None]
        for folder in (*self.folders[self._first :], *(future.result() for future in begun)):
            self._storage.clear(folder)

    def take(self) -> Path:
        """Return the folder of the next unit.

        Raises:
            StoreError: A file of it is missing.
            OSError: It cannot be read.
        """
        while self._to_come and len(self._ahead) < _UNITS_AHEAD:
            attempt, record = self._to_come.popleft()
            self._ahead.append((attempt, self._pool.submit(self._storage.fetch, attempt, self._needed(record))))
        attempt, folder = self._ahead.popleft()
        try:
            self.folders.append(folder.result())
        except FileNotFoundError as error:
            raise StoreError(f"{attempt} is damaged: {error}; run `motionbox verify` on the store") from None
        self.attempts.append(attempt)
        return self.folders[-1]

    def drop_before(self, number: int) -> None:
        """Remove the copies of units with a lower number."""
        for folder in self.folders[self._first : number]:
            self._storage.clear(folder)
        self._first = max(self._first, number)

    def _needed(self, record: Mapping[str, Any]) -> Sequence[str]:
        maps = tuple(name for name in record["files"] if self._with_maps and name.startswith(f"{MAPS_DIRECTORY}/"))
        return (FRAMES_FILE, BLOCKS_FILE, *maps)
