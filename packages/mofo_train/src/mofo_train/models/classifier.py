"""The classifier of finetuning: VideoMAE's encoder, one vector of its tokens, a norm and a linear head."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mofo_train.finetune_config import HeadNorm
from mofo_train.guidance.inside import inside_tokens
from mofo_train.guidance.tubelets import ClipShape, patchify
from mofo_train.models.head_norm import create_head_norm
from mofo_train.models.layers.linear import Linear
from mofo_train.models.pooling import MotionPooling
from mofo_train.models.vit import Encoder, VitSize, init_by_inputs

_INIT_STD = 0.02
_HEAD_INIT_SCALE, _SMALL_HEAD_INIT_SCALE = 0.001, 0.2


class Classifier(nn.Module):
    """VideoMAE's encoder, `MotionPooling` of its tokens, a norm and a linear head.

    Attributes:
        clip: The shape of the clips it reads.
        pooling: How tokens become one vector.
    """

    def __init__(
        self,
        size: VitSize,
        clip: ClipShape,
        num_classes: int,
        fusion: str = "mean",
        *,
        drop_path: float = 0.0,
        head_norm: HeadNorm = "layer",
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes!r}")
        self.clip = clip
        self.encoder = Encoder(size, clip, drop_path=drop_path, final_norm=False)
        self.pooling = MotionPooling(size.dim, fusion)
        self.fc_norm = create_head_norm(head_norm, size.dim)
        self.head = Linear(size.dim, num_classes)
        self.apply(init_by_inputs if size.small else _init_normal)
        with torch.no_grad():
            self.head.weight.mul_(_SMALL_HEAD_INIT_SCALE if size.small else _HEAD_INIT_SCALE)

    def enable_grad_checkpointing(self, enabled: bool = True) -> None:
        """Turn activation checkpointing on or off."""
        self.encoder.grad_checkpointing = enabled

    def forward(self, frames: Tensor, boxes: Tensor | None = None, *, inside: Tensor | None = None) -> Tensor:
        """Classify clips.

        Args:
            frames: float (B, 3, T, H, W), normalised with `data.transforms.normalise`.
            boxes: (B, T, 4) xyxy pixels of these frames; a tubelet is inside when any of its frames' boxes touches it.
            inside: bool (B, num_tokens), which tokens are inside, instead of `boxes` (after cutmix, for instance).

        Returns:
            (B, num_classes) logits.

        Raises:
            ValueError: Wrong shapes, or neither boxes nor inside tokens for a fusion that needs them.
        """
        return cast(Tensor, self.head(self.features(frames, boxes, inside=inside)))

    def features(self, frames: Tensor, boxes: Tensor | None = None, *, inside: Tensor | None = None) -> Tensor:
        """Return the (B, dim) vectors that the head classifies; arguments as in `forward`."""
        if self.pooling.reads_inside:
            if inside is None:
                if boxes is None:
                    raise ValueError(f"boxes or inside must be given for fusion {self.pooling.kind!r}, got neither")
                inside = inside_tokens(self.clip, boxes)
            inside = inside.to(frames.device)
        tokens = self.encoder(patchify(frames, self.clip))
        return cast(Tensor, self.fc_norm(self.pooling(tokens, inside)))


def _init_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=_INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
