"""Finetuning, MOFO section 2.3: a classifier whose tokens inside and outside the motion box are fused.

The weights that are kept are chosen on clips held out of the training split; the test split is never opened here.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mofo_train.data.dataset import FinetuneClips
from mofo_train.data.labels import LabelSpace
from mofo_train.data.loader import Batch
from mofo_train.data.reader import ClipReader
from mofo_train.data.transforms import normalise
from mofo_train.evaluation.report import percent
from mofo_train.finetune_config import FinetuneConfig
from mofo_train.guidance.mixing import draw_mix, mix_frames, mix_membership, mix_targets
from mofo_train.models import Classifier
from mofo_train.models.from_recipe import create_model
from mofo_train.models.probe import AttentiveClassifier
from mofo_train.runtime.checkpoints import write_checkpoint
from mofo_train.runtime.precision import DTYPES
from mofo_train.runtime.ranks import Ranks
from mofo_train.runtime.run_log import RunLog
from mofo_train.training.optimizer import layer_decay_groups
from mofo_train.training.selection import class_weights, held_out_score, hold_out_clips, selection_record
from mofo_train.training.trainer import Objective, Run, identity, train

_LOG = logging.getLogger(__name__)


def finetune(config: FinetuneConfig, reader: ClipReader, out: Path, ranks: Ranks) -> Path:
    """Run or resume a finetuning.

    Args:
        config: The recipe.
        reader: The clips of the training split, with labels.
        out: Folder of the run: recipe, log, checkpoints, and `best`, the weights that were chosen.
        ranks: This process among all.

    Returns:
        Folder of the checkpoint that was chosen.

    Raises:
        DataError: The store lacks labels, has too few clips, or too many cannot be read.
        CheckpointError: `model.init` does not fit.
        MotionBoxError: As `trainer.train` raises it.
    """
    return train(Run(config, reader, out, ranks), lambda run: _Finetuning(run, config))


class _Finetuning(Objective):
    """Classify; the weights that do best on held-out clips are kept."""

    stage: ClassVar[str] = "finetune"
    model: Classifier | AttentiveClassifier

    def __init__(self, run: Run, config: FinetuneConfig) -> None:
        optim = config.optim
        self.run, self.config, self.ranks = run, config, run.ranks
        self.space = LabelSpace.of(run.reader.every_clip(), config.task, "the store")
        self.reader, self.held_out = hold_out_clips(run.reader, config, self.space)
        on_device = self.reader.leaves_views_to(run.ranks.device.type, config.data.convert_on)
        self.clips = FinetuneClips(self.reader, config, on_device=on_device)
        self.model = create_model(config.model, self.space.num_outputs).to(run.ranks.device)
        self.average: AveragedModel | None = None
        if optim.ema_decay is not None:
            self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(optim.ema_decay))  # type: ignore[no-untyped-call]
        labels = self.space.labels(self.reader.labels)
        self.labels = {head: torch.from_numpy(labels[head]) for head in self.space.heads}
        self.weights: dict[str, Tensor | None] = dict.fromkeys(self.space.heads)
        if optim.class_balance:
            for head, num_classes in self.space.heads.items():
                weights = class_weights(labels[head], num_classes, optim.class_balance)
                self.weights[head] = weights.to(run.ranks.device)
        self.best_score, self.best_step = -1.0, -1

    def create_optimizer(self) -> torch.optim.AdamW:
        """Create AdamW; the further from the head, the lower the learning rate."""
        optim = self.config.optim
        groups = layer_decay_groups(self.model, optim.weight_decay, optim.layer_decay)
        return torch.optim.AdamW(groups, lr=0.0, betas=optim.betas, eps=1e-8, fused=True)

    def set_training(self, network: nn.Module) -> None:
        """Put the network into training mode; a frozen encoder stays as it is used."""
        network.train()
        if self.config.model.probe != "none":
            self.model.encoder.eval()

    def new_sums(self) -> Tensor:
        """Return zero: the loss."""
        return torch.zeros((), dtype=torch.float64, device=self.ranks.device)

    def loss(self, network: nn.Module, batch: Batch, seed: int, sums: Tensor) -> Tensor:
        """Mix a micro-batch and compute its cross-entropy, summed over the heads."""
        device, augment = self.ranks.device, self.config.augment
        rng = np.random.default_rng(seed)
        mix = draw_mix(augment.mixup_alpha, augment.cutmix_alpha, self.config.model.image_px, rng)
        frames = mix_frames(normalise(batch.frames), mix)
        share = self.config.guidance.max_share
        inside = mix_membership(batch.boxes, mix, self.model.clip, batch.areas, max_share=share)
        dtype = DTYPES[self.config.run.precision]
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = network(frames, inside=inside)
        loss = torch.zeros((), device=device)
        for head, scores in self.space.split(logits.float()).items():
            labels = self.ranks.send(self.labels[head][batch.clips])
            targets = mix_targets(labels, self.space.heads[head], mix.share, augment.label_smoothing)
            loss = loss + F.cross_entropy(scores, targets, weight=self.weights[head])
        sums += loss.detach()
        return loss

    def figures(self, sums: Tensor, clips_per_second: float) -> dict[str, float | None]:  # noqa: ARG002
        """Return nothing beside the loss."""
        return {}

    def after_step(self, step: int, steps_per_epoch: int, log: RunLog | None) -> None:
        """Average the weights, and test the held-out clips where that is due."""
        if self.average is not None:
            self.average.update_parameters(self.model)
        is_last = step == self.config.optim.epochs * steps_per_epoch
        if step % (self.config.selection.every_epochs * steps_per_epoch) == 0 or is_last:
            self._select(step, log, is_last=is_last)

    def _select(self, step: int, log: RunLog | None, *, is_last: bool) -> None:
        """Test the held-out clips, one view each, and keep the weights if they are the best so far."""
        candidate = self.model if self.average is None else self.average.module
        score = float(step)  # Nothing held out: the last weights count.
        if self.held_out is None:
            if not is_last:
                return
        else:
            score = held_out_score(candidate, self.held_out, self.config, self.space, self.ranks)
            if log is not None:
                log.write(step, {"event": "select", "held_out_top1": score, "clips": len(self.held_out)})
                _LOG.info(f"step {step}  held-out top-1 {percent(score)} ({len(self.held_out)} training clips)")
        if score > self.best_score:
            self.best_score, self.best_step = score, step
            if self.ranks.is_first:
                rule = selection_record(self.config, self.held_out, self.best_score)
                info = {"selection": rule, **identity(self.config, self)}
                write_checkpoint(self.run.out / "best", step, candidate.state_dict(), {}, info, keep=1)

    def state(self) -> dict[str, Any]:
        """Return the averaged weights and what was best so far."""
        average = None if self.average is None else self.average.state_dict()
        return {"average": average, "best_score": self.best_score, "best_step": self.best_step}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.best_score, self.best_step = state["best_score"], state["best_step"]

    def info(self) -> dict[str, Any]:
        """Return the classes."""
        return {"label_space": self.space.as_json()}

    def chosen(self, newest: Path) -> Path:  # noqa: ARG002
        """Return the weights that did best on held-out clips."""
        return self.run.out / "best" / f"step-{self.best_step:09d}"
