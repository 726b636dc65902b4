"""The order in which training draws its clips: a pure function of the seed, the epoch and the place in it.

The keys of a step are the same whatever the number of ranks, micro-batches and workers, so a run can go on from any
step on other hardware. `Turns` tells each process of a loader what it will be asked for after its batch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from mofo_train.errors import DataError


@dataclass(frozen=True)
class SampleKey:
    """What a sample depends on, beside the seed.

    Attributes:
        epoch: Pass over the data.
        position: Place in the epoch's order.
        clip: Index of the clip in the reader.
    """

    epoch: int
    position: int
    clip: int


class ResumableSampler(Sampler[list[SampleKey]]):
    """Micro-batches of keys for one rank, from a given step on, through all epochs.

    Attributes:
        steps_per_epoch: Optimiser steps of an epoch; the last, incomplete batch is dropped.
    """

    def __init__(
        self,
        num_clips: int,
        clips_per_step: int,
        *,
        seed: int,
        epochs: int,
        grad_accum_steps: int = 1,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
    ) -> None:
        """Plan the order.

        Args:
            num_clips: Clips of the data set.
            clips_per_step: Clips of one optimiser step over all ranks; divisible by ranks times micro-batches.
            seed: Seed of the order.
            epochs: Passes.
            grad_accum_steps: Micro-batches of a step.
            rank: This process.
            world_size: All processes.
            start_step: Steps already done.

        Raises:
            DataError: Too few clips for a batch, or a batch that ranks and micro-batches do not divide.
        """
        parts = grad_accum_steps * world_size
        if clips_per_step % parts or clips_per_step < parts:
            raise DataError(
                f"clips of a step must be divisible by {world_size} ranks x {grad_accum_steps} micro-batches, "
                f"got {clips_per_step}; change optim.batch_size, optim.grad_accum_steps or data.crops_per_clip"
            )
        if num_clips < clips_per_step:
            raise DataError(
                f"a step needs {clips_per_step} clips, got {num_clips} in the data set; lower optim.batch_size"
            )
        self.steps_per_epoch = num_clips // clips_per_step
        self._num_clips, self._clips_per_step, self._seed = num_clips, clips_per_step, seed
        self._epochs, self._grad_accum_steps, self._start = epochs, grad_accum_steps, start_step
        self._rank, self._world = rank, world_size

    def __len__(self) -> int:
        return max(0, self._epochs * self.steps_per_epoch - self._start) * self._grad_accum_steps

    def __iter__(self) -> Iterator[list[SampleKey]]:
        size = self._clips_per_step // (self._grad_accum_steps * self._world)
        order: NDArray[np.int64] | None = None
        for step in range(self._start, self._epochs * self.steps_per_epoch):
            epoch, place = divmod(step, self.steps_per_epoch)
            if order is None or place == 0:
                order = np.random.default_rng((self._seed, epoch)).permutation(self._num_clips)
            for part in range(self._grad_accum_steps):
                first = place * self._clips_per_step + (part * self._world + self._rank) * size
                yield [SampleKey(epoch, spot, int(order[spot])) for spot in range(first, first + size)]


_SAMPLES_AHEAD = 32  # of a process, at least: as many requests may be in flight


@dataclass(frozen=True)
class Turn:
    """What a process of a loader is told.

    Attributes:
        batch: What it is to read now.
        news: Batches that it learns of, in the order in which it will be asked for them: with its first turn that one
            and those after it, then one more with each.
        num_ahead: How many batches of its own it knows beside the one at hand.
    """

    batch: list[Any]
    news: list[list[Any]]
    num_ahead: int


class Turns(Sampler[Any]):
    """Batches of a sampler, each with those that the same process will be asked for next."""

    def __init__(self, batches: Sampler[Any], num_processes: int) -> None:
        """Take a sampler of batches, and the number of processes that a loader deals them out to in turn."""
        self._batches, self._num_processes = batches, num_processes

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Turn]:
        batches = iter(self._batches)
        known = deque(islice(batches, 1))
        num_ahead = math.ceil(_SAMPLES_AHEAD / max(1, len(known[0]))) if known else 0
        reach = num_ahead * self._num_processes
        known.extend(islice(batches, reach))
        for number in count():
            if not known:
                return
            is_first = number < self._num_processes
            news = list(islice(known, 0 if is_first else reach, None, self._num_processes))
            yield Turn(known.popleft(), news, num_ahead)
            known.extend(islice(batches, 1))
