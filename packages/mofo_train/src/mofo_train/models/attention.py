"""Attention, and its bfloat16 form for CPUs, where PyTorch's own gains little from bfloat16.

PyTorch's attention on a CPU converts between formats inside its tiles; here each head's scores are one product of
matrices. Scores and their softmax are float32 (in bfloat16 their rounding would double the error of the result), all
other products bfloat16. Nothing of the size of the scores outlives a head: the backward pass computes them again.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

from mofo_train.models.linear import linear


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute softmax(query key^T / sqrt(d)) value, as `torch.nn.functional.scaled_dot_product_attention` does.

    Args:
        query: (B, heads, n, d).
        key: (B, heads, m, d).
        value: (B, heads, m, d).

    Returns:
        (B, heads, n, d).
    """
    if not _suits_heads(query):
        return F.scaled_dot_product_attention(query, key, value)
    return cast(Tensor, _AttentionByHead.apply(query, key, value))


def _suits_heads(query: Tensor) -> bool:
    return bool(
        query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and query.numel() > 0
        and not torch.compiler.is_compiling()
        and torch.backends.mkldnn.enabled
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _weights(query: Tensor, key: Tensor) -> Tensor:
    """Return the attention weights (n, m) of one head, computed in float32."""
    with torch.autocast("cpu", enabled=False):
        scores = linear(query.float() * query.shape[-1] ** -0.5, key.float())
    return scores.softmax(-1).to(query.dtype)


class _AttentionByHead(torch.autograd.Function):
    """query (B, heads, n, d), key and value (B, heads, m, d) -> (B, heads, n, d)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        queries, keys, values = (part.flatten(0, 1) for part in (query, key, value))
        ctx.save_for_backward(queries, keys, values)
        ctx.shapes = query.shape, key.shape
        out = torch.empty_like(queries)
        for q, k, v, to in zip(queries, keys, values, out, strict=True):
            torch.mm(_weights(q, k), v, out=to)
        return out.view(query.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values = ctx.saved_tensors
        for_query, for_key, for_value = (torch.empty_like(part) for part in ctx.saved_tensors)
        for head, pull in enumerate(grad.flatten(0, 1)):
            query, key, scale = queries[head], keys[head], queries.shape[-1] ** -0.5
            weights = _weights(query, key)
            torch.mm(weights.t(), pull, out=for_value[head])
            for_weights = pull @ values[head].t()
            for_scores = torch._softmax_backward_data(for_weights, weights, -1, weights.dtype)
            torch.mm(for_scores, key * scale, out=for_query[head])
            torch.mm(for_scores.t(), query * scale, out=for_key[head])
        of_query, of_key = ctx.shapes
        return for_query.view(of_query), for_key.view(of_key), for_value.view(of_key)
