"""Conversion, cutting and resizing of decoded planes on any device, in the integers that a worker computes with.

A worker makes RGB of planes with libswscale and crops with PyTorch's resize of uint8 on a processor. Both add integers
and shift; so does this, and every pixel is the same. On a GPU `torch.compile` makes a few kernels of it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from mofo_train.data.transforms import Crop

_LOG = logging.getLogger(__name__)
# libswscale's conversion of BT.601 in limited range: these times 2 ** -13, every product rounded down.
_LUMA, _RED_OF_RED, _GREEN_OF_BLUE, _GREEN_OF_RED, _BLUE_OF_BLUE = 9539, 13075, -3209, -6660, 16525


def crop_planes(planes: Tensor, crops: Sequence[Sequence[Crop]], out_px: int) -> Tensor:
    """Convert, cut and resize clips as they were decoded: what `crop_frames` makes of their RGB frames.

    Args:
        planes: uint8 (B, T, h * 3 / 2, w), YUV 4:2:0 of BT.601 in limited range, see `Store.clip_planes`.
        crops: R crops of each clip, in its pixels.
        out_px: Side of the model's frames.

    Returns:
        uint8 (B * R, 3, T, out_px, out_px), the crops of a clip side by side.
    """
    across, down = view_numbers(crops, out_px, planes.device)
    make = _compiled(_crops_of_planes) if planes.device.type == "cuda" else _crops_of_planes
    return make(*_split(planes), *across, *down).flatten(0, 1).transpose(1, 2)


def crop_rgb(frames: Tensor, crop: Crop, out_px: int) -> Tensor:
    """Cut and resize RGB frames on their device, uint8 (T, 3, H, W) -> uint8 (3, T, out_px, out_px)."""
    across, down = view_numbers([[crop]], out_px, frames.device)
    make = _compiled(_resize) if frames.device.type == "cuda" else _resize
    return make(frames[None], *across, *down)[0, 0].transpose(0, 1)


def rgb_of_planes(planes: Tensor) -> Tensor:
    """Return uint8 RGB (B, T, 3, h, w) of YUV 4:2:0 planes, uint8 (B, T, h * 3 / 2, w), as libswscale converts them."""
    return _to_rgb(*_split(planes))


def _split(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Return luma (B, T, h, w) and both differences (B, T, 2, h / 2, w / 2) of planes, without copying them.

    A compiled function gets the two: torch.compile takes several times as long where it has to derive one shape from
    the other.
    """
    clips, length, rows, width = planes.shape
    height = rows * 2 // 3
    return planes[:, :, :height], planes[:, :, height:].reshape(clips, length, 2, height // 2, width // 2)


def _to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    blue, red = (chroma.int() * 8 - 1024).repeat_interleave(2, -1).repeat_interleave(2, -2).unbind(2)
    luma = (luma.int() * 8 - 128) * _LUMA >> 16
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
    def of(cls, spans: Sequence[Sequence[tuple[int, int]]], out_px: int, num_taps: int) -> _Taps:
        """Return those that resize R spans, (first pixel, length), of each of B clips to `out_px`, K = `num_taps`."""
        first, length = torch.tensor(spans, dtype=torch.float64).unbind(-1)
        scale = (length / out_px)[..., None]
        reach = scale.clamp(min=1)
        centres = (torch.arange(out_px) + 0.5) * scale
        lowest = (centres - reach + 0.5).floor()
        places = lowest + torch.arange(num_taps, dtype=torch.float64)[:, None, None, None]
        weights = (1 - ((places - centres + 0.5) * (1 / reach)).abs()).clamp(min=0)
        weights = weights.where((places >= 0) & (places < length[..., None]), 0)
        weights /= weights.sum(0)
        precision = ((2**15 - 0.5) / weights.amax((0, -1))).log2().ceil().clamp(max=23) - 1  # below 2 ** 15
        whole = (weights * precision[..., None].exp2() + 0.5).floor()
        indices = places.clamp(min=0).minimum(length[..., None] - 1) + first[..., None]
        return cls(indices.long(), whole.int(), precision.int())

    def to(self, device: torch.device) -> _Taps:
        """Return them on a device, without waiting for it."""
        return _Taps(*(part.to(device, non_blocking=True) for part in self))


def view_numbers(crops: Sequence[Sequence[Crop]], out_px: int, device: torch.device) -> tuple[_Taps, _Taps]:
    """Return what crops take of columns and of rows, on a device."""
    longest = max(max(crop.width, crop.height) for row in crops for crop in row)
    num_taps = 2 * math.ceil(max(1, longest / out_px)) + 1  # of both alike: a compiled function is made for each number
    across = _Taps.of([[(crop.x, crop.width) for crop in row] for row in crops], out_px, num_taps)
    down = _Taps.of([[(crop.y, crop.height) for crop in row] for row in crops], out_px, num_taps)
    return across.to(device), down.to(device)


def _crops_of_planes(luma: Tensor, chroma: Tensor, *taps: Tensor) -> Tensor:
    """Return uint8 (B, R, T, 3, S, S) of planes."""
    return _resize(_to_rgb(luma, chroma), *taps)


def _resize(pixels: Tensor, *taps: Tensor) -> Tensor:
    """Return uint8 (B, R, T, 3, S, S) of uint8 (B, T, 3, h, w): along the rows first, rounded between."""
    return _along(_along(pixels[:, None], _Taps(*taps[:3]), -1), _Taps(*taps[3:]), -2)


def _along(pixels: Tensor, taps: _Taps, dim: int) -> Tensor:
    """Add pixels (B, 1 or R, T, 3, h, w) along a dimension, -1 or -2."""
    shape = (*taps.precision.shape, 1, 1, *((1, -1) if dim == -1 else (-1, 1)))
    shift = taps.precision[:, :, None, None, None, None]
    pixels = pixels.expand(*taps.precision.shape, *pixels.shape[2:])
    # Not `take_along_dim`: torch.compile would make a function of it for each size of pixels.
    others = pixels.shape[:-1] if dim == -1 else (*pixels.shape[:-2], -1, pixels.shape[-1])
    size = (*others, -1) if dim == -1 else others
    total = 1 << (shift - 1)
    for index, weight in zip(taps.indices, taps.weights, strict=True):
        total = total + pixels.gather(dim, index.view(shape).expand(size)) * weight.view(shape)
    return (total >> shift).clamp(0, 255).to(torch.uint8)


@cache
def _compiled(function: Callable[..., Tensor], backend: str | Callable[..., object] = "inductor") -> _Compiled:
    return _Compiled(function, backend)


class _Compiled:
    """A function in few kernels, compiled once for clips of all widths and heights.

    Another number of taps, and one clip in place of several, compile it anew. Where it cannot be compiled, for want of
    a C compiler for instance, it runs as it is, and says so once.
    """

    def __init__(self, function: Callable[..., Tensor], backend: str | Callable[..., object]) -> None:
        self._plain = function
        self._fast: Any = torch.compile(function, dynamic=True, backend=backend)

    def __call__(self, *tensors: Tensor) -> Tensor:
        if self._fast is not None:
            try:
                return cast(Tensor, self._fast(*tensors))
            except TorchDynamoException as error:
                reason = str(error).partition("\n")[0]
                _LOG.warning(f"views are made by more kernels than needed, torch.compile fails here: {reason}")
                self._fast = None
        return self._plain(*tensors)
