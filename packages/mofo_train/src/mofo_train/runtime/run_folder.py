"""The folder of a run: whose it is, and that nobody else's run is overwritten."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mofo_train.config import config_digest
from mofo_train.errors import CheckpointError
from mofo_train.runtime.ranks import Ranks
from motionbox.errors import StoreError
from motionbox.store.writing.lock import lock_holder, store_lock

_OPERATIONAL = {
    "data": ("num_workers", "cache_gib", "max_bad_share"),
    "run": ("log_every_steps", "checkpoint_every_steps", "keep_checkpoints", "picture_every_epochs"),
}


_TRACES = ("log.jsonl", "checkpoints", "best")  # what a run that took a step leaves in its folder


@contextmanager
def hold_folder(out: Path, ranks: Ranks) -> Iterator[None]:
    """Keep a second training out of the folder of a run, until this one ends, however it ends.

    Args:
        out: The folder; it is made.
        ranks: This process among all; the first holds the folder for them.

    Raises:
        CheckpointError: Another training is at work there; says who and since when.
    """
    with ExitStack() as stack:
        problem = ""
        if ranks.is_first:
            out.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(store_lock(out))
            except StoreError:
                holder = lock_holder(out) or "another process"
                problem = f"out must be free, got {out} in use by {holder}; wait for it, or choose another folder"
        problem = ranks.gather(problem)[0]
        if problem:
            raise CheckpointError(problem)
        yield


def claim_folder(out: Path, config: BaseModel, *, write: bool, data: str) -> None:
    """Write the recipe into the folder of a run, or check that the recipe there is the same.

    A run that never took a step has nothing to lose: its folder may be claimed by another recipe. Settings that change
    no result, `_OPERATIONAL`, may change from one call to the next.

    Args:
        out: The folder.
        config: The recipe.
        write: Whether this process writes.
        data: What the run's boxes and clips are, `ClipReader.content_id()`.

    Raises:
        CheckpointError: The folder holds a run of another recipe or of other boxes; nothing is overwritten.
    """
    digest, recipe, values = config_digest(config), out / "recipe.json", config.model_dump(mode="json")
    if any((out / name).exists() for name in _TRACES):
        claimed = _read_claim(recipe)
        if claimed["digest"] != digest and _decisive(claimed["config"]) != _decisive(values):
            raise CheckpointError(
                f"out must hold a run of the same recipe, got {out} with another's; choose another folder"
            )
        if claimed.get("data") != data:
            raise CheckpointError(
                f"out must hold a run on the same store and clips, got {out} with a run on others; "
                "name that store, or another folder"
            )
    if write:
        out.mkdir(parents=True, exist_ok=True)
        claim = {"digest": digest, "data": data, "config": values}
        private = recipe.with_suffix(".writing")
        private.write_text(json.dumps(claim, indent=2) + "\n", encoding="utf-8")
        private.replace(recipe)


def _decisive(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe that decide what comes out."""
    return {
        section: {name: value for name, value in part.items() if name not in _OPERATIONAL.get(section, ())}
        if isinstance(part, Mapping)
        else part
        for section, part in values.items()
    }


def _read_claim(recipe: Path) -> dict[str, Any]:
    try:
        claim: dict[str, Any] = json.loads(recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{recipe} must say what run its folder is of, got: {error}; choose another") from None
    return claim
