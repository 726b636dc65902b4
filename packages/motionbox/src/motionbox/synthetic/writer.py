"""Write the generated data set: encode the clips, then write annotations and boxes, and publish all of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial as partial_of
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motionbox.flow.opencv import one_opencv_thread
from motionbox.synthetic.actions import VERBS
from motionbox.synthetic.plan import ClipPlan, SyntheticConfig, plan_clips
from motionbox.synthetic.props import NOUNS
from motionbox.synthetic.scene import RenderedClip, render_clip
from motionbox.synthetic.set_folder import SetFolder, frame_label, write_clip
from motionbox.video.encode import encode_video

FORMAT_VERSION = 3
_PARTS = ("videos", "masks", "annotations.csv", "boxes.json")
_CODECS: dict[str, tuple[str, dict[str, str]]] = {
    ".mp4": ("libx264", {"crf": "20", "preset": "veryfast", "bf": "0"}),
    ".webm": ("libvpx-vp9", {"crf": "28", "b": "0", "deadline": "realtime", "cpu-used": "7", "row-mt": "0"}),
}
_KEYFRAME_INTERVAL = 12


@dataclass(frozen=True)
class SyntheticSet:
    """A complete data set on disk.

    Attributes:
        root: Its folder.
        clips: Its clips.
        num_drawn: How many of them this call drew; 0 where the complete set was there already.
    """

    root: Path
    clips: list[ClipPlan]
    num_drawn: int


def draw_clip(plan: ClipPlan, config: SyntheticConfig) -> RenderedClip:
    """Draw a planned clip: the pixels before encoding, the same for the same seed."""
    return render_clip(
        plan.verb,
        plan.noun,
        plan.width,
        plan.height,
        plan.num_frames,
        plan.generator(config.seed),
        camera_motion=config.camera_motion,
        scale=config.scale,
    )


def write_dataset(
    root: str | Path,
    config: SyntheticConfig | None = None,
    *,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> SyntheticSet:
    """Write a data set, or find it there.

    Args:
        root: New or empty folder; one that holds this set complete is reused, one that holds it partly is completed.
        config: What to draw.
        num_workers: Processes that draw.
        progress: Called with (clips done, clips in all).

    Raises:
        InputError: The folder holds something else or another generated set, or cannot be written.
    """
    root, config = Path(root), config or SyntheticConfig()
    plans = plan_clips(config)
    parameters = {"format": "motionbox-synthetic", "version": FORMAT_VERSION, **asdict(config)}
    if config.scale == 1:
        del parameters["scale"]  # sets of before it could be chosen are the same
    folder = SetFolder(root, parameters, _PARTS)
    if folder.is_complete([*_PARTS[2:], *(plan.path for plan in plans)]):
        return SyntheticSet(root, plans, 0)
    with folder.writing() as partial:
        num_drawn = folder.draw_missing(plans, partial_of(_draw_one, partial, config), num_workers, progress)
        folder.publish({"verbs": list(VERBS), "nouns": list(NOUNS)})
    return SyntheticSet(root, plans, num_drawn)


def _draw_one(partial: Path, config: SyntheticConfig, plan: ClipPlan) -> None:
    with one_opencv_thread():
        clip = draw_clip(plan, config)
    video = encode(clip.frames, plan.suffix, plan.fps)
    write_clip(partial, plan, video, clip.masks, _row(plan), _labels(plan, clip))


def encode(frames: NDArray[np.uint8], suffix: str, fps: int) -> bytes:
    """Encode frames with one thread.

    Args:
        frames: (T, H, W, 3) uint8 RGB, even height and width.
        suffix: `.mp4` (H.264) or `.webm` (VP9).
        fps: Frames per second.

    Returns:
        The file's bytes, the same for the same frames and library version.
    """
    codec, options = _CODECS[suffix]
    buffer = io.BytesIO()
    encode_video(
        buffer, frames, fps, container=suffix[1:], codec=codec, options=options, keyframe_interval=_KEYFRAME_INTERVAL
    )
    return buffer.getvalue()


def _labels(plan: ClipPlan, clip: RenderedClip) -> list[dict[str, Any]]:
    """Return a clip's boxes per frame."""
    return [
        frame_label(plan.clip_id, index, (("hand", "object hand", hand), (plan.noun, "object 0", thing)))
        for index, (hand, thing) in enumerate(zip(clip.hand_boxes.tolist(), clip.object_boxes.tolist(), strict=True))
    ]


def _row(plan: ClipPlan) -> dict[str, Any]:
    """Return a clip's row of annotations.csv."""
    return {
        "clip_id": plan.clip_id,
        "path": plan.path,
        "split": plan.split,
        "verb": plan.verb,
        "noun": plan.noun,
        "verb_class": VERBS.index(plan.verb),
        "noun_class": NOUNS.index(plan.noun),
        "num_frames": plan.num_frames,
        "fps": plan.fps,
        "width": plan.width,
        "height": plan.height,
    }
