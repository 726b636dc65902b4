"""The masked autoencoder of pretraining: visible tubelets -> encoder -> decoder -> pixels of the hidden tubelets.

VideoMAE (Tong et al. 2022), section 3: asymmetric encoder and decoder, targets normalised per tubelet and channel.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mofo_train.data.transforms import colour_statistics
from mofo_train.guidance.tubelets import ClipShape, patchify
from mofo_train.models.layers.linear import Linear
from mofo_train.models.vit import (
    NORM_EPSILON,
    Block,
    Encoder,
    VitSize,
    gather_tokens,
    init_by_inputs,
    position_code,
    run_blocks,
)

_TARGET_EPSILON = 1e-6


class Decoder(nn.Module):
    """Transformer blocks, norm and the linear head to pixels."""

    def __init__(self, size: VitSize, clip: ClipShape) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.blocks = nn.ModuleList(
            [Block(size.decoder_dim, size.decoder_num_heads) for _ in range(size.decoder_depth)]
        )
        self.norm = nn.LayerNorm(size.decoder_dim, eps=NORM_EPSILON)
        self.head = Linear(size.decoder_dim, clip.tubelet_values)

    def forward(self, x: Tensor, num_hidden: int) -> Tensor:
        """Predict the tubelet values of the last `num_hidden` of the tokens (B, N, decoder dim)."""
        x = run_blocks(self.blocks, x, grad_checkpointing=self.grad_checkpointing, num_queries=num_hidden)
        return cast(Tensor, self.head(self.norm(x)))


class MaskedAutoencoder(nn.Module):
    """VideoMAE for pretraining; see `forward`.

    Attributes:
        clip: The shape of the clips it reads.
    """

    positions: Tensor

    def __init__(self, size: VitSize, clip: ClipShape, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.clip = clip
        self.encoder = Encoder(size, clip, drop_path=drop_path)
        self.decoder = Decoder(size, clip)
        self.encoder.apply(init_by_inputs if size.small else _init_xavier)
        self.decoder.apply(init_by_inputs if size.small else _init_xavier)
        self.encoder_to_decoder = Linear(size.dim, size.decoder_dim, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, size.decoder_dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        self.register_buffer("positions", position_code(size, clip, size.decoder_dim), persistent=False)

    def enable_grad_checkpointing(self, enabled: bool = True) -> None:
        """Turn activation checkpointing on or off: less memory for about a third more time."""
        self.encoder.grad_checkpointing = enabled
        self.decoder.grad_checkpointing = enabled

    def forward(self, frames: Tensor, mask: Tensor, *, num_hidden: int | None = None) -> Tensor:
        """Predict the hidden tubelets.

        Args:
            frames: float (B, 3, T, H, W), normalised with `data.transforms.normalise`.
            mask: bool (B, num_tokens), `True` = hidden, the same number in every row.
            num_hidden: That number, where the caller knows it: saves checking the mask, and with it a wait for the
                device.

        Returns:
            (B, num_hidden, tubelet values) normalised values in token order; see `hidden_targets`.

        Raises:
            ValueError: Wrong shapes, rows that hide different numbers, or nothing visible or hidden.
        """
        visible, hidden = split_tokens(mask, num_hidden)
        tubelets = gather_tokens(patchify(frames, self.clip), visible)
        encoded = self.encoder_to_decoder(self.encoder(tubelets, visible))
        known = encoded + self.positions[visible]
        unknown = self.mask_token + self.positions[hidden]
        tokens = torch.cat([known, unknown.to(known.dtype)], dim=1)
        return cast(Tensor, self.decoder(tokens, hidden.shape[1]))


def split_tokens(mask: Tensor, num_hidden: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the positions of visible (B, n) and hidden (B, m) tokens, each in token order.

    Args:
        mask: bool (B, num_tokens), `True` = hidden.
        num_hidden: Hidden tokens of every row; None counts and checks them.

    Raises:
        ValueError: The mask is no bool matrix, its rows hide different numbers, or all or none.
    """
    if mask.dtype != torch.bool or mask.ndim != 2:
        raise ValueError(f"mask must be bool (B, num_tokens), got {mask.dtype} {tuple(mask.shape)}")
    if num_hidden is None:
        counts = mask.sum(1)
        num_hidden = int(counts[0])
        if not bool((counts == num_hidden).all()):
            raise ValueError(f"mask must hide the same number of tokens in every row, got {counts.tolist()!r}")
    if not 0 < num_hidden < mask.shape[1]:
        raise ValueError(f"mask must hide some and show some of {mask.shape[1]} tokens, got {num_hidden} hidden")
    order = mask.to(torch.uint8).argsort(dim=1, stable=True)
    return order[:, : mask.shape[1] - num_hidden], order[:, mask.shape[1] - num_hidden :]


@torch.no_grad()
def hidden_pixels(frames: Tensor, mask: Tensor, clip: ClipShape, *, num_hidden: int | None = None) -> Tensor:
    """Return the hidden tubelets as they are: float32 (B, num_hidden, tubelet values); see `hidden_targets`."""
    _, hidden = split_tokens(mask, num_hidden)
    return gather_tokens(patchify(frames, clip), hidden).to(torch.float32)


@torch.no_grad()
def hidden_targets(frames: Tensor, mask: Tensor, clip: ClipShape, *, num_hidden: int | None = None) -> Tensor:
    """Return what the paper's pretraining predicts: the hidden tubelets, each normalised by itself and by channel.

    Mean and unbiased standard deviation are those of one channel of one tubelet in [0, 1] colour values.

    Args:
        frames: float (B, 3, T, H, W) normalised as for the model.
        mask: bool (B, num_tokens), `True` = hidden.
        clip: The shape of a clip.
        num_hidden: As in `MaskedAutoencoder.forward`.

    Returns:
        float32 (B, num_hidden, tubelet values), token order.
    """
    values = hidden_pixels(frames, mask, clip, num_hidden=num_hidden)
    values = values.reshape(*values.shape[:2], -1, 3)
    colour_mean, colour_std = colour_statistics(values.device)
    values = values * colour_std + colour_mean
    variance, mean = torch.var_mean(values, dim=2, keepdim=True, correction=1)
    return ((values - mean) / (variance.sqrt() + _TARGET_EPSILON)).flatten(2)


def _init_xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
