"""Which frames of a clip a model sees, and which part of them, with the boxes moved along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

# Frames are normalised with these before they enter a model (RGB, values in [0, 1]).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_SNAP_PX = 3
# Where a crop may lie, in quarters of the free space to the left and above: corners, centre, edge middles, quarters.
_PLACES = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))


@dataclass(frozen=True)
class Crop:
    """A rectangle of a frame, in pixels."""

    x: int
    y: int
    width: int
    height: int


def multi_scale_crop(width: int, height: int, out_px: int, scales: Sequence[float], rng: np.random.Generator) -> Crop:
    """Draw a crop as VideoMAE does (TSN's MultiScaleCrop).

    Width and height are shares of the short side, neighbours in `scales` at most, and lie at one of 13 places. A side
    within 2 px of the model's is set to it.

    Args:
        width: Width of the frame.
        height: Height of the frame.
        out_px: Side of the model's frames.
        scales: Shares of the short side, in order.
        rng: Source of randomness.
    """
    pairs = _crop_sizes(min(width, height), out_px, tuple(scales))
    crop_width, crop_height = pairs[rng.integers(len(pairs))]
    across, down = _PLACES[rng.integers(len(_PLACES))]
    x, y = (width - crop_width) // 4 * across, (height - crop_height) // 4 * down
    return Crop(x, y, crop_width, crop_height)


@lru_cache(maxsize=64)
def _crop_sizes(short: int, out_px: int, scales: tuple[float, ...]) -> list[tuple[int, int]]:
    """Return the widths and heights that `multi_scale_crop` draws from."""
    sides = [max(1, int(short * scale)) for scale in scales]
    sides = [out_px if abs(side - out_px) < _SNAP_PX and out_px <= short else side for side in sides]
    return [(w, h) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]


def crop_frames(frames: Tensor, crop: Crop, out_px: int) -> Tensor:
    """Cut and resize (bilinear, antialiased) uint8 (T, H, W, 3) -> uint8 (3, T, out_px, out_px).

    In memory the colours of a pixel stay side by side, as decoded; `normalise` sorts them on the device.
    """
    cut = frames[:, crop.y : crop.y + crop.height, crop.x : crop.x + crop.width].permute(0, 3, 1, 2)
    if (crop.width, crop.height) != (out_px, out_px):
        cut = F.interpolate(cut, size=(out_px, out_px), mode="bilinear", antialias=True)
    return cut.contiguous(memory_format=torch.channels_last).transpose(0, 1)


def join_views(views: Sequence[Tensor]) -> Tensor:
    """Join uint8 (n, 3, T, H, W) views along the first axis; the colours of a pixel lie side by side in memory.

    One view is handed on as it is; several are copied as a block each, where `torch.cat` alone would move single bytes.
    """
    if len(views) == 1:
        return views[0]
    return torch.cat([view.permute(0, 2, 3, 4, 1) for view in views]).permute(0, 4, 1, 2, 3)


def crop_boxes(boxes: NDArray[np.float32], crop: Crop, out_px: int) -> NDArray[np.float32]:
    """Move boxes (T, 4) xyxy along with a crop that is resized to `out_px`, clipped to it; empty ones become zero."""
    scale = np.array([out_px / crop.width, out_px / crop.height] * 2, np.float32)
    moved = boxes - np.array([crop.x, crop.y] * 2, np.float32)
    moved *= scale
    np.maximum(moved, 0, out=moved)
    np.minimum(moved, out_px, out=moved)
    moved *= (moved[:, 2:] > moved[:, :2]).all(1, keepdims=True)
    return moved


def normalise(frames: Tensor) -> Tensor:
    """Turn uint8 (B, 3, T, H, W) colours into the model's float32 input, on the device they are on."""
    mean, std = (value.view(1, 3, 1, 1, 1) for value in colour_statistics(frames.device))
    return (frames.contiguous().float() / 255 - mean) / std


@lru_cache
def colour_statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return `IMAGENET_MEAN` and `IMAGENET_STD`, float32 (3,), on a device.

    They are sent once: from ordinary memory a GPU is sent nothing before it has done all that it was given.
    """
    with torch.inference_mode(False):
        return torch.tensor(IMAGENET_MEAN, device=device), torch.tensor(IMAGENET_STD, device=device)


def dense_frames(num_frames: int, clip_frames: int, stride: int, position: float) -> NDArray[np.int64]:
    """Choose frames at a fixed stride, as pretraining does.

    Args:
        num_frames: Frames of the clip, at least 1.
        clip_frames: Frames wanted.
        stride: Distance of the chosen frames, smaller where the clip is too short for it.
        position: Where the window lies, in [0, 1): 0 = at the beginning; drawn uniformly in training.

    Returns:
        int64 (clip_frames,), not decreasing, in [0, num_frames). A clip of fewer frames than wanted is spread out, so
        that frames repeat evenly instead of freezing at the end.

    Raises:
        ValueError: Fewer than one frame, or `position` outside [0, 1).
    """
    _check(num_frames, clip_frames)
    if not 0 <= position < 1:
        raise ValueError(f"position must be in [0, 1), got {position!r}")
    reach = (clip_frames - 1) * stride + 1
    if num_frames < reach:
        return np.linspace(0, num_frames - 1, clip_frames).round().astype(np.int64)
    first = int(position * (num_frames - reach + 1))
    return np.arange(clip_frames, dtype=np.int64) * stride + first


def segment_frames(num_frames: int, clip_frames: int, jitter: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
    """Choose one frame from each of `clip_frames` equal segments (TSN), as finetuning on SSV2 does.

    Args:
        num_frames: Frames of the clip, at least 1.
        clip_frames: Segments.
        jitter: (clip_frames,) in [0, 1), the place within each segment; None = its middle.

    Returns:
        int64 (clip_frames,), not decreasing, in [0, num_frames).

    Raises:
        ValueError: Fewer than one frame.
    """
    _check(num_frames, clip_frames)
    place = np.full(clip_frames, 0.5) if jitter is None else jitter
    chosen = np.floor((np.arange(clip_frames) + place) * num_frames / clip_frames)
    return np.clip(chosen, 0, num_frames - 1).astype(np.int64)


def _check(num_frames: int, clip_frames: int) -> None:
    for name, value in (("num_frames", num_frames), ("clip_frames", clip_frames)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}")
