"""Attention, and its bfloat16 form for CPUs, where PyTorch's own gains little from bfloat16.

PyTorch's attention on a CPU converts between formats inside its tiles; here each head's scores are one product of
matrices. Scores and their softmax are float32 (in bfloat16 their rounding would double the error of the result), all
other products bfloat16. The weights are kept for the backward pass where they are few, else computed again.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

from mofo_train.models.layers.linear import linear

_KEPT_BYTES = 256 * 2**20  # of one call's weights: those of a ViT-B decoder block and eight clips


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


def _weigh(query: Tensor, key: Tensor, out: Tensor) -> Tensor:
    """Write the attention weights (n, m) of one head, computed in float32, to `out` and return it."""
    with torch.autocast("cpu", enabled=False):
        scores = linear(query.float() * query.shape[-1] ** -0.5, key.float())
    return out.copy_(scores.softmax(-1))


class _AttentionByHead(torch.autograd.Function):
    """query (B, heads, n, d), key and value (B, heads, m, d) -> (B, heads, n, d)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        queries, keys, values = (part.flatten(0, 1) for part in (query, key, value))
        heads, num_queries, num_keys = *queries.shape[:2], keys.shape[1]
        keep = query.element_size() * heads * num_queries * num_keys <= _KEPT_BYTES
        weights = query.new_empty(heads if keep else 1, num_queries, num_keys)
        out = torch.empty_like(queries)
        for head in range(heads):
            own = _weigh(queries[head], keys[head], weights[head if keep else 0])
            torch.mm(own, values[head], out=out[head])
        ctx.save_for_backward(queries, keys, values, weights if keep else None)
        ctx.shapes = query.shape, key.shape
        return out.view(query.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values, kept = ctx.saved_tensors
        for_query, for_key, for_value = (torch.empty_like(part) for part in (queries, keys, values))
        spare = None if kept is not None else queries.new_empty(queries.shape[1], keys.shape[1])
        for head, pull in enumerate(grad.flatten(0, 1)):
            query, key, scale = queries[head], keys[head], queries.shape[-1] ** -0.5
            weights = kept[head] if spare is None else _weigh(query, key, spare)
            torch.mm(weights.t(), pull, out=for_value[head])
            for_weights = pull @ values[head].t()
            for_scores = torch._softmax_backward_data(for_weights, weights, -1, weights.dtype)
            torch.mm(for_scores, key * scale, out=for_query[head])
            torch.mm(for_scores.t(), query * scale, out=for_key[head])
        of_query, of_key = ctx.shapes
        return for_query.view(of_query), for_key.view(of_key), for_value.view(of_key)
