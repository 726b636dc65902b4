"""Files of a snapshot or a guidance: arrays that readers map into memory, and the lock that keeps `gc` away."""

from __future__ import annotations

import fcntl
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from motionbox.errors import StoreError
from motionbox.storage import ObjectPath, StorePath
from motionbox.storage.local_copies import local_copy


def open_array(path: StorePath) -> npt.NDArray[Any]:
    """Map an array file into memory; a plain array over the mapping, because slicing `np.memmap` is slow.

    Raises:
        StoreError: It is missing or damaged.
    """
    try:
        return np.asarray(np.load(local_copy(path), mmap_mode="r"))
    except (OSError, ValueError) as error:
        raise damaged_file(path, error) from None


def open_bytes(path: StorePath) -> npt.NDArray[np.uint8]:
    """Map a file into memory as bytes.

    Raises:
        StoreError: It is missing or damaged.
    """
    try:
        local = local_copy(path)
        # An empty file cannot be mapped.
        return np.asarray(np.memmap(local, np.uint8, "r")) if local.stat().st_size else np.empty(0, np.uint8)
    except OSError as error:
        raise damaged_file(path, error) from None


def damaged_file(path: StorePath, error: Exception) -> StoreError:
    """Return the error that says that a file is not what was written."""
    return StoreError(f"{path} is damaged: {error}; run `motionbox verify` on the store")


class Pin:
    """A shared lock that keeps `gc` from removing a directory; none in a bucket, or on a file system without locks."""

    def __init__(self, manifest: StorePath) -> None:
        """Take the lock of a directory's MANIFEST.json."""
        self._descriptor: int | None = None
        if isinstance(manifest, ObjectPath):
            return
        self._descriptor = os.open(manifest, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            self.release()

    def release(self) -> None:
        """Let go, once or more often."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
