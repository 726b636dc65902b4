"""The one training loop: build, resume, step, log, save, stop. What is learned is an `Objective`.

What a step computes depends on the recipe, the data and its number alone: clips, crops, masks and mixing are drawn from
seeds made of it, so a run that is interrupted and resumed goes on as if nothing had happened.
"""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mofo_train.config import PretrainConfig, config_digest
from mofo_train.data.dataset import TrainingClips
from mofo_train.data.loader import Batch, BatchesAhead, create_loader
from mofo_train.data.reader import ClipReader
from mofo_train.errors import Interrupted
from mofo_train.finetune_config import FinetuneConfig
from mofo_train.runtime.checkpoints import read_newest_checkpoint, write_checkpoint
from mofo_train.runtime.compiling import check_graphs, compiled
from mofo_train.runtime.precision import set_precision
from mofo_train.runtime.ranks import Ranks, Sharding
from mofo_train.runtime.run_folder import claim_folder, hold_folder
from mofo_train.runtime.run_log import RunLog
from mofo_train.runtime.seeds import step_seed
from mofo_train.runtime.stopping import StopRequest, stop_requests
from mofo_train.training.optimizer import learning_rate, set_learning_rate
from mofo_train.training.safeguards import BadClips, check_guidance, create_sampler, stop_if_diverged
from motionbox.wording import format_seconds

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What a training and its objective both know.

    Attributes:
        config: The recipe.
        reader: All clips of the training split.
        out: Folder of the run: recipe, log, checkpoints.
        ranks: This process among all.
    """

    config: PretrainConfig | FinetuneConfig
    reader: ClipReader
    out: Path
    ranks: Ranks


class Objective(ABC):
    """What is learned: the network, a batch's loss, what is logged, which weights are kept.

    Attributes:
        stage: Name of the stage, as in recipes and checkpoints.
        model: The network, on the device.
        reader: The clips to learn from.
        clips: The samples of these clips.
        sharding: How several ranks share the network.
    """

    stage: ClassVar[str]
    model: nn.Module
    reader: ClipReader
    clips: TrainingClips
    sharding: Sharding = "ddp"

    @abstractmethod
    def create_optimizer(self) -> torch.optim.AdamW:
        """Create the optimiser of the model's parameters, after they were shared out."""

    @abstractmethod
    def new_sums(self) -> Tensor:
        """Return zeros on the device: what `loss` adds up until the next log row, first the micro-batches' losses."""

    @abstractmethod
    def loss(self, network: nn.Module, batch: Batch, seed: int, sums: Tensor) -> Tensor:
        """Return the loss of a micro-batch.

        Args:
            network: The model, as it is wrapped for several ranks or compiled.
            batch: Clips on the device.
            seed: Seed of everything random in this micro-batch; PyTorch's own numbers are seeded with it already.
            sums: Where to add what is logged.
        """

    @abstractmethod
    def figures(self, sums: Tensor, clips_per_second: float) -> dict[str, float | None]:
        """Return what the log says of `sums`, added over all ranks, beside the loss; called in the first rank."""

    @abstractmethod
    def after_step(self, step: int, steps_per_epoch: int, log: RunLog | None) -> None:
        """Do what comes after the optimiser's step, when so many are done."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return what resuming needs beside model and optimiser."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """Return what a checkpoint says of itself."""

    @abstractmethod
    def chosen(self, newest: Path) -> Path:
        """Return the checkpoint that the training is for, given its newest one."""

    def set_training(self, network: nn.Module) -> None:
        """Put the network into training mode."""
        network.train()


def train(run: Run, create: Callable[[Run], Objective]) -> Path:
    """Run or resume a training.

    Args:
        run: Recipe, clips, folder and ranks.
        create: Makes the objective, after the seed is set and the folder is ours.

    Returns:
        Folder of the checkpoint that the objective chose.

    Raises:
        ConfigError: The recipe asks for what the model or the device cannot do.
        DataError: Too few clips for a batch, or too many cannot be read.
        CheckpointError: `run.out` holds another run, another training is at work there, or the disk is full.
        DivergedError: Loss or gradients became infinite; nothing was changed by that step.
        Interrupted: SIGTERM or SIGINT came; the run was saved and can be resumed.
    """
    check_guidance(run.config.guidance, run.reader)
    check_graphs(run.config.run.compile, run.config.optim.grad_accum_steps)
    with hold_folder(run.out, run.ranks), stop_requests() as stop:
        torch.manual_seed(run.config.seed)
        objective = create(run)
        set_precision(objective.model, run.config.run.precision)
        claim_folder(run.out, run.config, write=run.ranks.is_first, data=run.reader.content_id())
        log = RunLog(run.out) if run.ranks.is_first else None
        try:
            return _Loop(run, objective, stop, log).train()
        finally:
            if log is not None:
                log.close()


@dataclass
class _Totals:
    """What was counted since the last log row, on this rank."""

    sums: Tensor
    micro_batches: int = 0
    clips: int = 0
    wait_seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)


class _Loop:
    """A training at work."""

    def __init__(self, run: Run, objective: Objective, stop: StopRequest, log: RunLog | None) -> None:
        config, ranks = run.config, run.ranks
        self.run, self.objective, self.stop, self.log = run, objective, stop, log
        self.network: nn.Module = ranks.wrap(objective.model, objective.sharding)
        self.optimizer = objective.create_optimizer()
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=config.run.precision == "fp16")
        self.network = compiled(self.network, config.run.compile)
        self.bad = BadClips(config.data.max_bad_share)
        self.step = 0
        self.newest: Path | None = None
        self._resume()
        sampler = create_sampler(
            len(objective.reader), config.data, config.optim, ranks, seed=config.seed, start_step=self.step
        )
        self.steps_per_epoch = sampler.steps_per_epoch
        self.num_steps = config.optim.epochs * sampler.steps_per_epoch
        pin = ranks.device.type == "cuda"
        loader = create_loader(objective.clips, sampler, num_workers=config.data.num_workers, pin=pin)
        self.batches = BatchesAhead(iter(loader), ranks.device)

    def _resume(self) -> None:
        found, problems = read_newest_checkpoint(self.run.out / "checkpoints")
        for problem in problems:
            _LOG.warning("skipped: %s", problem)
        if found is None:
            return
        self.run.ranks.restore(self.objective.model, self.optimizer, found.model, found.state["optimizer"])
        self.scaler.load_state_dict(found.state["scaler"])
        self.objective.restore(found.state["objective"])
        self.step, self.newest = found.step, found.path
        self.bad.num_read, self.bad.num_bad = found.info["num_read"], found.info["num_bad"]
        _LOG.info("resuming after step %d of %s", self.step, found.path)

    def train(self) -> Path:
        """Take all remaining steps."""
        settings = self.run.config.run
        self.objective.set_training(self.network)
        totals = _Totals(self.objective.new_sums())
        while self.step < self.num_steps:
            if self.run.ranks.any(self.stop.requested):
                self._save()
                raise Interrupted(f"interrupted after step {self.step} of {self.num_steps}; the same command resumes")
            rate = learning_rate(self.step, self.steps_per_epoch, self.run.config.optim)
            set_learning_rate(self.optimizer, rate)
            norm = self._take_step(totals)
            self.step += 1
            is_last = self.step == self.num_steps
            if self.step % settings.log_every_steps == 0 or is_last:
                self._write_row(totals, rate, norm)
                totals = _Totals(self.objective.new_sums())
            self.objective.after_step(self.step, self.steps_per_epoch, self.log)
            if self.step % settings.checkpoint_every_steps == 0 or is_last:
                self._save()
        return self.objective.chosen(self.newest or self._save())

    def _take_step(self, totals: _Totals) -> float:
        """Take one optimiser step; returns the gradient norm."""
        config, ranks = self.run.config, self.run.ranks
        parts = config.optim.grad_accum_steps
        losses: list[Tensor] = []
        clips: list[list[str]] = []
        for part in range(parts):
            batch = self.batches.take()
            self.bad.count(len(batch.clips) // config.data.crops_per_clip, batch.bad)
            clips.append([self.objective.reader.clip_ids[clip] for clip in batch.clips])
            place = (self.step * parts + part) * ranks.world_size + ranks.rank
            seed = step_seed(config.seed, place)
            torch.manual_seed(seed)  # stochastic depth
            with ranks.gradients(self.network, last=part == parts - 1):
                loss = self.objective.loss(self.network, batch, seed, totals.sums)
                self.scaler.scale(loss / parts).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            totals.micro_batches += 1
            totals.clips += len(batch.clips)
            self.batches.fetch()
        self.scaler.unscale_(self.optimizer)
        limit = config.optim.clip_grad_norm
        total = nn.utils.clip_grad_norm_(self.objective.model.parameters(), math.inf if limit is None else limit)
        total = total.full_tensor() if isinstance(total, DTensor) else total
        norm = stop_if_diverged(losses, total, self.step, clips, self.scaler)
        totals.wait_seconds += self.batches.waited()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _write_row(self, totals: _Totals, rate: float, norm: float) -> None:
        ranks, config = self.run.ranks, self.run.config
        sums = ranks.sum(totals.sums)
        if self.log is None:
            return
        seconds = time.perf_counter() - totals.started
        speed = totals.clips * ranks.world_size / seconds
        wait_share = totals.wait_seconds / seconds
        loss = float(sums.flatten()[0]) / (totals.micro_batches * ranks.world_size)
        on_gpu = ranks.device.type == "cuda"
        row = {
            "event": "train",
            "epoch": self.step / self.steps_per_epoch,
            "loss": loss,
            **self.objective.figures(sums, speed),
            "lr": rate,
            "grad_norm": norm if math.isfinite(norm) else None,
            "clips_per_second": speed,
            "data_wait_share": wait_share,
            "memory_gib": (torch.cuda.max_memory_allocated() if on_gpu else 0) / 2**30,
            "bad_clips": self.bad.num_bad,
        }
        self.log.write(self.step, row)
        left = (self.num_steps - self.step) * seconds * config.optim.grad_accum_steps / totals.micro_batches
        _LOG.info(
            f"step {self.step}/{self.num_steps}  loss {loss:.4f}  lr {rate:.2e}  {speed:.1f} clips/s  "
            f"data wait {wait_share:.0%}  left {format_seconds(left)}"
        )

    def _save(self) -> Path:
        config, ranks = self.run.config, self.run.ranks
        reasons = ranks.gather(self.bad.reasons)
        weights, optimizer = ranks.full_state(self.objective.model, self.optimizer)
        folder = self.run.out / "checkpoints"
        self.newest = folder / f"step-{self.step:09d}"
        if ranks.is_first:
            info = {
                "num_read": self.bad.num_read,
                "num_bad": self.bad.num_bad,
                "bad_clips": {name: reason for part in reasons for name, reason in part.items()},
                **identity(config, self.objective),
            }
            scaler, objective = self.scaler.state_dict(), self.objective.state()
            state = {"optimizer": optimizer, "scaler": scaler, "objective": objective}
            write_checkpoint(folder, self.step, weights, state, info, keep=config.run.keep_checkpoints)
            _LOG.debug("wrote %s", self.newest)
        return self.newest


def identity(config: PretrainConfig | FinetuneConfig, objective: Objective) -> dict[str, Any]:
    """Return what a checkpoint records of the run that made it."""
    return {
        "stage": objective.stage,
        "config": config.model_dump(mode="json"),
        "recipe_digest": config_digest(config),
        **objective.info(),
    }
