"""Small drawing kit: signed distances, rounded shading and sprites with an alpha channel.

Shapes are drawn from signed distance functions (negative inside, in units of the sprite), so that edges are
anti-aliased and surfaces can be inflated into soft reliefs that catch the light.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
Colour = tuple[float, float, float]

_LIGHT = np.array([-0.45, -0.55, 0.7], np.float32) / np.linalg.norm([-0.45, -0.55, 0.7])


@dataclass(frozen=True)
class Sprite:
    """A picture with an alpha channel and an origin.

    Attributes:
        rgba: Colour 0..255 multiplied by alpha, and alpha 0..1, (h, w, 4) float32; of a shadow, alpha alone, (h, w).
        origin: Position of the sprite's origin in its own pixels, (x, y).
        px_per_unit: Pixels of the sprite per drawing unit.
    """

    rgba: Plane
    origin: tuple[float, float]
    px_per_unit: float


class Canvas:
    """A transparent canvas in drawing units; x to the right, y down."""

    def __init__(self, left: float, top: float, right: float, bottom: float, px_per_unit: float) -> None:
        self.px_per_unit = px_per_unit
        width, height = round((right - left) * px_per_unit), round((bottom - top) * px_per_unit)
        self._origin = (-left * px_per_unit - 0.5, -top * px_per_unit - 0.5)
        xs = (np.arange(width, dtype=np.float32) + 0.5) / px_per_unit + left
        ys = (np.arange(height, dtype=np.float32) + 0.5) / px_per_unit + top
        self.x, self.y = np.meshgrid(xs, ys)
        self._rgb = np.zeros((height, width, 3), np.float32)
        self._alpha = np.zeros((height, width), np.float32)

    def fill(
        self, distance: Plane, colour: Colour | Plane, *, opacity: float = 1.0, light: Plane | None = None
    ) -> None:
        """Paint the inside of a shape.

        Args:
            distance: Signed distance in units, (h, w); the edge is one pixel soft.
            colour: One RGB colour 0..255, or one per pixel, (h, w, 3).
            opacity: 0 invisible to 1 solid.
            light: Brightness factor per pixel, (h, w), see `relief`.
        """
        cover = np.clip(0.5 - distance * self.px_per_unit, 0, 1) * opacity
        ink = np.broadcast_to(np.asarray(colour, np.float32), self._rgb.shape)
        if light is not None:
            ink = ink * light[..., None]
        alpha = cover + self._alpha * (1 - cover)
        weight = np.divide(cover, alpha, out=np.zeros_like(cover), where=alpha > 0)[..., None]
        self._rgb += (ink - self._rgb) * weight
        self._alpha = alpha

    def relief(self, height: Plane, *, ambient: float = 0.62, strength: float = 0.5) -> Plane:
        """Return the brightness of a surface lit from above left: (h, w), about 0.4 to 1.2.

        Args:
            height: Surface height in units, (h, w).
            ambient: Brightness without direct light.
            strength: Weight of the direct light.
        """
        slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=self.px_per_unit / 8)
        slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=self.px_per_unit / 8)
        normal = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
        direct = (_LIGHT[2] - slope_x * _LIGHT[0] - slope_y * _LIGHT[1]) * normal
        light: Plane = (ambient + strength * np.clip(direct, 0, None) / _LIGHT[2] * 0.9).astype(np.float32)
        return light

    def sprite(self) -> Sprite:
        """Return what was painted."""
        rgba = np.dstack([np.clip(self._rgb, 0, 255) * self._alpha[..., None], self._alpha]).astype(np.float32)
        return Sprite(rgba, self._origin, self.px_per_unit)


def dome(distance: Plane, width: float, height: float) -> Plane:
    """Inflate a shape: a quarter-circle rise over `width` units inside the edge up to `height`, (h, w)."""
    inside = np.clip(-distance / width, 0, 1)
    surface: Plane = (height * np.sqrt(1 - (1 - inside) ** 2)).astype(np.float32)
    return surface


def circle(x: Plane, y: Plane, centre_x: float, centre_y: float, radius: float) -> Plane:
    """Return the signed distance to a disc, (h, w)."""
    distance: Plane = np.hypot(x - centre_x, y - centre_y) - np.float32(radius)
    return distance


def capsule(x: Plane, y: Plane, start: Sequence[float], stop: Sequence[float], radii: tuple[float, float]) -> Plane:
    """Return the (nearly) signed distance to a line with round ends and a changing width, (h, w)."""
    along_x, along_y = stop[0] - start[0], stop[1] - start[1]
    length_squared = along_x**2 + along_y**2
    share = np.clip(((x - start[0]) * along_x + (y - start[1]) * along_y) / length_squared, 0, 1)
    distance = np.hypot(x - start[0] - share * along_x, y - start[1] - share * along_y)
    signed: Plane = (distance - (radii[0] + share * (radii[1] - radii[0]))).astype(np.float32)
    return signed


def rounded_box(x: Plane, y: Plane, box: tuple[float, float, float, float], radius: float) -> Plane:
    """Return the signed distance to a rectangle (left, top, right, bottom) with rounded corners, (h, w)."""
    centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    over_x = np.abs(x - centre_x) - (box[2] - box[0]) / 2 + radius
    over_y = np.abs(y - centre_y) - (box[3] - box[1]) / 2 + radius
    outside = np.hypot(np.maximum(over_x, 0), np.maximum(over_y, 0))
    signed: Plane = (outside + np.minimum(np.maximum(over_x, over_y), 0) - radius).astype(np.float32)
    return signed


def ring(distance: Plane, thickness: float) -> Plane:
    """Return the signed distance to the band of a thickness centred on a shape's edge, (h, w)."""
    band: Plane = np.abs(distance) - np.float32(thickness / 2)
    return band


def noise(shape: tuple[int, int], cell_px: tuple[float, float], rng: np.random.Generator) -> Plane:
    """Return smooth random noise, about -1..1, with features of (x, y) pixels, (h, w)."""
    height, width = shape
    coarse = (max(2, round(height / cell_px[1]) + 2), max(2, round(width / cell_px[0]) + 2))
    field = rng.uniform(-1, 1, coarse).astype(np.float32)
    return np.asarray(cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return a colour between two."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return (red, green, blue)
