"""Write a generated data set: encode the clips, then annotations, boxes and, last, the file that says it is complete.

Everything is written below `.partial` first. A run that was killed leaves that folder; the next one with the same
parameters keeps its finished clips, another one starts it over.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from motionbox.errors import InputError
from motionbox.synthetic.actions import VERBS
from motionbox.synthetic.plan import ClipPlan, SyntheticConfig, plan_clips
from motionbox.synthetic.props import NOUNS
from motionbox.synthetic.scene import RenderedClip, render_clip
from motionbox.video.encode import encode_video

FORMAT_VERSION = 1
MARKER = "synthetic.json"
_PARTIAL = ".partial"
_PARAMETERS = "parameters.json"
_PARTS = ("videos", "annotations.csv", "boxes.json")
_CODECS: dict[str, tuple[str, dict[str, str]]] = {
    ".mp4": ("libx264", {"crf": "20", "preset": "veryfast", "bf": "0"}),
    ".webm": ("libvpx-vp9", {"crf": "28", "b": "0", "deadline": "realtime", "cpu-used": "7", "row-mt": "0"}),
}
_KEYFRAME_INTERVAL = 12
_FEWEST_FOR_POOL = 8  # starting worker processes costs more than drawing fewer clips


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
    if _is_complete(root, config, plans):
        return SyntheticSet(root, plans, 0)
    try:
        partial = _open_partial(root, config)
        missing = [plan for plan in plans if not _sidecar(partial, plan).is_file()]
        for done, _ in enumerate(_draw_all(partial, missing, config, num_workers), start=len(plans) - len(missing) + 1):
            if progress is not None:
                progress(done, len(plans))
        _write_annotations(partial, plans)
        _write_boxes(partial, plans)
        _publish(root, partial, config)
    except OSError as error:
        raise InputError(f"cannot write the generated data set to {root}: {error}; choose another folder") from error
    return SyntheticSet(root, plans, len(missing))


def _parameters(config: SyntheticConfig) -> dict[str, Any]:
    return {"format": "motionbox-synthetic", "version": FORMAT_VERSION, **asdict(config)}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _is_complete(root: Path, config: SyntheticConfig, plans: list[ClipPlan]) -> bool:
    """Say whether the folder holds exactly this set; refuse a folder that holds another one."""
    if not (root / MARKER).exists():
        return False
    found = _read_json(root / MARKER)
    if not isinstance(found, dict) or {key: found.get(key) for key in _parameters(config)} != _parameters(config):
        raise InputError(
            f"{root} holds another generated data set ({MARKER} differs); choose another folder or remove it"
        )
    lost = [part for part in (*_PARTS[1:], *(plan.path for plan in plans)) if not (root / part).is_file()]
    if lost:
        raise InputError(f"{root} has lost {len(lost)} of its files, first {lost[0]}; remove the folder and run again")
    return True


def _open_partial(root: Path, config: SyntheticConfig) -> Path:
    """Return the folder of the unfinished set, made anew where it is of other parameters."""
    partial = root / _PARTIAL
    root.mkdir(parents=True, exist_ok=True)
    found = _read_json(partial / _PARAMETERS)
    strangers = {entry.name for entry in root.iterdir()} - {_PARTIAL}
    if strangers - (set(_PARTS) if found == _parameters(config) else set()):
        raise InputError(f"{root} must be a new or empty folder, it holds {min(strangers)!r}; choose another folder")
    if found == _parameters(config):
        return partial
    if partial.exists() and any(partial.iterdir()) and found is None:
        raise InputError(f"{partial} was not made by this command; choose another folder or remove it")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    _write_atomically(partial / _PARAMETERS, json.dumps(_parameters(config)).encode())
    (partial / "videos").mkdir()
    (partial / "boxes").mkdir()
    return partial


def _sidecar(partial: Path, plan: ClipPlan) -> Path:
    """Return the file whose presence says that a clip's video is complete; it holds the clip's boxes."""
    return partial / "boxes" / f"{plan.index:05d}.json"


def _draw_all(partial: Path, plans: list[ClipPlan], config: SyntheticConfig, num_workers: int) -> Iterator[None]:
    """Draw clips in parallel; yields once per finished clip."""
    if num_workers <= 1 or len(plans) < _FEWEST_FOR_POOL:
        for plan in plans:
            _draw_one(partial, plan, config)
            yield
        return
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_draw_one, partial, plan, config) for plan in plans]
        try:
            for future in as_completed(futures):
                future.result()
                yield
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _draw_one(partial: Path, plan: ClipPlan, config: SyntheticConfig) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        clip = draw_clip(plan, config)
    finally:
        cv2.setNumThreads(threads)
    _write_atomically(partial / plan.path, encode(clip.frames, plan.suffix, plan.fps))
    _write_atomically(_sidecar(partial, plan), json.dumps(_labels(plan, clip), separators=(",", ":")).encode())


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
    """Return a clip's boxes per frame, in the form of the Something-Else annotations (frames count from 1)."""
    frames = []
    for index in range(len(clip.frames)):
        labels = [
            {
                "box2d": dict(zip(("x1", "y1", "x2", "y2"), map(int, box), strict=True)),
                "category": category,
                "gt_annotation": role,
            }
            for box, category, role in (
                (clip.hand_boxes[index], "hand", "object hand"),
                (clip.object_boxes[index], plan.noun, "object 0"),
            )
            if box[0] >= 0
        ]
        frames.append({"name": f"{plan.clip_id}/{index + 1:04d}", "labels": labels})
    return frames


def _write_annotations(partial: Path, plans: Iterable[ClipPlan]) -> None:
    rows = [
        {
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
        for plan in plans
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _write_atomically(partial / "annotations.csv", text.getvalue().encode())


def _write_boxes(partial: Path, plans: Iterable[ClipPlan]) -> None:
    clips = (f'"{plan.clip_id}":{_sidecar(partial, plan).read_text(encoding="utf-8")}' for plan in plans)
    _write_atomically(partial / "boxes.json", ("{" + ",\n".join(clips) + "}\n").encode())


def _publish(root: Path, partial: Path, config: SyntheticConfig) -> None:
    """Move the finished parts to their places; the marker comes last."""
    for part in _PARTS:
        if (partial / part).exists():
            (partial / part).replace(root / part)
    described = {**_parameters(config), "verbs": list(VERBS), "nouns": list(NOUNS)}
    _write_atomically(root / MARKER, (json.dumps(described, indent=2) + "\n").encode())
    shutil.rmtree(partial)


def _write_atomically(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(path)
