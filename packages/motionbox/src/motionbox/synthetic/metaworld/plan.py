"""Which clips a Meta-World set has: balanced verbs, runs forwards and backwards, cameras, splits; from one seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motionbox.synthetic.metaworld.scenes import SCENES, Scene, scenes_of

FPS = 15
NUM_FRAMES = 45
_VALIDATION_EVERY = 5
_STREAM = 4  # other random numbers than those of the other generated sets


@dataclass(frozen=True)
class MetaWorldConfig:
    """What decides the content of a Meta-World set.

    Attributes:
        clips_per_task: Clips per noun and verb: one and the opposite have as many each.
        seed: Another seed, other starts and cameras.
        part: `all`, or the half of the nouns to `choose` settings on or to `report` on.
        side_px: Width and height.
        camera_motion: Move the camera in half of the clips.
    """

    clips_per_task: int = 20
    seed: int = 0
    part: str = "all"
    side_px: int = 224
    camera_motion: bool = True

    def __post_init__(self) -> None:
        if self.clips_per_task < 1:
            raise ValueError(f"clips_per_task must be at least 1, got {self.clips_per_task!r}")
        if self.side_px < 64 or self.side_px % 2:
            raise ValueError(f"side_px must be even and at least 64, got {self.side_px!r}")
        scenes_of(self.part)


@dataclass(frozen=True)
class MetaWorldClip:
    """One clip before it is rendered.

    Attributes:
        index: Position in the set, from 0.
        noun: What is handled.
        verb: What is done to it, as seen.
        task: Meta-World's task that is run.
        backwards: Whether the run is played backwards.
        split: `train` or `validation`.
        camera_moves: Whether the camera does.
        entropy: Seed of the clip's own random numbers.
    """

    index: int
    noun: str
    verb: str
    task: str
    backwards: bool
    split: str
    camera_moves: bool
    entropy: tuple[int, ...]

    @property
    def clip_id(self) -> str:
        """Name of the clip."""
        return f"{self.index:05d}"

    @property
    def path(self) -> str:
        """Path of the video below the root."""
        return f"videos/{self.clip_id}.mp4"


def plan_metaworld(config: MetaWorldConfig) -> list[MetaWorldClip]:
    """Lay out a set: per noun and verb as many clips, taken from the pair's tasks in turn.

    The clips of two opposite verbs use the same tasks in the same order, once forwards and once backwards, with
    different starts and cameras; so neither the task nor the direction of time says more than the verb does.
    """
    clips: list[MetaWorldClip] = []
    for scene in scenes_of(config.part):
        for number in range(config.clips_per_task):
            for which, verb in enumerate(scene.verbs):
                task, backwards = _run(scene, which, number)
                split = "validation" if number % _VALIDATION_EVERY == _VALIDATION_EVERY - 1 else "train"
                entropy = (_STREAM, config.seed, SCENES.index(scene), which, number)
                moves = config.camera_motion and bool(np.random.default_rng(entropy).integers(2))
                clips.append(MetaWorldClip(len(clips), scene.noun, verb, task, backwards, split, moves, entropy))
    return clips


def _run(scene: Scene, which: int, number: int) -> tuple[str, bool]:
    """Return the task of a pair's clip, and whether it is played backwards.

    Where the opposite verb has tasks of its own, the two sides take turns, and the tasks of each side do.
    """
    side, turn = (number % 2, number // 2) if scene.opposite_tasks else (0, number)
    tasks = (scene.tasks, scene.opposite_tasks)[side]
    return tasks[turn % len(tasks)], side != which
