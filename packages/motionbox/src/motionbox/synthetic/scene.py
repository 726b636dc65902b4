"""One clip: a wide table full of things, one object and the hand, seen by a moving camera; pixels, masks and boxes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motionbox.synthetic.actions import ActionTracks, action_tracks, smooth_walk
from motionbox.synthetic.background import draw_table
from motionbox.synthetic.compose import (
    Matrix,
    PlacedMask,
    box_of,
    composite,
    darken,
    mark,
    rotation,
    scaling,
    soft_shadow,
    translation,
)
from motionbox.synthetic.hand import draw_hand
from motionbox.synthetic.props import CLUTTER, NOUNS, Prop, draw_clutter, draw_prop
from motionbox.synthetic.shapes import Plane, Sprite

Boxes = NDArray[np.int16]

_MARGIN = 0.3  # of the width: table drawn beyond the frame, for the camera to move over
_SUPERSAMPLE = 1.4  # texture pixels per frame pixel
_LIFT_SHARE = 0.17  # of the height: how far up the picture a lifted object goes
_UNIT = (0.078, 0.096)  # of the width: the unit of things, about a third of an object
_HAND_UNIT = (0.052, 0.066)  # of the width: the palm
_NUM_CLUTTER, _NUM_OTHERS, _NUM_SWAYING = (4, 9), (1, 3), (1, 3)  # from, to before
_SHADOW = np.array([0.045, 0.06])  # of the width, per unit of height above the table


@dataclass(frozen=True)
class RenderedClip:
    """A clip before encoding.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        hand_boxes: (T, 4) int16 xyxy, half-open pixels, clipped to the frame; -1 where no hand is in the picture.
        object_boxes: The same for the moved object with its lid, whether or not the hand covers part of it.
        masks: (T, H, W) bool: the area of the action, hand and object.
    """

    frames: NDArray[np.uint8]
    hand_boxes: Boxes
    object_boxes: Boxes
    masks: NDArray[np.bool_]


@dataclass(frozen=True)
class _Layer:
    """A sprite and its soft shadows, near (resting) and far (lifted)."""

    sprite: Sprite
    near: Sprite
    far: Sprite


@dataclass(frozen=True)
class _Swaying:
    """Something that stirs where it lies, and matters for nothing.

    Attributes:
        layer: Its looks.
        pose: Where it lies on the table.
        shake: (T, 3): away from there, pixels in x and y, and radians.
    """

    layer: _Layer
    pose: Matrix
    shake: NDArray[np.float64]


@dataclass(frozen=True)
class _Setting:
    """Everything of a clip that does not change over time."""

    table: Plane
    swaying: list[_Swaying]
    prop: Prop
    body: _Layer
    lid: _Layer
    hand: _Layer
    unit_px: float
    hand_unit_px: float
    angle: float
    arm_angle: float
    exit_px: float


def render_clip(
    verb: str,
    noun: str,
    width: int,
    height: int,
    num_frames: int,
    rng: np.random.Generator,
    *,
    camera_motion: bool = True,
    scale: float = 1.0,
) -> RenderedClip:
    """Draw one clip.

    Args:
        verb: One of `actions.VERBS`.
        noun: One of `props.NOUNS`.
        width: Pixels, at least 64.
        height: Pixels, at least 64.
        num_frames: At least 2.
        rng: Source of everything random; the same state gives the same pixels.
        camera_motion: Shake, pan, zoom and rotate the camera; otherwise it stands still.
        scale: How large hand and things are drawn.

    Raises:
        ValueError: An unknown verb or noun, or a size that is too small.
    """
    if min(width, height) < 64:
        raise ValueError(f"width and height must be at least 64, got {width} x {height}")
    tracks = action_tracks(verb, num_frames, rng)
    setting = _set_scene(noun, width, height, tracks, scale, rng)
    cameras = _camera_path(width, height, num_frames, rng, moving=camera_motion)
    finish = _Finish(width, height, num_frames, rng)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    hand_boxes, object_boxes = np.empty((2, num_frames, 4), np.int16)
    masks = np.zeros((num_frames, height, width), bool)
    for index in range(num_frames):
        picture, hand, thing = _draw_frame(setting, tracks, cameras[index], index, width, height)
        for part in (*hand, *thing):
            mark(masks[index], part)
        hand_boxes[index], object_boxes[index] = box_of(*hand), box_of(*thing)
        frames[index] = finish(picture, index)
    return RenderedClip(frames, hand_boxes, object_boxes, masks)


def _set_scene(
    noun: str, width: int, height: int, tracks: ActionTracks, scale: float, rng: np.random.Generator
) -> _Setting:
    unit_px = scale * width * rng.uniform(*_UNIT)
    prop = draw_prop(noun, unit_px * _SUPERSAMPLE, rng)
    hand_unit_px = scale * width * rng.uniform(*_HAND_UNIT)
    arm_length = 1.3 * np.hypot(width, height) / hand_unit_px
    arm_angle = rng.uniform(-1.2, 1.2)
    grip_angle = np.arctan2(prop.grip[1], prop.grip[0])
    angle = arm_angle + np.pi / 2 - grip_angle + rng.uniform(-1.2, 1.2)
    table, swaying = _set_table(noun, width, height, unit_px, tracks, rng)
    face = prop.lid_face(float(tracks.lid[0]))
    return _Setting(
        table=table,
        swaying=swaying,
        prop=prop,
        body=_with_shadows(prop.body),
        lid=_with_shadows(face),
        hand=_with_shadows(draw_hand(hand_unit_px * _SUPERSAMPLE, float(arm_length), rng)),
        unit_px=unit_px * prop.size,
        hand_unit_px=hand_unit_px,
        angle=float(angle),
        arm_angle=float(arm_angle),
        exit_px=width * rng.uniform(0.5, 0.8),
    )


def _with_shadows(sprite: Sprite) -> _Layer:
    return _Layer(sprite, soft_shadow(sprite, 0.1), soft_shadow(sprite, 0.3))


def _set_table(
    noun: str, width: int, height: int, unit_px: float, tracks: ActionTracks, rng: np.random.Generator
) -> tuple[Plane, list[_Swaying]]:
    """Draw the table, in texture pixels, full of things that nobody touches; return it and those that sway."""
    margin = _MARGIN * width
    shape = (round((width + 2 * margin) * _SUPERSAMPLE), round((height + 2 * margin) * _SUPERSAMPLE))
    table = draw_table(*shape, width * _SUPERSAMPLE, rng)
    to_table = scaling(_SUPERSAMPLE) @ translation(margin, margin)
    path = np.stack([tracks.x * width, tracks.y * height - _LIFT_SHARE * height * tracks.height], axis=1)
    others = [other for other in NOUNS if other != noun]
    kinds: list[str] = [CLUTTER[kind] for kind in rng.integers(len(CLUTTER), size=rng.integers(*_NUM_CLUTTER))]
    kinds += [others[kind] for kind in rng.integers(len(others), size=rng.integers(*_NUM_OTHERS))]
    num_swaying = int(rng.integers(*_NUM_SWAYING))
    swaying: list[_Swaying] = []
    for kind in rng.permutation(np.array(kinds)):
        spot = rng.uniform((-0.2, -0.2), (1.2, 1.2)) * (width, height)
        size = unit_px * rng.uniform(0.8, 1.1)
        if np.hypot(*(path - spot).T).min() < 2.4 * unit_px:
            continue
        pose = translation(*spot) @ rotation(rng.uniform(0, 2 * np.pi)) @ scaling(size)
        if kind not in CLUTTER:
            prop, opening = draw_prop(kind, unit_px * _SUPERSAMPLE, rng), float(rng.uniform(0, 0.8))
            _lay(table, _with_shadows(prop.body), to_table @ pose, width)
            _lay(table, _with_shadows(prop.lid_face(opening)), to_table @ pose @ prop.lid_transform(opening), width)
            continue
        layer = _with_shadows(draw_clutter(kind, unit_px * _SUPERSAMPLE, rng))
        if len(swaying) < num_swaying and (np.abs(spot / (width, height) - 0.5) < 0.5).all():
            swaying.append(_Swaying(layer, pose, _sway(len(tracks.x), width, rng)))
        else:
            _lay(table, layer, to_table @ pose, width)
    return table, swaying


def _sway(num_frames: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a slow stirring, (T, 3): pixels in x and y and radians; a tenth of what a verb moves."""
    time = np.arange(num_frames)
    reach = np.array([0.012 * width, 0.012 * width, 0.12]) * rng.uniform(0.4, 1.0, 3)
    period, phase = rng.uniform(8, 20), rng.uniform(0, 2 * np.pi, 3)
    shake: NDArray[np.float64] = reach * np.sin(2 * np.pi * time[:, None] / period + phase)
    return shake


def _lay(table: Plane, layer: _Layer, pose: Matrix, width: int) -> None:
    offset = _SHADOW * width * _SUPERSAMPLE * 0.25
    darken(table, layer.near, translation(*offset) @ pose, 0.4)
    composite(table, layer.sprite, pose)


def _draw_frame(
    setting: _Setting, tracks: ActionTracks, camera: Matrix, index: int, width: int, height: int
) -> tuple[Plane, list[PlacedMask | None], list[PlacedMask | None]]:
    """Draw one frame; returns the picture (H, W, 3) float32 and the masks of the hand and of the object's parts."""
    margin = _MARGIN * width
    from_table = camera @ translation(-margin, -margin) @ scaling(1 / _SUPERSAMPLE)
    picture = np.asarray(
        cv2.warpAffine(setting.table, from_table[:2], (width, height), borderMode=cv2.BORDER_REFLECT), np.float32
    )
    for thing in setting.swaying:
        x, y, angle = thing.shake[index]
        pose = camera @ translation(x, y) @ thing.pose @ rotation(angle)
        darken(picture, thing.layer.near, translation(*(_SHADOW * width * 0.25)) @ pose, 0.4)
        composite(picture, thing.layer.sprite, pose)
    lift, opening, turn = float(tracks.height[index]), float(tracks.lid[index]), float(tracks.turn[index])
    spot = translation(tracks.x[index] * width, tracks.y[index] * height)
    shaky = tracks.tremor[index] * width * min(1.0, 5 * lift)
    raised = translation(shaky[0], shaky[1] - _LIFT_SHARE * height * lift)
    own = rotation(setting.angle + turn) @ scaling(setting.unit_px * (1 + 0.16 * lift))
    pose = camera @ raised @ spot @ own
    cast = camera @ translation(*(_SHADOW * width * (0.2 + lift))) @ spot @ own
    lid_move = setting.prop.lid_transform(opening)
    lid = _Layer(setting.prop.lid_face(opening), setting.lid.near, setting.lid.far)
    _cast_shadow(picture, setting.body, cast, lift)
    _cast_shadow(picture, lid, cast @ lid_move, lift)
    body_mask = composite(picture, setting.body.sprite, pose)
    if opening > 0:
        darken(picture, lid.near, camera @ translation(*(_SHADOW * width * 0.2)) @ raised @ spot @ own @ lid_move, 0.25)
    lid_mask = composite(picture, lid.sprite, pose @ lid_move)
    hand_mask = _draw_hand_on(picture, setting, tracks, camera, raised @ spot @ own @ lid_move, index)
    return picture, [hand_mask], [body_mask, lid_mask]


def _draw_hand_on(
    picture: Plane, setting: _Setting, tracks: ActionTracks, camera: Matrix, grip_pose: Matrix, index: int
) -> PlacedMask | None:
    """Draw the hand that holds the lid's grip, or comes towards it; returns its mask."""
    lift = float(tracks.height[index])
    contact = grip_pose @ np.array([*setting.prop.grip, 1.0])
    arm_angle = setting.arm_angle + 0.45 * float(tracks.turn[index])
    away = setting.exit_px * float(tracks.reach[index])
    shaky = tracks.tremor[index] * picture.shape[1] * max(0.0, 1 - 5 * lift)  # in the air the grip shakes already
    spot = translation(shaky[0] - away * np.sin(arm_angle), shaky[1] + away * np.cos(arm_angle)) @ translation(
        *contact[:2]
    )
    own = rotation(arm_angle) @ scaling(setting.hand_unit_px * (1 + 0.16 * lift))
    shadow = _SHADOW * picture.shape[1] * (0.35 + lift) + (0, _LIFT_SHARE * picture.shape[0] * lift)
    _cast_shadow(picture, setting.hand, camera @ translation(*shadow) @ spot @ own, 0.4 + 0.6 * lift)
    return composite(picture, setting.hand.sprite, camera @ spot @ own)


def _cast_shadow(picture: Plane, layer: _Layer, pose: Matrix, lift: float) -> None:
    soft = min(1.0, lift)
    if soft < 1:
        darken(picture, layer.near, pose, 0.42 * (1 - soft))
    if soft > 0:
        darken(picture, layer.far, pose, 0.34 * soft)


def _camera_path(width: int, height: int, num_frames: int, rng: np.random.Generator, *, moving: bool) -> list[Matrix]:
    """Draw the matrices that take the table (in pixels) to the frame, one per frame."""
    time = np.linspace(-0.5, 0.5, num_frames)
    reach = np.array([0.04, 0.03, 0.03, 0.03]) * [width, width, 1, 1]  # pan x, pan y, roll (radians), zoom
    slope = rng.uniform(-1, 1, 4) * reach
    sway = rng.uniform(0, 0.3, 4) * reach
    phase, rate = rng.uniform(0, 2 * np.pi, 4), rng.uniform(0.7, 1.6, 4)
    jitter = smooth_walk(num_frames, rng, (4,)) * rng.uniform(0.3, 1.0) * [0.003 * width, 0.003 * width, 0.003, 0.002]
    path = time[:, None] * slope + sway * np.sin(phase + 2 * np.pi * rate * time[:, None]) + jitter
    if not moving:
        path = np.zeros_like(path)
    centre = translation(width / 2, height / 2)
    back = translation(-width / 2, -height / 2)
    return [
        centre @ translation(pan_x, pan_y) @ rotation(roll) @ scaling(1.04 + zoom) @ back
        for pan_x, pan_y, roll, zoom in path
    ]


class _Finish:
    """The camera's rendering: white balance, vignette, slight exposure flicker and sensor noise."""

    def __init__(self, width: int, height: int, num_frames: int, rng: np.random.Generator) -> None:
        x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
        warm = rng.uniform(-0.07, 0.07)
        gain = rng.uniform(0.82, 1.1) * np.array([1 + warm, 1.0, 1 - warm])
        self._light = ((1 - rng.uniform(0.04, 0.14) * (x**2 + y**2))[..., None] * gain).astype(np.float32)
        self._exposure = (1 + 0.008 * smooth_walk(num_frames, rng)).astype(np.float32)
        grain = rng.standard_normal((height + 64, width + 64, 3)).astype(np.float32)
        self._grain = cv2.GaussianBlur(grain, (0, 0), 0.6) * np.float32(rng.uniform(2.0, 5.0))
        self._corners = rng.integers(0, 64, (num_frames, 2))

    def __call__(self, picture: Plane, index: int) -> NDArray[np.uint8]:
        """Return the frame as a camera would record it, (H, W, 3) uint8."""
        height, width = picture.shape[:2]
        top, left = self._corners[index]
        lit = picture * (self._light * self._exposure[index]) + self._grain[top : top + height, left : left + width]
        recorded: NDArray[np.uint8] = np.clip(lit + 0.5, 0, 255).astype(np.uint8)
        return recorded
