"""Video Swin Transformer (Liu et al. 2022) through torchvision's blocks, under the names of the original code.

The original backbone (SwinTransformer/Video-Swin-Transformer, `swin_transformer.py`) is what Omnivore and BEVT build
on. torchvision computes the same: windows of tokens that shrink to maps smaller than they are, zeros that pad a map to
whole windows and take part in attention, a cyclic shift by half a window in every second block with a mask between
parts that were not neighbours, 2 x 2 patches merged column by column, a norm on every token before the mean.
A window that shrinks looks its position biases up by the number of a token in it, as the original does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor, nn
from torchvision.models.video import SwinTransformer3d

from mofo_train.errors import CheckpointError
from mofo_train.guidance.tubelets import ClipShape
from mofo_train.models.weights import clip_of_embedding, load_into

_WINDOW_SIDE = 7
# Biases of a step in time: one for each distance in rows and columns.
_ROWS_OF_A_STEP = (2 * _WINDOW_SIDE - 1) ** 2
_EMBEDDING = "patch_embed.proj.weight"
_BIASES = "attn.relative_position_bias_table"
_TABLE = re.compile(rf"^layers\.(\d+)\.blocks\.\d+\.{re.escape(_BIASES)}$")
_FEATURE = re.compile(r"^features\.(\d+)\.(.+)$")
_MLP = {"mlp.0.": "mlp.fc1.", "mlp.3.": "mlp.fc2."}


@dataclass(frozen=True)
class SwinShape:
    """What tells one Video Swin Transformer from another.

    Attributes:
        dim: Width of the first stage; it doubles from stage to stage.
        depths: Blocks of each stage.
        num_heads: Heads of each stage.
        window: Tokens of a window: time, rows, columns.
    """

    dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window: tuple[int, int, int]

    @classmethod
    def of(cls, trunk: Mapping[str, Tensor], path: Path) -> SwinShape:
        """Read the shape from the weights of a backbone, in the original names.

        Raises:
            CheckpointError: They are of another network, or their windows are not 7 x 7 tokens large.
        """
        tables = [_TABLE.match(name) for name in trunk]
        blocks = Counter(int(match[1]) for match in tables if match is not None)
        firsts = [trunk.get(f"layers.{stage}.blocks.0.{_BIASES}") for stage in range(len(blocks))]
        known = [table for table in firsts if table is not None]
        if _EMBEDDING not in trunk or not known or len(known) < len(firsts):
            shown = ", ".join(list(trunk)[:3]) or "nothing"
            raise CheckpointError(f"{path} must hold a Video Swin Transformer, got entries like {shown}")
        steps, rest = divmod(len(known[0]), _ROWS_OF_A_STEP)
        if rest or steps % 2 == 0:
            raise CheckpointError(
                f"{path} must have windows of {_WINDOW_SIDE} x {_WINDOW_SIDE} tokens, got a table of {len(known[0])} "
                "position biases"
            )
        return cls(
            dim=len(trunk[_EMBEDDING]),
            depths=tuple(blocks[stage] for stage in range(len(blocks))),
            num_heads=tuple(table.shape[1] for table in known),
            window=((steps + 1) // 2, _WINDOW_SIDE, _WINDOW_SIDE),
        )


class VideoSwin(nn.Module):
    """A Video Swin Transformer; called as `Classifier` is, motion boxes do not matter to it.

    Attributes:
        clip: The shape of the clips it reads, cut into the tokens of the first stage.
    """

    def __init__(self, shape: SwinShape, clip: ClipShape, num_classes: int) -> None:
        super().__init__()
        self.clip = clip
        self.net = SwinTransformer3d(
            patch_size=[clip.tubelet_frames, clip.patch_px, clip.patch_px],
            embed_dim=shape.dim,
            depths=list(shape.depths),
            num_heads=list(shape.num_heads),
            window_size=list(shape.window),
            stochastic_depth_prob=0.0,
            num_classes=num_classes,
        )

    def forward(self, frames: Tensor, boxes: Tensor | None = None, *, inside: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Classify clips (B, 3, T, H, W), normalised as for our models -> (B, num_classes) logits."""
        self.clip.check(frames)
        return cast(Tensor, self.net(frames))


def create_from_weights(
    path: Path, state: Mapping[str, Tensor], clip: ClipShape, num_classes: int, *, trunk: str, head: str
) -> VideoSwin:
    """Create the network that weights are of, with these weights.

    Args:
        path: Where they come from, for messages.
        state: Weights in the original names, the backbone's after `trunk`. The table of position indices follows from
            the window; a file may hold it or not.
        clip: Frames and side of a clip.
        num_classes: Classes of its head.
        trunk: Prefix of the backbone's names.
        head: Prefix of the head's names.

    Raises:
        CheckpointError: Another network, entries missing or unknown, or another number of classes.
    """
    backbone = {name.removeprefix(trunk): value for name, value in state.items() if name.startswith(trunk)}
    shape = SwinShape.of(backbone, path)
    clip = clip_of_embedding(backbone[_EMBEDDING], clip, path)
    model = VideoSwin(shape, clip, num_classes)

    def published(name: str) -> str:
        own = name.removeprefix("net.")
        return head + own.removeprefix("head.") if own.startswith("head.") else trunk + _original(own)

    indices = {published(name): value for name, value in model.named_buffers()}
    load_into(model, indices | dict(state), published=published, source=str(path))
    return model


def _original(name: str) -> str:
    """Name in torchvision's network -> name in the original backbone."""
    match = _FEATURE.match(name)
    if match is None:
        return name
    stage, merges = divmod(int(match[1]), 2)
    if merges:
        return f"layers.{stage}.downsample.{match[2]}"
    inner = match[2]
    for ours, theirs in _MLP.items():
        inner = inner.replace(ours, theirs)
    return f"layers.{stage}.blocks.{inner}"
