"""Files of a store as local files, which can be mapped into memory: themselves, or cached copies of objects.

The copies lie in a bounded cache of this machine (`MOTIONBOX_CACHE_DIR`, else the user's cache folder; at most
`MOTIONBOX_CACHE_GIB`), named by their digest, so every process and every store shares them.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from motionbox.errors import InputError, StoreError
from motionbox.storage.local_cache import Held, LocalCache, NoRoomError
from motionbox.storage.paths import ObjectPath, StorePath
from motionbox.storage.reading import ObjectEntry, Objects

DEFAULT_CACHE_GIB = 50.0
_FILES_AT_ONCE = 8

_LOCK = threading.Lock()
_IN_USE: dict[ObjectPath, tuple[Held, int]] = {}


def local_copy(path: StorePath) -> Path:
    """Return a local file with the content of a store's file that never changes.

    Raises:
        OSError: It cannot be read.
        StoreError: The cache has no room for it.
    """
    if not isinstance(path, ObjectPath):
        return path
    with _LOCK:
        known = _IN_USE.get(path)
    if known is None:  # a file whose digest nobody has told: it is held until this process ends
        name = hashlib.sha256(str(path).encode()).hexdigest()
        hold_files(path.parent, {path.name: {"bytes": path.stat().st_size, "sha256": f"unknown-{name}"}})
        with _LOCK:
            known = _IN_USE[path]
    return known[0].path


def hold_files(directory: StorePath, files: Mapping[str, Mapping[str, Any]]) -> Callable[[], None]:
    """Have files of a directory on this machine, all of them fetched at once where they are not.

    Args:
        directory: Where they are.
        files: Name -> `bytes` and `sha256`, as a manifest says them.

    Returns:
        What lets go of them, to be called once.

    Raises:
        OSError: One cannot be read.
        StoreError: One is not what the manifest says, or the cache has no room for it.
    """
    if not isinstance(directory, ObjectPath):
        return nothing_held
    cache, objects = user_cache(), Objects(str(directory))

    def hold(name: str) -> ObjectPath:
        with _LOCK:
            held, users = _IN_USE.get(directory / name, (None, 0))
            if held is not None:
                _IN_USE[directory / name] = (held, users + 1)
                return directory / name
        held = _hold(cache, objects, name, int(files[name]["bytes"]), str(files[name]["sha256"]))
        with _LOCK:
            before, users = _IN_USE.get(directory / name, (held, 0))
            if before is not held:
                held.release()
            _IN_USE[directory / name] = (before, users + 1)
        return directory / name

    with ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="copy") as pool:
        places = list(pool.map(hold, files))

    def let_go() -> None:
        with _LOCK:
            for place in places:
                held, users = _IN_USE.pop(place)
                if users > 1:
                    _IN_USE[place] = (held, users - 1)
                else:
                    held.release()

    return let_go


def nothing_held() -> None:
    """Let go of nothing."""


def user_cache() -> LocalCache:
    """Return the cache of this user on this machine.

    Raises:
        InputError: `MOTIONBOX_CACHE_GIB` is no number.
    """
    given = os.environ.get("MOTIONBOX_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(given) if given else Path(home).expanduser() / "motionbox"
    text = os.environ.get("MOTIONBOX_CACHE_GIB", str(DEFAULT_CACHE_GIB))
    try:
        return LocalCache(folder, int(float(text) * 2**30))
    except (ValueError, OverflowError):
        raise InputError(f"MOTIONBOX_CACHE_GIB must be a number of GiB, got {text!r}") from None


def _hold(cache: LocalCache, objects: Objects, name: str, num_bytes: int, sha256: str) -> Held:
    def fill(descriptor: int) -> None:
        objects.fetch(ObjectEntry(name, num_bytes, None), descriptor)
        if not sha256.startswith("unknown-") and _digest(descriptor, num_bytes) != sha256:
            raise StoreError(f"{objects.url}/{name} is damaged: another digest; run `motionbox verify` on the store")

    try:
        return cache.hold(f"{sha256}-{name}", num_bytes, fill, waiting=lambda: None)
    except NoRoomError:
        raise StoreError(
            f"{objects.url}/{name}: {num_bytes / 2**30:.2f} GiB do not fit into the cache {cache.folder} of "
            f"{cache.max_bytes / 2**30:g} GiB; raise MOTIONBOX_CACHE_GIB, or name another disk with MOTIONBOX_CACHE_DIR"
        ) from None


def _digest(descriptor: int, num_bytes: int) -> str:
    digest = hashlib.sha256()
    for start in range(0, num_bytes, 1 << 20):
        digest.update(os.pread(descriptor, min(1 << 20, num_bytes - start), start))
    return digest.hexdigest()
