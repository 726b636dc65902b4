"""Finetuning, MOFO section 2.3: a classifier whose tokens inside and outside the motion box are fused.

The weights that are kept are chosen on clips held out of the training split; the test split is never opened here. What
a step computes depends on the recipe, the data and its number alone, so an interrupted run resumes to the same result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mofo_train.config import config_digest
from mofo_train.data.dataset import FinetuneClips
from mofo_train.data.labels import LabelSpace
from mofo_train.data.loader import Batch, BatchesAhead, create_loader
from mofo_train.data.reader import ClipReader
from mofo_train.data.transforms import normalise
from mofo_train.errors import Interrupted
from mofo_train.evaluation.report import percent
from mofo_train.finetune_config import FinetuneConfig
from mofo_train.guidance.mixing import draw_mix, mix_frames, mix_membership, mix_targets
from mofo_train.models import Classifier, load_into
from mofo_train.models.from_recipe import create_model
from mofo_train.models.probe import AttentiveClassifier
from mofo_train.runtime.checkpoints import read_newest_checkpoint, write_checkpoint
from mofo_train.runtime.precision import DTYPES
from mofo_train.runtime.ranks import Ranks
from mofo_train.runtime.run_folder import claim_folder
from mofo_train.runtime.run_log import RunLog, duration
from mofo_train.runtime.seeds import step_seed
from mofo_train.runtime.stopping import StopRequest, stop_requests
from mofo_train.training.optimizer import layer_decay_groups, learning_rate, set_learning_rate
from mofo_train.training.safeguards import BadClips, create_sampler, stop_if_diverged
from mofo_train.training.selection import class_weights, held_out_score, hold_out_clips, selection_record


def finetune(
    config: FinetuneConfig, reader: ClipReader, out: Path, ranks: Ranks, *, say: Callable[[str], None]
) -> Path:
    """Run or resume a finetuning.

    Args:
        config: The recipe.
        reader: The clips of the training split, with labels.
        out: Folder of the run: recipe, log, checkpoints, and `best`, the weights that were chosen.
        ranks: This process among all.
        say: Shows a line to the user.

    Returns:
        Folder of the checkpoint that was chosen.

    Raises:
        DataError: The store lacks labels, has too few clips, or too many cannot be read.
        CheckpointError: `out` holds another run, `model.init` does not fit, or the disk is full.
        DivergedError: Loss or gradients became infinite; nothing was changed by that step.
        Interrupted: SIGTERM or SIGINT came; the run was saved and can be resumed.
    """
    torch.manual_seed(config.seed)
    with stop_requests() as stop:
        run = _Run.start(config, reader, out, ranks, say, stop)
        try:
            return run.train()
        finally:
            run.close()


@dataclass
class _Totals:
    """Sums since the last log row."""

    loss: Tensor
    micro_batches: int = 0
    clips: int = 0
    wait_seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)


@dataclass
class _Run:
    """Everything a running finetuning holds."""

    config: FinetuneConfig
    out: Path
    ranks: Ranks
    say: Callable[[str], None]
    stop: StopRequest
    space: LabelSpace
    reader: ClipReader
    held_out: ClipReader | None
    model: Classifier | AttentiveClassifier
    wrapped: nn.Module
    average: AveragedModel | None
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    labels: dict[str, Tensor]
    weights: dict[str, Tensor | None]
    log: RunLog | None
    bad: BadClips
    step: int = 0
    steps_per_epoch: int = 0
    best_score: float = -1.0
    best_step: int = -1

    @classmethod
    def start(
        cls,
        config: FinetuneConfig,
        clips: ClipReader,
        out: Path,
        ranks: Ranks,
        say: Callable[[str], None],
        stop: StopRequest,
    ) -> _Run:
        """Build everything and take up the newest checkpoint."""
        optim, data = config.optim, config.data
        claim_folder(out, config, write=ranks.is_first, data=clips.content_id())
        space = LabelSpace.of(clips.every_clip(), config.task, "the store")
        reader, held_out = hold_out_clips(clips, config, space)
        model = create_model(config.model, space.num_outputs).to(ranks.device)
        groups = layer_decay_groups(model, optim.weight_decay, optim.layer_decay)
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=optim.betas, eps=1e-8, fused=True)
        average = None
        if optim.ema_decay is not None:
            average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(optim.ema_decay))  # type: ignore[no-untyped-call]
        wrapped: nn.Module = ranks.wrap(model)
        if config.run.compile:
            wrapped = cast(nn.Module, torch.compile(wrapped))
        labels = {head: values for head, values in space.labels(reader.labels).items() if head in space.heads}
        balance = optim.class_balance
        weights = {
            head: class_weights(values, space.heads[head], balance).to(ranks.device) if balance else None
            for head, values in labels.items()
        }
        run = cls(
            config=config,
            out=out,
            ranks=ranks,
            say=say,
            stop=stop,
            space=space,
            reader=reader,
            held_out=held_out,
            model=model,
            wrapped=wrapped,
            average=average,
            optimizer=optimizer,
            scaler=torch.amp.GradScaler(ranks.device.type, enabled=config.run.precision == "fp16"),
            labels={head: torch.from_numpy(values) for head, values in labels.items()},
            weights=weights,
            log=RunLog(out) if ranks.is_first else None,
            bad=BadClips(data.max_bad_share),
        )
        run._resume()
        return run

    def _resume(self) -> None:
        found, problems = read_newest_checkpoint(self.out / "checkpoints")
        for problem in problems if self.ranks.is_first else []:
            self.say(f"skipped: {problem}")
        if found is None:
            return
        load_into(self.model, found.model, source=str(found.path))
        self.optimizer.load_state_dict(found.state["optimizer"])
        self.scaler.load_state_dict(found.state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(found.state["average"])
        self.step, self.best_score, self.best_step = found.step, found.state["best_score"], found.state["best_step"]
        self.bad.num_read, self.bad.num_bad = found.info["num_read"], found.info["num_bad"]
        if self.ranks.is_first:
            self.say(f"resuming after step {self.step} of {found.path}")

    def train(self) -> Path:
        """Take all remaining steps; returns the folder of the chosen weights."""
        config, optim = self.config, self.config.optim
        sampler = create_sampler(
            len(self.reader), config.data, optim, self.ranks, seed=config.seed, start_step=self.step
        )
        self.steps_per_epoch = sampler.steps_per_epoch
        total = optim.epochs * self.steps_per_epoch
        pin = self.ranks.device.type == "cuda"
        clips = FinetuneClips(self.reader, config)
        loader = create_loader(clips, sampler, num_workers=config.data.num_workers, pin=pin)
        batches = BatchesAhead(iter(loader), self.ranks.device)
        self._set_training()
        totals = self._no_totals()
        while self.step < total:
            if self.ranks.any(self.stop.requested):
                self._save()
                raise Interrupted(f"interrupted after step {self.step} of {total}; the same command resumes")
            rate = learning_rate(self.step, self.steps_per_epoch, optim)
            set_learning_rate(self.optimizer, rate)
            norm = self._step(batches, totals)
            self.step += 1
            if self.step % config.run.log_every_steps == 0 or self.step == total:
                self._log(totals, rate, norm, total)
                totals = self._no_totals()
            if self.step % (config.selection.every_epochs * self.steps_per_epoch) == 0 or self.step == total:
                self._select(last=self.step == total)
            if self.step % config.run.checkpoint_every_steps == 0 or self.step == total:
                self._save()
        return self.out / "best" / f"step-{self.best_step:09d}"

    def _set_training(self) -> None:
        self.wrapped.train()
        if self.config.model.probe != "none":
            self.model.encoder.eval()

    def _no_totals(self) -> _Totals:
        return _Totals(torch.zeros((), dtype=torch.float64, device=self.ranks.device))

    def _step(self, batches: BatchesAhead, totals: _Totals) -> float:
        """Take one optimiser step; returns the gradient norm."""
        parts = self.config.optim.accumulate
        losses: list[Tensor] = []
        clips: list[list[str]] = []
        for part in range(parts):
            batch = batches.take()
            self.bad.count(len(batch.clips) // self.config.data.crops_per_clip, batch.bad, self.say)
            clips.append([self.reader.clip_ids[clip] for clip in batch.clips])
            with self.ranks.gradients(self.wrapped, last=part == parts - 1):
                loss = self._forward(batch, part, totals)
                self.scaler.scale(loss / parts).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            batches.fetch()
        self.scaler.unscale_(self.optimizer)
        limit = self.config.optim.clip_grad_norm
        trained = [value for value in self.model.parameters() if value.requires_grad]
        total = nn.utils.clip_grad_norm_(trained, math.inf if limit is None else limit)
        norm = stop_if_diverged(losses, total, self.step, clips, self.scaler)
        totals.wait_seconds += batches.waited()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.model)
        return norm

    def _forward(self, batch: Batch, part: int, totals: _Totals) -> Tensor:
        """Mix a micro-batch and compute its loss."""
        device, augment = self.ranks.device, self.config.augment
        place = (self.step * self.config.optim.accumulate + part) * self.ranks.world_size + self.ranks.rank
        seed = step_seed(self.config.seed, place)
        mix = draw_mix(
            augment.mixup_alpha, augment.cutmix_alpha, self.config.model.image_px, np.random.default_rng(seed)
        )
        frames = mix_frames(normalise(batch.frames), mix)
        inside = mix_membership(batch.boxes, mix, self.model.clip)
        dtype = DTYPES[self.config.run.precision]
        torch.manual_seed(seed)  # stochastic depth
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = self.wrapped(frames, inside=inside)
        loss = torch.zeros((), device=device)
        for head, scores in self.space.split(logits.float()).items():
            labels = self.labels[head][batch.clips].to(device)
            targets = mix_targets(labels, self.space.heads[head], mix.share, augment.label_smoothing)
            loss = loss + F.cross_entropy(scores, targets, weight=self.weights[head])
        totals.loss += loss.detach()
        totals.micro_batches += 1
        totals.clips += len(frames)
        return loss

    def _log(self, totals: _Totals, rate: float, norm: float, total: int) -> None:
        loss = float(self.ranks.sum(totals.loss)) / (totals.micro_batches * self.ranks.world_size)
        seconds = time.perf_counter() - totals.started
        if self.log is None:
            return
        row = {
            "event": "train",
            "epoch": self.step / self.steps_per_epoch,
            "loss": loss,
            "lr": rate,
            "grad_norm": norm if math.isfinite(norm) else None,
            "clips_per_second": totals.clips * self.ranks.world_size / seconds,
            "data_wait_share": totals.wait_seconds / seconds,
            "bad_clips": self.bad.num_bad,
        }
        self.log.write(self.step, row)
        left = (total - self.step) * seconds * self.config.optim.accumulate / totals.micro_batches
        self.say(
            f"step {self.step}/{total}  loss {loss:.4f}  lr {rate:.2e}  {row['clips_per_second']:.1f} clips/s  "
            f"data wait {row['data_wait_share']:.0%}  left {duration(left)}"
        )

    def _select(self, *, last: bool) -> None:
        """Test the held-out clips, one view each, and keep the weights if they are the best so far."""
        candidate = self.model if self.average is None else self.average.module
        score = float(self.step)  # Nothing held out: the last weights count.
        if self.held_out is None:
            if not last:
                return
        else:
            score = held_out_score(candidate, self.held_out, self.config, self.space, self.ranks)
            if self.log is not None:
                self.log.write(self.step, {"event": "select", "held_out_top1": score, "clips": len(self.held_out)})
                self.say(f"step {self.step}  held-out top-1 {percent(score)} ({len(self.held_out)} training clips)")
        if score > self.best_score:
            self.best_score, self.best_step = score, self.step
            if self.ranks.is_first:
                rule = selection_record(self.config, self.held_out, self.best_score)
                info = {"stage": "finetune", "selection": rule, **self._identity()}
                write_checkpoint(self.out / "best", self.step, candidate.state_dict(), {}, info, keep=1)

    def _identity(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "recipe_digest": config_digest(self.config),
            "label_space": self.space.as_json(),
        }

    def _save(self) -> None:
        reasons = self.ranks.gather(self.bad.reasons)
        if not self.ranks.is_first:
            return
        info = {
            "stage": "finetune",
            "num_read": self.bad.num_read,
            "num_bad": self.bad.num_bad,
            "bad_clips": {name: reason for part in reasons for name, reason in part.items()},
            **self._identity(),
        }
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "best_score": self.best_score,
            "best_step": self.best_step,
        }
        keep = self.config.run.keep_checkpoints
        write_checkpoint(self.out / "checkpoints", self.step, self.model.state_dict(), state, info, keep=keep)

    def close(self) -> None:
        """Write out the log."""
        if self.log is not None:
            self.log.close()
