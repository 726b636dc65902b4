"""Which frames of a clip a model sees, and which part of them, with the boxes moved along."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

# Frames are normalised with these before they enter a model (RGB, values in [0, 1]).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_SNAP_PX = 3
# libswscale's conversion of BT.601 in limited range: these times 2 ** -13, every product rounded down.
_LUMA, _RED_OF_RED, _GREEN_OF_BLUE, _GREEN_OF_RED, _BLUE_OF_BLUE = 9539, 13075, -3209, -6660, 16525
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
    short = min(width, height)
    sides = [max(1, int(short * scale)) for scale in scales]
    sides = [out_px if abs(side - out_px) < _SNAP_PX and out_px <= short else side for side in sides]
    pairs = [(w, h) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
    crop_width, crop_height = pairs[rng.integers(len(pairs))]
    across, down = _PLACES[rng.integers(len(_PLACES))]
    x, y = (width - crop_width) // 4 * across, (height - crop_height) // 4 * down
    return Crop(x, y, crop_width, crop_height)


def crop_frames(frames: Tensor, crop: Crop, out_px: int) -> Tensor:
    """Cut and resize (bilinear, antialiased) uint8 (T, H, W, 3) -> uint8 (3, T, out_px, out_px).

    In memory the colours of a pixel stay side by side, as decoded; `normalise` sorts them on the device.
    """
    cut = frames[:, crop.y : crop.y + crop.height, crop.x : crop.x + crop.width].permute(0, 3, 1, 2)
    if (crop.width, crop.height) != (out_px, out_px):
        cut = F.interpolate(cut, size=(out_px, out_px), mode="bilinear", antialias=True)
    return cut.contiguous(memory_format=torch.channels_last).transpose(0, 1)


def crop_planes(planes: Tensor, crops: Sequence[Sequence[Crop]], out_px: int) -> Tensor:
    """Convert, cut and resize clips as they were decoded: what `crop_frames` makes of their RGB frames, on any device.

    The conversion is libswscale's and the resizing PyTorch's for uint8 on a processor, both in their own integers, so
    the result is the same to the bit.

    Args:
        planes: uint8 (B, T, h * 3 / 2, w), YUV 4:2:0 of BT.601 in limited range, see `Store.clip_planes`.
        crops: R crops of each clip, in its pixels.
        out_px: Side of the model's frames.

    Returns:
        uint8 (B * R, 3, T, out_px, out_px), the crops of a clip side by side.
    """
    across = _Taps.of([[(crop.x, crop.width) for crop in row] for row in crops], out_px).to(planes.device)
    down = _Taps.of([[(crop.y, crop.height) for crop in row] for row in crops], out_px).to(planes.device)
    return _resize(_rgb_of_planes(planes)[:, None], across, down).flatten(0, 1).transpose(1, 2)


def _resize(pixels: Tensor, across: _Taps, down: _Taps) -> Tensor:
    """Return uint8 (B, R, T, 3, S, S) of uint8 (B, 1, T, 3, h, w): along the rows first, rounded between."""
    return _along(_along(pixels, across, -1), down, -2)


def _along(pixels: Tensor, taps: _Taps, dim: int) -> Tensor:
    shape = (*taps.precision.shape, 1, 1, *((1, -1) if dim == -1 else (-1, 1)))
    shift = taps.precision.view(*taps.precision.shape, 1, 1, 1, 1)
    total = 1 << (shift - 1)
    for index, weight in zip(taps.indices, taps.weights, strict=True):
        total = total + torch.take_along_dim(pixels, index.view(shape), dim) * weight.view(shape)
    return (total >> shift).clamp(0, 255).to(torch.uint8)


def _rgb_of_planes(planes: Tensor) -> Tensor:
    """Return uint8 (B, T, 3, h, w) of YUV 4:2:0 planes, uint8 (B, T, h * 3 / 2, w)."""
    clips, length, rows, width = planes.shape
    height = rows * 2 // 3
    chroma = planes[:, :, height:].reshape(clips, length, 2, height // 2, width // 2)
    blue, red = (chroma.int() * 8 - 1024).repeat_interleave(2, -1).repeat_interleave(2, -2).unbind(2)
    luma = (planes[:, :, :height].int() * 8 - 128) * _LUMA >> 16
    channels = (
        luma + (red * _RED_OF_RED >> 16),
        luma + (blue * _GREEN_OF_BLUE >> 16) + (red * _GREEN_OF_RED >> 16),
        luma + (blue * _BLUE_OF_BLUE >> 16),
    )
    return torch.stack([channel.clamp(0, 255).to(torch.uint8) for channel in channels], 2)


class _Taps(NamedTuple):
    """Which pixels of a row or column are added to which, with which weights: bilinear, antialiased.

    The weights are PyTorch's for uint8: integers of 15 bits, `2 ** precision` standing for 1.

    Attributes:
        indices: int64 (K, B, R, S), of the k-th pixel of each sum.
        weights: int32 (K, B, R, S).
        precision: int32 (B, R).
    """

    indices: Tensor
    weights: Tensor
    precision: Tensor

    @classmethod
    def of(cls, spans: Sequence[Sequence[tuple[int, int]]], out_px: int) -> _Taps:
        """Return those that resize R spans, (first pixel, length), of each of B clips to `out_px`."""
        first, length = torch.tensor(spans, dtype=torch.float64).unbind(-1)
        scale = (length / out_px)[..., None]
        reach = scale.clamp(min=1)
        centres = (torch.arange(out_px) + 0.5) * scale
        lowest = (centres - reach + 0.5).floor()
        taps = 2 * math.ceil(float(reach.max())) + 1
        places = lowest + torch.arange(taps, dtype=torch.float64)[:, None, None, None]
        weights = (1 - ((places - centres + 0.5) * (1 / reach)).abs()).clamp(min=0)
        weights = weights.where((places >= 0) & (places < length[..., None]), 0)
        weights /= weights.sum(0)
        precision = ((2**15 - 0.5) / weights.amax((0, -1))).log2().ceil().clamp(max=23) - 1  # below 2 ** 15
        whole = (weights * precision[..., None].exp2() + 0.5).floor()
        indices = places.clamp(min=0).minimum(length[..., None] - 1) + first[..., None]
        return cls(indices.long(), whole.int(), precision.int())

    def to(self, device: torch.device) -> _Taps:
        """Return them on a device."""
        return _Taps(*(part.to(device) for part in self))


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
    moved = (boxes - np.array([crop.x, crop.y] * 2, np.float32)) * scale
    moved = moved.clip(0, out_px)
    empty = (moved[:, 2] <= moved[:, 0]) | (moved[:, 3] <= moved[:, 1])
    return cast("NDArray[np.float32]", np.where(empty[:, None], np.float32(0), moved))


def normalise(frames: Tensor) -> Tensor:
    """Turn uint8 (B, 3, T, H, W) colours into the model's float32 input, on the device they are on."""
    shape = (1, 3, 1, 1, 1)
    mean = torch.tensor(IMAGENET_MEAN, device=frames.device).view(shape)
    std = torch.tensor(IMAGENET_STD, device=frames.device).view(shape)
    return (frames.contiguous().float() / 255 - mean) / std


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
