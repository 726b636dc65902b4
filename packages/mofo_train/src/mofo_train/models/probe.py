"""The attentive probe: a learned query that attends to all tokens of a frozen encoder."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mofo_train.finetune_config import HeadNorm
from mofo_train.guidance.tubelets import ClipShape, patchify
from mofo_train.models.head_norm import create_head_norm
from mofo_train.models.vit import NORM_EPSILON, Encoder, VitSize

_INIT_STD = 0.02


class AttentiveClassifier(nn.Module):
    """Encoder, one multi-head attention from a learned query to its tokens, norm and linear head.

    It is called as `Classifier` is; motion boxes do not matter to it.

    Attributes:
        clip: The shape of the clips it reads.
    """

    def __init__(self, size: VitSize, clip: ClipShape, num_classes: int, *, head_norm: HeadNorm = "layer") -> None:
        super().__init__()
        self.clip = clip
        self.encoder = Encoder(size, clip, final_norm=False)
        self.pool_norm = nn.LayerNorm(size.dim, eps=NORM_EPSILON)
        self.pool_query = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.pool = nn.MultiheadAttention(size.dim, size.num_heads, batch_first=True)
        self.fc_norm = create_head_norm(head_norm, size.dim)
        self.head = nn.Linear(size.dim, num_classes)
        nn.init.trunc_normal_(self.pool_query, std=_INIT_STD)
        nn.init.trunc_normal_(self.head.weight, std=_INIT_STD)
        nn.init.zeros_(self.head.bias)

    def forward(self, frames: Tensor, boxes: Tensor | None = None, *, inside: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Classify clips (B, 3, T, H, W) -> (B, num_classes) logits."""
        tokens = self.pool_norm(self.encoder(patchify(frames, self.clip)))
        query = self.pool_query.expand(len(tokens), -1, -1)
        pooled, _ = self.pool(query, tokens, tokens, need_weights=False)
        return cast(Tensor, self.head(self.fc_norm(pooled.squeeze(1))))
