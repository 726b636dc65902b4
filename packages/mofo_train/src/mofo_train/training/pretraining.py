"""Masked pretraining, MOFO section 2.2: one loop, from a store of motion boxes to checkpoints.

What a step computes depends on the recipe, the data and its number alone: clips, crops and masks are drawn from seeds
made of it, so a run that is interrupted and resumed goes on as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from PIL import Image
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mofo_train.config import ModelConfig, PretrainConfig, config_digest
from mofo_train.data.dataset import PretrainClips
from mofo_train.data.loader import Batch, BatchesAhead, create_loader
from mofo_train.data.reader import ClipReader
from mofo_train.data.transforms import normalise
from mofo_train.errors import Interrupted
from mofo_train.evaluation.reconstruction import picture
from mofo_train.guidance.inside import patches_inside_clip_box
from mofo_train.guidance.mask_kinds import MASKS, draw_mask, num_hidden_tokens
from mofo_train.models import MaskedAutoencoder, create_pretrain_model, load_checkpoint, load_into
from mofo_train.models.mae import hidden_pixels, hidden_targets, split_tokens
from mofo_train.runtime.checkpoints import read_newest_checkpoint, write_checkpoint
from mofo_train.runtime.precision import DTYPES
from mofo_train.runtime.ranks import Ranks
from mofo_train.runtime.run_folder import claim_folder
from mofo_train.runtime.run_log import RunLog, duration
from mofo_train.runtime.seeds import step_seed
from mofo_train.runtime.speed import matrix_rate, training_flops
from mofo_train.runtime.stopping import StopRequest, stop_requests
from mofo_train.training.optimizer import create_optimizer, learning_rate, set_learning_rate
from mofo_train.training.safeguards import BadClips, create_sampler, stop_if_diverged

_Drawn = tuple[Batch, Tensor, Tensor, Tensor]  # What a picture is drawn from: batch, frames, mask, prediction.


def pretrain(
    config: PretrainConfig,
    reader: ClipReader,
    out: Path,
    ranks: Ranks,
    *,
    say: Callable[[str], None],
) -> Path:
    """Run or resume a pretraining.

    Args:
        config: The recipe.
        reader: The clips and their motion boxes.
        out: Folder of the run: recipe, log, pictures, checkpoints.
        ranks: This process among all.
        say: Shows a line to the user.

    Returns:
        Folder of the final checkpoint.

    Raises:
        DataError: Too few clips for a batch, or too many cannot be read.
        CheckpointError: `out` holds another run, or the disk is full.
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
class _Run:
    """Everything a running pretraining holds."""

    config: PretrainConfig
    out: Path
    ranks: Ranks
    say: Callable[[str], None]
    reader: ClipReader
    dataset: PretrainClips
    model: MaskedAutoencoder
    wrapped: nn.Module
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    log: RunLog | None
    stop: StopRequest
    bad: BadClips
    step: int = 0
    steps_per_epoch: int = 0
    flops_per_clip: float = 0.0
    peak_flops: float = 0.0

    @classmethod
    def start(
        cls,
        config: PretrainConfig,
        reader: ClipReader,
        out: Path,
        ranks: Ranks,
        say: Callable[[str], None],
        stop: StopRequest,
    ) -> _Run:
        """Build everything and take up the newest checkpoint."""
        net = config.model
        model = _create_model(net)
        num_hidden_tokens(config.mask, model.clip)  # refuses a share that hides nothing or everything
        claim_folder(out, config, write=ranks.is_first, data=reader.content_id())
        if net.init is not None:
            load_into(model, load_checkpoint(net.init), source=str(net.init))
        model.to(ranks.device)
        clips = PretrainClips(
            reader,
            net,
            config.data,
            seed=config.seed,
            with_motion=MASKS[config.mask.kind].reads_motion,
            patch_px=model.clip.patch_px,
        )
        wrapped: nn.Module = ranks.wrap(model, config.run.sharding)
        optimizer = create_optimizer(model, config.optim)
        scaler = torch.amp.GradScaler(ranks.device.type, enabled=config.run.precision == "fp16")
        if config.run.compile:
            wrapped = cast(nn.Module, torch.compile(wrapped))
        log = RunLog(out) if ranks.is_first else None
        bad = BadClips(config.data.max_bad_share)
        run = cls(config, out, ranks, say, reader, clips, model, wrapped, optimizer, scaler, log, stop, bad)
        run._resume()
        return run

    def _resume(self) -> None:
        found, problems = read_newest_checkpoint(self.out / "checkpoints")
        for problem in problems if self.ranks.is_first else []:
            self.say(f"skipped: {problem}")
        if found is None:
            return
        self.ranks.restore(self.model, self.optimizer, found.model, found.state["optimizer"])
        self.scaler.load_state_dict(found.state["scaler"])
        self.step = found.step
        self.bad.num_read, self.bad.num_bad = found.info["num_read"], found.info["num_bad"]
        if self.ranks.is_first:
            self.say(f"resuming after step {self.step} of {found.path}")

    def train(self) -> Path:
        """Take all remaining steps."""
        config = self.config
        optim = config.optim
        sampler = create_sampler(
            len(self.reader), config.data, optim, self.ranks, seed=config.seed, start_step=self.step
        )
        self.steps_per_epoch = sampler.steps_per_epoch
        total = optim.epochs * self.steps_per_epoch
        pin = self.ranks.device.type == "cuda"
        loader = create_loader(self.dataset, sampler, num_workers=config.data.num_workers, pin=pin)
        batches = BatchesAhead(iter(loader), self.ranks.device)
        self.wrapped.train()
        totals = LossTotals(torch.zeros(5, device=self.ranks.device))
        saved: Path | None = None
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
                totals = LossTotals(torch.zeros(5, device=self.ranks.device))
            if self.step % config.run.checkpoint_every_steps == 0 or self.step == total:
                saved = self._save()
        return saved or self._save()

    def _step(self, batches: BatchesAhead, totals: LossTotals) -> float:
        """Take one optimiser step; returns the gradient norm."""
        parts = self.config.optim.accumulate
        losses: list[Tensor] = []
        clips: list[list[str]] = []
        drawn: _Drawn | None = None
        for part in range(parts):
            batch = batches.take()
            self.bad.count(len(batch.clips) // self.config.data.crops_per_clip, batch.bad, self.say)
            clips.append([self.reader.clip_ids[clip] for clip in batch.clips])
            with self.ranks.gradients(self.wrapped, last=part == parts - 1):
                loss, drawn = self._forward(batch, part, totals)
                self.scaler.scale(loss / parts).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            batches.fetch()
        self.scaler.unscale_(self.optimizer)
        limit = self.config.optim.clip_grad_norm
        total = nn.utils.clip_grad_norm_(self.model.parameters(), math.inf if limit is None else limit)
        total = total.full_tensor() if isinstance(total, DTensor) else total
        norm = stop_if_diverged(losses, total, self.step, clips, self.scaler)
        totals.wait_seconds += batches.waited()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if drawn is not None and self._wants_picture():
            self._draw(*drawn)
        return norm

    def _forward(self, batch: Batch, part: int, totals: LossTotals) -> tuple[Tensor, _Drawn]:
        """Compute the loss of a micro-batch and book its parts."""
        device, clip = self.ranks.device, self.model.clip
        frames, boxes = normalise(batch.frames), batch.boxes
        generator = torch.Generator(device)
        place = (self.step * self.config.optim.accumulate + part) * self.ranks.world_size + self.ranks.rank
        generator.manual_seed(step_seed(self.config.seed, place))
        mask = draw_mask(self.config.mask, clip, boxes, batch.motion, generator)
        num_hidden = num_hidden_tokens(self.config.mask, clip)
        dtype = DTYPES[self.config.run.precision]
        torch.manual_seed(step_seed(self.config.seed, place))  # stochastic depth
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            prediction = self.wrapped(frames, mask, num_hidden=num_hidden)
        hidden = hidden_targets if self.config.target == "normalised" else hidden_pixels
        targets = hidden(frames, mask, clip, num_hidden=num_hidden)
        errors = (prediction.float() - targets).square().mean(2)
        loss = errors.mean()
        totals.book(errors.detach(), split_tokens(mask, num_hidden)[1], patches_inside_clip_box(clip, boxes))
        return loss, (batch, frames, mask, prediction.detach())

    def _log(self, totals: LossTotals, rate: float, norm: float, total: int) -> None:
        loss, inside, num_inside, outside, num_outside = self.ranks.sum(totals.parts).tolist()
        seconds = time.perf_counter() - totals.started
        if self.log is None:
            return
        self._measure_roof()
        speed = totals.clips * self.ranks.world_size / seconds
        peak = self.peak_flops * self.ranks.world_size
        memory = torch.cuda.max_memory_allocated() if self.ranks.device.type == "cuda" else 0
        row = {
            "event": "train",
            "epoch": self.step / self.steps_per_epoch,
            "loss": loss / (totals.micro_batches * self.ranks.world_size),
            "loss_inside": inside / num_inside if num_inside else None,
            "loss_outside": outside / num_outside if num_outside else None,
            "lr": rate,
            "grad_norm": norm if math.isfinite(norm) else None,
            "clips_per_second": speed,
            "data_wait_share": totals.wait_seconds / seconds,
            "mfu": speed * self.flops_per_clip / peak,
            "memory_gib": memory / 2**30,
            "bad_clips": self.bad.num_bad,
        }
        self.log.write(self.step, row)
        left = (total - self.step) * seconds * self.config.optim.accumulate / totals.micro_batches
        self.say(
            f"step {self.step}/{total}  loss {row['loss']:.4f}  lr {rate:.2e}  {speed:.1f} clips/s  "
            f"data wait {row['data_wait_share']:.0%}  left {duration(left)}"
        )

    def _measure_roof(self) -> None:
        if self.peak_flops:
            return
        clip = self.model.clip
        frames = torch.empty(1, 3, clip.num_frames, clip.image_px, clip.image_px, device="meta")
        mask = torch.zeros(1, clip.num_tokens, dtype=torch.bool)
        mask[:, : round(self.config.mask.mask_ratio * clip.num_tokens)] = True
        with torch.device("meta"):
            shadow = _create_model(self.config.model)
        self.flops_per_clip = training_flops(shadow, frames, mask)
        self.peak_flops = matrix_rate(self.ranks.device, DTYPES[self.config.run.precision])

    def _wants_picture(self) -> bool:
        every = self.config.run.picture_every_epochs * self.steps_per_epoch
        return self.log is not None and bool(every) and (self.step + 1) % every == 0

    def _draw(self, batch: Batch, frames: Tensor, mask: Tensor, prediction: Tensor) -> None:
        assert self.log is not None  # noqa: S101
        image = picture(
            frames[0],
            mask[0],
            batch.boxes[0].cpu(),
            prediction[0],
            self.model.clip,
            normalised=self.config.target == "normalised",
        ).cpu()
        folder = self.out / "pictures"
        folder.mkdir(exist_ok=True)
        path = folder / f"epoch-{(self.step + 1) // self.steps_per_epoch:05d}.png"
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
        self.log.picture(self.step + 1, "reconstruction", image)

    def _save(self) -> Path:
        reasons = self.ranks.gather(self.bad.reasons)
        weights, optimizer = self.ranks.full_state(self.model, self.optimizer)
        path = self.out / "checkpoints" / f"step-{self.step:09d}"
        if not self.ranks.is_first:
            return path
        info = {
            "stage": "pretrain",
            "model": self.config.model.model_dump(mode="json"),
            "recipe_digest": config_digest(self.config),
            "num_read": self.bad.num_read,
            "num_bad": self.bad.num_bad,
            "bad_clips": {name: reason for part in reasons for name, reason in part.items()},
        }
        state = {"optimizer": optimizer, "scaler": self.scaler.state_dict()}
        keep = self.config.run.keep_checkpoints
        return write_checkpoint(self.out / "checkpoints", self.step, weights, state, info, keep=keep)

    def close(self) -> None:
        """Write out the log."""
        if self.log is not None:
            self.log.close()


def _create_model(config: ModelConfig) -> MaskedAutoencoder:
    return create_pretrain_model(
        config.name,
        num_frames=config.num_frames,
        image_px=config.image_px,
        decoder_depth=config.decoder_depth,
        drop_path=config.drop_path,
        recompute=config.recompute,
    )


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
