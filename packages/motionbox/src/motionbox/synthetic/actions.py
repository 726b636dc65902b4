"""What moves, and how: the hidden state of a clip over time, one verb at a time.

The state has five dimensions (sideways position, vertical position, height above the table, turn, lid opening) and
the hand's reach. A verb plays exactly one dimension along a path. Every other dimension is *frozen* at a random moment
of a path that its own verb could have played, so a frame taken at random has the same distribution of states whatever
the verb: no verb can be read from a single frame. Opposite verbs are time reversals of each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

VERBS: tuple[str, ...] = (
    "push left",
    "push right",
    "lift",
    "put down",
    "rotate clockwise",
    "rotate counter-clockwise",
    "shake",
    "open",
    "close",
)
Dimension = Literal["slide", "height", "turn", "lid", "shake"]
# Verb -> (dimension it plays, True where the path runs forwards).
_PLAYS: dict[str, tuple[Dimension, bool]] = {
    "push left": ("slide", False),
    "push right": ("slide", True),
    "lift": ("height", True),
    "put down": ("height", False),
    "rotate clockwise": ("turn", True),
    "rotate counter-clockwise": ("turn", False),
    "shake": ("shake", True),
    "open": ("lid", True),
    "close": ("lid", False),
}
_ON_TABLE = 0.02
_FRAMES_PER_SHAKE = 5.0
Track = NDArray[np.float64]


@dataclass(frozen=True)
class ActionTracks:
    """The state of the moved object and of the hand, per frame.

    Attributes:
        x: Object centre, share of the frame's width, (T,).
        y: Object centre on the table, share of the frame's height, (T,).
        height: Height above the table, 0 (on it) to about 1, (T,).
        turn: Rotation added to the object's own angle, radians, positive is clockwise on screen, (T,).
        lid: Opening of the lid, 0 closed to 1 open, (T,).
        reach: 0 where the hand holds the object, 1 where it is out of the picture, (T,).
        tremor: Unsteadiness of the hand, and of what it holds in the air, share of the frame's width, (T, 2).
    """

    x: Track
    y: Track
    height: Track
    turn: Track
    lid: Track
    reach: Track
    tremor: Track


def action_tracks(verb: str, num_frames: int, rng: np.random.Generator) -> ActionTracks:
    """Draw the state tracks of one clip.

    Args:
        verb: One of `VERBS`.
        num_frames: Length of the clip, at least 2.
        rng: Source of all randomness; a fixed number of draws is not promised between verbs.

    Raises:
        ValueError: Unknown verb or fewer than two frames.
    """
    if verb not in _PLAYS:
        raise ValueError(f"verb must be one of {', '.join(VERBS)}, got {verb!r}")
    if num_frames < 2:
        raise ValueError(f"num_frames must be at least 2, got {num_frames!r}")
    played, forwards = _PLAYS[verb]
    begin, end = _interval(played, forwards, rng)
    tracks: dict[Dimension, Track] = {}
    for dimension in ("slide", "height", "turn", "lid", "shake"):
        if dimension == played:
            tracks[dimension] = _path(dimension, forwards, begin, end, num_frames, rng)
        else:
            tracks[dimension] = np.full(num_frames, _frozen(dimension, num_frames, rng))
    angle = rng.uniform(0, np.pi)
    return ActionTracks(
        x=tracks["slide"] + np.cos(angle) * tracks["shake"],
        y=rng.uniform(0.36, 0.62) + np.sin(angle) * tracks["shake"],
        height=tracks["height"],
        turn=tracks["turn"],
        lid=tracks["lid"],
        reach=_reach(begin, end, tracks["height"], rng, patient=played == "height"),
        tremor=smooth_walk(num_frames, rng, (2,)) * rng.uniform(0.002, 0.005),
    )


def smooth_walk(num_frames: int, rng: np.random.Generator, size: tuple[int, ...] = ()) -> Track:
    """Return the unsteadiness of something held by hand, standard deviation about 1, (T, *size)."""
    steps = rng.standard_normal((num_frames + 4, *size))
    walk = np.zeros((num_frames, *size))
    for delay, weight in enumerate((0.2, 0.5, 0.6, 0.5, 0.2)):
        walk += weight * steps[delay : delay + num_frames]
    return walk


def _interval(dimension: Dimension, forwards: bool, rng: np.random.Generator) -> tuple[float, float]:
    """Draw when the action happens, in shares of the clip; a seventh of it may lie before or after the clip."""
    if dimension == "height":  # lifting comes late, or almost every frame would show a hand that holds something
        duration = rng.uniform(0.3, 0.5)
        begin = rng.uniform(0.3, 1 - 0.7 * duration)
        return (begin, begin + duration) if forwards else (1 - begin - duration, 1 - begin)
    duration = rng.uniform(0.35, 0.65)
    begin = rng.uniform(-0.15 * duration, 1 - 0.85 * duration)
    return begin, begin + duration


def _ease(num_frames: int, begin: float, end: float) -> Track:
    """Return the minimum-jerk course from 0 to 1 between two moments, (T,)."""
    share = np.clip((np.linspace(0, 1, num_frames) - begin) / (end - begin), 0, 1)
    course: Track = share**3 * (10 - 15 * share + 6 * share**2)
    return course


def _path(
    dimension: Dimension, forwards: bool, begin: float, end: float, num_frames: int, rng: np.random.Generator
) -> Track:
    """Draw one dimension's path over the clip, (T,)."""
    course = _ease(num_frames, begin, end)
    if dimension == "shake":
        time = np.linspace(0, 1, num_frames)
        envelope = np.sin(np.pi * np.clip((time - begin) / (end - begin), 0, 1)) ** 0.5
        cycles = rng.uniform(0.7, 1.0) * num_frames / _FRAMES_PER_SHAKE
        wave: Track = rng.uniform(0.05, 0.075) * envelope * np.sin(2 * np.pi * (cycles * time + rng.uniform()))
        return wave
    course = course if forwards else 1 - course
    if dimension == "slide":
        amplitude = rng.uniform(0.24, 0.38)
        return rng.uniform(0.2, 0.8 - amplitude) + amplitude * course
    if dimension == "height":
        return rng.uniform(0.65, 1.0) * course
    if dimension == "turn":
        return rng.uniform(np.radians(100), np.radians(180)) * (course - 0.5)
    low = rng.uniform(0, 0.35) * (rng.uniform() < 0.5)
    return low + rng.uniform(0.55, 0.65) * course


def _frozen(dimension: Dimension, num_frames: int, rng: np.random.Generator) -> float:
    """Return a random moment of a path that this dimension's verb could have played."""
    forwards = bool(rng.integers(2))
    path = _path(dimension, forwards, *_interval(dimension, forwards, rng), num_frames, rng)
    return float(path[rng.integers(num_frames)])


def _reach(begin: float, end: float, height: Track, rng: np.random.Generator, *, patient: bool) -> Track:
    """Draw the hand's distance: it comes before the action and leaves after it, and never lets go in the air.

    A patient hand holds on for longer before and after: lifting comes late in the clip, and without that its frames
    would show the hand away more often than those of other verbs.
    """
    before, after = rng.uniform(0.03, 0.1, 2) + rng.uniform(0.1, 0.4, 2) * patient
    enter, leave = rng.uniform(0.12, 0.25, 2)
    num_frames = len(height)
    arrival, departure = begin - before, end + after
    away = np.zeros(num_frames)
    if height[0] < _ON_TABLE:
        away = np.maximum(away, 1 - _ease(num_frames, arrival - enter, arrival))
    if height[-1] < _ON_TABLE:
        away = np.maximum(away, _ease(num_frames, departure, departure + leave))
    return away
