"""Masked pretraining, MOFO section 2.2: predict the hidden tubelets of clips whose masks boxes or areas guide."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from mofo_train.config import ModelConfig, PretrainConfig
from mofo_train.data.dataset import PretrainClips
from mofo_train.data.loader import Batch
from mofo_train.data.reader import ClipReader
from mofo_train.data.transforms import normalise
from mofo_train.evaluation.reconstruction import picture
from mofo_train.guidance.inside import inside_tubes
from mofo_train.guidance.mask_kinds import MASKS, draw_mask, num_hidden_tokens
from mofo_train.guidance.rule import NUM_RULE_SUMS, rule_shares, rule_sums
from mofo_train.models import MaskedAutoencoder, create_pretrain_model, load_checkpoint, load_into
from mofo_train.models.mae import hidden_pixels, hidden_targets, split_tokens
from mofo_train.runtime.precision import DTYPES
from mofo_train.runtime.ranks import Ranks
from mofo_train.runtime.run_log import RunLog
from mofo_train.runtime.speed import matrix_rate, training_flops
from mofo_train.training.optimizer import create_optimizer
from mofo_train.training.trainer import Objective, Run, train

_LOG = logging.getLogger(__name__)


def pretrain(config: PretrainConfig, reader: ClipReader, out: Path, ranks: Ranks) -> Path:
    """Run or resume a pretraining.

    Args:
        config: The recipe.
        reader: The clips and their motion boxes.
        out: Folder of the run: recipe, log, pictures, checkpoints.
        ranks: This process among all.

    Returns:
        Folder of the final checkpoint.

    Raises:
        ConfigError: The masks hide nothing, or everything.
        MotionBoxError: As `trainer.train` raises it.
    """
    return train(Run(config, reader, out, ranks), lambda run: _Pretraining(run, config))


class _Pretraining(Objective):
    """Predict hidden tubelets; the last weights are kept."""

    stage: ClassVar[str] = "pretrain"
    model: MaskedAutoencoder

    def __init__(self, run: Run, config: PretrainConfig) -> None:
        self.config, self.ranks, self.out, self.reader = config, run.ranks, run.out, run.reader
        self.sharding, self.warned = config.run.sharding, False
        self.model = _create_model(config.model)
        self.num_hidden = num_hidden_tokens(config.mask, self.model.clip)
        if config.model.init is not None:
            load_into(
                self.model, load_checkpoint(config.model.init, config.model.init_weights), source=str(config.model.init)
            )
        self.model.encoder.patch_embed.requires_grad_(not config.model.freeze_patch_embed)
        self.model.to(run.ranks.device)
        self.reads = MASKS[config.mask.kind].reads
        self.clips = PretrainClips(
            run.reader,
            config.model,
            config.data,
            seed=config.seed,
            reads=self.reads,
            patch_px=self.model.clip.patch_px,
            on_device=run.reader.leaves_views_to(run.ranks.device.type, config.data.convert_on),
        )
        self.flops_per_clip = self.peak_flops = 0.0
        self.shown: tuple[Tensor, Tensor, Tensor, Tensor] | None = None  # frames, mask, boxes, prediction of a batch

    def create_optimizer(self) -> torch.optim.AdamW:
        """Create AdamW; matrices decay."""
        return create_optimizer(self.model, self.config.optim)

    def new_sums(self) -> Tensor:
        """Return zeros for `error_sums`, `rule_sums` and the number of samples without flow."""
        return torch.zeros(_NUM_ERROR_SUMS + NUM_RULE_SUMS + 1, device=self.ranks.device)

    def loss(self, network: nn.Module, batch: Batch, seed: int, sums: Tensor) -> Tensor:
        """Compute the mean squared error of the hidden tubelets."""
        device, clip = self.ranks.device, self.model.clip
        frames = normalise(batch.frames)
        generator = torch.Generator(device).manual_seed(seed)
        share = self.config.guidance.max_share
        inside = inside_tubes(clip, batch.boxes, batch.areas, max_share=share, generator=generator)
        mask = draw_mask(self.config.mask, clip, inside, batch.motion, generator)
        dtype = DTYPES[self.config.run.precision]
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            prediction = network(frames, mask, num_hidden=self.num_hidden)
        hidden = hidden_targets if self.config.target == "normalised" else hidden_pixels
        targets = hidden(frames, mask, clip, num_hidden=self.num_hidden)
        errors: Tensor = (prediction.float() - targets).square().mean(2)
        positions = split_tokens(mask, self.num_hidden)[1]
        ratio = self.config.mask.inside_ratio
        found = [error_sums(errors.detach(), positions, inside), rule_sums(inside, mask, ratio)]
        sums += torch.cat([*found, self._num_without_flow(batch)])
        self.shown = frames, mask, batch.boxes, prediction.detach()
        return errors.mean()

    def figures(self, sums: Tensor, clips_per_second: float) -> dict[str, float | None]:
        """Return the errors inside and outside, what the masks did, and the share of the device's rate that is used."""
        _, inside, num_inside, outside, num_outside = sums[:_NUM_ERROR_SUMS].tolist()
        num_samples, *_, without_flow = sums[_NUM_ERROR_SUMS:].tolist()
        rule = rule_shares(sums[_NUM_ERROR_SUMS:-1].tolist())
        self._warn_of_rule(rule)
        without_flow_share = self._share_without_flow(without_flow, num_samples)
        self._measure_peak()
        return {
            "loss_inside": inside / num_inside if num_inside else None,
            "loss_outside": outside / num_outside if num_outside else None,
            **rule,
            "without_flow": without_flow_share,
            "mfu": clips_per_second * self.flops_per_clip / (self.peak_flops * self.ranks.world_size),
        }

    def _num_without_flow(self, batch: Batch) -> Tensor:
        """Count the samples in which nothing moves, whose visible tubes are straight, float32 (1,)."""
        if self.reads != "flow":
            return batch.boxes.new_zeros(1)
        return (batch.motion == 0).flatten(1).all(1).sum(dtype=torch.float32).view(1)

    def _share_without_flow(self, number: float, num_samples: float) -> float | None:
        """Return the share of samples without flow, and say it once where there are any; None where none is read."""
        if self.reads != "flow":
            return None
        if number and not self.warned:
            self.warned = True
            share = number / num_samples
            _LOG.warning(f"{share:.0%} of the samples have no flow: their masks are plain tube masks")
        return number / num_samples

    def _warn_of_rule(self, rule: dict[str, float | None]) -> None:
        """Say once if most masks are plain tube masks in truth."""
        mask, holds, inside = self.config.mask, rule["rule_holds"], rule["share_inside"]
        if self.warned or mask.kind != "motion" or holds is None or inside is None:
            return
        self.warned = True
        if holds < 0.5:
            _LOG.warning(
                f"warning: {mask.mask_ratio:.0%} of all and {mask.inside_ratio:.0%} of the inside tubes can be hidden "
                f"in {holds:.0%} of the samples only, because {inside:.0%} of the patches are inside on average; see "
                "`mofo-train inspect`, or let areas guide (--set guidance=area)"
            )

    def _measure_peak(self) -> None:
        """Count a clip's operations and measure the device's rate, once."""
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

    def after_step(self, step: int, steps_per_epoch: int, log: RunLog | None) -> None:
        """Draw a reconstruction of the last batch where one is due."""
        shown, self.shown = self.shown, None
        every = self.config.run.picture_every_epochs * steps_per_epoch
        if shown is None or log is None or not every or step % every:
            return
        frames, mask, boxes, prediction = shown
        normalised = self.config.target == "normalised"
        image = picture(frames[0], mask[0], boxes[0].cpu(), prediction[0], self.model.clip, normalised=normalised).cpu()
        folder = self.out / "pictures"
        folder.mkdir(exist_ok=True)
        path = folder / f"epoch-{step // steps_per_epoch:05d}.png"
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
        log.picture(step, "reconstruction", image)

    def state(self) -> dict[str, Any]:
        """Return nothing: a step depends on its number alone."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Do nothing, see `state`."""

    def info(self) -> dict[str, Any]:
        """Return the network's recipe."""
        return {"model": self.config.model.model_dump(mode="json")}

    def chosen(self, newest: Path) -> Path:
        """Return the last weights."""
        return newest


_NUM_ERROR_SUMS = 5


def error_sums(errors: Tensor, hidden: Tensor, inside: Tensor) -> Tensor:
    """Add up errors by place.

    Args:
        errors: float (B, n), of the hidden tokens.
        hidden: int64 (B, n), their positions in the clip.
        inside: bool (B, P), the tubes inside.

    Returns:
        (5,): mean error, then sum of errors and number of tokens inside, and the same outside.
    """
    within = inside.gather(1, hidden % inside.shape[1]).to(errors.dtype)
    sums = [errors.mean(), (errors * within).sum(), within.sum(), (errors * (1 - within)).sum(), (1 - within).sum()]
    return torch.stack(sums)


def _create_model(config: ModelConfig) -> MaskedAutoencoder:
    return create_pretrain_model(
        config.name,
        num_frames=config.num_frames,
        image_px=config.image_px,
        decoder_depth=config.decoder_depth,
        drop_path=config.drop_path,
        grad_checkpointing=config.grad_checkpointing,
    )
