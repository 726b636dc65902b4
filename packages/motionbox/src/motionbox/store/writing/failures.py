"""Faults of attempts, counted: what crashed or hung three times is quarantined and becomes a failed row.

A broken input file is no fault: it is a result. Faults of the store (a full or broken disk) are never counted against a
video; they end the attempt or the run.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from dataclasses import dataclass

from motionbox.errors import Reason, StoreError
from motionbox.storage import storage_of
from motionbox.storage.files import to_json
from motionbox.storage.paths import matching
from motionbox.store.layout import RunPaths, read_json

MAX_FAULTS = 3


@dataclass(frozen=True)
class Fault:
    """Why an attempt at a unit was void.

    Attributes:
        reason: What happened.
        message: One line.
        video_id: The video that was being processed, None when unknown.
    """

    reason: Reason
    message: str
    video_id: str | None


def record_fault(run: RunPaths, unit_id: str, fault: Fault) -> None:
    """Add a failure record to a unit.

    Raises:
        OSError: The disk is full or broken.
    """
    directory, storage = run.failures / unit_id, storage_of(run.root)
    storage.make_directory(directory)
    content = {
        "unit_id": unit_id,
        "video_id": fault.video_id,
        "reason": str(fault.reason),
        "message": fault.message,
        "recorded_unix": time.time(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
    number = len(matching(directory, "*.json")) + 1
    while not storage.publish(directory / f"{number}.json", to_json(content), point="run"):
        number += 1


def recorded_faults(run: RunPaths, unit_id: str) -> list[Fault]:
    """Return a unit's failure records, oldest first; an unreadable one counts as a crash."""
    directory = run.failures / unit_id
    faults = []
    for path in sorted(matching(directory, "[0-9]*.json"), key=lambda p: int(p.stem)):
        try:
            content = read_json(path)
            faults.append(Fault(Reason(content["reason"]), str(content["message"]), content["video_id"]))
        except (StoreError, KeyError, ValueError):
            faults.append(Fault(Reason.CRASHED, f"unreadable failure record {path.name}", None))
    return faults


def quarantined(run: RunPaths, unit_id: str, video_ids: list[str]) -> dict[str, tuple[Reason, str]]:
    """Return the videos of a unit that are not tried again, with reason and message.

    Args:
        run: The run's directories.
        unit_id: The unit.
        video_ids: Its videos.

    Returns:
        Video id -> (reason, message) of those with `MAX_FAULTS` faults; all of the unit's where as many faults could
        not be told apart by video.
    """
    faults = recorded_faults(run, unit_id)
    counts = Counter(fault.video_id for fault in faults)
    last = {fault.video_id: fault for fault in faults}
    if counts[None] >= MAX_FAULTS:
        return {video_id: _verdict(last[None]) for video_id in video_ids}
    return {video_id: _verdict(last[video_id]) for video_id in video_ids if counts[video_id] >= MAX_FAULTS}


def _verdict(fault: Fault) -> tuple[Reason, str]:
    return fault.reason, f"{fault.message} (given up after {MAX_FAULTS} attempts)"
