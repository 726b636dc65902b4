"""SIGINT and SIGTERM: whatever a command is doing, they end it with one line and exit code 75.

`interrupted_by_signals` is in force for a whole command; `handling` gives them another meaning for a while, such as
letting work under way finish.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

from motionbox.errors import Interrupted

_Handler = Callable[[int, FrameType | None], Any] | int | None
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Stopped(BaseException):
    """A signal has come; no `Exception`, so that no library takes it for one of its errors and goes on."""


@contextlib.contextmanager
def interrupted_by_signals(*, last: bool = False) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `Interrupted`, at whatever point of the block they come.

    Args:
        last: The process ends after the block: its exit code is settled then, and signals are ignored from there on.

    Raises:
        Interrupted: A signal has come.
    """

    def handle(name: str) -> None:
        raise _Stopped(name)

    try:
        if last:
            _set(dict.fromkeys(_SIGNALS, signal.SIG_IGN))  # what `handling` puts back
        with handling(handle):
            yield
    except _Stopped as stopped:
        raise Interrupted(f"stopped by {stopped}; run the same command again") from None


@contextlib.contextmanager
def handling(handle: Callable[[str], None]) -> Iterator[None]:
    """Have SIGINT and SIGTERM call a function with their name, and put back what was there before.

    Outside the main thread, where Python allows no handlers, nothing is changed.
    """

    def call(number: int, _frame: FrameType | None) -> None:
        handle(signal.Signals(number).name)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    _set(dict.fromkeys(_SIGNALS, call))
    try:
        yield
    finally:
        _set(before)


@contextlib.contextmanager
def deferred() -> Iterator[list[str]]:
    """Have SIGINT and SIGTERM wait for the end of a block that must not be left half done.

    Yields:
        The names of the signals that have come.
    """
    names: list[str] = []
    try:
        with handling(names.append):
            yield names
    finally:
        for name in names[:1]:
            signal.raise_signal(signal.Signals[name])


def _set(handlers: Mapping[signal.Signals, _Handler]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)
