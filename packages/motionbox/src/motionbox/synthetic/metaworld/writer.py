"""Write a Meta-World set: videos, labels, boxes and an exact mask of every frame; resumable, in several processes."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial as partial_of
from pathlib import Path
from typing import Any

import numpy as np

from motionbox.synthetic.metaworld.episodes import load_metaworld, run_episode
from motionbox.synthetic.metaworld.plan import FPS, NUM_FRAMES, MetaWorldClip, MetaWorldConfig, plan_metaworld
from motionbox.synthetic.metaworld.render import RenderedRun, render_episode, use_software_renderer
from motionbox.synthetic.metaworld.scenes import NOUNS, SCENES, VERBS, part_of
from motionbox.synthetic.set_folder import SetFolder, frame_label, write_clip
from motionbox.video.encode import encode_video

FORMAT_VERSION = 1
_PARTS = ("videos", "masks", "annotations.csv", "boxes.json")
_ENCODING = {"crf": "18", "preset": "veryfast", "bf": "0"}


@dataclass(frozen=True)
class MetaWorldSet:
    """A complete set on disk.

    Attributes:
        num_clips: Its clips.
        num_drawn: How many of them this call rendered.
    """

    num_clips: int
    num_drawn: int


def write_metaworld_set(
    root: str | Path,
    config: MetaWorldConfig | None = None,
    *,
    num_workers: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> MetaWorldSet:
    """Render a set, or find it there.

    Args:
        root: New or empty folder; one that holds this set complete is reused, one that holds it partly is completed.
        config: What to render.
        num_workers: Processes that render.
        progress: Called with (what is being done, done, in all).

    Raises:
        InputError: Meta-World or its renderer is missing, the folder holds something else, or cannot be written.
    """
    root, config = Path(root), config or MetaWorldConfig()
    plans = plan_metaworld(config)
    parameters = {"format": "motionbox-metaworld", "version": FORMAT_VERSION, **asdict(config)}
    folder = SetFolder(root, parameters, _PARTS)
    if folder.is_complete([*_PARTS[2:], *(plan.path for plan in plans)]):
        return MetaWorldSet(len(plans), 0)
    use_software_renderer()
    load_metaworld()
    tell = None if progress is None else partial_of(progress, "Rendering clips")
    with folder.writing() as partial:
        num_drawn = folder.draw_missing(plans, partial_of(_render_one, partial, config), num_workers, tell)
        folder.publish({"verbs": list(VERBS), "nouns": list(NOUNS)})
    return MetaWorldSet(len(plans), num_drawn)


def _render_one(partial: Path, config: MetaWorldConfig, plan: MetaWorldClip) -> None:
    use_software_renderer()
    rng = np.random.default_rng(plan.entropy)
    rng.integers(2)  # the plan's choice of a moving camera
    clip = render_episode(
        run_episode(plan.task, rng),
        NUM_FRAMES,
        config.side_px,
        rng,
        backwards=plan.backwards,
        camera_moves=plan.camera_moves,
    )
    video = io.BytesIO()
    encode_video(video, clip.frames, FPS, container="mp4", options=_ENCODING, keyframe_interval=FPS)
    write_clip(partial, plan, video.getvalue(), clip.masks, _row(plan, config, clip), _labels(plan, clip))


def _labels(plan: MetaWorldClip, clip: RenderedRun) -> list[dict[str, Any]]:
    boxes = zip(clip.arm_boxes.tolist(), clip.thing_boxes.tolist(), strict=True)
    return [
        frame_label(plan.clip_id, index, (("arm", "object hand", arm), (plan.noun, "object 0", thing)))
        for index, (arm, thing) in enumerate(boxes)
    ]


def _row(plan: MetaWorldClip, config: MetaWorldConfig, clip: RenderedRun) -> dict[str, Any]:
    scene = SCENES[NOUNS.index(plan.noun)]
    return {
        "clip_id": plan.clip_id,
        "path": plan.path,
        "split": plan.split,
        "verb": plan.verb,
        "noun": plan.noun,
        "verb_class": VERBS.index(plan.verb),
        "noun_class": NOUNS.index(plan.noun),
        "num_frames": NUM_FRAMES,
        "fps": FPS,
        "width": config.side_px,
        "height": config.side_px,
        "part": part_of(scene),
        "task": plan.task,
        "played": "backwards" if plan.backwards else "forwards",
        "camera": "moving" if plan.camera_moves else "still",
        "mask_share": round(float(clip.masks.mean()), 4),
    }
