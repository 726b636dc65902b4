"""Where a worker's time goes, step by step."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping
from typing import TypeVar

_Item = TypeVar("_Item")

_LEAST_SHARE = 0.005


class TimeSpent:
    """Adds up the wall time of steps.

    Attributes:
        seconds: Time of each step so far, without that of the steps inside it.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside: list[float] = []

    @contextlib.contextmanager
    def on(self, step: str) -> Generator[None]:
        """Count the time of a block for a step."""
        self._inside.append(0.0)
        begun = time.perf_counter()
        try:
            yield
        finally:
            whole = time.perf_counter() - begun
            self.seconds[step] += whole - self._inside.pop()
            if self._inside:
                self._inside[-1] += whole

    def over(self, step: str, items: Iterable[_Item]) -> Generator[_Item]:
        """Yield items, counting the time of waiting for each."""
        iterator = iter(items)
        while True:
            with self.on(step):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item


def shares(seconds: Mapping[str, float]) -> str:
    """Return steps with their shares of the time, the largest first: `flow 71 %, decoding 20 %, store 9 %`."""
    total = sum(seconds.values())
    ranked = sorted(seconds.items(), key=lambda entry: -entry[1])
    least = _LEAST_SHARE * total
    return ", ".join(f"{step} {100 * value / total:.0f} %" for step, value in ranked if value >= least)
