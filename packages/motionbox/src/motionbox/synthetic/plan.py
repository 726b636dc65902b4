"""Which clips a generated data set has: balanced labels, splits, sizes and containers, from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from motionbox.synthetic.actions import VERBS
from motionbox.synthetic.props import NOUNS

SIZES: tuple[tuple[int, int], ...] = ((192, 144), (208, 160), (224, 168), (240, 160), (256, 192))
RATES_FPS: tuple[int, ...] = (12, 15, 20, 24)
MIN_FRAMES, MAX_FRAMES = 24, 48
SMALL_SIZE, SMALL_RATE_FPS, SMALL_FRAMES = (84, 64), 8, 16
"""Of the clips of a small set: what a small model sees of them, and no pixel more."""
MIN_SCALE, MAX_SCALE = 0.25, 3.0
_VALIDATION_EVERY, _VALIDATION_EVERY_SMALL = 5, 3
_WEBM_SHARE = 1 / 3
_PLAN_STREAM, _CLIP_STREAM = 0, 1  # keep the random numbers of the plan and of the clips apart


@dataclass(frozen=True)
class SyntheticConfig:
    """What decides the pixels of a generated data set.

    Attributes:
        num_clips: Clips of both splits together; every fifth is for validation, every third of a small set.
        seed: Another seed gives another data set of the same kind.
        camera_motion: Shake, pan, zoom and rotate the camera.
        small: Clips of 84x64 pixels and 16 frames, H.264 all of them, for tables of small models: made, decoded and
            read in a tenth of the time.
        scale: How large hand and things are drawn, 1 = as usual; the area of the action grows with its square.
    """

    num_clips: int = 200
    seed: int = 0
    camera_motion: bool = True
    small: bool = False
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.num_clips < 1:
            raise ValueError(f"num_clips must be at least 1, got {self.num_clips!r}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed!r}")
        if not MIN_SCALE <= self.scale <= MAX_SCALE:
            raise ValueError(f"scale must be {MIN_SCALE} to {MAX_SCALE}, got {self.scale!r}")


@dataclass(frozen=True)
class ClipPlan:
    """One clip before it is drawn.

    Attributes:
        index: Position in the data set, from 0.
        clip_id: Path below the root without its suffix.
        split: `train` or `validation`.
        verb: One of `VERBS`.
        noun: One of `NOUNS`.
        suffix: `.mp4` (H.264) or `.webm` (VP9).
        width: Pixels.
        height: Pixels.
        fps: Frames per second.
        num_frames: Frames.
    """

    index: int
    clip_id: str
    split: Literal["train", "validation"]
    verb: str
    noun: str
    suffix: Literal[".mp4", ".webm"]
    width: int
    height: int
    fps: int
    num_frames: int

    @property
    def path(self) -> str:
        """Path of the video below the root."""
        return self.clip_id + self.suffix

    def generator(self, seed: int) -> np.random.Generator:
        """Return the clip's own source of randomness, independent of the other clips."""
        return np.random.default_rng([_CLIP_STREAM, seed, self.index])


def plan_clips(config: SyntheticConfig) -> list[ClipPlan]:
    """Lay out a data set.

    Within each split, verbs and nouns differ by at most one clip in number, and every 54 clips hold each pair of
    verb and noun once. Size, rate, length and container are drawn independently of the labels.
    """
    rng = np.random.default_rng([_PLAN_STREAM, config.seed])
    num_validation = config.num_clips // (_VALIDATION_EVERY_SMALL if config.small else _VALIDATION_EVERY)
    splits: list[Literal["train", "validation"]] = ["validation"] * num_validation
    splits += ["train"] * (config.num_clips - num_validation)
    pairs = _balanced_pairs(num_validation, rng) + _balanced_pairs(config.num_clips - num_validation, rng)
    order = rng.permutation(config.num_clips)
    plans = []
    for index, position in enumerate(order):
        width, height = SIZES[rng.integers(len(SIZES))]
        verb, noun = pairs[position]
        suffix: Literal[".mp4", ".webm"] = ".webm" if rng.uniform() < _WEBM_SHARE else ".mp4"
        fps, num_frames = RATES_FPS[rng.integers(len(RATES_FPS))], int(rng.integers(MIN_FRAMES, MAX_FRAMES + 1))
        if config.small:
            (width, height), fps, num_frames, suffix = SMALL_SIZE, SMALL_RATE_FPS, SMALL_FRAMES, ".mp4"
        clip_id = f"videos/{index:05d}"
        plans.append(ClipPlan(index, clip_id, splits[position], verb, noun, suffix, width, height, fps, num_frames))
    return plans


def _balanced_pairs(count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Deal (verb, noun) pairs so that any run from the start is balanced in verbs, in nouns and in pairs."""
    verbs, nouns = rng.permutation(len(VERBS)), rng.permutation(len(NOUNS))
    block = np.lcm(len(VERBS), len(NOUNS))  # after this many steps the pairs would repeat: shift the nouns by one
    return [
        (VERBS[verbs[step % len(VERBS)]], NOUNS[nouns[(step + step // block) % len(NOUNS)]]) for step in range(count)
    ]
