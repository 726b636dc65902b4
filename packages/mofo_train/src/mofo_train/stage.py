"""What every training stage does alike: claim its folder, count bad clips, stop when asked to."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from pydantic import BaseModel
from torch import Tensor

from mofo_train.config import ClipsConfig, OptimConfig, config_digest
from mofo_train.data.order import ResumableSampler
from mofo_train.distributed import Ranks
from mofo_train.errors import CheckpointError, DataError, MofoTrainError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""`run.precision` -> number format."""
_BAD_CLIPS_SHOWN = 5
_MIN_CLIPS_FOR_SHARE = 100
_SEED_STRIDE = 1_000_003
_OPERATIONAL = {
    "data": ("num_workers", "cache_gib", "max_bad_share"),
    "run": ("log_every_steps", "checkpoint_every_steps", "keep_checkpoints", "picture_every_epochs"),
}
_TRACES = ("log.jsonl", "checkpoints", "best")  # what a run that took a step leaves in its folder


class DivergedError(MofoTrainError):
    """The loss or a gradient is no longer a number."""


def stop_if_diverged(
    losses: Sequence[Tensor], norm: Tensor, step: int, clips: Sequence[Sequence[str]], scaler: torch.amp.GradScaler
) -> float:
    """Wait for the device, once in a step, before the optimiser changes anything.

    Args:
        losses: (); of each micro-batch.
        norm: (); of the gradients.
        step: The step's number.
        clips: Clip ids of each micro-batch.
        scaler: Where it is enabled, it leaves out a step whose gradients are infinite, and goes on.

    Returns:
        The gradient norm.

    Raises:
        DivergedError: A loss or the norm is no number; names the step and the clips.
    """
    *values, size = torch.stack([*losses, norm.to(losses[0].dtype)]).tolist()
    for value, names in zip(values, clips, strict=True):
        if not math.isfinite(value):
            _stop(f"loss {value}", step, names)
    if not math.isfinite(size) and not scaler.is_enabled():
        _stop(f"gradient norm {size}", step, [name for names in clips for name in names])
    return float(size)


def _stop(what: str, step: int, clip_ids: Sequence[str]) -> NoReturn:
    raise DivergedError(
        f"loss and gradients must be finite, got {what} in step {step}; clips of the batch: "
        f"{', '.join(dict.fromkeys(clip_ids))}; the weights are those before the step: lower optim.base_lr, or take "
        "precision bf16 or fp32"
    )


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
            raise CheckpointError(f"out must be of the same recipe, got {out} of another; choose another folder")
        if claimed.get("data") != data:
            raise CheckpointError(
                f"out must be of the same store and clips, got {out} of others; name that store, or another folder"
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


def create_sampler(
    num_clips: int, data: ClipsConfig, optim: OptimConfig, ranks: Ranks, *, seed: int, start_step: int
) -> ResumableSampler:
    """Create the order in which a stage draws its clips, from the step that it has reached.

    Raises:
        DataError: `batch_size` is no multiple of `crops_per_clip`, or there are too few clips for a batch.
    """
    if optim.batch_size % data.crops_per_clip:
        raise DataError(
            f"optim.batch_size must be a multiple of data.crops_per_clip = {data.crops_per_clip}, "
            f"got {optim.batch_size}"
        )
    return ResumableSampler(
        num_clips,
        optim.batch_size // data.crops_per_clip,
        seed=seed,
        epochs=optim.epochs,
        accumulate=optim.accumulate,
        rank=ranks.rank,
        world_size=ranks.world_size,
        start_step=start_step,
    )


def step_seed(seed: int, place: int) -> int:
    """Return the seed of everything random in one micro-batch of one rank, `place` counting these from the start."""
    return (seed * _SEED_STRIDE + place) % 2**63


def duration(seconds: float) -> str:
    """Write seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


@dataclass
class BadClips:
    """Clips that could not be read.

    Attributes:
        max_share: Larger shares stop the run.
        num_read: Clips asked for.
        num_bad: Of these, unreadable.
        reasons: Clip id -> why.
    """

    max_share: float
    num_read: int = 0
    num_bad: int = 0
    reasons: dict[str, str] = field(default_factory=dict)

    def count(self, num_good: int, bad: Sequence[tuple[str, str]], say: Callable[[str], None]) -> None:
        """Book a batch, and name the first few bad clips.

        Raises:
            DataError: Too many are bad.
        """
        self.num_read += num_good + len(bad)
        self.num_bad += len(bad)
        for clip_id, reason in bad:
            if clip_id not in self.reasons:
                self.reasons[clip_id] = reason
                if len(self.reasons) <= _BAD_CLIPS_SHOWN:
                    say(f"skipped clip {clip_id}: {reason}")
        if self.num_bad > self.max_share * max(self.num_read, _MIN_CLIPS_FOR_SHARE):
            first = next(iter(self.reasons.values()), "see the log")
            raise DataError(
                f"unreadable clips must be at most {self.max_share:.1%} (data.max_bad_share), got {self.num_bad} of "
                f"{self.num_read} read; the first: {first}"
            )


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
