"""Placing sprites in a picture: affine poses, drawing, soft shadows and the boxes of what was drawn."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from motionbox.synthetic.shapes import Plane, Sprite

Matrix = NDArray[np.float64]
PlacedMask = tuple[int, int, NDArray[np.bool_]]
"""Left and top of a mask in the picture, and the mask, (h, w)."""

_ABSENT = (-1, -1, -1, -1)


def translation(x: float, y: float) -> Matrix:
    """Return the matrix, (3, 3), that moves points by (x, y)."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def scaling(factor: float) -> Matrix:
    """Return the matrix, (3, 3), that enlarges about the origin."""
    return np.diag([factor, factor, 1.0])


def rotation(radians: float) -> Matrix:
    """Return the matrix, (3, 3), that turns about the origin, clockwise on screen where y points down."""
    cosine, sine = np.cos(radians), np.sin(radians)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], np.float64)


def soft_shadow(sprite: Sprite, blur_units: float) -> Sprite:
    """Return a sprite's silhouette, blurred; drawn at half resolution because it is soft anyway."""
    pad = round(3 * blur_units * sprite.px_per_unit)
    alpha = cv2.copyMakeBorder(sprite.rgba[..., 3], pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    blurred = cv2.GaussianBlur(alpha, (0, 0), blur_units * sprite.px_per_unit)
    return Sprite(np.asarray(blurred, np.float32), (sprite.origin[0] + pad, sprite.origin[1] + pad), sprite.px_per_unit)


def warp(sprite: Sprite, pose: Matrix, shape: tuple[int, int]) -> tuple[int, int, Plane] | None:
    """Warp a sprite into the part of the picture that it covers; None where it is outside."""
    height, width = sprite.rgba.shape[:2]
    matrix = pose @ scaling(1 / sprite.px_per_unit) @ translation(-sprite.origin[0], -sprite.origin[1])
    corners = matrix[:2] @ np.array([[-1, width, -1, width], [-1, -1, height, height], [1, 1, 1, 1]])
    left, top = np.maximum(np.floor(corners.min(axis=1)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(corners.max(axis=1)).astype(int) + 1, (shape[1], shape[0]))
    if left >= right or top >= bottom:
        return None
    local = (translation(-left, -top) @ matrix)[:2]
    patch = cv2.warpAffine(sprite.rgba, local, (int(right - left), int(bottom - top)))
    return int(left), int(top), np.asarray(patch, np.float32)


def composite(picture: Plane, sprite: Sprite, pose: Matrix) -> PlacedMask | None:
    """Draw a sprite; returns the position and mask of its pixels that are at least half covered."""
    warped = warp(sprite, pose, picture.shape[:2])
    if warped is None:
        return None
    left, top, patch = warped
    region = picture[top : top + patch.shape[0], left : left + patch.shape[1]]
    region *= 1 - patch[..., 3:]
    region += patch[..., :3]
    return left, top, patch[..., 3] >= 0.5


def darken(picture: Plane, shadow: Sprite, pose: Matrix, strength: float) -> None:
    """Darken the picture where a shadow falls, by `strength` (0 to 1) where the shadow is full."""
    warped = warp(shadow, pose, picture.shape[:2])
    if warped is not None:
        left, top, patch = warped
        picture[top : top + patch.shape[0], left : left + patch.shape[1]] *= (1 - strength * patch)[..., None]


def mark(canvas: NDArray[np.bool_], mask: PlacedMask | None) -> None:
    """Set the pixels of a mask in a canvas, (H, W) bool."""
    if mask is not None:
        left, top, inside = mask
        canvas[top : top + inside.shape[0], left : left + inside.shape[1]] |= inside


def box_of(*masks: PlacedMask | None) -> tuple[int, ...]:
    """Return the bounding box of masks, xyxy half-open; -1 four times where nothing is in the picture."""
    boxes = []
    for mask in masks:
        if mask is not None and mask[2].any():
            left, top, inside = mask
            columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
            boxes.append((left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1))
    if not boxes:
        return _ABSENT
    stacked = np.array(boxes)
    return (*map(int, stacked[:, :2].min(axis=0)), *map(int, stacked[:, 2:].max(axis=0)))
