"""Stop between two steps when somebody asks for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from motionbox.signals import handling

_LOG = logging.getLogger(__name__)


@dataclass
class StopRequest:
    """Whether someone asked the run to stop."""

    requested: bool = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGTERM and SIGINT into a flag that a loop reads between steps; the second one stops at once."""
    request = StopRequest()

    def stop(_name: str) -> None:
        if request.requested:
            raise KeyboardInterrupt
        request.requested = True
        _LOG.warning("stopping after this step ...")

    with handling(stop):
        yield request
