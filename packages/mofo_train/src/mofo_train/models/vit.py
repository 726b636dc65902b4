"""The video transformer: clip -> tubelets -> tokens -> encoder, with VideoMAE's numbers and parameter names.

Differences to the released code that leave the numbers alone: a tubelet is embedded by one matrix product (the
convolution's stride equals its kernel), so only the tubelets that are needed are embedded; attention runs through
`scaled_dot_product_attention`; a block can answer for its last tokens only, which the last decoder block uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mofo_train.config import PATCH_PX, SMALL_PATCH_PX
from mofo_train.errors import ConfigError
from mofo_train.guidance.tubelets import ClipShape
from mofo_train.models.layers.attention import attend
from mofo_train.models.layers.float8 import MULTIPLE
from mofo_train.models.layers.linear import Linear, Mlp, linear

NORM_EPSILON = 1e-6
_FLOAT8_CAPABILITY = (8, 9)  # Ada and Hopper


@dataclass(frozen=True)
class VitSize:
    """Widths, depths and heads of an encoder and its pretraining decoder, and the side of a patch.

    `small` is for few values a token and few tokens, where what VideoMAE does is no good start for a classifier:

    - Initial weights have the standard deviation 1 / sqrt(the layer's inputs), in pretraining as well
      (`init_by_inputs`). BERT's 0.02 is meant for 768 values a token: at 72, blocks with such weights say next to
      nothing, and a classifier that starts so stays at chance for tens of thousands of clips.
    - The position code tells time, row and column apart (`axes_table`); the flat one has but the number of the token.
    """

    dim: int
    depth: int
    num_heads: int
    decoder_dim: int
    decoder_depth: int
    decoder_num_heads: int
    patch_px: int = PATCH_PX
    small: bool = False

    def clip_shape(self, num_frames: int, image_px: int) -> ClipShape:
        """Return the clips that a model of this size reads."""
        return ClipShape(num_frames, image_px, self.patch_px)


# The published models (VideoMAE appendix and training scripts), a tiny one for tests, and a mini one with small patches
# for the small pictures of the generated set.
SIZES: dict[str, VitSize] = {
    "videomae_mini": VitSize(72, 3, 3, 48, 2, 3, patch_px=SMALL_PATCH_PX["videomae_mini"], small=True),
    "videomae_tiny": VitSize(192, 4, 3, 96, 2, 3),
    "videomae_small": VitSize(384, 12, 6, 192, 4, 3),
    "videomae_base": VitSize(768, 12, 12, 384, 4, 6),
    "videomae_large": VitSize(1024, 24, 16, 512, 12, 8),
    "videomae_huge": VitSize(1280, 32, 16, 640, 12, 8),
}


def size_of(name: str) -> VitSize:
    """Return the size called `name`; ValueError lists the names that exist."""
    if name not in SIZES:
        raise ValueError(f"model must be one of {', '.join(SIZES)}, got {name!r}")
    return SIZES[name]


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens (B, N, C) by index (B, n) -> (B, n, C)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2]))


def sinusoid_table(num_positions: int, dim: int) -> Tensor:
    """Compute the fixed position code: sine and cosine of position / 10000^(2 floor(i/2) / dim).

    Returns:
        float32 (num_positions, dim), even entries sine, odd ones cosine (Vaswani et al. 2017, section 3.5).
    """
    exponent = torch.arange(dim, dtype=torch.float64).div(2, rounding_mode="floor") * 2 / dim
    angle = torch.arange(num_positions, dtype=torch.float64)[:, None] / torch.pow(10000.0, exponent)
    table = torch.empty_like(angle)
    table[:, 0::2] = angle[:, 0::2].sin()
    table[:, 1::2] = angle[:, 1::2].cos()
    return table.to(torch.float32)


def axes_table(clip: ClipShape, dim: int) -> Tensor:
    """Compute a position code of its own for time, row and column, a third of the values each.

    Returns:
        float32 (clip.num_tokens, dim): sines, then cosines of position / 100^(2 i / (dim / 3)) of each axis.

    Raises:
        ValueError: `dim` is no multiple of 6.
    """
    if dim % 6:
        raise ValueError(f"dim must be a multiple of 6, got {dim}")
    side = clip.image_px // clip.patch_px
    lengths, num_rates = (clip.num_tubelets, side, side), dim // 6
    rates = 100.0 ** -(torch.arange(num_rates) / num_rates)
    codes = []
    for axis, length in enumerate(lengths):
        angle = torch.arange(length)[:, None] * rates
        shape = [length if other == axis else 1 for other in range(3)]
        codes.append(torch.cat([angle.sin(), angle.cos()], 1).view(*shape, -1).expand(*lengths, -1))
    return torch.cat(codes, 3).flatten(0, 2)


def position_code(size: VitSize, clip: ClipShape, dim: int) -> Tensor:
    """Return the fixed code of each token's position that models of a size add, float32 (clip.num_tokens, dim)."""
    return axes_table(clip, dim) if size.small else sinusoid_table(clip.num_tokens, dim)


def init_by_inputs(module: nn.Module) -> None:
    """Draw a layer's weights with the standard deviation 1 / sqrt(its inputs); biases become 0."""
    if isinstance(module, nn.Linear | nn.Conv3d):
        nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class TubeletEmbedding(nn.Module):
    """Linear embedding of tubelets; keeps the weight in the convolution's shape (dim, 3, t, h, w) and name."""

    def __init__(self, dim: int, clip: ClipShape) -> None:
        super().__init__()
        kernel = (clip.tubelet_frames, clip.patch_px, clip.patch_px)
        self.proj = nn.Conv3d(3, dim, kernel_size=kernel, stride=kernel)

    def forward(self, tubelets: Tensor) -> Tensor:
        """Embed tubelets (B, n, values), as `patchify` orders them, to (B, n, dim)."""
        weight = self.proj.weight.permute(0, 2, 3, 4, 1).flatten(1)
        return linear(tubelets, weight, self.proj.bias)


class Attention(nn.Module):
    """Multi-head self-attention with a bias on queries and values only."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, num_queries: int | None = None) -> Tensor:
        """Attend from the last `num_queries` tokens (all when None) of (B, N, dim) to all tokens."""
        dim = x.shape[2]
        no_bias = torch.zeros_like(self.v_bias)
        if num_queries is None:
            qkv = self.qkv.product(x, self.qkv.weight, torch.cat([self.q_bias, no_bias, self.v_bias]))
            query, key, value = (self._by_head(part) for part in qkv.chunk(3, dim=2))
        else:
            query = self._by_head(self.qkv.product(x[:, -num_queries:], self.qkv.weight[:dim], self.q_bias))
            pair = self.qkv.product(x, self.qkv.weight[dim:], torch.cat([no_bias, self.v_bias]))
            key, value = (self._by_head(part) for part in pair.chunk(2, dim=2))
        out = attend(query, key, value)
        return cast(Tensor, self.proj(out.transpose(1, 2).flatten(2)))

    def _by_head(self, part: Tensor) -> Tensor:
        """View (B, N, dim) as (B, heads, N, dim / heads)."""
        return cast(Tensor, part.unflatten(2, (self.num_heads, -1)).transpose(1, 2))  # type: ignore[no-untyped-call]


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a GELU MLP of four times the width."""

    def __init__(self, dim: int, num_heads: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.mlp = Mlp(dim, 4 * dim)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor, num_queries: int | None = None) -> Tensor:
        """Map (B, N, dim) to the same shape, or to its last `num_queries` tokens."""
        kept = x if num_queries is None else x[:, -num_queries:]
        kept = kept + self.drop_path(self.attn(self.norm1(x), num_queries))
        return cast(Tensor, kept + self.drop_path(self.mlp(self.norm2(kept))))


def learn_in_float8(model: nn.Module) -> None:
    """Let the products of a model's transformer blocks be computed in 8 bits while it trains (`models.layers.float8`).

    Raises:
        ConfigError: A layer's width is no multiple of 16, or the GPU is older than Hopper's generation.
    """
    layers = [layer for block in model.modules() if isinstance(block, Block) for layer in block.modules()]
    for layer in layers:
        if isinstance(layer, Linear):
            if layer.in_features % MULTIPLE or layer.out_features % MULTIPLE:
                raise ConfigError(
                    f"run.precision fp8 needs layers whose widths are multiples of {MULTIPLE}, "
                    f"got one of {layer.in_features} x {layer.out_features}; take bf16"
                )
            layer.float8 = True
    place = next(model.parameters()).device
    if place.type == "cuda" and torch.cuda.get_device_capability(place) < _FLOAT8_CAPABILITY:
        name = torch.cuda.get_device_name(place)
        raise ConfigError(f"run.precision fp8 needs a GPU that multiplies 8-bit numbers, {name} does not; take bf16")


def run_blocks(
    blocks: Sequence[nn.Module] | nn.ModuleList, x: Tensor, *, grad_checkpointing: bool, num_queries: int | None = None
) -> Tensor:
    """Run blocks in order; the last one answers for the last `num_queries` tokens only.

    Args:
        blocks: `Block`s.
        x: (B, N, dim) tokens.
        grad_checkpointing: Keep only the blocks' inputs and compute the rest again in the backward pass.
        num_queries: Tokens wanted of the last block; None = all.
    """
    for position, block in enumerate(blocks):
        wanted = num_queries if position == len(blocks) - 1 else None
        if grad_checkpointing and torch.is_grad_enabled():
            x = cast(Tensor, checkpoint(block, x, wanted, use_reentrant=False))
        else:
            x = block(x, wanted)
    return x


class Encoder(nn.Module):
    """VideoMAE's encoder: embedded tubelets plus fixed positions through the blocks, no class token.

    Attributes:
        clip: The shape of the clips it reads.
        grad_checkpointing: Activation checkpointing.
    """

    positions: Tensor

    def __init__(self, size: VitSize, clip: ClipShape, *, drop_path: float = 0.0, final_norm: bool = True) -> None:
        super().__init__()
        self.clip = clip
        self.grad_checkpointing = False
        self.patch_embed = TubeletEmbedding(size.dim, clip)
        self.register_buffer("positions", position_code(size, clip, size.dim), persistent=False)
        rates = [drop_path * place / max(1, size.depth - 1) for place in range(size.depth)]
        self.blocks = nn.ModuleList([Block(size.dim, size.num_heads, rate) for rate in rates])
        self.norm = nn.LayerNorm(size.dim, eps=NORM_EPSILON) if final_norm else nn.Identity()

    def forward(self, tubelets: Tensor, index: Tensor | None = None) -> Tensor:
        """Encode tubelets.

        Args:
            tubelets: (B, n, values), all tubelets of the clips or those picked by `index`.
            index: (B, n) their positions in the clip; None = all, in order.

        Returns:
            (B, n, dim) tokens.
        """
        positions = self.positions if index is None else self.positions[index]
        x = self.patch_embed(tubelets) + positions
        return cast(Tensor, self.norm(run_blocks(self.blocks, x, grad_checkpointing=self.grad_checkpointing)))
