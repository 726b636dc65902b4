"""The lock of a store in a bucket: a lease that its holder renews, and that ends by itself when the holder is gone.

Leases are numbered objects, `lease/<n>.json`; the highest number holds. A new holder creates the next number, which
one can; nobody writes another's. Ages are told by the bucket's own clock, so clocks of hosts may differ. The lease
keeps two drivers from doing the same work twice, and `gc` from a store that is worked on. Nothing visible rests on it:
whoever wakes up after his lease meets names that are taken (see `objects`).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from motionbox.errors import StoreError
from motionbox.storage.failpoints import failpoint
from motionbox.storage.files import to_json
from motionbox.storage.paths import ObjectPath

_RENEWALS_PER_LEASE = 6
_ATTEMPTS = 3  # whoever slept between looking and taking meets a number that is taken, and looks again


def lease_seconds() -> float:
    """Return how long a lease holds that is not renewed: `MOTIONBOX_LEASE_SECONDS`, 90 where that is not set."""
    return float(os.environ.get("MOTIONBOX_LEASE_SECONDS", "90"))


class Lease:
    """A lease that is held, and renewed by a thread of its own."""

    def __init__(self, store: ObjectPath, number: int, content: dict[str, Any]) -> None:
        """Take over what `lease` has created."""
        self._store = store
        self._number = number
        self._content = content
        self._done = threading.Event()
        self._renewed = time.monotonic()
        self._taken = False
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def lost(self) -> str | None:
        """Return why the lease does not hold any more, None while it does."""
        if self._taken:
            return f"another process took over store {self._store} after the lease of this one had run out"
        if time.monotonic() - self._renewed > lease_seconds():
            return f"the lease of store {self._store} could not be renewed for {lease_seconds():g} s"
        return None

    def release(self) -> None:
        """End the lease."""
        self._done.set()
        self._thread.join()
        if self.lost() is None:
            with contextlib.suppress(OSError):
                self._write({**self._content, "released": True})

    def _renew(self) -> None:
        while not self._done.wait(lease_seconds() / _RENEWALS_PER_LEASE):
            began = time.monotonic()
            with contextlib.suppress(OSError):
                self._write(self._content)
                self._taken = _newest(self._store)[0] != self._number
                self._renewed = began
            if self._taken:
                return

    def _write(self, content: dict[str, Any]) -> None:
        failpoint("lease.put")
        place = _place(self._store, self._number)
        place.client.put(place.key, to_json(content))


@contextlib.contextmanager
def lease(store: ObjectPath, *, force: bool = False) -> Iterator[Lease | None]:
    """Hold a store in a bucket for writing.

    Args:
        store: The store.
        force: Go on although another process holds it, without a lease.

    Raises:
        StoreError: Another process holds it; says who, where and since when.
    """
    try:
        taken = _take(store)
    except OSError as error:
        raise StoreError(f"store {store} cannot be written: {error.strerror or error}") from None
    if taken is None and not force:
        who = holder(store) or "another process"
        raise StoreError(
            f"store {store} is in use by {who}; wait for it (`motionbox status {store}`; the lease of one that died "
            f"ends after {lease_seconds():g} s), or add --force: both then work, the results stay right, some work is "
            "done twice"
        )
    try:
        yield taken
    finally:
        if taken is not None:
            taken.release()


def holder(store: ObjectPath) -> str | None:
    """Return who holds a store for writing, None when nobody does."""
    number, written = _newest(store)
    if number == 0:
        return None
    try:
        content = json.loads(_place(store, number).read_bytes())
        # Without the right to write there is no way to ask the bucket for the time: the host's clock has to do.
        if content.get("released") or time.time() - written > lease_seconds():
            return None
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(content["since_unix"]))
        return f"process {content['pid']} on {content['host']} since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _take(store: ObjectPath) -> Lease | None:
    """Create the next lease where the newest has run out or was released."""
    content = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since_unix": time.time(),
        "command": sys.argv[:1],  # arguments may bear what is nobody's business in a shared bucket
        "id": uuid.uuid4().hex,
    }
    for _ in range(_ATTEMPTS):
        number, written = _newest(store)
        if number and not _released(store, number) and _now(store) - written <= lease_seconds():
            return None
        failpoint("lease.put")
        place = _place(store, number + 1)
        if place.client.put_new(place.key, to_json(content)):
            place.client.delete([_place(store, old).key for old in range(max(1, number - 8), number)])
            return Lease(store, number + 1, content)
    return None


def _place(store: ObjectPath, number: int) -> ObjectPath:
    return store / "lease" / f"{number}.json"


def _newest(store: ObjectPath) -> tuple[int, float]:
    """Return the number of the newest lease and when it was written by the bucket's clock; 0 where there is none."""
    entries = {entry.key.rpartition("/")[2]: entry.st_mtime for entry in store.client.entries((store / "lease").key)}
    found = {int(name[:-5]): written for name, written in entries.items() if name[:-5].isdigit()}
    return max(found.items(), default=(0, 0.0))


def _released(store: ObjectPath, number: int) -> bool:
    try:
        return bool(json.loads(_place(store, number).read_bytes()).get("released"))
    except ValueError:
        return False


def _now(store: ObjectPath) -> float:
    """Return the time by the bucket's clock: when it says that an object was written that was written now."""
    place = store / "lease" / f"clock-{uuid.uuid4().hex}"
    place.client.put(place.key, b"")
    try:
        return place.stat().st_mtime
    finally:
        place.client.delete([place.key])
