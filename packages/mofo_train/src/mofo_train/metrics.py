"""What a run says of itself: JSONL and TensorBoard rows, and how many operations a clip costs."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mofo_train.models.linear import linear

_MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}
_BACKWARD_AND_FORWARD = 3


class RunLog:
    """Rows of numbers in `log.jsonl` and TensorBoard event files of one folder; appends, and survives a resume."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "log.jsonl"
        self._board: Any = SummaryWriter(str(folder / "tensorboard"))

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append one row; numbers go to TensorBoard too."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: Tensor) -> None:
        """Add a uint8 (3, H, W) picture to TensorBoard."""
        self._board.add_image(name, image, step)

    def close(self) -> None:
        """Write out what is buffered."""
        self._board.close()


@dataclass
class LossTotals:
    """Sums since the last log row, over the micro-batches of this rank.

    Attributes:
        parts: float32 (5,) on the device: loss, then error and number of hidden tokens inside and outside the box.
        micro_batches: Micro-batches booked.
        clips: Clips booked.
        wait_seconds: Time spent waiting for data.
        started: When counting began, `time.perf_counter()`.
    """

    parts: Tensor
    micro_batches: int = 0
    clips: int = 0
    wait_seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def book(self, errors: Tensor, hidden: Tensor, inside: Tensor) -> None:
        """Add the errors (B, n) of the tokens `hidden` (B, n), given which patches (B, P) the motion box touches."""
        within = inside.gather(1, hidden % inside.shape[1]).to(errors.dtype)
        sums = [errors.mean(), (errors * within).sum(), within.sum(), (errors * (1 - within)).sum(), (1 - within).sum()]
        self.parts += torch.stack(sums)
        self.micro_batches += 1
        self.clips += len(errors)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a `log.jsonl`; where steps were repeated after a resume the last row of a step counts."""
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows[row["step"], row["event"]] = row
    return list(rows.values())


def training_flops(model: nn.Module, frames: Tensor, mask: Tensor) -> float:
    """Count the floating-point operations of a training step per clip: three times the forward pass's products.

    Args:
        model: The model; runs once on the meta device, nothing is computed.
        frames: (B, 3, T, H, W) of any device; only the shape counts.
        mask: (B, num_tokens) on the CPU.
    """
    import copy

    shadow = copy.deepcopy(model).to("meta")
    num_hidden = int(mask[0].sum())
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        shadow(torch.empty(frames.shape, device="meta"), mask.to("meta"), num_hidden=num_hidden)
    return _BACKWARD_AND_FORWARD * counter.get_total_flops() / len(frames)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the device's rate on the models' own product of large matrices, operations per second (best of three)."""
    side = _MATRIX_SIDE[device.type]
    one = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        _wait(device)
        start = time.perf_counter()
        linear(one, one)
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
