"""Linear layers whose three products are computed in 8 bits while training, for GPUs of Hopper's generation and later.

Values and weights are cast to e4m3 (4 bits of exponent, 3 of mantissa), gradients to e5m2, as in Micikevicius et al.
2022, "FP8 formats for deep learning", section 3. Every tensor has one scale, made of its own largest value each time.
Sums are float32. Weights, norms, attention, the embedding of tubelets and the heads stay as `bf16` has them.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import ScalingType

MULTIPLE = 16
"""The products want sides that are multiples of it."""

_VALUES, _GRADIENTS = torch.float8_e4m3fn, torch.float8_e5m2
_SMALLEST = 1e-12  # of a largest value: a tensor of zeros has a scale too


def to_float8(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cast a tensor so that its largest value is the largest of the format.

    Args:
        values: Floating-point, any shape.
        dtype: `torch.float8_e4m3fn` or `torch.float8_e5m2`.

    Returns:
        The same shape in 8 bits, and the float32 scalar that it has to be multiplied with.
    """
    most = torch.finfo(dtype).max
    largest = values.abs().amax().float().clamp(min=_SMALLEST)
    return (values.float() * (most / largest)).clamp(-most, most).to(dtype), largest / most


def suits_float8(x: Tensor, weight: Tensor) -> bool:
    """Return whether `float8_linear` can compute the product: sides are multiples of 16, under autocast to bfloat16."""
    kind = x.device.type
    sides = (x.numel() // max(1, x.shape[-1]), *weight.shape)
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16
    return autocast and x.numel() > 0 and all(side % MULTIPLE == 0 for side in sides)


def float8_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute x weight^T + bias in 8 bits, and both gradients' products too.

    Args:
        x: (m, k), see `suits_float8`.
        weight: (n, k).
        bias: (n,), or None.

    Returns:
        bfloat16 (m, n).
    """
    return cast(Tensor, _Float8Linear.apply(x, weight, bias))


def _product(
    one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], bias: Tensor | None, dtype: torch.dtype, *, fast: bool
) -> Tensor:
    """Multiply (m, k) with (n, k) transposed; both have their values of one k next to each other.

    `fast` lets the multiplying units of a Hopper GPU round their sums, which gradients are too small for.
    """
    (left, left_scale), (right, right_scale) = one, other
    whole = ScalingType.TensorWise
    return F.scaled_mm(
        left, right.t(), left_scale, whole, right_scale, whole, bias=bias, output_dtype=dtype, use_fast_accum=fast
    )


class _Float8Linear(torch.autograd.Function):
    """x (m, k), weight (n, k), bias (n,) or None -> bfloat16 (m, n)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        values, weights = to_float8(x, _VALUES), to_float8(weight, _VALUES)
        ctx.save_for_backward(*values, *weights)
        ctx.dtypes = x.dtype, weight.dtype, None if bias is None else bias.dtype
        low = None if bias is None else bias.to(torch.bfloat16)
        return _product(values, weights, low, torch.bfloat16, fast=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        values, values_scale, weights, weights_scale = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.dtypes
        for_x, for_weight, for_bias = ctx.needs_input_grad
        pull, scale = to_float8(grad, _GRADIENTS)
        turned = (_turned(pull), scale), (_turned(values), values_scale)
        return (
            _product((pull, scale), (_turned(weights), weights_scale), None, of_x, fast=False) if for_x else None,
            _product(*turned, None, of_weight, fast=False) if for_weight else None,
            grad.float().sum(0).to(of_bias) if for_bias else None,
        )


def _turned(matrix: Tensor) -> Tensor:
    """Return the transposed matrix with the values of a row next to each other."""
    return matrix.t().contiguous()
