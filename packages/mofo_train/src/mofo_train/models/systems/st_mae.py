"""ST-MAE's classifier (Feichtenhofer et al. 2022), so that its published finetuned weights can be tested.

Layout of the released code (facebookresearch/mae_st, `models_vit.py`): class token first, learned positions apart for
space, time and the class token, separate q, k and v with biases, mean over all tokens but the class token, `norm`,
`head`. A bias of the keys adds the same to all scores of a query, which softmax cancels: our blocks leave it out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from mofo_train.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from mofo_train.errors import CheckpointError
from mofo_train.guidance.tubelets import ClipShape, patchify
from mofo_train.models.vit import NORM_EPSILON, Block, TubeletEmbedding, VitSize, run_blocks
from mofo_train.models.weights import load_into, read_named_weights

# What the released code normalises frames with, all channels alike.
_MEAN, _STD = 0.45, 0.225
_ATTENTION = re.compile(r"^(blocks\.\d+\.attn)\.([qkv])\.(weight|bias)$")


class SpaceTimeMae(nn.Module):
    """ST-MAE's finetuned encoder; called as `Classifier` is, motion boxes do not matter to it.

    Attributes:
        clip: The shape of the clips it reads.
    """

    def __init__(self, size: VitSize, clip: ClipShape, num_classes: int) -> None:
        super().__init__()
        self.clip = clip
        self.patch_embed = TubeletEmbedding(size.dim, clip)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.pos_embed_spatial = nn.Parameter(torch.zeros(1, clip.num_patches, size.dim))
        self.pos_embed_temporal = nn.Parameter(torch.zeros(1, clip.num_tubelets, size.dim))
        self.pos_embed_class = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.blocks = nn.ModuleList([Block(size.dim, size.num_heads) for _ in range(size.depth)])
        self.norm = nn.LayerNorm(size.dim, eps=NORM_EPSILON)
        self.head = nn.Linear(size.dim, num_classes)

    def forward(self, frames: Tensor, boxes: Tensor | None = None, *, inside: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Classify clips (B, 3, T, H, W), normalised as for our models -> (B, num_classes) logits."""
        shape = (1, 3, 1, 1, 1)
        colours = frames * frames.new_tensor(IMAGENET_STD).view(shape) + frames.new_tensor(IMAGENET_MEAN).view(shape)
        tokens = self.patch_embed(patchify((colours - _MEAN) / _STD, self.clip))
        positions = self.pos_embed_temporal[:, :, None] + self.pos_embed_spatial[:, None]
        tokens = tokens + positions.flatten(1, 2)
        first = (self.cls_token + self.pos_embed_class).expand(len(tokens), -1, -1)
        tokens = run_blocks(self.blocks, torch.cat([first, tokens], dim=1), grad_checkpointing=False)
        return cast(Tensor, self.head(self.norm(tokens[:, 1:].mean(1))))


def load_st_mae(path: Path, size: VitSize, clip: ClipShape, num_classes: int) -> SpaceTimeMae:
    """Read finetuned weights in the released layout.

    Args:
        path: The `.pth` file.
        size: Width, depth and heads.
        clip: The shape of a clip.
        num_classes: Classes of its head.

    Raises:
        CheckpointError: Unreadable, another layout, or another size or number of classes.
    """
    state = read_named_weights(path)
    if "pos_embed_spatial" not in state or "cls_token" not in state:
        shown = ", ".join(list(state)[:3]) or "nothing"
        raise CheckpointError(f"{path} must hold ST-MAE's weights (with pos_embed_spatial), got entries like {shown}")
    model = SpaceTimeMae(size, clip, num_classes)
    load_into(model, _with_joint_attention(state), published=str, source=str(path))
    return model


def _with_joint_attention(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in state.items():
        match = _ATTENTION.match(name)
        if match is None:
            renamed[name] = value
        elif match[2] == "q" and match[3] == "weight":
            parts = [state[f"{match[1]}.{letter}.weight"] for letter in "qkv"]
            renamed[f"{match[1]}.qkv.weight"] = torch.cat(parts)
        elif match[3] == "bias" and match[2] != "k":
            renamed[f"{match[1]}.{match[2]}_bias"] = value
    return renamed
