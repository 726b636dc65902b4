"""Write a set of clips over real footage: videos, labels, boxes and an exact mask of every frame."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial as partial_of
from pathlib import Path
from typing import Any

import numpy as np

from motionbox.errors import ClipError, InputError
from motionbox.flow.opencv import one_opencv_thread
from motionbox.inputs.folder.scan import find_media
from motionbox.synthetic.over_footage.backdrops import (
    MIN_SIDE_PX,
    Backdrop,
    backdrop_of_json,
    camera_path,
    check_footage,
    find_backdrops,
    measure_look,
    read_backdrop,
    to_and_fro,
)
from motionbox.synthetic.over_footage.overlay import OverlaidClip, overlay
from motionbox.synthetic.set_folder import SetFolder, draw_all, frame_label, read_json, write_atomically, write_clip
from motionbox.video.encode import encode_video

FORMAT_VERSION = 1
_PARTS = ("videos", "masks", "annotations.csv", "boxes.json")
_SECONDS = (3.0, 4.0)
_PLAN_STREAM, _CLIP_STREAM = 2, 3  # other random numbers than those of the drawn set
_VALIDATION_EVERY = 3  # videos
_KEYFRAME_INTERVAL = 24


@dataclass(frozen=True)
class FootageConfig:
    """What decides the content of a set over footage.

    Attributes:
        footage: Folder of videos, or of folders of frames.
        num_clips: Clips in all.
        seed: Another seed gives other clips over the same footage.
    """

    footage: Path
    num_clips: int = 40
    seed: int = 0


@dataclass(frozen=True)
class FootageClip:
    """One clip before it is drawn.

    Attributes:
        index: Position in the set, from 0.
        split: `train` or `validation`, by video.
        backdrop: Where it plays.
        first: Frame of the backdrop with which it begins.
        num_frames: Frames.
    """

    index: int
    split: str
    backdrop: Backdrop
    first: int
    num_frames: int

    @property
    def clip_id(self) -> str:
        """Name of the clip."""
        return f"{self.index:05d}"

    @property
    def path(self) -> str:
        """Path of the video below the root."""
        return f"videos/{self.clip_id}.mp4"


@dataclass(frozen=True)
class FootageSet:
    """A complete set on disk.

    Attributes:
        num_clips: Its clips.
        num_drawn: How many of them this call drew.
        num_videos: Videos of the footage that serve.
        passed_over: Videos that do not, with the reason.
    """

    num_clips: int
    num_drawn: int
    num_videos: int
    passed_over: list[str]


def write_footage_set(
    root: str | Path,
    config: FootageConfig,
    *,
    num_workers: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> FootageSet:
    """Write a set over footage, or find it there.

    Args:
        root: New or empty folder; one that holds this set complete is reused, one that holds it partly is completed.
        config: What to draw.
        num_workers: Processes that draw.
        progress: Called with (what is being done, done, in all).

    Raises:
        InputError: The footage holds nothing that serves, the folder holds something else, or cannot be written.
    """
    check_footage(config.footage)
    root, media = Path(root), find_media(config.footage)
    parameters = {"format": "motionbox-footage", "version": FORMAT_VERSION, **_identity(config, media)}
    folder = SetFolder(root, parameters, _PARTS)
    paths = [*_PARTS[2:], *(f"videos/{index:05d}.mp4" for index in range(config.num_clips))]
    if folder.is_complete(paths):
        found = read_json(root / "synthetic.json")
        return FootageSet(config.num_clips, 0, found["num_videos"], found["passed_over"])
    tell = None if progress is None else partial_of(progress, "Drawing clips")
    with folder.writing() as partial:
        backdrops, passed_over = _backdrops(partial, config.footage, media, num_workers, progress)
        plans = plan_footage(config, backdrops)
        num_drawn = folder.draw_missing(plans, partial_of(_draw_one, partial, config), num_workers, tell)
        folder.publish({"num_videos": len(backdrops), "passed_over": passed_over})
    return FootageSet(len(plans), num_drawn, len(backdrops), passed_over)


def _identity(config: FootageConfig, media: list[str]) -> dict[str, Any]:
    """Return what decides the set: the seed, and which files the footage has with how many bytes."""
    files = {name: _num_bytes(config.footage / name) for name in media}
    return {"num_clips": config.num_clips, "seed": config.seed, "footage": files}


def _num_bytes(path: Path) -> int:
    return sum(entry.stat().st_size for entry in path.iterdir()) if path.is_dir() else path.stat().st_size


def _backdrops(
    partial: Path,
    footage: Path,
    media: list[str],
    num_workers: int,
    progress: Callable[[str, int, int], None] | None,
) -> tuple[list[list[Backdrop]], list[str]]:
    """Return the backdrops of each video that has some, and of the others why not; looked for once per folder."""
    if not media:
        raise InputError(f"footage folder {footage} holds no video, frame folder or frame tar; check --footage")
    known = [partial / "clips" / f"footage-{position:05d}.json" for position in range(len(media))]
    missing = [(name, file) for name, file in zip(media, known, strict=True) if not file.is_file()]
    looking = draw_all(partial_of(_look_for_backdrops, footage), missing, num_workers)
    for done, _ in enumerate(looking, start=len(media) - len(missing) + 1):
        if progress is not None:
            progress("Looking at footage", done, len(media))
    backdrops, passed_over = [], []
    for name, file in zip(media, known, strict=True):
        found = read_json(file)
        if found["backdrops"]:
            backdrops.append([backdrop_of_json(fields) for fields in found["backdrops"]])
        else:
            passed_over.append(f"{name}: {found['reason']}")
    if not backdrops:
        more = f" ({len(passed_over) - 1} more)" if len(passed_over) > 1 else ""
        raise InputError(f"footage folder {footage} has no video to lay things over: {passed_over[0]}{more}")
    return backdrops, passed_over


def _look_for_backdrops(footage: Path, work: tuple[str, Path]) -> None:
    name, file = work
    reason = f"too short, smaller than {MIN_SIDE_PX} px or full of things that move"
    try:
        with one_opencv_thread():
            backdrops = find_backdrops(footage, name)
    except ClipError as error:
        backdrops, reason = [], str(error).removeprefix(f"{footage / name}: ")
    found = {"backdrops": [backdrop.to_json() for backdrop in backdrops], "reason": reason}
    write_atomically(file, json.dumps(found).encode())


def plan_footage(config: FootageConfig, backdrops: list[list[Backdrop]]) -> list[FootageClip]:
    """Lay out a set: every video in turn, every third for validation, backdrops and beginnings at random."""
    rng = np.random.default_rng([_PLAN_STREAM, config.seed])
    order = rng.permutation(len(backdrops))
    plans = []
    for index in range(config.num_clips):
        video = int(order[index % len(backdrops)])
        choices = backdrops[video]
        backdrop = choices[rng.integers(len(choices))]
        split = "validation" if video % _VALIDATION_EVERY == _VALIDATION_EVERY - 1 else "train"
        num_frames = max(2, round(float(rng.uniform(*_SECONDS)) * backdrop.fps))
        plans.append(FootageClip(index, split, backdrop, int(rng.integers(2 * backdrop.num_frames - 2)), num_frames))
    return plans


def draw_footage_clip(plan: FootageClip, config: FootageConfig) -> OverlaidClip:
    """Draw a planned clip: the pixels before encoding, the same for the same seed and footage."""
    footage = read_backdrop(config.footage, plan.backdrop)
    indices = to_and_fro(len(footage), plan.num_frames, plan.first)
    path = camera_path(footage)[indices]
    camera = path @ np.linalg.inv(path[0])
    look = measure_look(footage[len(footage) // 2])
    rng = np.random.default_rng([_CLIP_STREAM, config.seed, plan.index])
    return overlay(footage[indices], camera, look, plan.backdrop.fps, rng)


def _draw_one(partial: Path, config: FootageConfig, plan: FootageClip) -> None:
    with one_opencv_thread():
        clip = draw_footage_clip(plan, config)
    video = io.BytesIO()
    options = {"crf": str(_crf(config.footage / plan.backdrop.path)), "preset": "veryfast", "bf": "0"}
    encode_video(
        video, clip.frames, plan.backdrop.fps, container="mp4", options=options, keyframe_interval=_KEYFRAME_INTERVAL
    )
    write_clip(partial, plan, video.getvalue(), clip.masks, _row(plan, clip), _labels(plan, clip))


def _crf(path: Path) -> int:
    """Return x264's quality for about the compression of the footage; pictures kept one by one count as good."""
    if path.is_dir() or path.suffix.lower() == ".tar":
        return 20
    from motionbox.video import probe

    info = probe(path)
    if not info.duration_seconds:
        return 23
    bits = path.stat().st_size * 8 / (info.width * info.height * info.fps * info.duration_seconds)
    return int(np.clip(round(23 - 4 * np.log2(max(bits, 1e-3) / 0.12)), 18, 31))


def _labels(plan: FootageClip, clip: OverlaidClip) -> list[dict[str, Any]]:
    roles = ["object hand" if name == "hand" else f"object {position}" for position, name in enumerate(clip.names)]
    tracks = [boxes.tolist() for boxes in clip.boxes]
    return [
        frame_label(
            plan.clip_id,
            index,
            [(name, role, track[index]) for name, role, track in zip(clip.names, roles, tracks, strict=True)],
        )
        for index in range(plan.num_frames)
    ]


def _row(plan: FootageClip, clip: OverlaidClip) -> dict[str, Any]:
    height, width = clip.frames.shape[1:3]
    return {
        "clip_id": plan.clip_id,
        "path": plan.path,
        "split": plan.split,
        "verb": clip.action,
        "noun": clip.names[0],
        "num_frames": plan.num_frames,
        "fps": round(plan.backdrop.fps, 4),
        "width": width + width % 2,
        "height": height + height % 2,
        "footage": plan.backdrop.path,
        "footage_own_motion": plan.backdrop.own_motion,
        "camera_px_per_frame": round(plan.backdrop.camera_px, 3),
        "moving_frames": round(float(clip.moves.mean()), 3),
        "mask_share": round(float(clip.masks.mean()), 4),
    }
