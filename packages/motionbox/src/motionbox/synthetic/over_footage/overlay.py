"""One clip over footage: things that move, rest, are carried by a hand or lie about, and their exact outlines.

Everything lives in the scene: the coordinates of the clip's first frame. A thing at rest follows the camera, a thing
that moves follows a path through the scene, and what lies about all the time belongs to no outline.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from motionbox.synthetic.actions import smooth_walk
from motionbox.synthetic.compose import (
    Matrix,
    PlacedMask,
    box_of,
    darken,
    mark,
    rotation,
    scaling,
    soft_shadow,
    translation,
)
from motionbox.synthetic.hand import draw_hand
from motionbox.synthetic.over_footage.backdrops import Look
from motionbox.synthetic.over_footage.cutouts import Thing, draw_thing, lay_over, matched
from motionbox.synthetic.shapes import Plane, Sprite

_SUB_FRAMES = 5  # moments of an exposure
_EXPOSURES = (0.15, 0.5)  # of the time between two frames
_KINDS = ("carry", "glide", "shake", "turn")
_STILL = 0.02  # of the action: less than this far from begin or end counts as rest
Track = NDArray[np.float64]


@dataclass(frozen=True)
class OverlaidClip:
    """A clip before encoding.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        masks: (T, H, W) bool: what is seen of the things that act in the clip, also while they rest.
        boxes: Per acting thing (T, 4) int32 xyxy, half-open pixels, of what is seen of it or hidden only by another
            acting thing; -1 four times where that is nothing.
        names: What the acting things are, "hand" among them.
        moves: (T,) bool: where a thing moves in the scene.
        action: `carry`, `glide`, `shake` or `turn`, of the first thing.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    boxes: list[NDArray[np.int32]]
    names: list[str]
    moves: NDArray[np.bool_]
    action: str


@dataclass(frozen=True)
class _Path:
    """A thing's course through the scene: position (T, 2) pixels, turn (T,) radians, and whether it moves (T,)."""

    spot: Track
    turn: Track
    moves: NDArray[np.bool_]


@dataclass(frozen=True)
class _Item:
    name: str
    sprite: Sprite
    shadow: Sprite | None
    size_px: float
    path: _Path


def overlay(
    frames: NDArray[np.uint8], camera: Matrix, look: Look, fps: float, rng: np.random.Generator
) -> OverlaidClip:
    """Lay things over footage.

    Args:
        frames: (T, H, W, 3) uint8 RGB, a backdrop.
        camera: (T, 3, 3) affine: where the first frame's pixels are in each frame.
        look: How the footage looks.
        fps: Frames per second.
        rng: Source of everything random; the same state gives the same clip.

    Raises:
        InputError: scikit-image is missing.
    """
    num_frames, height, width = frames.shape[:3]
    action = _KINDS[rng.integers(len(_KINDS))]
    backdrop = _View(camera, width, height, fps)
    lying = [_lying(backdrop, look, rng) for _ in range(rng.integers(1, 4))]
    acting = _carried(backdrop, look, rng) if action == "carry" else [_mover(action, backdrop, look, rng)]
    if action != "carry" and rng.uniform() < 0.35:
        acting.append(_mover(_KINDS[1 + rng.integers(3)], backdrop, look, rng))
    in_front = [_in_the_way(acting[0], look, rng)] if rng.uniform() < 0.5 else []
    exposure = rng.uniform(*_EXPOSURES)
    grain = rng.standard_normal((height + 64, width + 64, 3)).astype(np.float32)
    corners = rng.integers(0, 64, (num_frames, 2))
    drawn = np.empty_like(frames)
    masks = np.zeros((num_frames, height, width), bool)
    boxes = [np.full((num_frames, 4), -1, np.int32) for _ in acting]
    for index in range(num_frames):
        picture = frames[index].astype(np.float32)
        x, y = corners[index]
        noise = grain[y : y + height, x : x + width]
        seen = [_draw(picture, item, backdrop, index, exposure, look, noise) for item in (*lying, *acting, *in_front)]
        hidden = _canvas(seen[len(lying) + len(acting) :], height, width)
        for position, mask in enumerate(seen[len(lying) : len(lying) + len(acting)]):
            part = _canvas([mask], height, width) & ~hidden
            masks[index] |= part
            boxes[position][index] = box_of((0, 0, part))
        drawn[index] = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    moves = np.any([item.path.moves for item in acting], axis=0)
    return OverlaidClip(drawn, masks, boxes, [item.name for item in acting], moves, action)


@dataclass(frozen=True)
class _View:
    camera: Matrix
    width: int
    height: int
    fps: float

    @property
    def num_frames(self) -> int:
        return len(self.camera)

    @property
    def short(self) -> int:
        return min(self.width, self.height)

    def spot(self, index: int, share_xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scene's point that is seen in a frame at shares of its width and height, (2,)."""
        seen = np.array([share_xy[0] * self.width, share_xy[1] * self.height, 1.0])
        return np.asarray(np.linalg.inv(self.camera[index]) @ seen)[:2]


def _lying(view: _View, look: Look, rng: np.random.Generator) -> _Item:
    """Return something that lies in the scene for the whole clip and is no part of the action."""
    size = view.short * rng.uniform(0.1, 0.28)
    spot = view.spot(int(rng.integers(view.num_frames)), rng.uniform(0.05, 0.95, 2))
    path = _rest(spot, rng.uniform(0, 2 * np.pi), view.num_frames)
    return _item(draw_thing(size, rng), size, path, look, rng)


def _in_the_way(item: _Item, look: Look, rng: np.random.Generator) -> _Item:
    """Return something that lies in front of a place where a thing passes."""
    num_frames = len(item.path.spot)
    size = item.size_px * rng.uniform(0.4, 0.8)
    spot = item.path.spot[rng.integers(num_frames)] + rng.uniform(-0.5, 0.5, 2) * item.size_px
    path = _rest(spot, rng.uniform(0, 2 * np.pi), num_frames)
    return _item(draw_thing(size, rng), size, path, look, rng)


def _item(thing: Thing, size: float, path: _Path, look: Look, rng: np.random.Generator) -> _Item:
    sprite = matched(thing.sprite, look, rng)
    shadow = soft_shadow(sprite, 0.08) if rng.uniform() < 0.5 else None
    return _Item(thing.name, sprite, shadow, size, path)


def _rest(spot: NDArray[np.float64], turn: float, num_frames: int) -> _Path:
    return _Path(np.tile(spot, (num_frames, 1)), np.full(num_frames, turn), np.zeros(num_frames, bool))


def _mover(action: str, view: _View, look: Look, rng: np.random.Generator) -> _Item:
    """Return a thing that moves by itself, with rests before, between or after."""
    size = view.short * float(np.exp(rng.uniform(*np.log((0.16, 0.55)))))
    thing = draw_thing(size, rng)
    path = _glide(view, rng) if action == "glide" else _on_the_spot(action, view, rng)
    return _item(thing, size, path, look, rng)


def _glide(view: _View, rng: np.random.Generator) -> _Path:
    """Move from place to place as seen by the camera, one to three times, resting between."""
    steps = int(rng.integers(1, 4))
    moments = np.sort(rng.uniform(0.05, 0.95, 2 * steps)) * (view.num_frames - 1)
    spots = [view.spot(int(moments[0]), rng.uniform(0.15, 0.85, 2))]
    spots += [view.spot(int(moments[2 * step + 1]), rng.uniform(0.15, 0.85, 2)) for step in range(steps)]
    time = np.arange(view.num_frames)
    spot, moves = np.tile(spots[0], (view.num_frames, 1)), np.zeros(view.num_frames, bool)
    turn = np.full(view.num_frames, rng.uniform(0, 2 * np.pi))
    slowest = 0.25 * view.fps
    for step in range(steps):
        begin, end = moments[2 * step], max(moments[2 * step + 1], moments[2 * step] + slowest)
        course = _ease(time, begin, end)
        spot += course[:, None] * (spots[step + 1] - spots[step])
        turn += course * rng.uniform(-1.0, 1.0)
        moves |= _under_way(course)
    return _Path(spot, turn, moves)


def _on_the_spot(action: str, view: _View, rng: np.random.Generator) -> _Path:
    """Shake to and fro or turn for a while, resting before and after."""
    duration = rng.uniform(0.3, 0.8) * view.num_frames
    begin = rng.uniform(0, view.num_frames - duration)
    time = np.arange(view.num_frames)
    middle = int(begin + duration / 2)
    spot = np.tile(view.spot(middle, rng.uniform(0.2, 0.8, 2)), (view.num_frames, 1))
    turn = np.full(view.num_frames, rng.uniform(0, 2 * np.pi))
    course = _ease(time, begin, begin + duration)
    moves = _under_way(course)
    if action == "turn":
        return _Path(spot, turn + course * rng.choice([-1, 1]) * rng.uniform(np.radians(70), np.radians(320)), moves)
    inside = np.clip((time - begin) / duration, 0, 1)
    wave = np.sin(np.pi * inside) ** 0.5 * np.sin(2 * np.pi * rng.uniform(0.8, 3.0) * (time - begin) / view.fps)
    angle = rng.uniform(0, np.pi)
    reach = view.short * rng.uniform(0.03, 0.12)
    spot = spot + reach * wave[:, None] * [np.cos(angle), np.sin(angle)]
    return _Path(spot, turn + wave * rng.uniform(-0.4, 0.4), moves)


def _ease(time: NDArray[np.int64], begin: float, end: float) -> Track:
    """Return the minimum-jerk course from 0 to 1 between two frames, (T,)."""
    share = np.clip((time - begin) / (end - begin), 0, 1)
    course: Track = share**3 * (10 - 15 * share + 6 * share**2)
    return course


def _under_way(course: Track) -> NDArray[np.bool_]:
    moves: NDArray[np.bool_] = (course > _STILL) & (course < 1 - _STILL)
    return moves


def _carried(view: _View, look: Look, rng: np.random.Generator) -> list[_Item]:
    """Return an object that a hand takes and puts elsewhere, and the hand."""
    size = view.short * rng.uniform(0.18, 0.42)
    grasp, release = np.sort(rng.uniform(0.2, 0.85, 2)) * view.num_frames
    release = max(release, grasp + 0.4 * view.fps)
    time = np.arange(view.num_frames)
    course = _ease(time, grasp, release)
    start = view.spot(int(grasp), rng.uniform(0.25, 0.75, 2))
    stop = view.spot(min(int(release), view.num_frames - 1), rng.uniform(0.2, 0.8, 2))
    spot = start + course[:, None] * (stop - start)
    turn = rng.uniform(0, 2 * np.pi) + course * rng.uniform(-0.8, 0.8)
    thing = _item(draw_thing(size, rng), size, _Path(spot, turn, _under_way(course)), look, rng)
    palm = view.short * rng.uniform(0.15, 0.26)
    arm = 1.6 * np.hypot(view.width, view.height) / palm
    sprite = matched(draw_hand(palm * 1.4, float(arm), rng), look, rng)
    return [thing, _Item("hand", sprite, None, palm, _hand_path(view, spot, size, grasp, release, rng))]


def _hand_path(view: _View, held: Track, size: float, grasp: float, release: float, rng: np.random.Generator) -> _Path:
    """Come to the object before it moves, hold it, and leave or stay; (T, 2) positions of the fingertips."""
    time = np.arange(view.num_frames)
    angle = rng.uniform(-1.2, 1.2)
    arrive = grasp - rng.uniform(0.05, 0.3) * view.fps
    come = 1 - _ease(time, arrive - rng.uniform(0.3, 0.9) * view.fps, arrive)
    away = release + rng.uniform(0.05, 0.3) * view.fps
    leave = _ease(time, away, away + rng.uniform(0.3, 0.9) * view.fps) * (rng.uniform() < 0.8)
    distance = np.hypot(view.width, view.height) * rng.uniform(0.6, 0.9) * np.maximum(come, leave)
    tremor = smooth_walk(view.num_frames, rng, (2,)) * 0.002 * view.width
    spot = held + tremor + size * 0.2 * rng.uniform(-1, 1, 2)
    spot = spot + distance[:, None] * [-np.sin(angle), np.cos(angle)]
    turn = angle + 0.15 * _ease(time, grasp, release)
    return _Path(spot, np.asarray(turn), _under_way(come) | _under_way(leave) | _under_way(_ease(time, grasp, release)))


def _draw(
    picture: Plane, item: _Item, view: _View, index: int, exposure: float, look: Look, noise: Plane
) -> PlacedMask | None:
    """Draw a thing as seen in one frame, blurred by its own and the camera's motion during the exposure."""
    after = min(index + 1, view.num_frames - 1)
    before = max(index - 1, 0)
    poses = []
    for moment in np.linspace(-exposure / 2, exposure / 2, _SUB_FRAMES):
        other, share = (after, moment) if moment >= 0 else (before, -moment)
        camera = view.camera[index] * (1 - share) + view.camera[other] * share
        spot = item.path.spot[index] * (1 - share) + item.path.spot[other] * share
        turn = item.path.turn[index] * (1 - share) + item.path.turn[other] * share
        poses.append(camera @ translation(*spot) @ rotation(float(turn)) @ scaling(item.size_px))
    if item.shadow is not None:
        middle = poses[_SUB_FRAMES // 2]
        darken(picture, item.shadow, translation(0.04 * item.size_px, 0.06 * item.size_px) @ middle, 0.35)
    return lay_over(picture, item.sprite, poses, look, noise)


def _canvas(masks: list[PlacedMask | None], height: int, width: int) -> NDArray[np.bool_]:
    """Return masks put together at the size of the frame."""
    whole = np.zeros((height, width), bool)
    for mask in masks:
        mark(whole, mask)
    return whole
