"""What ends a training early: no numbers any more, or too many clips that cannot be read."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import torch
from torch import Tensor

from mofo_train.config import ClipsConfig, GuidanceConfig, OptimConfig
from mofo_train.data.reader import ClipReader
from mofo_train.data.sampler import ResumableSampler
from mofo_train.errors import DataError, MofoTrainError
from mofo_train.runtime.ranks import Ranks

_LOG = logging.getLogger(__name__)

_BAD_CLIPS_SHOWN = 5
_MIN_CLIPS_FOR_SHARE = 100


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
        grad_accum_steps=optim.grad_accum_steps,
        rank=ranks.rank,
        world_size=ranks.world_size,
        start_step=start_step,
    )


@dataclass
class BadClips:
    """Clips that could not be read.

    Attributes:
        max_share: Larger shares stop the run.
        num_read: Clips asked for.
        num_bad: How many of these could not be read.
        reasons: Clip id -> why.
    """

    max_share: float
    num_read: int = 0
    num_bad: int = 0
    reasons: dict[str, str] = field(default_factory=dict)

    def count(self, num_good: int, bad: Sequence[tuple[str, str]]) -> None:
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
                    _LOG.warning("skipped clip %s: %s", clip_id, reason)
        if self.num_bad > self.max_share * max(self.num_read, _MIN_CLIPS_FOR_SHARE):
            first = next(iter(self.reasons.values()), "see the log")
            raise DataError(
                f"unreadable clips must be at most {self.max_share:.1%} (data.max_bad_share), got {self.num_bad} of "
                f"{self.num_read} read; the first: {first}"
            )


def check_guidance(wanted: GuidanceConfig, reader: ClipReader) -> None:
    """Raise ValueError unless a reader gives the boxes or areas that a recipe asks for."""
    if reader.guidance != wanted:
        raise ValueError(f"reader must be opened with guidance {wanted!r}, got {reader.guidance!r}")
