"""The classifier, and how it fuses tokens inside and outside the motion box into one vector.

MOFO section 2.3: after the encoder, multi-cross attention (MCA) lets the tokens inside the box (queries) look at those
outside (keys and values); their mean is classified. Boxes differ in size from clip to clip, so the two sets are ragged.
All that works token by token (norms, projections, MLP) runs on the packed inside and outside tokens of the whole batch
without any padding; only the attention itself pads, in `_NUM_GROUPS` groups of clips with similar boxes. Since only the
mean is classified, the MLP's second layer runs on means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn

from mofo_train.guidance.inside import inside_tokens
from mofo_train.guidance.tubelets import ClipShape, patchify
from mofo_train.models.linear import Linear, Mlp, linear
from mofo_train.models.vit import NORM_EPSILON, Encoder, VitSize

_MCA_HEADS = 3
# Attention runs this often whatever the batch: up to 8 clips never pad, larger batches pad among neighbours in size.
_NUM_GROUPS = 8
_OUTSIDE_WEIGHT = 0.5
_HEAD_INIT_SCALE = 0.001


@dataclass(frozen=True)
class Ragged:
    """Rows of several clips, packed one clip after the other.

    Attributes:
        counts: int64 (g,) rows of each clip, on the rows' device.
        sizes: The same numbers, on the host.
    """

    counts: Tensor
    sizes: tuple[int, ...]

    @property
    def num_rows(self) -> int:
        """Rows of all clips."""
        return sum(self.sizes)

    @property
    def longest(self) -> int:
        """Rows of the clip that has most."""
        return max(self.sizes)

    def edges(self) -> Tensor:
        """Return int32 (g + 1,), where each clip's rows begin, and the number of rows."""
        return F.pad(self.counts.cumsum(0, dtype=torch.int32), (1, 0))

    def split(self, num_parts: int) -> list[Ragged]:
        """Cut into parts of neighbouring clips."""
        counts = self.counts.tensor_split(num_parts)
        places = torch.arange(len(self.sizes)).tensor_split(num_parts)
        return [
            Ragged(part, tuple(self.sizes[place] for place in where.tolist()))
            for part, where in zip(counts, places, strict=True)
        ]

    def pad(self, packed: Tensor) -> tuple[Tensor, Tensor | None]:
        """Lay packed (n, width) rows out as (g, longest, width), and say which are real; None when all are.

        Clips of equal size are a view. `index_select`, here and below, because the backward pass of plain indexing is
        several times slower on a CPU.
        """
        shape = (len(self.sizes), self.longest, packed.shape[1])
        if min(self.sizes) == self.longest:
            return packed.reshape(shape), None
        step = torch.arange(self.longest, device=packed.device)
        real = step < self.counts[:, None]
        index = ((self.counts.cumsum(0) - self.counts)[:, None] + step).where(real, torch.zeros_like(step))
        return packed.index_select(0, index.flatten()).reshape(shape), real

    def unpad(self, padded: Tensor) -> Tensor:
        """Undo `pad`: (g, longest, width) -> (n, width)."""
        flat = padded.flatten(0, 1)
        if min(self.sizes) == self.longest:
            return flat
        shift = torch.arange(len(self.sizes), device=flat.device) * self.longest - (self.counts.cumsum(0) - self.counts)
        shift = shift.repeat_interleave(self.counts, output_size=self.num_rows)
        return flat.index_select(0, torch.arange(self.num_rows, device=flat.device) + shift)


class CrossAttention(nn.Module):
    """Multi-head attention from one set of tokens to another, bias on queries and values only.

    The width of a head is `dim // num_heads`, so that heads together may be narrower than `dim` (1,023 of 1,024).
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.heads = (num_heads, dim // num_heads)
        width = dim // num_heads * num_heads
        self.q = Linear(dim, width, bias=False)
        self.kv = Linear(dim, 2 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = Linear(width, dim)

    def forward(self, x: Tensor, asking: Ragged, y: Tensor, answering: Ragged) -> Tensor:
        """Attend, clip by clip, from packed x (n, dim) to packed y (m, dim) -> (n, dim). Every clip has a key.

        A GPU in half precision has a kernel for packed tokens. Elsewhere neighbouring clips form a few groups, and a
        group pads to its longest; where clips are sorted by their number of queries, and the keys are a clip's other
        tokens, both paddings stay small.
        """
        query = linear(x, self.q.weight, self.q_bias)
        if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and asking.num_rows:
            return cast(Tensor, self.proj(self._attend_packed(query, asking, y, answering)))
        num_groups = min(_NUM_GROUPS, len(asking.sizes))
        sets = list(zip(asking.split(num_groups), answering.split(num_groups), strict=True))
        queries = torch.split(query, [mine.num_rows for mine, _ in sets])
        tokens = torch.split(y, [others.num_rows for _, others in sets])
        out = []
        for part, other, (mine, others) in zip(queries, tokens, sets, strict=True):
            if mine.num_rows == 0:
                continue
            attend = self._attend_unprojected if self._few_queries(y, mine, others) else self._attend
            out.append(attend(part, mine, other, others))
        if not out:  # Nobody asks: keep the weights of keys and values in the graph, with zero gradients.
            return cast(Tensor, self.proj(query + 0.0 * (self.kv.weight.sum() + self.v_bias.sum())))
        return cast(Tensor, self.proj(torch.cat(out)))

    def _attend_packed(self, query: Tensor, asking: Ragged, y: Tensor, answering: Ragged) -> Tensor:
        """Attend from packed queries (n, width) to packed tokens (m, dim) of all clips at once -> (n, width)."""
        pair = linear(y, self.kv.weight, torch.cat([torch.zeros_like(self.q_bias), self.v_bias]))
        key, value = pair.unflatten(1, (2, *self.heads)).unbind(1)  # type: ignore[no-untyped-call]
        queries = query.unflatten(1, self.heads)  # type: ignore[no-untyped-call]
        out = varlen_attn(queries, key, value, asking.edges(), answering.edges(), asking.longest, answering.longest)
        return cast(Tensor, out).flatten(1)

    def _few_queries(self, y: Tensor, asking: Ragged, answering: Ragged) -> bool:
        """Say whether leaving keys and values unprojected takes fewer operations than projecting them.

        Per clip with n queries and m keys: 4 (n dim^2 + n m heads dim) against 4 (m dim^2 + n m dim), counting only
        what differs. Fused kernels for devices want narrow heads, so this is for the CPU.
        """
        dim = y.shape[1]
        num_clips = len(asking.sizes)
        queries, keys = asking.longest, answering.num_rows / num_clips
        extra = (self.heads[0] - 1) * queries * keys
        return y.device.type == "cpu" and queries * dim + extra < keys * dim

    def _attend(self, query: Tensor, asking: Ragged, y: Tensor, answering: Ragged) -> Tensor:
        """Attend from packed queries (n, width) to packed tokens (m, dim) of a group -> (n, width)."""
        pair = linear(y, self.kv.weight, torch.cat([torch.zeros_like(self.q_bias), self.v_bias]))
        padded, _ = asking.pad(query)
        pairs, real = answering.pad(pair)
        key, value = pairs.unflatten(2, (2, *self.heads)).permute(2, 0, 3, 1, 4).unbind(0)  # type: ignore[no-untyped-call]
        out = F.scaled_dot_product_attention(
            padded.unflatten(2, self.heads).transpose(1, 2),  # type: ignore[no-untyped-call]
            key,
            value,
            attn_mask=None if real is None else real[:, None, None, :],
        )
        return asking.unpad(out.transpose(1, 2).flatten(2))

    def _attend_unprojected(self, query: Tensor, asking: Ragged, y: Tensor, answering: Ragged) -> Tensor:
        """Do the same without keys and values: q (W_k y) = (q W_k) y, and the weighted mean of W_v y is W_v of y's.

        All heads then share the tokens as keys and values and are further queries of one head.
        """
        to_key, to_value = self.kv.weight.unflatten(0, (2, *self.heads)).unbind(0)  # type: ignore[no-untyped-call]
        towards = torch.einsum("nhe,hed->nhd", query.unflatten(1, self.heads), to_key)  # type: ignore[no-untyped-call]
        padded, _ = asking.pad(towards.flatten(1))
        tokens, real = answering.pad(y)
        out = F.scaled_dot_product_attention(
            padded.unflatten(2, (self.heads[0], -1)).flatten(1, 2)[:, None],  # type: ignore[no-untyped-call]
            tokens[:, None],
            tokens[:, None],
            attn_mask=None if real is None else real[:, None, None, :],
            scale=self.heads[1] ** -0.5,
        )
        means = asking.unpad(out.reshape(padded.shape)).unflatten(1, (self.heads[0], -1))  # type: ignore[no-untyped-call]
        return torch.einsum("nhd,hed->nhe", means, to_value).flatten(1) + self.v_bias


class MultiCrossAttention(nn.Module):
    """One transformer block whose queries and keys are different tokens, then the mean over the queries."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.attn = CrossAttention(dim, _MCA_HEADS)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.mlp = Mlp(dim, 4 * dim)

    # The sizes of the sets differ from batch to batch: a compiler would cut this into a dozen graphs.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, tokens: Tensor, asking: Tensor, answering: Tensor) -> Tensor:
        """Let tokens attend to others of their clip and average what becomes of them.

        The mean of a linear layer is the linear layer of the mean: the MLP's second layer sees one vector per clip.

        Args:
            tokens: (B, N, dim) all tokens of the clips.
            asking: bool (B, N), which of them are queries.
            answering: bool (B, N), which are keys and values; at least one in each clip.

        Returns:
            (B, dim) the mean of the updated queries; zero for a clip that has none.
        """
        counts = torch.stack([asking.sum(1), answering.sum(1)])
        order = counts[0].argsort()
        counts = counts[:, order]
        queries, keys = (Ragged(mine, tuple(sizes)) for mine, sizes in zip(counts, counts.tolist(), strict=True))
        clip, place = asking[order].nonzero().unbind(1)
        key_clip, key_place = answering[order].nonzero().unbind(1)
        clip = order[clip]
        index = torch.cat([clip * tokens.shape[1] + place, order[key_clip] * tokens.shape[1] + key_place])
        taken = tokens.flatten(0, 1).index_select(0, index)
        x, _ = torch.split(taken, [queries.num_rows, keys.num_rows])
        mine, others = torch.split(self.norm1(taken), [queries.num_rows, keys.num_rows])
        x = x + self.attn(mine, queries, others, keys)
        hidden = self.mlp.act(self.mlp.fc1(self.norm2(x)))
        member = clip == torch.arange(len(tokens), device=clip.device)[:, None]
        mean = _mean(x, member) + self.mlp.fc2(_mean(hidden, member))
        return cast(Tensor, mean * member.any(1, keepdim=True))


def _mean(packed: Tensor, member: Tensor) -> Tensor:
    """Average packed tokens (n, width) by clip, given their membership bool (B, n) -> float32 (B, width).

    A matrix product: sums in a fixed order on every device.
    """
    with torch.autocast(packed.device.type, enabled=False):
        total = member.to(packed.dtype) @ packed
    return total.to(torch.float32) / member.sum(1, keepdim=True).clamp(min=1)


class Classifier(nn.Module):
    """VideoMAE's encoder, a fusion of its tokens by the motion box, a norm and a linear head.

    Attributes:
        clip: The shape of the clips it reads.
        fusion: How tokens become one vector, a name of `FUSIONS`; its parts are modules of the classifier.
    """

    def __init__(
        self, size: VitSize, clip: ClipShape, num_classes: int, fusion: str = "mean", *, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}, got {fusion!r}")
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes!r}")
        self.clip = clip
        self.fusion = fusion
        self.encoder = Encoder(size, clip, drop_path=drop_path, final_norm=False)
        for name, create in FUSIONS[fusion].parts.items():
            self.add_module(name, create(size.dim))
        self.fc_norm = nn.LayerNorm(size.dim, eps=NORM_EPSILON)
        self.head = Linear(size.dim, num_classes)
        self.apply(_init_normal)
        with torch.no_grad():
            self.head.weight.mul_(_HEAD_INIT_SCALE)

    def recompute_activations(self, enabled: bool = True) -> None:
        """Turn activation checkpointing on or off."""
        self.encoder.recompute = enabled

    def forward(self, frames: Tensor, boxes: Tensor | None = None, *, inside: Tensor | None = None) -> Tensor:
        """Classify clips.

        Args:
            frames: float (B, 3, T, H, W), normalised with `data.transforms.normalise`.
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
        if not FUSIONS[self.fusion].reads_boxes:
            return None
        if inside is None:
            if boxes is None:
                raise ValueError(f"boxes or inside must be given for fusion {self.fusion!r}, got neither")
            inside = inside_tokens(self.clip, boxes)
        if inside.dtype != torch.bool or inside.shape != (len(frames), self.clip.num_tokens):
            rule = f"bool ({len(frames)}, {self.clip.num_tokens})"
            raise ValueError(f"inside must be {rule}, got {inside.dtype} {tuple(inside.shape)}")
        return inside.to(frames.device)

    def fuse(self, tokens: Tensor, inside: Tensor | None) -> Tensor:
        """Fuse tokens (B, N, dim) by membership bool (B, N) into (B, dim).

        A clip without inside tokens gets the plain mean. Without membership all tokens are inside.
        """
        kind = FUSIONS[self.fusion]
        parts = {name: self.get_submodule(name) for name in kind.parts}
        if inside is None:
            return kind.fuse(parts, tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool))
        fused = kind.fuse(parts, tokens, inside)
        return fused.where(inside.any(1, keepdim=True), tokens.mean(1)).to(tokens.dtype)


Fuse = Callable[[Mapping[str, nn.Module], Tensor, Tensor], Tensor]
"""(parts by name, tokens (B, N, dim), inside bool (B, N)) -> (B, dim)."""


@dataclass(frozen=True)
class FusionKind:
    """What a value of `model.fusion` means.

    Attributes:
        fuse: Makes one vector of a clip's tokens; clips without inside tokens are taken care of by the classifier.
        parts: Name -> makes a module of the encoder's width that `fuse` uses; the names are those of checkpoints.
        reads_boxes: False where the motion boxes do not matter: `inside` is then everything.
    """

    fuse: Fuse
    parts: Mapping[str, Callable[[int], nn.Module]] = field(default_factory=dict)
    reads_boxes: bool = True


def _plain_mean(_: Mapping[str, nn.Module], tokens: Tensor, inside: Tensor) -> Tensor:  # noqa: ARG001
    return tokens.mean(1)


def _cross_attention(parts: Mapping[str, nn.Module], tokens: Tensor, inside: Tensor) -> Tensor:
    """Let inside tokens attend to outside ones, and the other way round where there is a part for it.

    No outside tokens: the inside ones attend to themselves, and no outside mean is added.
    """
    outside = ~inside
    some_inside, some_outside = inside.any(1, keepdim=True), outside.any(1, keepdim=True)
    fused: Tensor = parts["inside_mca"](tokens, inside, outside | ~some_outside)
    if "outside_mca" in parts:
        fused = fused + parts["outside_mca"](tokens, outside, inside | ~some_inside)
    return fused


def _weighted_mean(_: Mapping[str, nn.Module], tokens: Tensor, inside: Tensor) -> Tensor:
    """Average (B, N, dim) by membership (B, N): (inside + outside / 2) / 2, or inside where nothing is outside."""
    parts = torch.stack([inside, ~inside], 1)
    counts = parts.sum(2, keepdim=True)
    with torch.autocast(tokens.device.type, enabled=False):
        inner, outer = (torch.bmm(parts.to(tokens.dtype), tokens) / counts.clamp(min=1)).unbind(1)
    return ((inner + _OUTSIDE_WEIGHT * outer) / 2).where(counts[:, 1] > 0, inner)


def _init_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


FUSIONS: dict[str, FusionKind] = {
    "mean": FusionKind(_plain_mean, reads_boxes=False),
    "weighted_mean": FusionKind(_weighted_mean),
    "mca": FusionKind(_cross_attention, {"inside_mca": MultiCrossAttention}),
    "mca_two_way": FusionKind(
        _cross_attention, {"inside_mca": MultiCrossAttention, "outside_mca": MultiCrossAttention}
    ),
}
"""`model.fusion` -> what it means."""
