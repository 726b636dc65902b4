"""Annotated boxes in other projects' forms: per clip (Something-Else, MOFO's authors) and per video (EPIC-KITCHENS).

Two forms annotate whole EPIC-KITCHENS videos by frame number; every clip of the video is then scored on the annotated
frames that lie within it:

- **VISOR** (Darkhalil et al., NeurIPS 2022): one JSON per video with sparse polygons in 1920x1080 pixels, or, where the
  file's name ends in `_interpolations.json`, dense ones in 854x480.
- **Hand-object detections** (Shan et al., CVPR 2020, as released with EPIC-KITCHENS-100). The release pickles protobuf
  messages, and pickles can run code: they are refused, and their JSON twin is asked for (see `DETECTIONS_REMEDY`).

Frame number n of a video is at n / 60 seconds, n / 50 for `PXX_1YY`, as in `datasets.epic100`. VISOR's own numbers may
differ, because its frames were extracted anew; its `frame_mapping.json` gives EPIC's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from motionbox.errors import InputError
from motionbox.motion import boxes as bx
from motionbox.scoring.box_metrics import AnnotatedClip, load_json, parse_clips
from motionbox.scoring.masks import MaskedClip, holds_masks, read_mask_folder

VISOR_WH = (1920, 1080)
VISOR_DENSE_WH = (854, 480)
MIN_SCORE = 0.5
"""Detections below this score are left out; the value that the detections' authors recommend for both kinds."""

DETECTIONS_REMEDY = (
    "write it as JSON with the official library where you trust the file: json.dump([dataclasses.asdict(d) for d in "
    "epic_kitchens.hoa.load_detections(FILE)], out, default=lambda member: member.value)"
)

_Row = TypeVar("_Row")
_NumberedBox = tuple[str, int, npt.NDArray[Any]]  # video, frame number, xyxy shares

_HANDS = ("left hand", "right hand")
_GLOVES = ("oven glove", "gloves", "rubber glove", "left glove", "right glove", "glove")
_NO_OBJECT = ("hand-not-in-contact", "glove-not-in-contact", "none-of-the-above", "inconclusive", None, "")
_SIDES = ("top_left_x", "top", "right", "bottom")


@dataclass(frozen=True)
class AnnotatedVideo:
    """The true boxes of frames of one long video.

    Attributes:
        video_id: EPIC's name of the video, e.g. `P01_01`.
        numbers: int64 (T,), frame numbers, rising, 1-based.
        boxes: float64 (T, 4), xyxy as shares of the frame's width and height, 0 to 1: the union over hands and objects;
            -1 rows where there is none.
        renumbered: Whether the numbers are known to be EPIC's; False for VISOR without its frame mapping.
    """

    video_id: str
    numbers: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    renumbered: bool = True

    def boxes_px(self, width: int, height: int) -> npt.NDArray[np.float64]:
        """Return the boxes in the pixels of a frame of this size, float64 (T, 4), -1 rows kept."""
        scaled = self.boxes * np.array([width, height, width, height], np.float64)
        return np.where(bx.has_box(self.boxes)[:, None], scaled, -1.0)


def read_annotations(
    path: Path, *, frame_mapping: Path | None = None
) -> list[AnnotatedClip | AnnotatedVideo | MaskedClip]:
    """Read annotated boxes or masks of any form that is known; the content tells which.

    Args:
        path: A JSON file; a folder: all `*.json` in it; or a folder of masks, `<clip>/<frame number>.png`.
        frame_mapping: VISOR's `frame_mapping.json`; None takes VISOR's frame numbers for EPIC's.

    Raises:
        InputError: A file is missing, a pickle, or of no known form; says where.
    """
    if holds_masks(path):
        return [*read_mask_folder(path)]
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"folder {path} must hold JSON files with boxes or masks as PNG, got none")
    mapping = None if frame_mapping is None else _read_mapping(frame_mapping)
    return [entry for file in files for entry in _read_file(file, mapping)]


def _read_file(path: Path, mapping: Mapping[str, Any] | None) -> list[AnnotatedClip | AnnotatedVideo]:
    _refuse_pickle(path)
    content = load_json(path)
    if isinstance(content, Mapping) and "video_annotations" in content:
        return [*_parse_visor(content["video_annotations"], path, mapping)]
    if isinstance(content, list):
        return [*_parse_detections(content, path)]
    return [*parse_clips(content, path).values()]


def _refuse_pickle(path: Path) -> None:
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except OSError:
        return  # reading it as JSON says what is wrong
    if first == b"\x80" or path.suffix.lower() in (".pkl", ".pickle"):
        raise InputError(f"boxes file {path} is a pickle, which is never opened because it can run code; "
                         f"{DETECTIONS_REMEDY}")  # fmt: skip


def _read_mapping(path: Path) -> Mapping[str, Any]:
    mapping = load_json(path)
    if not isinstance(mapping, Mapping) or not all(isinstance(names, Mapping) for names in mapping.values()):
        raise InputError(f"frame mapping {path} must be an object of video -> VISOR frame -> EPIC frame")
    return mapping


def _each(frames: Any, path: Path, rule: str, read: Callable[[Any], _Row]) -> list[_Row]:
    """Read every frame of a list; an error says which one breaks the rule."""
    if not isinstance(frames, list):
        raise InputError(f"boxes file {path} must hold a list of frames, got {type(frames).__name__}")
    rows = []
    for position, frame in enumerate(frames, start=1):
        try:
            rows.append(read(frame))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise InputError(f"boxes file {path}: frame {position} must hold {rule}: {error!r}") from None
    return rows


def _parse_visor(frames: Any, path: Path, mapping: Mapping[str, Any] | None) -> list[AnnotatedVideo]:
    size = VISOR_DENSE_WH if path.stem.endswith("_interpolations") else VISOR_WH
    rule = "image.name, image.video and annotations with name and polygons (VISOR)"
    entities = _each(frames, path, rule, lambda frame: [dict(entity) for entity in frame["annotations"]])
    linked = any("in_contact_object" in entity for frame in entities for entity in frame)

    def read(frame: Mapping[str, Any]) -> _NumberedBox:
        video = str(frame["image"]["video"])
        number = _visor_number(frame["image"]["name"], video, mapping)
        return video, number, _visor_box(frame["annotations"], size, linked=linked)

    return _by_video(_each(frames, path, rule, read), renumbered=mapping is not None)


def _visor_number(name: str, video: str, mapping: Mapping[str, Any] | None) -> int:
    """Return the frame number in `P01_01_frame_0000000140.jpg`, or in the EPIC frame that it is mapped to."""
    if mapping is not None:
        jpg = name.removesuffix(".png").removesuffix(".jpg") + ".jpg"
        if video not in mapping or jpg not in mapping[video]:
            raise ValueError(f"the frame mapping lacks {jpg} of {video}; give the mapping of this release, or none")
        name = mapping[video][jpg]
    match = re.fullmatch(r"(?:.*_)?frame_([0-9]{1,12})\.(?:jpg|png)", name)
    if match is None:
        raise ValueError(f"name must be like {video}_frame_0000000140.jpg, got {name!r}")
    return int(match[1])


def _visor_box(entities: Sequence[Mapping[str, Any]], size_wh: tuple[int, int], *, linked: bool) -> npt.NDArray[Any]:
    """Return the union of what counts as hand or object in a frame, xyxy shares; -1 where nothing does."""
    counted = _hands_and_objects(entities) if linked else entities
    boxes = [_polygon_box(polygon) for entity in counted for polygon in entity["segments"] if polygon]
    whole = np.array([*size_wh, *size_wh], np.float64)
    union = bx.union_box(np.array(boxes, np.float64).reshape(-1, 4))
    return np.clip(union / whole, 0.0, 1.0) if bx.has_box(union) else union


def _hands_and_objects(entities: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return hands, gloves worn on a hand, and what these touch; a glove in contact counts with what it touches."""
    by_id = {entity.get("id"): entity for entity in entities}
    open_ends = [e for e in entities if e["name"] in _HANDS or (e["name"] in _GLOVES and e.get("on_which_hand"))]
    counted: dict[int, Mapping[str, Any]] = {}
    while open_ends:
        entity = open_ends.pop()
        if id(entity) in counted:
            continue
        counted[id(entity)] = entity
        touched = entity.get("in_contact_object")
        if touched in _NO_OBJECT:
            continue
        if touched not in by_id:
            raise ValueError(
                f"in_contact_object of {entity['name']!r} must be the id of an annotation, got {touched!r}"
            )
        open_ends.append(by_id[touched])
    return list(counted.values())


def _polygon_box(polygon: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    points = np.array(polygon, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError(f"a polygon must be a list of finite [x, y], got {json.dumps(polygon)[:60]}")
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _parse_detections(frames: Any, path: Path) -> list[AnnotatedVideo]:
    """Read the official library's `FrameDetections` as dataclasses.asdict writes them; coordinates are shares."""
    rule = "video_id, frame_number, hands and objects with score and bbox (EPIC hand-object detections)"

    def read(frame: Mapping[str, Any]) -> _NumberedBox:
        number = frame["frame_number"]
        if not isinstance(number, int) or number < 0:
            raise ValueError(f"frame_number must be a whole number, got {number!r}")
        detections = [*frame["hands"], *frame["objects"]]
        boxes = [_detected_box(each["bbox"]) for each in detections if float(each["score"]) >= MIN_SCORE]
        return str(frame["video_id"]), number, bx.union_box(np.array(boxes, np.float64).reshape(-1, 4))

    return _by_video(_each(frames, path, rule, read))


def _detected_box(sides: Mapping[str, Any]) -> list[float]:
    box = [float(sides[side]) for side in _SIDES]
    if not (0 <= box[0] <= box[2] <= 1 and 0 <= box[1] <= box[3] <= 1):
        raise ValueError(f"bbox must be shares of the frame, 0 <= left <= right <= 1, got {box}")
    return box


def _by_video(rows: Sequence[_NumberedBox], *, renumbered: bool = True) -> list[AnnotatedVideo]:
    videos: dict[str, list[_NumberedBox]] = {}
    for row in sorted(rows, key=lambda row: row[1]):
        videos.setdefault(row[0], []).append(row)
    return [
        AnnotatedVideo(
            video,
            np.array([number for _, number, _ in entries], np.int64),
            np.array([box for _, _, box in entries], np.float64).reshape(-1, 4),
            renumbered,
        )
        for video, entries in videos.items()
    ]
