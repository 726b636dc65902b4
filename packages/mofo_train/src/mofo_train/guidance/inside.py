"""Boxes or areas -> inside: which patches and tokens a clip's guidance takes, for training and testing alike."""

from __future__ import annotations

import torch
from torch import Tensor

from mofo_train.guidance.areas import inside_patches
from mofo_train.guidance.tubelets import ClipShape


def patches_inside_box(boxes: Tensor, image_hw: tuple[int, int], patch_px: int) -> Tensor:
    """Find the patches that a box touches.

    A patch is inside when the box, clipped to the frame, covers any part of it with positive area: a box that ends
    exactly at a patch's border does not touch the patch beyond. An empty box, or one outside the frame, touches none.

    Args:
        boxes: (..., 4) xyxy pixels of the cropped frame, half-open, integer or float; may reach beyond the frame.
        image_hw: Height and width of the frame in pixels, multiples of `patch_px`.
        patch_px: Side of a patch in pixels.

    Returns:
        bool (..., H*W), patches row by row, `H = height / patch_px`, `W = width / patch_px`.

    Raises:
        ValueError: Wrong shape of `boxes`, or a frame that patches do not tile.
    """
    height, width = image_hw
    if boxes.shape[-1:] != (4,):
        raise ValueError(f"boxes must have shape (..., 4), got {tuple(boxes.shape)}")
    if patch_px < 1 or height % patch_px or width % patch_px or height < 1 or width < 1:
        raise ValueError(f"image_hw must be positive multiples of patch_px = {patch_px}, got {image_hw!r}")
    x1, y1, x2, y2 = boxes.to(torch.float64).unbind(-1)
    columns = _cells_touched(x1, x2, width, patch_px)
    rows = _cells_touched(y1, y2, height, patch_px)
    return (rows[..., :, None] & columns[..., None, :]).flatten(-2)


def _cells_touched(start: Tensor, stop: Tensor, length_px: int, patch_px: int) -> Tensor:
    edges = torch.arange(0, length_px, patch_px, device=start.device, dtype=start.dtype)
    first = start.clamp(0, length_px)[..., None]
    last = stop.clamp(0, length_px)[..., None]
    return (first < last) & (first < edges + patch_px) & (last > edges)


def tubelets_inside_boxes(boxes: Tensor, image_hw: tuple[int, int], patch_px: int, tubelet_frames: int) -> Tensor:
    """Find the tubelets that the box of any of their frames touches (membership for multi-cross attention).

    Args:
        boxes: (B, T, 4) xyxy pixels of the cropped frames, one box a frame.
        image_hw: Height and width of the frames in pixels.
        patch_px: Side of a patch in pixels.
        tubelet_frames: Frames a tubelet spans; T is a multiple of it.

    Returns:
        bool (B, T/tubelet_frames * H*W), in token order.

    Raises:
        ValueError: Wrong shape of `boxes`.
    """
    if boxes.ndim != 3 or boxes.shape[1] % tubelet_frames:
        raise ValueError(
            f"boxes must have shape (B, T, 4) with T a multiple of {tubelet_frames}, got {tuple(boxes.shape)}"
        )
    per_frame = patches_inside_box(boxes, image_hw, patch_px)
    tubelets = (boxes.shape[0], boxes.shape[1] // tubelet_frames, tubelet_frames, per_frame.shape[2])
    return per_frame.reshape(tubelets).any(2).flatten(1)


def union_boxes(boxes: Tensor) -> Tensor:
    """Return the clip box of each clip: the union of its non-empty frame boxes.

    Args:
        boxes: (B, T, 4) xyxy pixels.

    Returns:
        (B, 4) of the same dtype; all zero where every frame's box is empty.
    """
    empty = ((boxes[..., 2] <= boxes[..., 0]) | (boxes[..., 3] <= boxes[..., 1]))[..., None]
    highest = torch.finfo(boxes.dtype).max if boxes.is_floating_point() else torch.iinfo(boxes.dtype).max
    low = boxes[..., :2].masked_fill(empty, highest).amin(1)
    high = boxes[..., 2:].masked_fill(empty, -highest).amax(1)
    return torch.cat([low, high], dim=-1).masked_fill(empty.all(1), 0)


def inside_tokens(clip: ClipShape, boxes: Tensor, areas: Tensor | None = None, *, max_share: float = 0.4) -> Tensor:
    """Say which tokens of clips are inside, for multi-cross attention, in training and testing.

    Args:
        clip: The shape of a clip.
        boxes: (B, T, 4) xyxy pixels of the clips' frames; inside are the tokens that the box of any of their frames
            touches.
        areas: Number (B, slots, side, side), strength of the motion area in each tubelet; where given and not empty, it
            counts instead of the boxes: inside are the strongest tokens of each slot.
        max_share: Largest share of a slot's tokens inside (`areas`).

    Returns:
        bool (B, num_tokens), in token order. With areas never all, and at least one where there is any strength.

    Raises:
        ValueError: Another number of frames, or another grid.
    """
    if areas is not None and areas.numel():
        _check_grid(clip, areas)
        return inside_patches(areas.flatten(2).flatten(0, 1), max_share=max_share).view(len(areas), -1)
    if boxes.ndim != 3 or boxes.shape[1:] != (clip.num_frames, 4):
        raise ValueError(f"boxes must have shape (B, {clip.num_frames}, 4), got {tuple(boxes.shape)}")
    return tubelets_inside_boxes(boxes, (clip.image_px, clip.image_px), clip.patch_px, clip.tubelet_frames)


def inside_tubes(
    clip: ClipShape,
    boxes: Tensor,
    areas: Tensor | None = None,
    *,
    max_share: float = 0.4,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Say which tubes of clips are inside, for masks: the same patches over all time.

    Args:
        clip: The shape of a clip.
        boxes: (B, T, 4) xyxy pixels; inside are the patches that their union touches.
        areas: As in `inside_tokens`; inside are the patches that are strongest in the sum over all slots.
        max_share: Largest share of the patches inside (`areas`).
        generator: As in `inside_patches`.

    Returns:
        bool (B, P).
    """
    if areas is not None and areas.numel():
        _check_grid(clip, areas)
        return inside_patches(areas.float().sum(1).flatten(1), max_share=max_share, generator=generator)
    return patches_inside_box(union_boxes(boxes), (clip.image_px, clip.image_px), clip.patch_px)


def _check_grid(clip: ClipShape, areas: Tensor) -> None:
    side = clip.image_px // clip.patch_px
    if areas.ndim != 4 or areas.shape[1:] != (clip.num_tubelets, side, side):
        rule = f"(B, {clip.num_tubelets}, {side}, {side})"
        raise ValueError(f"areas must have shape {rule}, got {tuple(areas.shape)}")
