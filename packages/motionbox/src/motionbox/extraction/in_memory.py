"""The whole way from frames to boxes in memory: what a store would hold of a clip, without a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from motionbox.config import ExtractConfig, load_config
from motionbox.extraction.blocks import Block
from motionbox.extraction.work_unit import BlockProcessor
from motionbox.flow import FlowEstimator, create_flow_estimator
from motionbox.motion import boxes as bx
from motionbox.motion import clip_boxes as stabilising
from motionbox.motion.areas import clip_areas
from motionbox.store.areas.blocks import stored_areas
from motionbox.store.units import BlockResult
from motionbox.video.frames import Frame, VideoInfo, working_size


def clip_boxes(
    frames: npt.NDArray[np.uint8], fps: float, preset: str | ExtractConfig = "tuned", *, backend: str = "auto"
) -> tuple[npt.NDArray[np.int32], float]:
    """Return the motion boxes of a clip, as a store of the same preset would hold them.

    Args:
        frames: uint8 (T, H, W) grey or (T, H, W, 3) RGB, in order, T >= 2.
        fps: Frames per second.
        preset: A preset's name (`tuned`, `paper`, `release`, ...), or a config.
        backend: What computes the flow, see `motionbox.compute_flow`.

    Returns:
        int32 (T, 4), one box for each frame, xyxy half-open pixels of `frames`; and the clip's confidence in [0, 1], 0
        where nothing moves and the centre half stands in.

    Raises:
        ValueError: `frames` or `fps` has another shape, dtype or range.
        MotionBoxError: Unknown preset, or the backend cannot run here.
    """
    info, config, result = _process(frames, fps, preset, backend)
    found = boxes_of_block(result, info, config)
    return found.boxes.astype(np.int32), float(found.clip_confidence)


def motion_areas(
    frames: npt.NDArray[np.uint8], fps: float, preset: str | ExtractConfig = "tuned", *, backend: str = "auto"
) -> npt.NDArray[np.uint8]:
    """Return the motion areas of a clip, as a store would: how strongly each cell of each frame belongs to the action.

    Args:
        frames: As in `clip_boxes`.
        fps: Frames per second.
        preset: A preset's name, or a config that keeps motion maps.
        backend: As in `clip_boxes`.

    Returns:
        uint8 (T, h, w), 0 outside, 255 strongest; a cell is `config.store.map_scale` pixels of the working size (frames
        shrunk to a short side of `config.frames.short_side_px`).

    Raises:
        ValueError: As `clip_boxes`.
        MotionBoxError: As `clip_boxes`.
    """
    info, config, result = _process(frames, fps, preset, backend)
    if not result.maps:
        raise ValueError("preset must keep motion maps (store.motion_maps = true) to give areas")
    return stored_areas(clip_areas(maps_of_block(result), result.times, info.width, info.height, config).areas)


def boxes_of_block(result: BlockResult, info: VideoInfo, config: ExtractConfig) -> bx.StabilisedBoxes:
    """Return the stabilised boxes of a clip that is one block."""
    maps = maps_of_block(result) if result.maps else None
    return stabilising.clip_boxes(result.boxes, maps, result.times, info.width, info.height, config, result.confidence)


def maps_of_block(result: BlockResult) -> npt.NDArray[np.uint8]:
    """Return the stored motion map of each frame of a block, uint8 (T, h, w); zeros where a frame has no flow."""
    index = np.where(result.map_index < 0, len(result.maps), result.map_index)
    return np.stack([*result.maps, np.zeros_like(result.maps[0])])[index]


def process_clip(
    frames: Sequence[Frame], info: VideoInfo, config: ExtractConfig, estimator: FlowEstimator
) -> BlockResult:
    """Return the raw boxes and maps of a whole clip, taken as one block."""
    return BlockProcessor(info, config, estimator).process(Block(0, tuple(frames), 0, len(frames)))


def _process(
    frames: npt.NDArray[Any], fps: float, preset: str | ExtractConfig, backend: str
) -> tuple[VideoInfo, ExtractConfig, BlockResult]:
    _check(frames, fps)
    config = load_config(preset) if isinstance(preset, str) else preset
    height, width = frames.shape[1:3]
    size = working_size(width, height, config.frames.short_side_px)
    greys = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) if frame.ndim == 3 else frame for frame in frames)
    if size != (width, height):
        greys = (cv2.resize(grey, size, interpolation=cv2.INTER_AREA) for grey in greys)
    decoded = [Frame(i, i / fps, np.ascontiguousarray(grey, np.uint8)) for i, grey in enumerate(greys)]
    info = VideoInfo(
        width=width,
        height=height,
        fps=fps,
        duration_seconds=len(frames) / fps,
        num_frames_hint=len(frames),
        codec="memory",
        container="memory",
        rotation_degrees=0,
    )
    return info, config, process_clip(decoded, info, config, create_flow_estimator(config.flow, backend=backend))


def _check(frames: npt.NDArray[Any], fps: float) -> None:
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        raise ValueError(f"frames must be a uint8 array, got {getattr(frames, 'dtype', type(frames))!s}")
    is_colour = frames.ndim == 4 and frames.shape[3] == 3
    if not (frames.ndim == 3 or is_colour) or len(frames) < 2:
        raise ValueError(f"frames must be (T, H, W) or (T, H, W, 3) with T >= 2, got shape {frames.shape}")
    if not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be greater than 0, got {fps!r}")
