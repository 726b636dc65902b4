"""How well the boxes of several configs find hands and objects: clips with annotated boxes -> one table.

Each clip is decoded and its flow computed once; every config then runs the real pipeline on it (`pipeline` for the
frames, `evidence` for the clip), so the table says what a store would hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from motionbox import boxes as bx
from motionbox.config import ExtractConfig, load_config
from motionbox.datasets.folder import find_media
from motionbox.errors import InputError
from motionbox.evaluate import (
    FPS_SOMETHING_ELSE,
    METRICS,
    AnnotatedClip,
    ClipScore,
    Interval,
    boxes_at,
    read_boxes,
    score_clip,
    summarise,
    trivial_boxes,
)
from motionbox.evidence import clip_boxes
from motionbox.flow import FlowEstimator
from motionbox.frames import VideoInfo
from motionbox.pipeline import Block, BlockProcessor
from motionbox.video import is_frame_folder, probe, read_frames

ABLATION: dict[str, dict[str, Any]] = {
    "tuned": {},
    "motion boundaries, eq. (1), as the cue": {"motion.cue": "boundaries", "contours.min_peak": 0.02},
    "no evidence over the clip (one frame's regions, nearest valid)": {"boxes.stabilise": "nearest"},
    "no clip memory (0.01 s)": {"boxes.evidence.memory_seconds": 0.01},
    "whole clip alike (memory 100 s)": {"boxes.evidence.memory_seconds": 100.0},
    "all regions, weak ones too": {"boxes.evidence.min_region": 0.0, "boxes.evidence.min_moving": 0.0},
    "one region": {"boxes.evidence.num_regions": 1},
    "threshold by noise alone": {"boxes.evidence.peak_ratio": 0.0},
    "no growth with motion": {"boxes.evidence.growth": 0.0, "boxes.evidence.shrink": 0.0},
    "growth without shrinking": {"boxes.evidence.shrink": 0.0},
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


@dataclass
class BenchRow:
    """The scores of one method.

    Attributes:
        name: Of the config or of the trivial method.
        scores: One per clip, in the order of `clip_ids`.
        confidences: Clip confidence, one per clip; empty for trivial methods.
        milliseconds: Time per frame of all steps after flow, one value per clip; empty for trivial methods.
        clip_ids: The clips.
    """

    name: str
    scores: list[ClipScore] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    clip_ids: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Interval]:
        """Return per metric the mean over clips with its 95 % bootstrap interval."""
        return summarise(self.scores)


class _RememberingEstimator:
    """Computes each flow of the clip at hand once."""

    def __init__(self, estimator: FlowEstimator) -> None:
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
        if initial is not None:
            return self._estimator(frame0, frame1, initial=initial)
        key = (frame0.tobytes(), frame1.tobytes())
        if key not in self._flows:
            self._flows[key] = np.array(self._estimator(frame0, frame1), np.float32)
        return self._flows[key]


def find_clips(data_root: Path, boxes_file: Path, *, frame_fps: float = FPS_SOMETHING_ELSE) -> list[BenchClip]:
    """Return the annotated clips of a folder: clip ids are paths below `data_root`, as in the data set `folder`.

    Args:
        data_root: Folder of videos or of folders of frames.
        boxes_file: Annotated boxes, see `evaluate.read_boxes`.
        frame_fps: Rate of folders of frames.

    Raises:
        InputError: The folder or a clip is missing, or nothing is annotated.
    """
    if not data_root.is_dir():
        raise InputError(f"data root {data_root} is not a folder; give the folder that holds the annotated clips")
    media = {str(Path(path).with_suffix("")): data_root / path for path in find_media(data_root)}
    clips = []
    for clip_id, truth in sorted(read_boxes(boxes_file).items()):
        path = media.get(clip_id)
        if path is None:
            raise InputError(
                f"clip {clip_id!r} of {boxes_file} is not below {data_root}; get the clip or remove its boxes"
            )
        if bx.has_box(truth.boxes).any():
            clips.append(BenchClip(truth, path, frame_fps if is_frame_folder(path) else None))
    if not clips:
        raise InputError(f"boxes file {boxes_file} must annotate at least one box, got none")
    return clips


def run_bench(
    clips: Sequence[BenchClip],
    configs: Mapping[str, ExtractConfig],
    estimator: FlowEstimator,
    *,
    on_clip: Callable[[str], None] | None = None,
) -> list[BenchRow]:
    """Score configs on clips, beside boxes that do not look at the video.

    Args:
        clips: Annotated clips.
        configs: Name -> config; `flow` of all of them is what `estimator` computes.
        estimator: Computes flow.
        on_clip: Called with the clip id before each clip.

    Returns:
        One row per trivial method, then one per config.

    Raises:
        ClipError: A clip cannot be decoded.
    """
    rows: dict[str, BenchRow] = {}
    for clip in clips:
        if on_clip is not None:
            on_clip(clip.truth.clip_id)
        _bench_clip(clip, configs, estimator, rows)
    return list(rows.values())


def _bench_clip(
    clip: BenchClip, configs: Mapping[str, ExtractConfig], estimator: FlowEstimator, rows: dict[str, BenchRow]
) -> None:
    info = probe(clip.path, fps=clip.frame_fps)
    truth = clip.truth
    remembering = _RememberingEstimator(estimator)
    for name, boxes in trivial_boxes(truth.boxes, info.width, info.height).items():
        row = rows.setdefault(name, BenchRow(name))
        row.scores.append(score_clip(boxes, truth.boxes, info.width, info.height))
        row.clip_ids.append(truth.clip_id)
    for name, config in configs.items():
        times, found, milliseconds = compute_boxes(clip, info, config, remembering)
        wanted = times[0] + (truth.numbers - 1) / info.fps
        row = rows.setdefault(name, BenchRow(name))
        predicted = boxes_at(times, found.boxes, wanted)
        row.scores.append(score_clip(predicted, truth.boxes, info.width, info.height))
        row.confidences.append(found.clip_confidence)
        row.milliseconds.append(milliseconds)
        row.clip_ids.append(truth.clip_id)


def compute_boxes(
    clip: BenchClip, info: VideoInfo, config: ExtractConfig, estimator: FlowEstimator
) -> tuple[npt.NDArray[np.float64], bx.StabilisedBoxes, float]:
    """Return a clip's times, its stabilised boxes and the milliseconds per frame of all steps after flow."""
    frames = tuple(read_frames(clip.path, short_side_px=config.frames.short_side_px, fps=clip.frame_fps))
    block = Block(0, frames, 0, len(frames))
    BlockProcessor(info, config, estimator).process(block)  # fills the estimator's memory: flow is not timed
    begin = time.perf_counter()
    result = BlockProcessor(info, config, estimator).process(block)
    maps = None
    if result.maps:
        index = np.where(result.map_index < 0, len(result.maps), result.map_index)
        maps = np.stack([*result.maps, np.zeros_like(result.maps[0])])[index]
    found = clip_boxes(result.boxes, maps, result.times, info.width, info.height, config, result.confidence)
    return result.times, found, (time.perf_counter() - begin) / len(frames) * 1e3


def preset_configs(presets: Iterable[str], overrides: Mapping[str, Any]) -> dict[str, ExtractConfig]:
    """Return the configs of presets, each with the same overrides (dotted keys)."""
    return {preset: load_config(preset, overrides=dict(overrides)) for preset in presets}


def ablation_configs(overrides: Mapping[str, Any]) -> dict[str, ExtractConfig]:
    """Return the configs of `ABLATION`, each with further overrides (dotted keys)."""
    return {name: load_config("tuned", overrides={**overrides, **change}) for name, change in ABLATION.items()}


def markdown_table(rows: Sequence[BenchRow]) -> str:
    """Return the rows as a Markdown table: means over clips, with 95 % intervals for the two IoUs."""
    lines = [
        "| boxes | frame IoU | IoU > .5 | coverage | area | clip IoU | jitter | ms/frame |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        summary = row.summary()
        cells = [
            f"{value.mean:.3f} ({value.low:.2f} to {value.high:.2f})"
            if "iou" in metric and metric != "iou_over_half"
            else f"{value.mean:.4f}"
            if metric == "jitter"
            else f"{value.mean:.2f}"
            for metric, value in ((metric, summary[metric]) for metric in METRICS)
        ]
        cells.append(f"{np.mean(row.milliseconds):.1f}" if row.milliseconds else "")
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def clip_lines(rows: Sequence[BenchRow]) -> str:
    """Return one line per clip: frame IoU / clip IoU of every row."""
    lines = ["| clip | " + " | ".join(row.name for row in rows) + " |", "|---|" + "---|" * len(rows)]
    for position, clip_id in enumerate(rows[0].clip_ids):
        cells = [f"{row.scores[position].frame_iou:.2f} / {row.scores[position].clip_iou:.2f}" for row in rows]
        lines.append(f"| {clip_id} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
