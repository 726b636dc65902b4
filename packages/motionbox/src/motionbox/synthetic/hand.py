"""The hand in its rubber glove: fingers, thumb, palm and forearm, often with a sleeve, reaching up from below.

The glove is always of the same pink, which nothing else in the kitchen has: a small network finds the hand by it within
some thousand clips. What the hand does, the colour does not tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from motionbox.synthetic.shapes import Canvas, Colour, Plane, Sprite, capsule, dome, mix, noise, rounded_box

_GLOVE: Colour = (236, 40, 146)
_SLEEVES: tuple[Colour, ...] = (
    (70, 92, 136),
    (150, 52, 56),
    (92, 112, 84),
    (202, 196, 184),
    (64, 62, 68),
    (196, 150, 66),
)
HAND_LENGTH = 2.3  # from the fingertips to the wrist, in units


@dataclass(frozen=True)
class _Pose:
    """Random proportions of one hand; lengths in units (the palm is about 1.1 wide)."""

    spread: float
    curl: float
    splay: float
    thumb: float


def draw_hand(px_per_unit: float, arm_length: float, rng: np.random.Generator) -> Sprite:
    """Draw a hand whose fingertips meet at the origin and whose forearm runs down the positive y axis.

    Args:
        px_per_unit: Resolution; one unit is about the width of the palm.
        arm_length: From the fingertips to the end of the forearm, in units.
        rng: Source of glove, sleeve, proportions and of which hand it is.
    """
    pose = _Pose(rng.uniform(0.8, 1.1), rng.uniform(0.0, 0.35), rng.uniform(0.1, 0.35), rng.uniform(0.0, 0.3))
    glove = mix(_GLOVE, (255, 150, 210), rng.uniform(0, 0.2))
    canvas = Canvas(-1.25, -0.45, 1.25, arm_length, px_per_unit)
    mirrored = bool(rng.integers(2))
    x = -canvas.x if mirrored else canvas.x
    shape, height = _flesh(x, canvas.y, arm_length, pose)
    grain = noise(shape.shape, (px_per_unit * 0.12,) * 2, rng)
    light = canvas.relief(height, ambient=0.55, strength=0.5) * (1 + 0.03 * grain)
    canvas.fill(shape, glove, light=light)
    if rng.uniform() < 0.75:
        _sleeve(canvas, arm_length, HAND_LENGTH + rng.uniform(0.1, 1.2), rng)
    if rng.uniform() < 0.3:
        _band(canvas, rng)
    return canvas.sprite()


def _fingers(pose: _Pose) -> list[tuple[tuple[float, float], tuple[float, float], tuple[float, float]]]:
    """Return (knuckle, tip, radii) of the four fingers and the thumb."""
    fingers = []
    for index, length in enumerate((0.96, 1.08, 1.02, 0.8)):
        knuckle = ((index - 1.5) * 0.3 * pose.spread, 1.02 + 0.05 * abs(index - 1.5))
        tip = (knuckle[0] * (0.55 + pose.splay), knuckle[1] - length * (1 - pose.curl * 0.35))
        fingers.append((knuckle, tip, (0.165, 0.125)))
    fingers.append(((-0.5, 1.55), (-0.62 + pose.thumb, 0.55), (0.2, 0.14)))
    return fingers


def _flesh(x: Plane, y: Plane, arm_length: float, pose: _Pose) -> tuple[Plane, Plane]:
    """Return the signed distance of hand and forearm and their surface height, both (h, w)."""
    palm = rounded_box(x, y, (-0.56, 0.85, 0.56, 1.95), 0.3)
    wrist = capsule(x, y, (0, 1.7), (0, 2.5), (0.44, 0.36))
    arm = capsule(x, y, (0, 2.4), (0, arm_length + 1), (0.36, 0.72))
    back = np.minimum(np.minimum(palm, wrist), arm)
    shape, height = back, dome(back, 0.45, 0.34)
    for knuckle, tip, radii in _fingers(pose):
        finger = capsule(x, y, knuckle, tip, radii)
        middle = ((knuckle[0] + tip[0]) / 2, (knuckle[1] + tip[1]) / 2)
        joint = dome(capsule(x, y, middle, (middle[0], middle[1] + 0.01), (0.13, 0.13)), 0.13, 0.03)
        height = np.maximum(height, dome(finger, 0.16, 0.26) + joint)
        shape = np.minimum(shape, finger)
    smooth = cv2.GaussianBlur(height, (0, 0), max(0.6, x.shape[1] * 0.008))
    return shape.astype(np.float32), smooth.astype(np.float32)


def _sleeve(canvas: Canvas, arm_length: float, start: float, rng: np.random.Generator) -> None:
    """Draw a sleeve with a cuff and folds from `start` units below the fingertips on."""
    cloth = _SLEEVES[rng.integers(len(_SLEEVES))]
    tube = capsule(canvas.x, canvas.y, (0, start + 0.5), (0, arm_length + 1), (0.55, 0.86))
    sleeve = np.maximum(tube, start - canvas.y)
    folds = noise(sleeve.shape, (canvas.px_per_unit * 0.5, canvas.px_per_unit * 0.3), rng)
    knit = np.cos(canvas.y * rng.uniform(22, 40)) * 0.04
    light = canvas.relief(dome(sleeve, 0.5, 0.4) + 0.05 * folds, ambient=0.55, strength=0.5) * (1 + knit)
    canvas.fill(sleeve, cloth, light=light.astype(np.float32))
    if rng.integers(2):
        stripes = np.maximum(sleeve, np.abs(((canvas.y - start) % 1.1) - 0.55) - 0.14)
        canvas.fill(stripes, mix(cloth, (255, 255, 255), 0.5), light=light)
    cuff = np.maximum(sleeve, canvas.y - start - 0.3)
    canvas.fill(cuff, mix(cloth, (0, 0, 0), 0.25), light=light)


def _band(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a watch strap or bracelet on the wrist."""
    strap = rounded_box(canvas.x, canvas.y, (-0.42, 2.1, 0.42, 2.28), 0.05)
    colour = mix((40, 38, 40), (214, 178, 96), float(rng.integers(2)))
    canvas.fill(strap, colour, light=canvas.relief(dome(strap, 0.08, 0.06)))
    if rng.integers(2):
        face = capsule(canvas.x, canvas.y, (0, 2.185), (0, 2.195), (0.24, 0.24))
        canvas.fill(face, (206, 208, 212), light=canvas.relief(dome(face, 0.08, 0.06)))
        canvas.fill(face + 0.06, (30, 34, 42))
