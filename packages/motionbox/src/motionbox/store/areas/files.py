"""Files of a snapshot or a guidance: arrays that readers map into memory, and the lock that keeps `gc` away."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from motionbox.errors import StoreError


def open_array(path: Path) -> npt.NDArray[Any]:
    """Map an array file into memory; a plain array over the mapping, because slicing `np.memmap` is slow.

    Raises:
        StoreError: It is missing or damaged.
    """
    try:
        return np.asarray(np.load(path, mmap_mode="r"))
    except (OSError, ValueError) as error:
        raise damaged_file(path, error) from None


def open_bytes(path: Path) -> npt.NDArray[np.uint8]:
    """Map a file into memory as bytes.

    Raises:
        StoreError: It is missing or damaged.
    """
    try:
        # An empty file cannot be mapped.
        return np.asarray(np.memmap(path, np.uint8, "r")) if path.stat().st_size else np.empty(0, np.uint8)
    except OSError as error:
        raise damaged_file(path, error) from None


def damaged_file(path: Path, error: Exception) -> StoreError:
    """Return the error that says that a file is not what was written."""
    return StoreError(f"{path} is damaged: {error}; run `motionbox verify` on the store")


class Pin:
    """A shared lock that keeps `gc` from removing a directory; none where the file system knows no locks."""

    def __init__(self, manifest: Path) -> None:
        """Take the lock of a directory's MANIFEST.json."""
        self._descriptor: int | None = os.open(manifest, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            self.release()

    def release(self) -> None:
        """Let go, once or more often."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
