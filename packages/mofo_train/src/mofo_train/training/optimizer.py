"""AdamW's parameter groups and the learning-rate schedule."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import nn

from mofo_train.config import OptimConfig

_LR_REFERENCE_BATCH = 256
_BLOCK = re.compile(r"^encoder\.blocks\.(\d+)\.")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters into those that decay (matrices) and those that do not (vectors, biases, the mask token)."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, value in model.named_parameters():
        if value.requires_grad:
            (plain if value.ndim <= 1 or name.endswith(("bias", "mask_token")) else decayed).append(value)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def layer_decay_groups(model: nn.Module, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Split parameters into AdamW's groups by depth: the further from the head, the lower the learning rate.

    The tubelet embedding is layer 0, block i is layer i + 1, everything behind the blocks is the last layer and learns
    at the full rate (BEiT's and VideoMAE's assignment). Vectors and biases do not decay.

    Returns:
        Groups with `lr_scale` = layer_decay ** (last layer - layer).
    """
    blocks = [int(match[1]) for name, _ in model.named_parameters() if (match := _BLOCK.match(name))]
    last = max(blocks, default=-1) + 2
    layers: dict[int, nn.ParameterDict] = {}
    for name, value in model.named_parameters():
        match = _BLOCK.match(name)
        layer = int(match[1]) + 1 if match else 0 if name.startswith("encoder.patch_embed") else last
        layers.setdefault(layer, nn.ParameterDict())[name.replace(".", "/")] = value
    return [
        {**group, "lr_scale": layer_decay ** (last - layer)}
        for layer, members in sorted(layers.items())
        for group in parameter_groups(members, weight_decay)
        if group["params"]
    ]


def create_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Create AdamW over `parameter_groups`, with the fused kernel (CPU and CUDA)."""
    return torch.optim.AdamW(
        parameter_groups(model, config.weight_decay), lr=0.0, betas=config.betas, eps=1e-8, fused=True
    )


def learning_rate(step: int, steps_per_epoch: int, config: OptimConfig) -> float:
    """Return the learning rate of a step: linear warm-up, then half a cosine down to the minimum.

    All rates scale with the batch: times `batch_size / 256`. The first step has `warmup_lr`, the step after the
    warm-up the peak, the last step of all comes within one step of `min_lr`, as in VideoMAE's schedule.

    Args:
        step: Optimiser step, from 0.
        steps_per_epoch: Steps of an epoch.
        config: Rates, warm-up and epochs.
    """
    scale = config.batch_size / _LR_REFERENCE_BATCH
    total = config.epochs * steps_per_epoch
    warmup = min(int(config.warmup_epochs * steps_per_epoch), total)
    if step < warmup:
        share = step / max(1, warmup - 1)
        return scale * (config.warmup_lr + share * (config.base_lr - config.warmup_lr))
    share = (step - warmup) / max(1, total - warmup)
    return scale * (config.min_lr + (config.base_lr - config.min_lr) * (1 + math.cos(math.pi * share)) / 2)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all groups one learning rate, times the group's `lr_scale` where it has one (layer decay)."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
