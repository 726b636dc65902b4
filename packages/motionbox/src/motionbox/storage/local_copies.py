"""Files of a store as local files, which can be mapped into memory: themselves on a file system, copies of objects."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from functools import cache
from pathlib import Path

from motionbox.storage.paths import ObjectPath, StorePath


def local_copy(path: StorePath) -> Path:
    """Return a local file with the content of a store's file that never changes.

    Raises:
        OSError: It cannot be read.
    """
    return _fetched(path) if isinstance(path, ObjectPath) else path


@cache
def _fetched(path: ObjectPath) -> Path:
    copy = _folder() / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}-{path.name}"
    copy.write_bytes(path.read_bytes())
    return copy


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="motionbox-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
