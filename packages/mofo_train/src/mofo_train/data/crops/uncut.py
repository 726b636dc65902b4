"""Clips on their way to a device that makes their views: planes in the batch's memory, the views as numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mofo_train.data.augment import Augmentation, CropFrames, augment_pixels, crop_in_worker
from mofo_train.data.crops.planes import crop_planes, crop_rgb, rgb_of_planes
from mofo_train.data.transforms import Crop, crop_frames
from motionbox.store.clip_blocks import padded, planes_to_rgb

_CLIPS_AT_ONCE = 8  # their colours take four times the memory meanwhile


@dataclass(frozen=True)
class Uncut:
    """A clip whose views the device is to make of its planes.

    Attributes:
        shape: T, h * 3 / 2 and w of the planes, see `Store.clip_planes`; of the frames or of a window of them.
        frame_wh: Width and height of the frames.
        out_px: Side of the model's frames.
        crops: R crops, in pixels of the planes; or none, and
        augmentations: What is to be done for each of R views. Their noise stands behind the planes.
    """

    shape: tuple[int, ...]
    frame_wh: tuple[int, int]
    out_px: int
    crops: tuple[Crop, ...] = ()
    augmentations: tuple[Augmentation, ...] = ()


def plane_bytes(wh: tuple[int, int]) -> int:
    """Return how many bytes the planes of a frame of that width and height have, odd sides padded by a pixel."""
    return padded(wh[0]) * padded(wh[1]) * 3 // 2


def window_wh(frame_wh: tuple[int, int]) -> tuple[int, int]:
    """Return width and height of the windows that `crop_window` chooses in frames of that width and height."""
    most = padded(min(frame_wh)) + 2
    width, height = (min(most, padded(side)) for side in frame_wh)
    return width, height


def crop_window(crop: Crop, frame_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """Choose an even part of a frame that holds a crop; of one size for all crops, whatever the frame's long side.

    Args:
        crop: No side longer than the frame's short one.
        frame_wh: Width and height of the frame.

    Returns:
        Left, top, width and height in pixels, all even, within the frame, odd sides of which are padded by a pixel.
    """
    size = window_wh(frame_wh)
    spaces = [padded(side) - extent for side, extent in zip(frame_wh, size, strict=True)]
    return min(crop.x - crop.x % 2, spaces[0]), min(crop.y - crop.y % 2, spaces[1]), *size


def most_noise_bytes(length: int, out_px: int) -> int:
    """Return how many bytes the noise of one view may have."""
    return 3 * length * out_px * out_px


def add_noise(memory: Tensor, uncut: Uncut) -> Uncut:
    """Move the noise of a clip's views into its memory, behind its planes.

    Args:
        memory: uint8 (bytes,), with room for `most_noise_bytes` of each view.
        uncut: The clip.

    Returns:
        The clip without its noise.
    """
    noise = [drawn.noise.flatten() for drawn in uncut.augmentations]
    used = math.prod(uncut.shape)
    memory[used : used + sum(map(len, noise))] = torch.cat(noise)
    stripped = (replace(drawn, noise=drawn.noise.new_empty(0)) for drawn in uncut.augmentations)
    return replace(uncut, augmentations=tuple(stripped))


def make_views(memory: Tensor, clips: Sequence[Uncut]) -> Tensor:
    """Make the views of a batch: at once on a GPU, one by one on a processor, to the same pixels.

    Args:
        memory: uint8 (clips, bytes), each row beginning with the planes of a clip.
        clips: What they are; all with R views of one size.

    Returns:
        uint8 (clips * R, 3, T, S, S), the views of a clip side by side.
    """
    return (make_views_singly if memory.device.type == "cpu" else make_views_at_once)(memory, clips)


def make_views_at_once(memory: Tensor, clips: Sequence[Uncut]) -> Tensor:
    """Make the views of a batch as `make_views` does, a few clips of one size at a time, in few kernels."""
    views = len(clips[0].crops or clips[0].augmentations)
    length, side = clips[0].shape[0], clips[0].out_px
    frames = memory.new_empty(len(clips), views, 3, length, side, side)
    for some in clips_alike(clips):
        shape = clips[some[0]].shape
        planes = memory[some, : math.prod(shape)].view(len(some), *shape)
        if clips[0].crops:
            made = crop_planes(planes, [clips[place].crops for place in some], side)
            frames[some] = made.view(-1, *frames.shape[1:])
        else:
            for place, rgb in zip(some, rgb_of_planes(planes), strict=True):
                noise = memory[place, math.prod(shape) :]
                frames[place] = torch.stack(_augment(rgb, noise, clips[place], crop_rgb))
    return frames.flatten(0, 1)


def make_views_singly(memory: Tensor, clips: Sequence[Uncut]) -> Tensor:
    """Make the views of a batch as `make_views` does, with what a worker makes them with: a processor's fastest way."""
    views = len(clips[0].crops or clips[0].augmentations)
    length, side = clips[0].shape[0], clips[0].out_px
    frames = memory.new_empty(len(clips), views, length, side, side, 3).permute(0, 1, 5, 2, 3, 4)
    for row, clip, room in zip(memory, clips, frames, strict=True):
        used = math.prod(clip.shape)
        rgb = torch.from_numpy(planes_to_rgb(row[:used].view(clip.shape).numpy()))
        made = [crop_frames(rgb, crop, side) for crop in clip.crops]
        made += _augment(rgb.permute(0, 3, 1, 2), row[used:], clip, crop_in_worker)
        for view, own in zip(room, made, strict=True):
            view.copy_(own)
    return frames.flatten(0, 1)


def clips_alike(clips: Sequence[Uncut]) -> Iterator[list[int]]:
    """Yield the places of clips that are converted together: a few of one size."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for place, clip in enumerate(clips):
        alike.setdefault(clip.shape, []).append(place)
    for places in alike.values():
        for first in range(0, len(places), _CLIPS_AT_ONCE):
            yield places[first : first + _CLIPS_AT_ONCE]


def _augment(rgb: Tensor, noise: Tensor, clip: Uncut, crop: CropFrames) -> list[Tensor]:
    """Return the augmented views of uint8 (T, 3, h, w), each uint8 (3, T, S, S)."""
    width, height = clip.frame_wh
    views = []
    for drawn in clip.augmentations:
        if drawn.erased is not None:
            shape = (3, len(rgb), *drawn.erased[2:])
            drawn = replace(drawn, noise=noise[: math.prod(shape)].view(shape))
            noise = noise[math.prod(shape) :]
        views.append(augment_pixels(rgb[..., :height, :width], drawn, clip.out_px, crop))
    return views
