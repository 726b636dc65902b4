"""Mixup and cutmix of clips, with what they do to motion boxes and areas.

A batch is mixed with itself in reverse order. *Mixup* adds two clips: both are visible everywhere, so a token is inside
when it is inside in either clip. *Cutmix* pastes a rectangle of one clip into the other over all time: every token
takes the membership of the pixels it shows, so it is inside when any of its pixels lies in the box of the clip that
the pixel comes from.

Areas are mixed before it is asked which tokens are inside: mixup takes the stronger of both clips, cutmix the mean over
the pixels that a token shows. So no more is inside after mixing than before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mofo_train.guidance.inside import inside_tokens
from mofo_train.guidance.tubelets import ClipShape


@dataclass(frozen=True)
class Mix:
    """How a batch is mixed.

    Attributes:
        share: Share of the clip itself in its target; the rest is its partner's.
        region: xyxy pixels that come from the partner (cutmix), None = mixup, or nothing at all where share is 1.
    """

    share: float
    region: tuple[int, int, int, int] | None = None


def draw_mix(mixup_alpha: float, cutmix_alpha: float, image_px: int, rng: np.random.Generator) -> Mix:
    """Draw how the next batch is mixed.

    Args:
        mixup_alpha: Both parameters of mixup's Beta distribution, 0 = never mixup.
        cutmix_alpha: Those of cutmix; with both kinds each comes half of the time.
        image_px: Side of a frame.
        rng: Source of randomness.
    """
    if mixup_alpha == 0 and cutmix_alpha == 0:
        return Mix(1.0)
    if cutmix_alpha == 0 or (mixup_alpha > 0 and rng.random() < 0.5):
        return Mix(float(rng.beta(mixup_alpha, mixup_alpha)))
    side = image_px * math.sqrt(1 - rng.beta(cutmix_alpha, cutmix_alpha))
    x, y = rng.integers(image_px, size=2).tolist()
    edges = [round(value) for value in (x - side / 2, y - side / 2, x + side / 2, y + side / 2)]
    x1, y1, x2, y2 = (min(max(edge, 0), image_px) for edge in edges)
    return Mix(1 - (x2 - x1) * (y2 - y1) / image_px**2, (x1, y1, x2, y2))


def mix_frames(frames: Tensor, mix: Mix) -> Tensor:
    """Mix clips (B, 3, T, H, W) with the reversed batch."""
    if mix.region is not None:
        x1, y1, x2, y2 = mix.region
        mixed = frames.clone()
        mixed[..., y1:y2, x1:x2] = frames.flip(0)[..., y1:y2, x1:x2]
        return mixed
    return frames if mix.share == 1 else frames * mix.share + frames.flip(0) * (1 - mix.share)


def mix_membership(
    boxes: Tensor, mix: Mix, clip: ClipShape, areas: Tensor | None = None, *, max_share: float = 0.4
) -> Tensor:
    """Return which tokens of the mixed clips are inside.

    Args:
        boxes: (B, T, 4) xyxy pixels of the clips before mixing.
        mix: As for `mix_frames`.
        clip: The shape of a clip.
        areas: As in `inside_tokens`, before mixing; where given and not empty, they count instead of the boxes.
        max_share: As in `inside_tokens`.

    Returns:
        bool (B, num_tokens).
    """
    if areas is not None and areas.numel():
        return inside_tokens(clip, boxes, mix_areas(areas, mix, clip), max_share=max_share)
    if mix.region is None:
        inside = inside_tokens(clip, boxes)
        return inside if mix.share == 1 else inside | inside.flip(0)
    x1, y1, x2, y2 = mix.region
    left, top, right, bottom = boxes.unbind(-1)
    cut = torch.stack([left.clamp(min=x1), top.clamp(min=y1), right.clamp(max=x2), bottom.clamp(max=y2)], dim=-1)
    pasted = inside_tokens(clip, cut).flip(0)
    return pasted | _inside_beyond(boxes, mix.region, clip)


def mix_areas(areas: Tensor, mix: Mix, clip: ClipShape) -> Tensor:
    """Mix motion areas (B, slots, side, side) with the reversed batch; float32 after cutmix."""
    if mix.region is None:
        return areas if mix.share == 1 else torch.maximum(areas, areas.flip(0))
    x1, y1, x2, y2 = mix.region
    pasted = torch.outer(_covered(y1, y2, areas, clip), _covered(x1, x2, areas, clip))
    return areas * (1 - pasted) + areas.flip(0) * pasted


def _covered(start: int, stop: int, areas: Tensor, clip: ClipShape) -> Tensor:
    """Return which share of each row or column of patches lies between two pixels, float32 (side,)."""
    edges = torch.arange(0, clip.image_px, clip.patch_px, device=areas.device, dtype=torch.float32)
    return ((edges + clip.patch_px).clamp(max=stop) - edges.clamp(min=start)).clamp(min=0) / clip.patch_px


def _inside_beyond(boxes: Tensor, region: tuple[int, int, int, int], clip: ClipShape) -> Tensor:
    """Return the tokens with pixels of the box that the region does not cover."""
    x1, y1, x2, y2 = region
    side, patch = clip.image_px // clip.patch_px, clip.patch_px
    start = torch.arange(side, device=boxes.device, dtype=boxes.dtype) * patch
    corners = torch.stack(torch.meshgrid(start, start, indexing="xy"), dim=-1).reshape(-1, 2)
    low = torch.maximum(corners, boxes[:, :, None, :2])
    high = torch.minimum(corners + patch, boxes[:, :, None, 2:])
    there = (low < high).all(-1)
    covered = (low[..., 0] >= x1) & (low[..., 1] >= y1) & (high[..., 0] <= x2) & (high[..., 1] <= y2)
    per_frame = there & ~covered
    return per_frame.reshape(len(boxes), clip.num_tubelets, clip.tubelet_frames, -1).any(2).flatten(1)


def mix_targets(labels: Tensor, num_classes: int, share: float, smoothing: float) -> Tensor:
    """Return soft targets of a mixed batch.

    Args:
        labels: int64 (B,) classes.
        num_classes: C.
        share: `Mix.share`.
        smoothing: Share spread over all classes.

    Returns:
        float32 (B, C), rows summing to 1.
    """
    hard = torch.nn.functional.one_hot(labels, num_classes).to(torch.float32)
    soft = hard * (1 - smoothing) + smoothing / num_classes
    return soft * share + soft.flip(0) * (1 - share)
