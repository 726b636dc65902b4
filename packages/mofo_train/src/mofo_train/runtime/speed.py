"""How many operations a training step costs, and how many the device does in a second."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mofo_train.models.layers.linear import linear

_MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}


_BACKWARD_AND_FORWARD = 3


def training_flops(model: nn.Module, frames: Tensor, mask: Tensor) -> float:
    """Count the floating-point operations of a training step per clip: three times the forward pass's products.

    Args:
        model: The model; runs once on the meta device, nothing is computed.
        frames: (B, 3, T, H, W) of any device; only the shape counts.
        mask: (B, num_tokens) on the CPU.
    """
    import copy

    shadow = copy.deepcopy(model).to("meta").eval()  # products are counted as they are not in 8 bits
    num_hidden = int(mask[0].sum())
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        shadow(torch.empty(frames.shape, device="meta"), mask.to("meta"), num_hidden=num_hidden)
    return _BACKWARD_AND_FORWARD * counter.get_total_flops() / len(frames)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the device's rate on the models' own product of large matrices, operations per second (best of three)."""
    side = _MATRIX_SIDE[device.type]
    one = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        wait_for(device)
        start = time.perf_counter()
        linear(one, one)
        wait_for(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was given; a processor has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
