"""Linear layers whose float32 products are oneDNN's on CPUs of other makers than Intel.

PyTorch hands float32 products to MKL, which uses AVX-512 on Intel's processors alone; oneDNN, part of the same PyTorch,
does so on others too (2.2 times as fast on an AMD EPYC) and computes in full float32 as well. On Intel's MKL is the
faster one, above all in gradients of weights, for which oneDNN wants copies.
`torch.backends.mkldnn.flags(enabled=False)` turns it off; anything but eager float32 on a CPU is PyTorch's own.
Layers that are asked to learn in 8 bits do so while training (`float8`).
"""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mofo_train.models.layers.float8 import float8_linear, suits_float8


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, float8: bool = False) -> Tensor:
    """Compute x weight^T + bias, as `torch.nn.functional.linear` does.

    Args:
        x: (..., k).
        weight: (n, k).
        bias: (n,), or None.
        float8: Compute in 8 bits where the sizes allow it.

    Returns:
        (..., n).
    """
    if float8 and suits_float8(x, weight):
        return float8_linear(x.reshape(-1, x.shape[-1]), weight, bias).reshape(*x.shape[:-1], -1)
    if not _suits_onednn(x, weight):
        return F.linear(x, weight, bias)
    return cast(Tensor, _OneDnnLinear.apply(x.reshape(-1, x.shape[-1]), weight, bias)).reshape(*x.shape[:-1], -1)


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    return bool(
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and not _is_intel()
    )


@functools.cache
def _is_intel() -> bool:
    """Return whether this machine says that its processor is Intel's."""
    with contextlib.suppress(OSError):
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return False


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))


class _OneDnnLinear(torch.autograd.Function):
    """x (m, k), weight (n, k), bias (n,) or None -> (m, n)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.t()) if for_x else None,
            _product(grad.t(), x.t()) if for_weight else None,
            grad.sum(0) if for_bias else None,
        )


class Linear(nn.Linear):
    """`torch.nn.Linear` through `linear`; parameters, names and initial values are the same.

    Attributes:
        float8: Learn in 8 bits.
    """

    float8 = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return self.product(x, self.weight, self.bias)

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute x weight^T + bias with some of the layer's weights, in the format that it learns in."""
        return linear(x, weight, bias, float8=self.float8 and self.training)


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dim) to the same shape."""
        return cast(Tensor, self.fc2(self.act(self.fc1(x))))
