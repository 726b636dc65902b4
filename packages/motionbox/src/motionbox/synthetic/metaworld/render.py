"""Pictures and masks of a run: MuJoCo's software renderer, a still or a moving camera, what moves by segmentation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motionbox.errors import InputError
from motionbox.synthetic.actions import smooth_walk
from motionbox.synthetic.compose import box_of
from motionbox.synthetic.metaworld.episodes import (
    Episode,
    arm_geoms,
    clip_moments,
    geom_poses,
    load_metaworld,
    moving_geoms,
    states_at,
)

_SIDES = ((125.0, 200.0), (-20.0, 55.0))  # degrees: from the right and from the left, never past the robot's back
_GEOM = 5  # mjOBJ_GEOM


@dataclass(frozen=True)
class RenderedRun:
    """A clip before encoding.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        masks: (T, H, W) bool: what moves in the clip, the arm and the handled thing.
        arm_boxes: (T, 4) int32 xyxy, half-open pixels, of the moving arm's visible pixels; -1 where there are none.
        thing_boxes: The same of the handled thing.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    arm_boxes: NDArray[np.int32]
    thing_boxes: NDArray[np.int32]


@dataclass(frozen=True)
class CameraPath:
    """A camera that looks at a point: per frame.

    Attributes:
        target: (T, 3) metres.
        distance: (T,) metres.
        azimuth: (T,) degrees.
        elevation: (T,) degrees.
    """

    target: NDArray[np.float64]
    distance: NDArray[np.float64]
    azimuth: NDArray[np.float64]
    elevation: NDArray[np.float64]


def camera_path(around: NDArray[np.float64], num_frames: int, rng: np.random.Generator, *, moving: bool) -> CameraPath:
    """Draw a camera's path around the place of the action.

    Args:
        around: (3,) metres.
        num_frames: Frames.
        rng: Source of everything random.
        moving: Pan, travel and shake; otherwise it stands still.
    """
    time = np.linspace(-0.5, 0.5, num_frames)
    low, high = _SIDES[rng.integers(2)]
    start = np.array(
        [*rng.uniform(-0.1, 0.1, 3), rng.uniform(0.95, 1.6), rng.uniform(low, high), rng.uniform(-42, -12)]
    )
    reach = np.array([0.12, 0.12, 0.06, 0.2, 22.0, 8.0])
    slope, sway = rng.uniform(-1, 1, 6) * reach, rng.uniform(0, 0.3, 6) * reach
    phase, rate = rng.uniform(0, 2 * np.pi, 6), rng.uniform(0.6, 1.4, 6)
    tremor = np.array([0.002, 0.002, 0.002, 0.003, 0.15, 0.15]) * rng.uniform(0.2, 1.0)
    shake = tremor * smooth_walk(num_frames, rng, (6,))
    path = np.tile(start, (num_frames, 1))
    if moving:
        path += time[:, None] * slope + sway * np.sin(phase + 2 * np.pi * rate * time[:, None]) + shake
    return CameraPath(around + path[:, :3], path[:, 3], path[:, 4], np.clip(path[:, 5], -60, -5))


def render_episode(
    episode: Episode, num_frames: int, side_px: int, rng: np.random.Generator, *, backwards: bool, camera_moves: bool
) -> RenderedRun:
    """Render a clip of a run.

    Args:
        episode: The run.
        num_frames: Frames.
        side_px: Width and height.
        rng: Source of the clip's moments and of its camera.
        backwards: Play the run backwards; the camera is drawn for the clip as seen.
        camera_moves: Move the camera.

    Raises:
        InputError: There is no software renderer.
    """
    _, _, mujoco = load_metaworld()
    model, data = episode.environment.model, episode.environment.data
    states = states_at(episode.states, clip_moments(episode.moved, num_frames, rng))
    states = states[::-1] if backwards else states
    poses = np.array([_pose(mujoco, model, data, state) for state in states])
    moves, arm = moving_geoms(poses), arm_geoms(model)
    around = _place_of(poses, moves & ~arm)
    camera = camera_path(around, num_frames, rng, moving=camera_moves)
    clip = RenderedRun(
        np.empty((num_frames, side_px, side_px, 3), np.uint8),
        np.zeros((num_frames, side_px, side_px), bool),
        *np.full((2, num_frames, 4), -1, np.int32),
    )
    with _renderer(mujoco, model, side_px, 4) as painter, _renderer(mujoco, model, side_px, 0) as marker:
        marker.enable_segmentation_rendering()
        for index, state in enumerate(states):
            _pose(mujoco, model, data, state)
            clip.frames[index] = _render(mujoco, painter, data, camera, index)
            segments = _render(mujoco, marker, data, camera, index)
            geoms = np.where(segments[..., 1] == _GEOM, segments[..., 0], -1)
            is_arm, is_thing = ((geoms >= 0) & (chosen & moves)[geoms] for chosen in (arm, ~arm))
            clip.masks[index] = is_arm | is_thing
            clip.arm_boxes[index] = box_of((0, 0, is_arm))
            clip.thing_boxes[index] = box_of((0, 0, is_thing))
    return clip


def _pose(mujoco: Any, model: Any, data: Any, state: NDArray[np.float64]) -> NDArray[np.float64]:
    """Set the simulation to a state; returns the geoms' poses."""
    data.qpos[:] = state
    mujoco.mj_normalizeQuat(model, data.qpos)
    mujoco.mj_forward(model, data)
    return geom_poses(data)


def _place_of(poses: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the middle of the way of the handled thing, (3,); of the table where nothing is handled."""
    if not chosen.any():
        return np.array([0.0, 0.65, 0.1])
    middle: NDArray[np.float64] = poses[:, chosen, :3].mean(axis=(0, 1))
    return middle


def use_software_renderer() -> None:
    """Render without a display: EGL, unless the user has said another way; to be called before MuJoCo is imported."""
    os.environ.setdefault("MUJOCO_GL", "egl")


def _renderer(mujoco: Any, model: Any, side_px: int, num_samples: int) -> Any:
    """Return a renderer; several samples a pixel smooth edges, but would mix the numbers of geoms."""
    model.vis.quality.offsamples = num_samples
    try:
        return mujoco.Renderer(model, side_px, side_px)
    except Exception as error:  # MuJoCo raises whatever its OpenGL loader raises
        raise InputError(
            f"MuJoCo cannot render here ({type(error).__name__}: {error}); install libegl1 or libosmesa6 and set "
            "MUJOCO_GL to egl or osmesa"
        ) from error


def _render(mujoco: Any, renderer: Any, data: Any, path: CameraPath, index: int) -> NDArray[Any]:
    """Return what a camera sees: a picture, (H, W, 3) uint8, or object and its type per pixel, (H, W, 2) int32."""
    camera = mujoco.MjvCamera()
    camera.lookat[:] = path.target[index]
    camera.distance, camera.azimuth = float(path.distance[index]), float(path.azimuth[index])
    camera.elevation = float(path.elevation[index])
    options = mujoco.MjvOption()
    options.sitegroup[:] = 0  # marks of goals would tell the task
    renderer.update_scene(data, camera, options)
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0  # five times as fast
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    return np.array(renderer.render())
