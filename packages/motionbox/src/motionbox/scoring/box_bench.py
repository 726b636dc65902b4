"""How well the boxes of several configs find hands and objects: clips with annotated boxes -> one table.

Each clip's flow is computed once per flow setting; every config then runs the real pipeline on it
(`extraction.in_memory`), so the table says what a store would hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from motionbox.config import ExtractConfig, FlowConfig, load_config
from motionbox.errors import InputError
from motionbox.extraction.in_memory import boxes_of_block, maps_of_block, process_clip
from motionbox.flow import FlowEstimator, create_flow_estimator
from motionbox.inputs.folder.load import ANNOTATIONS_NAME, load_folder
from motionbox.motion import boxes as bx
from motionbox.motion.areas import clip_areas
from motionbox.scoring.area_metrics import area_lift
from motionbox.scoring.box_metrics import (
    FPS_SOMETHING_ELSE,
    AnnotatedClip,
    boxes_at,
    frame_ious,
    read_boxes,
    score_clip,
    trivial_boxes,
)
from motionbox.scoring.score_tables import ScoreRow
from motionbox.video import is_frame_folder, probe, read_frames
from motionbox.video.frames import VideoInfo

ABLATION: dict[str, dict[str, Any]] = {
    "tuned": {},
    "motion boundaries, eq. (1), as the cue": {
        "motion.cue": "boundaries",
        "motion.explained_weight": 1.0,
        "contours.min_peak": 0.02,
    },
    "motion not compared with the frames": {"motion.explained_weight": 1.0},
    "no evidence over the clip (one frame's regions, nearest valid)": {"boxes.stabilise": "nearest"},
    "whole clip alike (memory 100 s)": {"areas.memory_seconds": 100.0},
    "all regions, weak ones too": {"areas.min_region": 0.0, "areas.min_moving": 0.0},
    "regions that do not last, too": {"areas.persist_seconds": 0.0},
    "one region": {"areas.num_regions": 1},
    "weak motion counts in full (power 1)": {"areas.evidence_power": 1.0},
    "membership by level alone": {"areas.level_weight": 1.1, "areas.depth_weight": 0.0, "areas.member_bias": 1.5},
    "membership by depth alone": {"areas.level_weight": 0.0, "areas.depth_weight": 1.0, "areas.member_bias": 3.9},
    "no growth of close-ups": {"areas.close_up": 1e3},
    "growth of all close-ups": {"areas.close_up_acting": 1.0},
}
"""Name -> what is changed in `tuned`; one step each."""


@dataclass(frozen=True)
class BenchClip:
    """One clip with annotated boxes.

    Attributes:
        truth: Its annotated boxes, in display pixels.
        path: Video file or folder of frames.
        frame_fps: Rate of a folder of frames, None for a video.
    """

    truth: AnnotatedClip
    path: Path
    frame_fps: float | None


class _RememberingEstimator:
    """Computes each flow of the clip at hand once, and knows the time it took (of this thread, not of the clock)."""

    def __init__(self, estimator: FlowEstimator) -> None:
        self.seconds = 0.0
        self._estimator = estimator
        self._flows: dict[tuple[bytes, bytes], npt.NDArray[np.float32]] = {}

    @property
    def name(self) -> str:
        """Name of the engine beneath."""
        return self._estimator.name

    def __call__(
        self,
        frame0: npt.NDArray[Any],
        frame1: npt.NDArray[Any],
        *,
        initial: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Return the flow; a first guess is passed on and its result not remembered."""
        begin = time.thread_time()
        try:
            if initial is not None:
                return self._estimator(frame0, frame1, initial=initial)
            key = (frame0.tobytes(), frame1.tobytes())
            if key not in self._flows:
                self._flows[key] = np.array(self._estimator(frame0, frame1), np.float32)
            return self._flows[key]
        finally:
            self.seconds += time.thread_time() - begin


def find_clips(data_root: Path, boxes_file: Path, *, frame_fps: float = FPS_SOMETHING_ELSE) -> list[BenchClip]:
    """Return the annotated clips of a folder; clip ids and rates are those of the data set `folder`.

    Args:
        data_root: Folder of videos or of folders of frames, with or without an `annotations.csv`.
        boxes_file: Annotated boxes, see `box_metrics.read_boxes`.
        frame_fps: Rate of folders of frames for which no `annotations.csv` gives one.

    Raises:
        InputError: The folder or a clip is missing, or nothing is annotated.
    """
    if not data_root.is_dir():
        raise InputError(f"data root {data_root} is not a folder; give the folder that holds the annotated clips")
    listed = {row["clip_id"]: row for row in load_folder(data_root).to_pylist()}
    given = (data_root / ANNOTATIONS_NAME).is_file()
    clips = []
    for clip_id, truth in sorted(read_boxes(boxes_file).items()):
        row = listed.get(clip_id)
        if row is None:
            raise InputError(
                f"clip {clip_id!r} of {boxes_file} is not below {data_root}; get the clip or remove its boxes"
            )
        path = data_root / row["path"]
        rate = (row["frame_fps"] if given else None) or frame_fps
        if bx.has_box(truth.boxes).any():
            clips.append(BenchClip(truth, path, rate if is_frame_folder(path) else None))
    if not clips:
        raise InputError(f"boxes file {boxes_file} must annotate at least one box, got none")
    return clips


def run_bench(
    clips: Sequence[BenchClip],
    configs: Mapping[str, ExtractConfig],
    make_estimator: Callable[[FlowConfig], FlowEstimator] = create_flow_estimator,
) -> list[ScoreRow]:
    """Score configs on clips, beside boxes that do not look at the video.

    Args:
        clips: Annotated clips.
        configs: Name -> config.
        make_estimator: Makes what computes the flow of a config.

    Returns:
        One row per trivial method, then one per config.

    Raises:
        ClipError: A clip cannot be decoded.
    """
    estimators = {flow: make_estimator(flow) for flow in dict.fromkeys(config.flow for config in configs.values())}
    rows: dict[str, ScoreRow] = {}
    for clip in clips:
        _bench_clip(clip, configs, estimators, rows)
    return list(rows.values())


def _bench_clip(
    clip: BenchClip,
    configs: Mapping[str, ExtractConfig],
    estimators: Mapping[FlowConfig, FlowEstimator],
    rows: dict[str, ScoreRow],
) -> None:
    info = probe(clip.path, fps=clip.frame_fps)
    truth = clip.truth
    remembering = {flow: _RememberingEstimator(estimator) for flow, estimator in estimators.items()}
    for name, boxes in trivial_boxes(truth.boxes, info.width, info.height).items():
        row = rows.setdefault(name, ScoreRow(name))
        row.add(truth.clip_id, score_clip(boxes, truth.boxes, info.width, info.height))
    for name, config in configs.items():
        found = _find(clip, info, config, remembering[config.flow])
        wanted = found.times[0] + (truth.numbers - 1) / info.fps
        row = rows.setdefault(name, ScoreRow(name))
        predicted = boxes_at(found.times, found.boxes.boxes, wanted)
        row.add(truth.clip_id, score_clip(predicted, truth.boxes, info.width, info.height))
        row.frame_ious.append(frame_ious(predicted, truth.boxes))
        row.confidences.append(found.boxes.clip_confidence)
        row.milliseconds.append(found.milliseconds)
        if found.areas is not None:
            true_boxes = boxes_at(wanted, truth.boxes, found.times)
            lift = area_lift(found.areas, true_boxes, info.width, info.height)
            row.lifts += [] if lift is None else [lift]


class _Found(NamedTuple):
    """A clip's times, boxes and areas (None without stored maps), and milliseconds of CPU per frame after flow."""

    times: npt.NDArray[np.float64]
    boxes: bx.StabilisedBoxes
    areas: npt.NDArray[np.uint8] | None
    milliseconds: float


def _find(clip: BenchClip, info: VideoInfo, config: ExtractConfig, estimator: _RememberingEstimator) -> _Found:
    frames = tuple(read_frames(clip.path, short_side_px=config.frames.short_side_px, fps=clip.frame_fps))
    begin = time.thread_time() - estimator.seconds
    result = process_clip(frames, info, config, estimator)
    areas = None
    if result.maps:
        areas = clip_areas(maps_of_block(result), result.times, info.width, info.height, config)
    if areas is not None and config.boxes.stabilise == "areas":
        boxes = areas.stabilised_boxes()
    else:
        boxes = boxes_of_block(result, info, config)
    milliseconds = (time.thread_time() - estimator.seconds - begin) / len(frames) * 1e3
    return _Found(result.times, boxes, None if areas is None else areas.areas, milliseconds)


def preset_configs(presets: Iterable[str], overrides: Mapping[str, Any]) -> dict[str, ExtractConfig]:
    """Return the configs of presets, each with the same overrides (dotted keys)."""
    return {preset: load_config(preset, overrides=dict(overrides)) for preset in presets}


def ablation_configs(overrides: Mapping[str, Any]) -> dict[str, ExtractConfig]:
    """Return the configs of `ABLATION`, each with further overrides (dotted keys)."""
    return {name: load_config("tuned", overrides={**overrides, **change}) for name, change in ABLATION.items()}
