"""Named places in the write path where a test can make the process fail: `MOTIONBOX_FAULT=<point>:<nth>:<kind>`.

The variable is read once per process. Unset, a failpoint costs one comparison. `nth` counts from 1 how often this
process has passed the point; with `MOTIONBOX_FAULT_ONCE=<file>` set, only the first process to create that file fails,
so that a retry gets through.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter
from pathlib import Path

POINTS: tuple[str, ...] = (
    "run.write",
    "rows.read",
    "attempt.create",
    "attempt.write",
    "attempt.torn",
    "attempt.fsync",
    "attempt.fsync_directory",
    "attempt.verify",
    "flow.write",
    "flow.torn",
    "flow.fsync",
    "commit.write",
    "commit.before_link",
    "commit.after_link",
    "unit.acknowledge",
    "object.put",
    "object.read_back",
    "lease.put",
    "snapshot.write",
    "snapshot.before_publish",
    "snapshot.after_publish",
    "guidance.write",
    "guidance.before_publish",
    "guidance.after_publish",
)
KINDS: tuple[str, ...] = ("kill", "eio", "enospc", "hang")

_HANG_SECONDS = 24 * 3600.0

_passed: Counter[str] = Counter()
_armed: tuple[str, int, str] | None = None


def arm(value: str | None) -> None:
    """Set the fault of this process: `<point>:<nth>:<kind>`, None for none.

    Raises:
        ValueError: Unknown point or kind.
    """
    global _armed
    _passed.clear()
    _armed = None if value is None else _parse(value)


def _parse(value: str) -> tuple[str, int, str]:
    parts = value.split(":")
    if len(parts) != 3 or parts[0] not in POINTS or not parts[1].isdigit() or parts[2] not in KINDS:
        raise ValueError(f"MOTIONBOX_FAULT must be <point>:<nth>:<{'|'.join(KINDS)}>, got {value!r}")
    return parts[0], int(parts[1]), parts[2]


def failpoint(point: str) -> None:
    """Fail here if this is the point, and the passage through it, that is armed.

    Args:
        point: One of `POINTS`.

    Raises:
        OSError: EIO or ENOSPC, as asked for.
    """
    if _armed is None:
        return
    name, nth, kind = _armed
    if name != point:
        return
    _passed[point] += 1
    if _passed[point] == nth and _first_process():
        _fail(kind, point)


def _first_process() -> bool:
    marker = os.environ.get("MOTIONBOX_FAULT_ONCE")
    if marker is None:
        return True
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _fail(kind: str, point: str) -> None:
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hang":
        time.sleep(_HANG_SECONDS)
    code = errno.EIO if kind == "eio" else errno.ENOSPC
    raise OSError(code, f"{os.strerror(code)} (planted at {point})")


arm(os.environ.get("MOTIONBOX_FAULT"))
