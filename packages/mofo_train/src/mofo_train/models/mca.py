"""Multi-cross attention (MCA), MOFO section 2.3: the tokens inside the motion look at those outside, then their mean.

The two sets differ in size from clip to clip, so both are ragged. All that works token by token (norms, projections,
MLP) runs on the packed tokens of the whole batch without any padding; only attention pads, among clips of similar
size. Since only the mean of the queries is wanted, the MLP's second layer runs on means.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn

from mofo_train.models.layers.linear import Linear, Mlp, linear
from mofo_train.models.ragged import Ragged
from mofo_train.models.vit import NORM_EPSILON

_NUM_HEADS = 3
# Attention runs this often whatever the batch: up to 8 clips never pad, larger batches pad among neighbours in size.
_NUM_GROUPS = 8


class CrossAttention(nn.Module):
    """Multi-head attention from one set of tokens to another, clip by clip; bias on queries and values only.

    The width of a head is `dim // num_heads`, so that heads together may be narrower than `dim` (1,023 of 1,024).
    Three ways give the same numbers up to rounding:

    | where | way | what it saves |
    |---|---|---|
    | GPU, half precision | `_attend_packed` | one kernel for ragged sets, no padding at all |
    | elsewhere | `_attend_padded` | groups of similar clips, each padded to its longest |
    | CPU, clips with few queries | `_attend_unprojected` | keys and values are never computed |
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim < num_heads:
            raise ValueError(f"dim must be at least {num_heads}, one for each head, got {dim!r}")
        self.heads = (num_heads, dim // num_heads)
        width = dim // num_heads * num_heads
        self.q = Linear(dim, width, bias=False)
        self.kv = Linear(dim, 2 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = Linear(width, dim)

    def forward(self, x: Tensor, queries: Ragged, y: Tensor, keys: Ragged) -> Tensor:
        """Attend, clip by clip, from packed x (n, dim) to packed y (m, dim) -> (n, dim).

        Every clip has a key. Clips are best sorted by their number of queries: where the keys are a clip's other
        tokens, neighbours then pad little on either side.
        """
        query = linear(x, self.q.weight, self.q_bias)
        if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and queries.num_rows:
            return cast(Tensor, self.proj(self._attend_packed(query, queries, y, keys)))
        num_groups = min(_NUM_GROUPS, len(queries.sizes))
        groups = list(zip(queries.split(num_groups), keys.split(num_groups), strict=True))
        query_parts = torch.split(query, [own.num_rows for own, _ in groups])
        y_parts = torch.split(y, [others.num_rows for _, others in groups])
        out = []
        for query_part, y_part, (own, others) in zip(query_parts, y_parts, groups, strict=True):
            if own.num_rows == 0:
                continue
            attend = self._attend_unprojected if self._has_few_queries(y, own, others) else self._attend_padded
            out.append(attend(query_part, own, y_part, others))
        if not out:  # No queries at all: keep the weights of keys and values in the graph, with zero gradients.
            return cast(Tensor, self.proj(query + 0.0 * (self.kv.weight.sum() + self.v_bias.sum())))
        return cast(Tensor, self.proj(torch.cat(out)))

    def _project(self, y: Tensor) -> Tensor:
        """Return keys and values side by side, (m, dim) -> (m, 2 width)."""
        return linear(y, self.kv.weight, torch.cat([torch.zeros_like(self.q_bias), self.v_bias]))

    def _attend_packed(self, query: Tensor, queries: Ragged, y: Tensor, keys: Ragged) -> Tensor:
        """Attend in one kernel that knows where each clip begins: (n, width) and (m, dim) -> (n, width)."""
        key, value = self._project(y).unflatten(1, (2, *self.heads)).unbind(1)  # type: ignore[no-untyped-call]
        by_head = query.unflatten(1, self.heads)  # type: ignore[no-untyped-call]
        out = varlen_attn(by_head, key, value, queries.edges(), keys.edges(), queries.longest, keys.longest)
        return cast(Tensor, out).flatten(1)

    def _attend_padded(self, query: Tensor, queries: Ragged, y: Tensor, keys: Ragged) -> Tensor:
        """Attend within a group of clips, padded to the longest: (n, width) and (m, dim) -> (n, width).

        Padded keys are masked; padded queries are computed and thrown away.
        """
        pairs, is_key = keys.pad(self._project(y))
        padded, _ = queries.pad(query)
        key, value = pairs.unflatten(2, (2, *self.heads)).permute(2, 0, 3, 1, 4).unbind(0)  # type: ignore[no-untyped-call]
        out = F.scaled_dot_product_attention(
            padded.unflatten(2, self.heads).transpose(1, 2),  # type: ignore[no-untyped-call]
            key,
            value,
            attn_mask=None if is_key is None else is_key[:, None, None, :],
        )
        return queries.unpad(out.transpose(1, 2).flatten(2))

    def _attend_unprojected(self, query: Tensor, queries: Ragged, y: Tensor, keys: Ragged) -> Tensor:
        """Attend within a group without keys and values, (n, width) and (m, dim) -> (n, width).

        With W_k and W_v of one head, a softmax over scores q . (W_k y) and the mean of W_v y under it:

            q . (W_k y) = (W_k^T q) . y               the query is carried to the space of tokens, once
            sum_j w_j (W_v y_j) = W_v (sum_j w_j y_j)  tokens are averaged first, then the mean is projected

        So the tokens themselves are keys and values, the same for every head: the heads' queries, `dim` wide now,
        stand side by side as more queries of a single head.
        """
        to_key, to_value = self.kv.weight.unflatten(0, (2, *self.heads)).unbind(0)  # type: ignore[no-untyped-call]
        by_head = query.unflatten(1, self.heads)  # type: ignore[no-untyped-call]
        carried = torch.einsum("nhe,hed->nhd", by_head, to_key)
        padded, _ = queries.pad(carried.flatten(1))
        tokens, is_key = keys.pad(y)
        out = F.scaled_dot_product_attention(
            padded.unflatten(2, (self.heads[0], -1)).flatten(1, 2)[:, None],  # type: ignore[no-untyped-call]
            tokens[:, None],
            tokens[:, None],
            attn_mask=None if is_key is None else is_key[:, None, None, :],
            scale=self.heads[1] ** -0.5,  # of the projected width, not of the tokens'
        )
        means = queries.unpad(out.reshape(padded.shape)).unflatten(1, (self.heads[0], -1))  # type: ignore[no-untyped-call]
        return torch.einsum("nhd,hed->nhe", means, to_value).flatten(1) + self.v_bias

    def _has_few_queries(self, y: Tensor, queries: Ragged, keys: Ragged) -> bool:
        """Say whether leaving keys and values unprojected takes fewer operations than projecting them.

        Per clip with n queries and m keys: 4 (n dim^2 + n m heads dim) against 4 (m dim^2 + n m dim), counting only
        what differs. Fused kernels of GPUs want narrow heads, so this is for the CPU.
        """
        dim = y.shape[1]
        num_queries, num_keys = queries.longest, keys.num_rows / len(queries.sizes)
        extra = (self.heads[0] - 1) * num_queries * num_keys
        return y.device.type == "cpu" and num_queries * dim + extra < num_keys * dim


class MultiCrossAttention(nn.Module):
    """One transformer block whose queries and keys are different tokens, then the mean over the queries."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.attn = CrossAttention(dim, _NUM_HEADS)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.mlp = Mlp(dim, 4 * dim)

    # The sizes of the sets differ from batch to batch: a compiler would cut this into a dozen graphs.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, tokens: Tensor, is_query: Tensor, is_key: Tensor) -> Tensor:
        """Let tokens attend to others of their clip and average what becomes of them.

        Args:
            tokens: (B, N, dim) all tokens of the clips.
            is_query: bool (B, N), which of them are queries.
            is_key: bool (B, N), which are keys and values. In a clip without any, the queries attend to one another.

        Returns:
            (B, dim) the mean of the updated queries; zero for a clip that has none.
        """
        is_key = is_key | ~is_key.any(1, keepdim=True)
        counts = torch.stack([is_query.sum(1), is_key.sum(1)])
        order = counts[0].argsort()  # neighbours of similar size pad little
        counts = counts[:, order]
        queries, keys = (Ragged(mine, tuple(sizes)) for mine, sizes in zip(counts, counts.tolist(), strict=True))
        # Pack: the queries of all clips, then their keys, by one gather of the batch's tokens.
        query_clip, query_index = is_query[order].nonzero().unbind(1)
        key_clip, key_index = is_key[order].nonzero().unbind(1)
        query_clip, num_tokens = order[query_clip], tokens.shape[1]
        rows = torch.cat([query_clip * num_tokens + query_index, order[key_clip] * num_tokens + key_index])
        packed = tokens.flatten(0, 1).index_select(0, rows)
        sizes = [queries.num_rows, keys.num_rows]
        x, _ = torch.split(packed, sizes)
        own, others = torch.split(self.norm1(packed), sizes)
        x = x + self.attn(own, queries, others, keys)
        hidden = self.mlp.act(self.mlp.fc1(self.norm2(x)))
        # The mean of a linear layer is the linear layer of the mean: fc2 sees one vector per clip.
        member = query_clip == torch.arange(len(tokens), device=rows.device)[:, None]
        mean = _mean(x, member) + self.mlp.fc2(_mean(hidden, member))
        return cast(Tensor, mean * member.any(1, keepdim=True))


def _mean(packed: Tensor, member: Tensor) -> Tensor:
    """Average packed tokens (n, width) by clip, given their membership bool (B, n) -> float32 (B, width).

    A matrix product: sums in a fixed order on every device.
    """
    with torch.autocast(packed.device.type, enabled=False):
        total = member.to(packed.dtype) @ packed
    return total.to(torch.float32) / member.sum(1, keepdim=True).clamp(min=1)
