"""What a run says of itself: rows of numbers in JSONL and TensorBoard files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor


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


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a `log.jsonl`; where steps were repeated after a resume the last row of a step counts."""
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows[row["step"], row["event"]] = row
    return list(rows.values())
