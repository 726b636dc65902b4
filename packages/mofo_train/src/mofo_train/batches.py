"""A batch of clips on the device: colours to model input, boxes to the recipe's mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mofo_train import masks
from mofo_train.config import MaskConfig
from mofo_train.models.mae import IMAGENET_MEAN, IMAGENET_STD
from mofo_train.models.vit import ClipShape


def draw_mask(config: MaskConfig, clip: ClipShape, boxes: Tensor, motion: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the mask of a micro-batch.

    Args:
        config: Kind and ratios.
        clip: The shape of a clip.
        boxes: (B, T, 4) xyxy pixels; their union is the motion box of the tubes.
        motion: (B, P) mean motion of the patches, for `motion_map`.
        generator: Source of randomness, on the device of `boxes`.

    Returns:
        bool (B, num_tokens), `True` = hidden, the same number in every row.
    """
    return MASKS[config.kind].draw(config, clip, boxes, motion, generator)


def inside_patches(clip: ClipShape, boxes: Tensor) -> Tensor:
    """Return bool (B, P): the patches that the union of a clip's boxes (B, T, 4) touches."""
    return masks.patches_inside_box(masks.union_boxes(boxes), (clip.image_px, clip.image_px), clip.patch_px)


def normalise(frames: Tensor) -> Tensor:
    """Turn uint8 (B, 3, T, H, W) colours into the model's float32 input, on the device they are on."""
    shape = (1, 3, 1, 1, 1)
    mean = torch.tensor(IMAGENET_MEAN, device=frames.device).view(shape)
    std = torch.tensor(IMAGENET_STD, device=frames.device).view(shape)
    return (frames.contiguous().float() / 255 - mean) / std


def num_hidden_tokens(config: MaskConfig, clip: ClipShape) -> int:
    """Return how many tokens `draw_mask` hides in every clip."""
    if MASKS[config.kind].tubes:
        return round(config.mask_ratio * clip.num_patches) * clip.num_tubelets
    return round(config.mask_ratio * clip.num_tokens)


Draw = Callable[[MaskConfig, ClipShape, Tensor, Tensor, torch.Generator], Tensor]
"""Draws a mask; arguments and result as of `draw_mask`."""


@dataclass(frozen=True)
class MaskKind:
    """What a value of `mask.kind` means.

    Attributes:
        draw: Draws the mask of a micro-batch.
        tubes: Whole tubes are hidden, `round(mask_ratio * num_patches)` of them; else `round(mask_ratio * num_tokens)`
            single tubelets.
        reads_motion: It needs the stored motion maps.
    """

    draw: Draw
    tubes: bool = True
    reads_motion: bool = False


def _draw_tube(config: MaskConfig, clip: ClipShape, boxes: Tensor, _: Tensor, generator: torch.Generator) -> Tensor:
    ratio = config.mask_ratio
    return masks.tube_mask(len(boxes), clip.num_patches, clip.num_tubelets, mask_ratio=ratio, generator=generator)


def _draw_random(config: MaskConfig, clip: ClipShape, boxes: Tensor, _: Tensor, generator: torch.Generator) -> Tensor:
    return masks.random_mask(len(boxes), clip.num_tokens, mask_ratio=config.mask_ratio, generator=generator)


def _draw_motion(config: MaskConfig, clip: ClipShape, boxes: Tensor, _: Tensor, generator: torch.Generator) -> Tensor:
    return masks.motion_tube_mask(
        inside_patches(clip, boxes),
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


MASKS: dict[str, MaskKind] = {
    "tube": MaskKind(_draw_tube),
    "random": MaskKind(_draw_random, tubes=False),
    "motion": MaskKind(_draw_motion),
    "motion_map": MaskKind(_draw_motion_map, reads_motion=True),
}
"""`mask.kind` -> what it means."""
