"""What a value of `mask.kind` means: what is inside, or the motion of a batch, to its mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mofo_train.config import MaskConfig
from mofo_train.data.dataset import MotionRead
from mofo_train.errors import ConfigError
from mofo_train.guidance import masks
from mofo_train.guidance.flow_tubes import flow_tube_mask
from mofo_train.guidance.tubelets import ClipShape


def draw_mask(
    config: MaskConfig, clip: ClipShape, inside: Tensor, motion: Tensor, generator: torch.Generator
) -> Tensor:
    """Draw the mask of a micro-batch.

    Args:
        config: Kind and ratios.
        clip: The shape of a clip.
        inside: bool (B, P), which tubes are inside, see `inside.inside_tubes`.
        motion: What the kind reads: (B, P) mean motion of the patches, or the flow of `flow_tube_mask`.
        generator: Source of randomness, on the device of `inside`.

    Returns:
        bool (B, num_tokens), `True` = hidden, the same number in every row.
    """
    return MASKS[config.kind].draw(config, clip, inside, motion, generator)


def num_hidden_tokens(config: MaskConfig, clip: ClipShape) -> int:
    """Return how many tokens `draw_mask` hides in every clip.

    Raises:
        ConfigError: That is none, or all.
    """
    if MASKS[config.kind].tubes:
        number = round(config.mask_ratio * clip.num_patches) * clip.num_tubelets
    else:
        number = round(config.mask_ratio * clip.num_tokens)
    if not 0 < number < clip.num_tokens:
        raise ConfigError(
            f"mask.mask_ratio must hide some and show some of {clip.num_patches} tubes, got {config.mask_ratio}"
        )
    return number


Draw = Callable[[MaskConfig, ClipShape, Tensor, Tensor, torch.Generator], Tensor]
"""Draws a mask; arguments and result as in `draw_mask`."""


@dataclass(frozen=True)
class MaskKind:
    """What a value of `mask.kind` means.

    Attributes:
        draw: Draws the mask of a micro-batch.
        tubes: In every slot `round(mask_ratio * num_patches)` patches are hidden, as with whole tubes; else
            `round(mask_ratio * num_tokens)` single tubelets.
        reads: What it needs of the stored motion: the `maps`, the `flow`, or `nothing`.
    """

    draw: Draw
    tubes: bool = True
    reads: MotionRead = "nothing"


def _draw_tube(config: MaskConfig, clip: ClipShape, inside: Tensor, _: Tensor, generator: torch.Generator) -> Tensor:
    ratio = config.mask_ratio
    return masks.tube_mask(len(inside), clip.num_patches, clip.num_tubelets, mask_ratio=ratio, generator=generator)


def _draw_random(config: MaskConfig, clip: ClipShape, inside: Tensor, _: Tensor, generator: torch.Generator) -> Tensor:
    return masks.random_mask(len(inside), clip.num_tokens, mask_ratio=config.mask_ratio, generator=generator)


def _draw_motion(config: MaskConfig, clip: ClipShape, inside: Tensor, _: Tensor, generator: torch.Generator) -> Tensor:
    return masks.motion_tube_mask(
        inside,
        clip.num_tubelets,
        mask_ratio=config.mask_ratio,
        inside_ratio=config.inside_ratio,
        generator=generator,
    )


def _draw_motion_map(
    config: MaskConfig, clip: ClipShape, _: Tensor, motion: Tensor, generator: torch.Generator
) -> Tensor:
    return masks.motion_map_tube_mask(
        motion, clip.num_tubelets, mask_ratio=config.mask_ratio, floor=config.floor, generator=generator
    )


def _draw_flow(config: MaskConfig, clip: ClipShape, _: Tensor, motion: Tensor, generator: torch.Generator) -> Tensor:
    return flow_tube_mask(motion, tubelet_frames=clip.tubelet_frames, mask_ratio=config.mask_ratio, generator=generator)


MASKS: dict[str, MaskKind] = {
    "tube": MaskKind(_draw_tube),
    "random": MaskKind(_draw_random, tubes=False),
    "motion": MaskKind(_draw_motion),
    "motion_map": MaskKind(_draw_motion_map, reads="maps"),
    "flow_tube": MaskKind(_draw_flow, reads="flow"),
}
"""`mask.kind` -> what it means."""
