"""Counts where a training step would wait for a GPU, on machines without one.

On a GPU the processor runs ahead of the device, but for calls that need a value from it, and for copies to it from
memory that is not page-locked.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from mofo_train.data.loader import BatchesAhead
from mofo_train.training.trainer import _Loop

# What gives Python a value of a tensor's, has a size that depends on one, or copies from ordinary memory.
WAITING = {
    *("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "is_nonzero", "equal"),
    *("nonzero", "argwhere", "masked_select", "unique", "bincount", "repeat_interleave", "allclose"),
    *("new_tensor", "tensor", "as_tensor"),
}


class Waits(TorchFunctionMode):
    """Notes calls that would wait for a device, by name and the file of ours that made them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str]] = Counter()
        self.of_steps: list[Counter[tuple[str, str]]] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in WAITING or (name in ("__getitem__", "__setitem__") and self._picks_by_value(args[1])):
            files = [Path(frame.filename) for frame in traceback.extract_stack()]
            self.found[name, next(file.name for file in reversed(files) if "mofo_train" in file.parts)] += 1
        return function(*args, **(kwargs or {}))

    @staticmethod
    def _picks_by_value(index: Any) -> bool:
        parts = index if isinstance(index, tuple) else (index,)
        return any(isinstance(part, torch.Tensor) and part.dtype == torch.bool for part in parts)

    def taking(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Return a loop's step that is watched."""

        def watched(*args: Any) -> Any:
            self.found = Counter()
            with self:
                result = step(*args)
            self.of_steps.append(self.found)
            return result

        return watched

    def reading(self, take: Callable[..., Any]) -> Callable[..., Any]:
        """Return `BatchesAhead.take` unwatched: workers read."""

        def unwatched(*args: Any) -> Any:
            before = self.found.copy()
            batch = take(*args)
            self.found = before
            return batch

        return unwatched


def watch_steps(monkeypatch: pytest.MonkeyPatch) -> Waits:
    """Watch each step that is trained until the end of the test, all but the reading of its clips."""
    watch = Waits()
    monkeypatch.setattr(_Loop, "_take_step", watch.taking(_Loop._take_step))
    monkeypatch.setattr(BatchesAhead, "take", watch.reading(BatchesAhead.take))
    return watch


ONE_WAIT = {("tolist", "safeguards.py"): 1}
"""What a step waits for: its loss and the norm of its gradients, in one."""
