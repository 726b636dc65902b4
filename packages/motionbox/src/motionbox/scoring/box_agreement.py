"""How far the clip boxes of a flow engine agree with those of another: what a quicker flow costs where it counts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from motionbox.config import ExtractConfig, load_config
from motionbox.extraction.in_memory import boxes_of_block, process_clip
from motionbox.flow import Flow
from motionbox.motion.boxes import clip_box, iou
from motionbox.scoring.known_flow import WARPS, warped_pair
from motionbox.video.frames import Frame, VideoInfo

_LOG = logging.getLogger(__name__)

FlowFunction = Callable[[npt.NDArray[Any], npt.NDArray[Any]], Flow]

NUM_FRAMES = 61
"""Frames of a clip that count. The box of a short clip hangs on single frames: with 21 the figures mean little."""
_DRAWN_FPS = 25.0
_DRAWN_SIZE_WH = (320, 240)


@dataclass(frozen=True)
class AgreementClip:
    """The first frames of a clip.

    Attributes:
        name: What it is.
        info: Size and rate of the video.
        frames: In order.
    """

    name: str
    info: VideoInfo
    frames: tuple[Frame, ...]


@dataclass
class _Estimator:
    """A flow function as an estimator."""

    function: FlowFunction
    name: str = "bench"

    def __call__(self, frame0: npt.NDArray[Any], frame1: npt.NDArray[Any], *, initial: Flow | None = None) -> Flow:
        if initial is not None:
            raise ValueError("initial must be None: a flow function has no first guess")
        return self.function(frame0, frame1)


def agreement_clips(testdata: Path | None, num_frames: int = NUM_FRAMES) -> list[AgreementClip]:
    """Return the first `num_frames` frames of every video of `testdata`/clips, or drawn clips where there are none."""
    from motionbox.inputs.folder.scan import find_media
    from motionbox.video import probe, read_frames

    short_side_px = load_config().frames.short_side_px
    folder = testdata / "clips" if testdata is not None else None
    clips = []
    for name in find_media(folder) if folder is not None and folder.is_dir() else ():
        path = folder / name  # type: ignore[operator]  # not None where there are names
        frames = tuple(islice(read_frames(path, short_side_px=short_side_px), num_frames))
        clips.append(AgreementClip(path.stem, probe(path), frames))
    return clips or [_drawn_clip(kind, num_frames) for kind in WARPS]


def _drawn_clip(kind: str, num_frames: int) -> AgreementClip:
    """Draw a clip of a texture in front of which a square with another texture moves."""
    width, height = _DRAWN_SIZE_WH
    frames = []
    for k in range(num_frames):
        grey = warped_pair(kind, width=width, height=height, amount=0.05 * k).frame1.copy()
        x, y = 60 + 2 * k, 70 + k
        grey[y : y + 80, x : x + 80] = warped_pair(kind, width=80, height=80, amount=0.3 * k, seed=1).frame1
        frames.append(Frame(k, k / _DRAWN_FPS, grey))
    info = VideoInfo(
        width=width,
        height=height,
        fps=_DRAWN_FPS,
        duration_seconds=num_frames / _DRAWN_FPS,
        num_frames_hint=num_frames,
        codec="drawn",
        container="drawn",
        rotation_degrees=0,
    )
    return AgreementClip(f"drawn {kind}", info, tuple(frames))


def clip_box_ious(
    clips: list[AgreementClip],
    functions: dict[str, FlowFunction],
    reference: str,
) -> dict[str, list[float]]:
    """Return for every flow function the IoU of each clip's box with that of `reference`, preset `paper`.

    Args:
        clips: Where the boxes are made.
        functions: Flow functions by name.
        reference: The function whose boxes the others are held against; a name of `functions`.
    """
    config = load_config("paper")
    ious: dict[str, list[float]] = {name: [] for name in functions}
    for clip in clips:
        _LOG.info("clip boxes of %s", clip.name)
        expected = _clip_box(clip, functions[reference], config)
        for name, function in functions.items():
            found = expected if name == reference else _clip_box(clip, function, config)
            ious[name].append(float(iou(found, expected)))
    return ious


def _clip_box(clip: AgreementClip, function: FlowFunction, config: ExtractConfig) -> npt.NDArray[np.int16]:
    result = process_clip(clip.frames, clip.info, config, _Estimator(function))
    return clip_box(boxes_of_block(result, clip.info, config).boxes)
