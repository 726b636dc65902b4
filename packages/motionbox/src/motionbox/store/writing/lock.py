"""One driving process per store: a file lock that dies with its holder (in a bucket a lease), and says who holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from motionbox.errors import StoreError
from motionbox.storage import StorePath
from motionbox.storage.lease import Lease, holder, lease

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


@contextlib.contextmanager
def store_lock(store: StorePath, *, force: bool = False) -> Iterator[Lease | None]:
    """Hold a store for writing.

    The lock only keeps two drivers from doing the same work twice: commits are exclusive with or without it.

    Args:
        store: The store; in a bucket its lock is a lease.
        force: Go on although another process holds it.

    Yields:
        The lease, which can be lost; None where the lock dies with its holder, or is not held (`force`).

    Raises:
        StoreError: Another process holds it; says who, where and since when.
    """
    if not isinstance(store, Path):
        with lease(store, force=force) as held:
            yield held
        return
    path = store / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(f"store {store} cannot be written: {error.strerror or error}") from None
    try:
        if _try_lock(descriptor):
            _sign(descriptor)
        elif not force:
            raise StoreError(
                f"store {store} is in use by {_holder(descriptor)}; wait for it (`motionbox status {store}`), or add "
                "--force: both then work, the results stay right, some work is done twice"
            )
        yield None
    finally:
        os.close(descriptor)


def lock_holder(store: StorePath) -> str | None:
    """Return who holds a store for writing, None when nobody does."""
    if not isinstance(store, Path):
        return holder(store)
    try:
        descriptor = os.open(store / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in _NO_LOCKS else _holder(descriptor)
    finally:
        os.close(descriptor)
    return None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _NO_LOCKS
    return True


def _sign(descriptor: int) -> None:
    content = {"host": socket.gethostname(), "pid": os.getpid(), "since_unix": time.time(), "command": sys.argv[:12]}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(content).encode(errors="replace"), 0)


def _holder(descriptor: int) -> str:
    try:
        content = json.loads(os.pread(descriptor, 65536, 0))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(content["since_unix"]))
        return f"process {content['pid']} on {content['host']} since {since}"
    except (ValueError, KeyError, TypeError):
        return "another process"
