"""Runs of Meta-World's scripted policies: the state of the simulation at every step, from a random start to success."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motionbox.errors import InputError

_MAX_STEPS = 300
_AFTER_SUCCESS = 12
_MAX_TRIES = 12
_LEAST_MOVED_M = 0.015
Positions = NDArray[np.float64]


@dataclass(frozen=True)
class Episode:
    """A run that succeeded.

    Attributes:
        environment: Meta-World's environment, as it was set up for the run.
        states: (S, n) generalised positions (MuJoCo's `qpos`), one per step.
        moved: (S,) how far the handled thing is along its way, 0 to 1.
    """

    environment: Any
    states: Positions
    moved: Positions


def load_metaworld() -> Any:
    """Return the modules that a run needs: (environments by name, policies by name, mujoco).

    Raises:
        InputError: The package or the software renderer is missing.
    """
    try:
        import mujoco
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
        from metaworld.policies import ENV_POLICY_MAP
    except ImportError as error:
        raise InputError(
            f"synth --metaworld needs the package metaworld ({error}); get it: pip install 'motionbox[metaworld]'"
        ) from None
    return ALL_V3_ENVIRONMENTS, ENV_POLICY_MAP, mujoco


def run_episode(task: str, rng: np.random.Generator) -> Episode:
    """Run a task's scripted policy from random starts until one succeeds.

    Args:
        task: Meta-World's name without `-v3`.
        rng: Source of the starts.

    Raises:
        InputError: Meta-World is missing, or no run succeeds.
    """
    environments, policies, _ = load_metaworld()
    environment = environments[f"{task}-v3"]()
    _free_the_start(environment)
    for _ in range(_MAX_TRIES):
        environment.seed(int(rng.integers(2**31)))
        states, things, succeeded = _run(environment, policies[f"{task}-v3"]())
        course = _course(things)
        if succeeded and course is not None:
            return Episode(environment, states, course)
    raise InputError(f"task {task} must succeed in {_MAX_TRIES} tries, got none; is this another version of metaworld?")


def _free_the_start(environment: Any) -> None:
    """Let every reset draw a new start and goal, and let the policy see the goal."""
    environment._partially_observable = False
    environment._freeze_rand_vec = False
    environment.seeded_rand_vec = True
    environment._set_task_called = True
    environment.__dict__.pop("sawyer_observation_space", None)  # it remembers that goals were hidden


def _run(environment: Any, policy: Any) -> tuple[Positions, Positions, bool]:
    """Return the states (S, n), the positions of everything but the arm (S, geoms, 12), and whether it succeeded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        observation, _ = environment.reset()
        states, things, left = [], [], None
        rest = ~arm_geoms(environment.model)
        for step in range(_MAX_STEPS):
            action = np.clip(policy.get_action(observation), -1, 1).astype(np.float32)
            observation, _, _, _, info = environment.step(action)
            states.append(environment.data.qpos.copy())
            things.append(geom_poses(environment.data)[rest])
            if info["success"] and left is None:
                left = step + _AFTER_SUCCESS
            if step == left:
                break
    return np.array(states), np.array(things), left is not None


def arm_geoms(model: Any) -> NDArray[np.bool_]:
    """Return which geoms are the robot's, (n,): of the bodies that hang on its base, and of the mark that leads it."""
    belongs = np.asarray(model.body_mocapid) >= 0
    belongs[model.body("base").id] = True
    for body in range(1, model.nbody):  # parents come before their children
        belongs[body] |= belongs[model.body_parentid[body]]
    inside: NDArray[np.bool_] = belongs[model.geom_bodyid]
    return inside


def geom_poses(data: Any) -> Positions:
    """Return position (m) and rotation matrix of every geom, (n, 12)."""
    return np.concatenate([data.geom_xpos, data.geom_xmat], axis=1)


def moving_geoms(poses: Positions) -> NDArray[np.bool_]:
    """Return which geoms move in a clip: by more than 4 mm or 2 degrees from its first frame.

    Args:
        poses: (T, n, 12), see `geom_poses`.
    """
    away = np.abs(poses - poses[0]).max(axis=0)
    moves: NDArray[np.bool_] = (away[:, :3].max(axis=1) > 0.004) | (away[:, 3:].max(axis=1) > 0.035)
    return moves


def _course(things: Positions) -> Positions | None:
    """Return how far the thing that moves most is from its start, 0 to 1, (S,); None where nothing moves.

    A turn counts as the way of a point a tenth of a metre from the axis.
    """
    away = (np.abs(things - things[0]) * np.array([1.0] * 3 + [0.1] * 9)).sum(axis=2)
    farthest = away[:, int(away.max(axis=0).argmax())]
    if farthest.max() < _LEAST_MOVED_M:
        return None
    share: Positions = np.maximum.accumulate(farthest / farthest.max())
    return share


def clip_moments(moved: Positions, num_frames: int, rng: np.random.Generator) -> Positions:
    """Choose the moments of a clip, in steps, evenly spaced around the middle of the motion, (num_frames,).

    Args:
        moved: (S,) how far the thing is along its way.
        num_frames: Frames of the clip.
        rng: The clip begins and ends up to a third of the motion's length before or after it begins or ends.
    """
    begin = float(np.searchsorted(moved, 0.05))
    end = float(np.searchsorted(moved, 0.95))
    length = max(end - begin, 8.0)
    first = max(0.0, begin - length * rng.uniform(-0.15, 0.35))
    last = min(len(moved) - 1.0, end + length * rng.uniform(-0.15, 0.35))
    return np.linspace(first, max(last, first + 2.0), num_frames).clip(0, len(moved) - 1)


def states_at(states: Positions, moments: Positions) -> Positions:
    """Return the states between the steps, linearly interpolated, (T, n); quaternions are not normalised."""
    before = np.floor(moments).astype(int)
    after = np.minimum(before + 1, len(states) - 1)
    share = (moments - before)[:, None]
    between: Positions = states[before] * (1 - share) + states[after] * share
    return between
