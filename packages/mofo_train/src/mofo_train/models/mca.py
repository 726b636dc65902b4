"""The classifier, and how it fuses tokens inside and outside the motion box into one vector.

MOFO section 2.3: after the encoder, multi-cross attention (MCA) lets the tokens inside the box (queries) look at those
outside (keys and values); their mean is classified. Boxes differ in size from clip to clip, so the two sets are ragged.
All that works token by token (norms, projections, MLP) runs on the packed inside and outside tokens of the whole batch
without any padding; only the attention itself pads, in `_NUM_GROUPS` groups of clips with similar boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from mofo_train.masks import tubelets_inside_boxes
from mofo_train.models.vit import NORM_EPSILON, ClipShape, Encoder, VitSize, patchify

Fusion = Literal["mean", "weighted_mean", "mca", "mca_two_way"]
FUSIONS: tuple[str, ...] = get_args(Fusion)
_MCA_HEADS = 3
_NUM_GROUPS = 4
_OUTSIDE_WEIGHT = 0.5
_HEAD_INIT_SCALE = 0.001


@dataclass(frozen=True)
class Ragged:
    """A subset of the tokens of each clip, packed.

    Attributes:
        index: int64 (n,) positions in the batch's flattened B*N tokens, clip by clip, in token order.
        clip: int64 (n,) the clip of each.
        starts: int64 (B,) where each clip's tokens start in `index`.
        counts: int64 (B,) how many each clip has.
    """

    index: Tensor
    clip: Tensor
    starts: Tensor
    counts: Tensor

    @classmethod
    def of(cls, chosen: Tensor) -> Ragged:
        """Pack the `True` tokens of bool (B, N)."""
        counts = chosen.sum(1)
        index = chosen.flatten().nonzero().squeeze(1)
        return cls(index, index // chosen.shape[1], counts.cumsum(0) - counts, counts)

    def mean(self, packed: Tensor) -> Tensor:
        """Average packed tokens (n, dim) by clip -> float32 (B, dim); zero for a clip that has none."""
        total = packed.new_zeros(len(self.counts), packed.shape[1], dtype=torch.float32)
        total = total.index_add(0, self.clip, packed.to(torch.float32))
        return total / self.counts.clamp(min=1)[:, None]


def ragged_attention(query: Tensor, queries: Ragged, key: Tensor, value: Tensor, keys: Ragged) -> Tensor:
    """Attend, clip by clip, from each clip's queries to its own keys.

    Clips are sorted by their number of queries and cut into a few groups; a group pads to its longest. The keys are
    the clips' other tokens, so their number falls where that of the queries rises and both paddings stay small.

    Args:
        query: (n, heads, d) packed queries.
        queries: Which clip they belong to.
        key: (m, heads, d) packed keys.
        value: (m, heads, d) packed values.
        keys: Which clip they belong to; every clip with queries has at least one.

    Returns:
        (n, heads, d) in the order of `query`.
    """
    order = queries.counts.argsort()
    chunks = order.tensor_split(min(_NUM_GROUPS, len(order)))
    longest = torch.stack([torch.stack([queries.counts[c].amax(), keys.counts[c].amax()]) for c in chunks]).tolist()
    out = []
    places = torch.zeros_like(queries.index)  # Where each packed query stands in the groups' padded results.
    num_before = 0
    for clips, (num_queries, num_keys) in zip(chunks, longest, strict=True):
        if num_queries == 0:
            continue
        query_index, query_real = _padding(queries, clips, num_queries)
        key_index, key_real = _padding(keys, clips, num_keys)
        # A clip without queries may also lack keys; letting its padding be seen keeps its unused rows finite.
        visible = key_real | ~key_real.any(1, keepdim=True)
        attended = F.scaled_dot_product_attention(
            _take(query, query_index),
            _take(key, key_index),
            _take(value, key_index),
            attn_mask=None if len(clips) == 1 else visible[:, None, None, :],
        )
        out.append(attended.transpose(1, 2).flatten(0, 1))
        places[query_index[query_real]] = num_before + query_real.flatten().nonzero().squeeze(1)
        num_before += query_real.numel()
    if not out:  # Nobody asks: keep the keys' weights in the graph all the same, with zero gradients.
        return query + 0.0 * (key.sum() + value.sum())
    return torch.cat(out).index_select(0, places)


def _padding(subset: Ragged, clips: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return (g, length) places in the packed tokens of each of the clips, and which of them are real."""
    step = torch.arange(length, device=clips.device)
    real = step < subset.counts[clips, None]
    return (subset.starts[clips, None] + step).where(real, torch.zeros_like(step)), real


def _take(packed: Tensor, index: Tensor) -> Tensor:
    """Pick packed (n, heads, d) by (g, length) -> (g, heads, length, d).

    `index_select`, here and below, because the backward pass of plain indexing is several times slower on a CPU.
    """
    return packed.index_select(0, index.flatten()).reshape(*index.shape, *packed.shape[1:]).transpose(1, 2)


class CrossAttention(nn.Module):
    """Multi-head attention from one set of tokens to another, bias on queries and values only.

    The width of a head is `dim // num_heads`, so that heads together may be narrower than `dim` (1,023 of 1,024).
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.heads = (num_heads, dim // num_heads)
        width = dim // num_heads * num_heads
        self.q = nn.Linear(dim, width, bias=False)
        self.kv = nn.Linear(dim, 2 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, dim)

    def forward(self, x: Tensor, x_set: Ragged, y: Tensor, y_set: Ragged) -> Tensor:
        """Attend from packed x (n, dim) to packed y (m, dim) -> (n, dim)."""
        query = F.linear(x, self.q.weight, self.q_bias).reshape(len(x), *self.heads)
        pair = F.linear(y, self.kv.weight, torch.cat([torch.zeros_like(self.q_bias), self.v_bias]))
        key, value = pair.reshape(len(y), 2, *self.heads).unbind(1)
        out = ragged_attention(query, x_set, key, value, y_set)
        return cast(Tensor, self.proj(out.flatten(1)))


class MultiCrossAttention(nn.Module):
    """One transformer block whose queries and keys are different tokens; both pass the same first norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.attn = CrossAttention(dim, _MCA_HEADS)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, tokens: Tensor, query_set: Ragged, key_set: Ragged) -> Tensor:
        """Update the query tokens.

        Args:
            tokens: (B*N, dim) all tokens of the batch.
            query_set: Which of them ask.
            key_set: Which of them answer.

        Returns:
            (n, dim) the updated query tokens, packed.
        """
        normed = self.norm1(tokens)
        x = tokens.index_select(0, query_set.index)
        asking, answering = normed.index_select(0, query_set.index), normed.index_select(0, key_set.index)
        x = x + self.attn(asking, query_set, answering, key_set)
        return cast(Tensor, x + self.mlp(self.norm2(x)))


class Classifier(nn.Module):
    """VideoMAE's encoder, a fusion of its tokens by the motion box, a norm and a linear head.

    Attributes:
        clip: The shape of the clips it reads.
        fusion: How tokens become one vector; see `create_classifier`.
    """

    def __init__(
        self, size: VitSize, clip: ClipShape, num_classes: int, fusion: Fusion = "mean", *, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}, got {fusion!r}")
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes!r}")
        self.clip = clip
        self.fusion = fusion
        self.encoder = Encoder(size, clip, drop_path=drop_path, final_norm=False)
        self.inside_mca = MultiCrossAttention(size.dim) if fusion in ("mca", "mca_two_way") else None
        self.outside_mca = MultiCrossAttention(size.dim) if fusion == "mca_two_way" else None
        self.fc_norm = nn.LayerNorm(size.dim, eps=NORM_EPSILON)
        self.head = nn.Linear(size.dim, num_classes)
        self.apply(_init_normal)
        with torch.no_grad():
            self.head.weight.mul_(_HEAD_INIT_SCALE)

    def recompute_activations(self, enabled: bool = True) -> None:
        """Turn activation checkpointing on or off."""
        self.encoder.recompute = enabled

    def forward(self, frames: Tensor, boxes: Tensor | None = None, *, inside: Tensor | None = None) -> Tensor:
        """Classify clips.

        Args:
            frames: float (B, 3, T, H, W), normalised with `mae.IMAGENET_MEAN` and `IMAGENET_STD`.
            boxes: (B, T, 4) xyxy pixels of these frames; a tubelet is inside when any of its frames' boxes touches it.
            inside: bool (B, num_tokens), the membership itself, instead of `boxes` (after cutmix, for instance).

        Returns:
            (B, num_classes) logits.

        Raises:
            ValueError: Wrong shapes, or neither boxes nor membership for a fusion that needs them.
        """
        return cast(Tensor, self.head(self.features(frames, boxes, inside=inside)))

    def features(self, frames: Tensor, boxes: Tensor | None = None, *, inside: Tensor | None = None) -> Tensor:
        """Return the (B, dim) vectors that the head classifies; arguments as of `forward`."""
        tokens = self.encoder(patchify(frames, self.clip))
        return cast(Tensor, self.fc_norm(self.fuse(tokens, self._membership(frames, boxes, inside))))

    def _membership(self, frames: Tensor, boxes: Tensor | None, inside: Tensor | None) -> Tensor | None:
        if self.fusion == "mean":
            return None
        if inside is None:
            if boxes is None:
                raise ValueError(f"boxes or inside must be given for fusion {self.fusion!r}, got neither")
            if boxes.shape != (len(frames), self.clip.num_frames, 4):
                expected = (len(frames), self.clip.num_frames, 4)
                raise ValueError(f"boxes must have shape {expected}, got {tuple(boxes.shape)}")
            side = self.clip.image_px
            inside = tubelets_inside_boxes(boxes, (side, side), self.clip.patch_px, self.clip.tubelet_frames)
        if inside.dtype != torch.bool or inside.shape != (len(frames), self.clip.num_tokens):
            rule = f"bool ({len(frames)}, {self.clip.num_tokens})"
            raise ValueError(f"inside must be {rule}, got {inside.dtype} {tuple(inside.shape)}")
        return inside.to(frames.device)

    def fuse(self, tokens: Tensor, inside: Tensor | None) -> Tensor:
        """Fuse tokens (B, N, dim) by membership bool (B, N) into (B, dim).

        No inside tokens: the plain mean. No outside tokens: the inside ones attend to themselves, and no outside mean
        is added.
        """
        if inside is None:
            return tokens.mean(1)
        flat = tokens.flatten(0, 1)
        inner, outer = Ragged.of(inside), Ragged.of(~inside)
        if self.inside_mca is None:
            fused = self._weighted_mean(flat, inner, outer)
        else:
            answers = outer if bool(outer.counts.all()) else Ragged.of(~inside | ~(~inside).any(1, keepdim=True))
            fused = inner.mean(self.inside_mca(flat, inner, answers))
            if self.outside_mca is not None:
                answers = inner if bool(inner.counts.all()) else Ragged.of(inside | ~inside.any(1, keepdim=True))
                fused = fused + outer.mean(self.outside_mca(flat, outer, answers))
        return fused.where(inner.counts[:, None] > 0, tokens.mean(1)).to(tokens.dtype)

    def _weighted_mean(self, flat: Tensor, inner: Ragged, outer: Ragged) -> Tensor:
        inner_mean = inner.mean(flat.index_select(0, inner.index))
        outer_mean = outer.mean(flat.index_select(0, outer.index))
        both = (inner_mean + _OUTSIDE_WEIGHT * outer_mean) / 2
        return both.where(outer.counts[:, None] > 0, inner_mean)


def _init_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
