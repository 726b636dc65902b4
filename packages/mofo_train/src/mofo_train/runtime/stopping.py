"""Stop between two steps when somebody asks for it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class StopRequest:
    """Whether someone asked the run to stop."""

    requested: bool = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGTERM and SIGINT into a flag that a loop reads between steps; the second one stops at once."""
    request = StopRequest()

    def stop(*_: object) -> None:
        if request.requested:
            raise KeyboardInterrupt
        request.requested = True
        sys.stderr.write("stopping after this step ...\n")

    kinds = (signal.SIGTERM, signal.SIGINT)
    previous = [signal.signal(kind, stop) for kind in kinds]
    try:
        yield request
    finally:
        for kind, handler in zip(kinds, previous, strict=True):
            signal.signal(kind, handler)
