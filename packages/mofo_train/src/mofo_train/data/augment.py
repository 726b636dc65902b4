"""Augmentation of a training clip: RandAugment, random crop, mirror and erasing, boxes and areas follow.

The operations and their strengths are those of timm's policy `rand-m7-n4-mstd0.5-inc1`, which VideoMAE finetunes with;
pixels and boxes are moved by torchvision's functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as tv

from mofo_train.data.areas import after, crop_map
from mofo_train.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Crop, crop_boxes, crop_frames
from mofo_train.finetune_config import AugmentConfig

_MAX_LEVEL = 10.0
_OP_PROBABILITY = 0.5
_CROP_TRIES = 10
_ERASE_AREA = (0.02, 1 / 3)
_ERASE_ASPECT = (0.3, 1 / 0.3)
_FILL = [round(255 * value) for value in IMAGENET_MEAN]
Colour = Callable[[Tensor, float, float], Tensor]
CropFrames = Callable[[Tensor, Crop, int], Tensor]
"""Cuts and resizes uint8 (T, 3, H, W) -> uint8 (3, T, out_px, out_px)."""

# Operation -> (frames uint8 (T, 3, H, W), strength in [0, 1], sign) -> frames. Strength 1 is timm's level 10.
_COLOUR_OPS: dict[str, Colour] = {
    "autocontrast": lambda x, _, __: tv.autocontrast(x),
    "equalize": lambda x, _, __: tv.equalize(x),
    "invert": lambda x, _, __: tv.invert(x),
    "posterize": lambda x, strength, _: tv.posterize(x, 4 - int(strength * 4)),
    "solarize": lambda x, strength, _: tv.solarize(x, 256 - int(strength * 256)),
    "solarize_add": lambda x, strength, _: _solarize_add(x, int(strength * 110)),
    "color": lambda x, strength, sign: tv.adjust_saturation(x, max(0.1, 1 + sign * 0.9 * strength)),
    "contrast": lambda x, strength, sign: tv.adjust_contrast(x, max(0.1, 1 + sign * 0.9 * strength)),
    "brightness": lambda x, strength, sign: tv.adjust_brightness(x, max(0.1, 1 + sign * 0.9 * strength)),
    "sharpness": lambda x, strength, sign: tv.adjust_sharpness(x, max(0.1, 1 + sign * 0.9 * strength)),
}
_MOVING_OPS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
_OPS = (*_COLOUR_OPS, *_MOVING_OPS)
_MAX_ROTATION_DEGREES = 30.0
_MAX_SHEAR = 0.3
_MAX_TRANSLATION = 0.45


@dataclass(frozen=True)
class Augmentation:
    """What is done to the pixels of one training view.

    Attributes:
        ops: Operations of RandAugment in order: name, strength from 0 to 1, sign.
        crop: What is cut out after them.
        mirrored: Left and right are exchanged then.
        erased: Top, left, height and width of the rectangle that is replaced by noise, of the view; None: none.
        noise: uint8 (3, T, height, width), or empty.
    """

    ops: tuple[tuple[str, float, float], ...]
    crop: Crop
    mirrored: bool
    erased: tuple[int, int, int, int] | None
    noise: Tensor


def augment_clip(
    pixels: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    config: AugmentConfig,
    out_px: int,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, NDArray[np.float64]]:
    """Make one training view of a clip: `draw_augmentation`, then `augment_pixels`.

    Args:
        pixels: uint8 (T, H, W, 3) RGB.
        boxes: float32 (T, 4) xyxy pixels.
        config: What to do.
        out_px: Side of the model's frames.
        rng: Source of all randomness.

    Returns:
        uint8 (3, T, out_px, out_px), and boxes and map as in `draw_augmentation`.
    """
    height, width = pixels.shape[1:3]
    drawn, placed, to_source = draw_augmentation((width, height), boxes, config, out_px, rng)
    frames = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return augment_pixels(frames, drawn, out_px, crop_in_worker), placed, to_source


def draw_augmentation(
    frame_wh: tuple[int, int],
    boxes: NDArray[np.float32],
    config: AugmentConfig,
    out_px: int,
    rng: np.random.Generator,
) -> tuple[Augmentation, Tensor, NDArray[np.float64]]:
    """Draw what is done to a clip for one training view, and move its boxes along.

    Erasing leaves boxes and areas alone: it hides content and does not move it.

    Args:
        frame_wh: Width and height of the clip's frames.
        boxes: float32 (T, 4) xyxy pixels.
        config: What to do.
        out_px: Side of the model's frames.
        rng: Source of all randomness.

    Returns:
        What to do; float32 (T, 4) xyxy pixels of the view, an empty box is all zero; and float64 (2, 3), which takes
        (x, y, 1) of the view's pixels to (x, y) of the source's, by which areas follow.
    """
    width, height = frame_wh
    moved, to_source, ops = torch.from_numpy(boxes), np.eye(2, 3), []
    for _ in range(config.rand_ops):
        if rng.random() < _OP_PROBABILITY:
            level = rng.normal(config.rand_magnitude, config.rand_magnitude_std)
            strength = min(max(level, 0.0), _MAX_LEVEL) / _MAX_LEVEL
            name = _OPS[rng.integers(len(_OPS))]
            sign = 1.0 if rng.random() < 0.5 else -1.0
            ops.append((name, strength, sign))
            moved = move_boxes(name, moved, (height, width), strength, sign)
            to_source = after(to_source, way_back(name, (height, width), strength, sign))
    crop = random_crop(width, height, config.crop_area, config.crop_aspect, rng)
    to_source = after(to_source, crop_map(crop, out_px))
    placed = torch.from_numpy(crop_boxes(moved.numpy(), crop, out_px))
    mirrored = rng.random() < config.flip_probability
    if mirrored:
        to_source = after(to_source, np.array([[-1.0, 0, out_px], [0, 1, 0]]))
        turned = placed[:, [2, 1, 0, 3]] * placed.new_tensor([-1, 1, -1, 1]) + placed.new_tensor([out_px, 0, out_px, 0])
        placed = turned.where((placed[:, 2:] > placed[:, :2]).all(1, keepdim=True), placed)
    erased, noise = None, torch.empty(0, dtype=torch.uint8)
    if rng.random() < config.erase_probability:
        erased, noise = _draw_erasing(len(boxes), out_px, rng)
    return Augmentation(tuple(ops), crop, mirrored, erased, noise), placed, to_source


def augment_pixels(frames: Tensor, drawn: Augmentation, out_px: int, crop: CropFrames) -> Tensor:
    """Do to a clip's pixels, on their device, what was drawn.

    Args:
        frames: uint8 (T, 3, H, W).
        drawn: What to do; its noise on the device of `frames`.
        out_px: Side of the model's frames.
        crop: Cuts and resizes frames (T, 3, H, W) -> (3, T, out_px, out_px).

    Returns:
        uint8 (3, T, out_px, out_px).
    """
    for name, strength, sign in drawn.ops:
        frames = apply_op(name, frames, strength, sign)
    view = crop(frames, drawn.crop, out_px)
    if drawn.mirrored:
        view = view.flip(-1)
    if drawn.erased is not None:
        y, x, height, width = drawn.erased
        view[..., y : y + height, x : x + width] = drawn.noise
    return view


def crop_in_worker(frames: Tensor, crop: Crop, out_px: int) -> Tensor:
    """Cut and resize frames on a processor, see `crop_frames`."""
    return crop_frames(frames.permute(0, 2, 3, 1), crop, out_px)


def apply_op(name: str, frames: Tensor, strength: float, sign: float) -> Tensor:
    """Apply one operation of RandAugment to all frames.

    Args:
        name: Which one.
        frames: uint8 (T, 3, H, W).
        strength: 0 to 1.
        sign: 1 or -1, the direction, or more or less of a colour.
    """
    if name in _COLOUR_OPS:
        return _COLOUR_OPS[name](frames, strength, sign)
    angle, translate, shear = _movement(name, frames.shape[-2:], strength, sign)
    mode = tv.InterpolationMode.BILINEAR
    out: Tensor = tv.affine(frames, angle, translate, 1.0, shear, interpolation=mode, fill=_FILL)
    return out


def move_boxes(name: str, boxes: Tensor, shape_hw: Sequence[int], strength: float, sign: float) -> Tensor:
    """Move boxes along with `apply_op`.

    Args:
        name: As in `apply_op`.
        boxes: float32 (T, 4) xyxy pixels.
        shape_hw: Height and width of the frames.
        strength: As in `apply_op`.
        sign: As in `apply_op`.

    Returns:
        Around each moved box the upright one, cut at the frame; a box moved out of it becomes empty.
    """
    if name in _COLOUR_OPS:
        return boxes
    angle, translate, shear = _movement(name, shape_hw, strength, sign)
    tensor = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=tuple(shape_hw))
    moved = tv.affine(tensor, angle, translate, 1.0, shear)
    placed: Tensor = tv.clamp_bounding_boxes(moved, clamping_mode="soft").as_subclass(Tensor)
    return placed


def way_back(name: str, shape_hw: Sequence[int], strength: float, sign: float) -> NDArray[np.float64]:
    """Return where the pixels come from that `apply_op` gives.

    Args:
        name: As in `apply_op`.
        shape_hw: Height and width of the frames.
        strength: As in `apply_op`.
        sign: As in `apply_op`.

    Returns:
        float64 (2, 3), takes (x, y, 1) after the operation to (x, y) before it.
    """
    if name in _COLOUR_OPS:
        return np.eye(2, 3)
    height, width = shape_hw
    angle, translate, shear = _movement(name, shape_hw, strength, sign)
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    moved = tv.affine(tv_tensors.KeyPoints(corners, canvas_size=(height, width)), angle, translate, 1.0, shear)
    origin, right, down = moved.as_subclass(Tensor).numpy()
    turned = np.linalg.inv(np.stack([right - origin, down - origin], 1))
    return np.column_stack([turned, -turned @ origin])


def _movement(
    name: str, shape_hw: Sequence[int], strength: float, sign: float
) -> tuple[float, list[float], list[float]]:
    """Return angle in degrees, translation in pixels and shear in degrees of a moving operation."""
    height, width = shape_hw
    angle, translate, shear = 0.0, [0.0, 0.0], [0.0, 0.0]
    if name == "rotate":
        angle = sign * strength * _MAX_ROTATION_DEGREES
    elif name.startswith("shear"):
        shear[name == "shear_y"] = sign * math.degrees(math.atan(strength * _MAX_SHEAR))
    else:
        translate[name == "translate_y"] = sign * strength * _MAX_TRANSLATION * (height if name[-1] == "y" else width)
    return angle, translate, shear


def random_crop(
    width: int, height: int, area: tuple[float, float], aspect: tuple[float, float], rng: np.random.Generator
) -> Crop:
    """Draw a crop by area and aspect, aspect log-uniform (Inception's); the whole frame's centre where none fits.

    Args:
        width: Width of the frame.
        height: Height of the frame.
        area: Smallest and largest share of the frame's area.
        aspect: Narrowest and widest width / height.
        rng: Source of randomness.
    """
    for _ in range(_CROP_TRIES):
        target = rng.uniform(*area) * width * height
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Crop(int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h)
    w, h = min(width, round(height * aspect[1])), min(height, round(width / aspect[0]))
    return Crop((width - w) // 2, (height - h) // 2, w, h)


def _solarize_add(frames: Tensor, amount: int) -> Tensor:
    raised = (frames.to(torch.int16) + amount).clamp(max=255).to(torch.uint8)
    return raised.where(frames < 128, frames)


def _draw_erasing(
    num_frames: int, side: int, rng: np.random.Generator
) -> tuple[tuple[int, int, int, int] | None, Tensor]:
    """Draw a rectangle of a view and noise for it, with the mean and spread of natural images."""
    for _ in range(_CROP_TRIES):
        target = rng.uniform(*_ERASE_AREA) * side * side
        ratio = math.exp(rng.uniform(math.log(_ERASE_ASPECT[0]), math.log(_ERASE_ASPECT[1])))
        h, w = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if w < side and h < side:
            y, x = int(rng.integers(side - h + 1)), int(rng.integers(side - w + 1))
            noise = torch.from_numpy(rng.standard_normal((3, num_frames, h, w), dtype=np.float32))
            mean, std = (torch.tensor(value).view(3, 1, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
            return (y, x, h, w), ((noise * std + mean) * 255).clamp(0, 255).to(torch.uint8)
    return None, torch.empty(0, dtype=torch.uint8)
