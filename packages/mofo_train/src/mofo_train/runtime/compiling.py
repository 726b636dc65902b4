"""`torch.compile` as recipes ask for it."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from mofo_train.config import CompileMode
from mofo_train.errors import ConfigError


def check_graphs(choice: bool | CompileMode, grad_accum_steps: int) -> None:
    """Refuse CUDA graphs where gradients add up.

    Args:
        choice: As `run.compile` of a recipe.
        grad_accum_steps: Micro-batches whose gradients add up.

    Raises:
        ConfigError: The mode records CUDA graphs, and there are several micro-batches.
    """
    if choice in ("reduce-overhead", "max-autotune") and grad_accum_steps > 1:
        raise ConfigError(
            f"run.compile {choice} keeps gradients in a CUDA graph's memory, which the next micro-batch overwrites: "
            f"set run.compile to max-autotune-no-cudagraphs or optim.grad_accum_steps to 1, got {grad_accum_steps}"
        )


def compiled(network: nn.Module, choice: bool | CompileMode) -> nn.Module:
    """Return the network as `run.compile` wants it run; its parameters stay the same objects.

    Args:
        network: What to compile.
        choice: False: as it is; True: PyTorch's default; or one of its modes.
    """
    if choice is False:
        return network
    return cast(nn.Module, torch.compile(network, mode=None if choice is True else choice))
