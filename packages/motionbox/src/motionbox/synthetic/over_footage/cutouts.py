"""Things to lay over footage: the drawn hands and objects, and cut-outs of the still pictures of scikit-image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from motionbox.errors import InputError
from motionbox.synthetic.compose import Matrix, PlacedMask, scaling, translation
from motionbox.synthetic.over_footage.backdrops import Look
from motionbox.synthetic.props import CLUTTER, NOUNS, draw_clutter, draw_prop
from motionbox.synthetic.shapes import Plane, Sprite

Picture = NDArray[np.uint8]

# Outlines that were drawn by hand around things in the pictures, as shares of the picture's width.
_OUTLINES: dict[str, tuple[str, tuple[tuple[int, int], ...]]] = {
    "astronaut": (
        "astronaut",
        (
            *((92, 40), (100, 18), (125, 8), (155, 12), (175, 38), (172, 65), (160, 95), (178, 120), (178, 150)),
            *((208, 165), (215, 205), (170, 230), (165, 299), (20, 299), (15, 250), (22, 180), (45, 155), (72, 130)),
            *((75, 105), (100, 90), (95, 60)),
        ),
    ),
    "cat": (
        "chelsea",
        ((5, 60), (35, 2), (250, 2), (245, 95), (225, 160), (170, 190), (60, 190), (10, 150)),
    ),
    "cup": (
        "coffee",
        (
            *((87, 30), (110, 10), (150, 5), (185, 18), (205, 38), (208, 55), (235, 85), (240, 125), (215, 165)),
            *((175, 190), (120, 192), (75, 170), (45, 135), (38, 100), (55, 60), (85, 45)),
        ),
    ),
    "motorcycle": (
        "stereo_motorcycle",
        (
            *((45, 65), (52, 58), (105, 75), (140, 70), (178, 60), (205, 40), (225, 50), (228, 75), (220, 95)),
            *((255, 120), (277, 160), (265, 182), (230, 178), (205, 140), (180, 155), (140, 175), (80, 160)),
            *((50, 130), (55, 100), (38, 90)),
        ),
    ),
}
_OUTLINE_WIDTH = 300  # the outlines' coordinates run from 0 to this over the picture's width
_TEXTURES = ("immunohistochemistry", "hubble_deep_field", "brick", "gravel", "grass", "coins", "retina")
_SPRITE_PX = 220  # long side of a cut-out


@dataclass(frozen=True)
class Thing:
    """A sprite one unit long: its longer side, or the width of the hand's palm.

    Attributes:
        name: What it is.
        sprite: Its picture.
    """

    name: str
    sprite: Sprite


def draw_thing(px: float, rng: np.random.Generator) -> Thing:
    """Draw an object of the generated set, cut a thing from a still picture, or cut a blob from a texture.

    Args:
        px: Size at which it will be seen, in pixels.
        rng: Source of the choice and of the outline.

    Raises:
        InputError: scikit-image, whose pictures are used, is not installed.
    """
    kind = rng.uniform()
    if kind < 0.4:
        return _drawn(px, rng)
    if kind < 0.65:
        names = tuple(_OUTLINES)
        name = names[rng.integers(len(names))]
        picture, corners = _OUTLINES[name]
        return Thing(name, _cut(_still(picture), np.array(corners) / _OUTLINE_WIDTH, px))
    texture = _TEXTURES[rng.integers(len(_TEXTURES))]
    return Thing("blob", _cut(_still(texture), _blob(_still(texture), rng), px))


def _drawn(px: float, rng: np.random.Generator) -> Thing:
    if rng.uniform() < 0.3:
        name = CLUTTER[rng.integers(len(CLUTTER))]
        sprite = draw_clutter(name, px / 2.4 * 1.4, rng)
    else:
        name = NOUNS[rng.integers(len(NOUNS))]
        prop = draw_prop(name, px / 2.4 * 1.4, rng)
        sprite = _merged(prop.body, prop.lid_face(0.0), prop.lid_transform(0.0))
    return Thing(name, _unit_long(sprite))


def _merged(body: Sprite, lid: Sprite, pose: Matrix) -> Sprite:
    """Return the body with its lid on, on the body's canvas."""
    to_body = translation(*body.origin) @ scaling(body.px_per_unit) @ pose
    matrix = to_body @ scaling(1 / lid.px_per_unit) @ translation(-lid.origin[0], -lid.origin[1])
    height, width = body.rgba.shape[:2]
    over = np.asarray(cv2.warpAffine(lid.rgba, matrix[:2], (width, height)), np.float32)
    return replace(body, rgba=body.rgba * (1 - over[..., 3:]) + over)


def _unit_long(sprite: Sprite) -> Sprite:
    """Return the sprite cropped to what it shows, centred, one unit long."""
    rows, columns = np.nonzero(sprite.rgba[..., 3] > 0.02)
    part = sprite.rgba[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = part.shape[:2]
    return Sprite(np.ascontiguousarray(part), ((width - 1) / 2, (height - 1) / 2), float(max(height, width)))


@lru_cache(maxsize=16)
def _still(name: str) -> Picture:
    """Return a still picture that comes with scikit-image, uint8 (h, w, 3) RGB."""
    try:
        from skimage import data
    except ImportError:
        raise InputError(
            "synth --footage needs scikit-image for its still pictures; install it with: pip install scikit-image"
        ) from None
    loaded = getattr(data, name)()
    picture = np.asarray(loaded[0] if isinstance(loaded, tuple) else loaded)  # of a stereo pair the left one
    colour = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    return np.ascontiguousarray(colour[..., :3])


def _blob(picture: Picture, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a smooth closed outline inside the picture, (n, 2) in shares of its width."""
    height, width = picture.shape[:2]
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones_like(angle)
    for order in range(2, 6):
        radius += rng.uniform(-0.35, 0.35) / order * 2 * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    stretch = rng.uniform(0.5, 1.0)
    outline = np.stack([radius * np.cos(angle), stretch * radius * np.sin(angle)], axis=1)
    outline *= rng.uniform(0.22, 0.45) * min(1.0, height / width) / np.abs(outline).max()
    room = np.array([1.0, height / width])
    low, high = -outline.min(axis=0), room - outline.max(axis=0)
    placed: NDArray[np.float64] = outline + low + rng.uniform(0, 1, 2) * (high - low)
    return placed


def _cut(picture: Picture, outline: NDArray[np.float64], px: float) -> Sprite:
    """Cut the inside of an outline (shares of the picture's width) out of a picture, at about `px` pixels."""
    width = picture.shape[1]
    corners = outline * width
    long_side = float((corners.max(axis=0) - corners.min(axis=0)).max())
    zoom = min(1.0, min(1.6 * px, _SPRITE_PX) / long_side)
    size = (max(2, round(width * zoom)), max(2, round(picture.shape[0] * zoom)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
    mask = np.zeros(small.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.rint(corners * zoom * 16).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
    alpha = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), 0.6)
    return _unit_long(Sprite(np.dstack([small * alpha[..., None], alpha]).astype(np.float32), (0.0, 0.0), 1.0))


def matched(sprite: Sprite, look: Look, rng: np.random.Generator) -> Sprite:
    """Return the sprite in the light of the footage: half way to its brightness."""
    alpha = sprite.rgba[..., 3]
    mean = float(sprite.rgba[..., :3].mean(axis=2).sum() / max(float(alpha.sum()), 1.0))
    gain = float(np.clip((look.brightness / max(mean, 1.0)) ** 0.5 * rng.uniform(0.85, 1.2), 0.4, 1.6))
    colour = np.minimum(sprite.rgba[..., :3] * gain, 255 * alpha[..., None])
    return replace(sprite, rgba=np.dstack([colour, alpha]).astype(np.float32))


def lay_over(picture: Plane, sprite: Sprite, poses: list[Matrix], look: Look, grain: Plane) -> PlacedMask | None:
    """Draw a sprite as the footage's camera would see it.

    Args:
        picture: (H, W, 3) float32, drawn into.
        sprite: The thing.
        poses: Where it is at moments spread over the exposure; what moves between them is blurred.
        look: Sharpness and noise of the footage.
        grain: (H, W, 3) float32 noise of standard deviation 1 for this frame.

    Returns:
        Position and mask of the pixels that it covers at least half; None where it is outside the picture.
    """
    height, width = picture.shape[:2]
    sides = np.array([[-1, sprite.rgba.shape[1]] * 2, [-1, -1, *[sprite.rgba.shape[0]] * 2], [1, 1, 1, 1]])
    to_units = scaling(1 / sprite.px_per_unit) @ translation(-sprite.origin[0], -sprite.origin[1])
    matrices = [pose @ to_units for pose in poses]
    corners = np.concatenate([(matrix[:2] @ sides).T for matrix in matrices])
    pad = int(np.ceil(3 * look.blur_px))
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int) - pad, 0)
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1 + pad, (width, height))
    if left >= right or top >= bottom:
        return None
    size = (int(right - left), int(bottom - top))
    back = translation(-left, -top)
    layers = [cv2.warpAffine(sprite.rgba, (back @ matrix)[:2], size) for matrix in matrices]
    patch = np.asarray(sum(layers[1:], layers[0]) / len(layers), np.float32)
    patch = np.asarray(cv2.GaussianBlur(patch, (0, 0), look.blur_px), np.float32)
    alpha = patch[..., 3:]
    region = picture[top:bottom, left:right]
    region *= 1 - alpha
    region += patch[..., :3] + grain[top:bottom, left:right] * (look.noise * alpha)
    return int(left), int(top), alpha[..., 0] >= 0.5
