"""A stage's result on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mofo_train.errors import CheckpointError


def read_result(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Read a stage's result; None where it is not finished.

    Raises:
        CheckpointError: It is the result of something else.
    """
    path = folder / "result.json"
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if result["fingerprint"] != fingerprint:
        raise CheckpointError(
            f"{folder} must hold the result of the same recipe and store, got that of another run; choose another --out"
        )
    return result


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file whole: under another name first, then renamed."""
    private = path.with_suffix(".writing")
    private.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    private.replace(path)
