"""The whole pipeline on generated videos: draw, extract, score, show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from motionbox.evaluate import AnnotatedClip, Interval, bootstrap, read_boxes, score_clip, trivial_boxes
from motionbox.footage import View, load_clip
from motionbox.record import write_file
from motionbox.show import contact_sheet, play, still
from motionbox.store import Store

_REFERENCES = ("full frame", "centre half")


@dataclass(frozen=True)
class Score:
    """How well one kind of box finds hand and object.

    Attributes:
        name: A preset, or a box that looks at nothing.
        frame_iou: Mean IoU per frame, mean over clips with its 95 % interval.
        clip_iou: The same for the union over each clip.
    """

    name: str
    frame_iou: Interval
    clip_iou: Interval


def score_store(name: str, store: Store, truths: dict[str, AnnotatedClip]) -> list[Score]:
    """Score the boxes of a store of generated clips, and boxes that look at nothing beside them.

    Args:
        name: What to call the store's boxes.
        store: Frame n of an annotation is the clip's frame at position n - 1.
        truths: Annotated boxes by clip id, as `evaluate.read_boxes` returns them.

    Returns:
        The references' scores first, then the store's.
    """
    values: dict[str, list[tuple[float, float]]] = {each: [] for each in (*_REFERENCES, name)}
    for row in store.clips().select(["clip_id", "width", "height", "num_frames"]).to_pylist():
        truth = _truth_boxes(truths[row["clip_id"]], row["num_frames"])
        boxes = {each: trivial_boxes(truth, row["width"], row["height"])[each] for each in _REFERENCES}
        boxes[name] = store.frame_boxes(row["clip_id"]).astype(np.float64)
        for each, predicted in boxes.items():
            score = score_clip(predicted, truth, row["width"], row["height"])
            values[each].append((score.frame_iou, score.clip_iou))
    return [
        Score(each, bootstrap([frame for frame, _ in pairs]), bootstrap([clip for _, clip in pairs]))
        for each, pairs in values.items()
    ]


def _truth_boxes(truth: AnnotatedClip, num_frames: int) -> NDArray[np.float64]:
    boxes = np.full((num_frames, 4), -1.0)
    here = (truth.numbers >= 1) & (truth.numbers <= num_frames)
    boxes[truth.numbers[here] - 1] = truth.boxes[here]
    return boxes


def draw_pictures(store: Store, data_root: Path, out: Path, *, num_clips: int = 5) -> list[Path]:
    """Write an overlay video, a still of it and a contact sheet of clips with different verbs.

    Args:
        store: Boxes of the generated data set.
        data_root: The generated data set.
        out: Folder of the files.
        num_clips: Clips shown.

    Returns:
        The files written.
    """
    truths = read_boxes(data_root / "boxes.json")
    by_verb: dict[str, str] = {}
    for clip in store.clips().select(["clip_id", "verb", "status"]).to_pylist():
        if clip["status"] == "ok":
            by_verb.setdefault(clip["verb"], clip["clip_id"])
    views = [View([load_clip(store, clip)], truths[clip]) for clip in list(by_verb.values())[:num_clips]]
    files = [out / "overlay.mp4", out / "still.png", out / "contact_sheet.png"]
    fps = max(view.fps for view in views)
    write_file(files[0], play(views, fps), fps)
    write_file(files[1], iter([still(views[0])]), 1)
    write_file(files[2], iter([contact_sheet(views)]), 1)
    return files
