"""A batch of clips on the device: colours to model input, boxes to the recipe's mask."""

from __future__ import annotations

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
    batch = len(boxes)
    ratio = config.mask_ratio
    if config.kind == "random":
        return masks.random_mask(batch, clip.num_tokens, mask_ratio=ratio, generator=generator)
    if config.kind == "tube":
        return masks.tube_mask(batch, clip.num_patches, clip.num_tubelets, mask_ratio=ratio, generator=generator)
    if config.kind == "motion_map":
        return masks.motion_map_tube_mask(
            motion, clip.num_tubelets, mask_ratio=ratio, floor=config.floor, generator=generator
        )
    return masks.motion_tube_mask(
        inside_patches(clip, boxes),
        clip.num_tubelets,
        mask_ratio=ratio,
        inside_ratio=config.inside_ratio,
        generator=generator,
    )


def inside_patches(clip: ClipShape, boxes: Tensor) -> Tensor:
    """Return bool (B, P): the patches that the union of a clip's boxes (B, T, 4) touches."""
    return masks.patches_inside_box(masks.union_boxes(boxes), (clip.image_px, clip.image_px), clip.patch_px)


def normalise(frames: Tensor) -> Tensor:
    """Turn uint8 (B, 3, T, H, W) colours into the model's float32 input, on the device they are on."""
    shape = (1, 3, 1, 1, 1)
    mean = torch.tensor(IMAGENET_MEAN, device=frames.device).view(shape)
    std = torch.tensor(IMAGENET_STD, device=frames.device).view(shape)
    return (frames.float() / 255 - mean) / std


def num_hidden_tokens(config: MaskConfig, clip: ClipShape) -> int:
    """Return how many tokens `draw_mask` hides in every clip."""
    if config.kind == "random":
        return round(config.mask_ratio * clip.num_tokens)
    return round(config.mask_ratio * clip.num_patches) * clip.num_tubelets
