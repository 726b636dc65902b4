"""Something-Something V2: the official JSON files and the folder of WebM videos.

A record's class is its template without square brackets, looked up in `labels.json`. Ids are strings.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from motionbox.errors import InputError
from motionbox.inputs.data_root import DataRoot
from motionbox.inputs.media import TAR_SUFFIXES, VIDEO_SUFFIXES, Names, names_below
from motionbox.inputs.schema import build_table
from motionbox.inputs.tables import find_file

SPLITS = ("train", "validation", "test")
ANNOTATION_FOLDERS = (".", "labels", "annotations")
"""Where below the data root the JSON files may lie."""

VIDEO_FOLDERS = ("20bn-something-something-v2", "videos", ".")
"""Where below the data root the videos may lie, as `<id>.webm` or in any other container."""

FRAME_FOLDERS = ("frames", "rawframes", "20bn-something-something-v2-frames", *VIDEO_FOLDERS)
"""Where, else, one folder or tar per id may lie, of 1-based JPEG frames at `FRAME_FPS`."""

FRAME_FPS = 12.0
_PREFIX = "something-something-v2-"


def load_ssv2(root: DataRoot) -> pa.Table:
    """Read every split whose JSON file is there into one manifest.

    Label columns: `label_id` (0 to 173), `template` (the class name, without brackets) and `caption`; null for the
    test split, which has no labels.

    Raises:
        InputError: No JSON file, no `labels.json`, a record without id or template, or an unknown class.
    """
    collecting = gc.isenabled()
    gc.disable()  # a million small objects, none of them garbage: the collector's passes would take most of the time
    try:
        return _load(root)
    finally:
        if collecting:
            gc.enable()


def _load(root: DataRoot) -> pa.Table:
    found = {split: _find_json(root, split) for split in SPLITS}
    if not any(found.values()):
        raise InputError(
            f"{root} has none of train.json, validation.json, test.json (bare or with {_PREFIX!r} before; also "
            f"looked in {' and '.join(ANNOTATION_FOLDERS[1:])}); data_manifests/ssv2.toml says where to get them"
        )
    labels_path = _find_json(root, "labels")
    if labels_path is None and (found["train"] or found["validation"]):
        raise InputError(f"{root} has no labels.json (nor {_PREFIX}labels.json), which numbers the classes")
    class_ids = {} if labels_path is None else _read_labels(labels_path)
    columns: dict[str, list[Any]] = {name: [] for name in ("clip_id", "split", "label_id", "template", "caption")}
    for split, path in found.items():
        if path is not None:
            _append_split(columns, path, split, class_ids)
    ids = columns["clip_id"]
    paths, rates = _find_media(root, ids)
    return build_table(
        {
            "clip_id": ids,
            "video_id": ids,
            "path": paths,
            "split": columns["split"],
            "frame_fps": rates,
        },
        {
            "label_id": pa.array(columns["label_id"], pa.int64()),
            "template": pa.array(columns["template"], pa.string()),
            "caption": pa.array(columns["caption"], pa.string()),
        },
    )


def _find_json(root: DataRoot, name: str) -> DataRoot | None:
    return find_file(root, ANNOTATION_FOLDERS, f"{name}.json", f"{_PREFIX}{name}.json")


def _read_json(path: DataRoot) -> Any:
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: must be a JSON file in UTF-8: {error}; get the file again") from None


def _read_labels(path: DataRoot) -> dict[str, int]:
    content = _read_json(path)
    try:
        return {str(template): int(number) for template, number in content.items()}
    except (AttributeError, TypeError, ValueError):
        raise InputError(f'{path}: must be an object like {{"Closing something": "5", ...}}') from None


def _append_split(columns: dict[str, list[Any]], path: DataRoot, split: str, class_ids: dict[str, int]) -> None:
    records = _read_json(path)
    if not isinstance(records, list):
        raise InputError(f"{path}: must be a list of records, got {type(records).__name__}")
    for row, record in enumerate(records):
        try:
            clip_id = record["id"]
            template = None if split == "test" else record["template"].replace("[", "").replace("]", "")
        except (TypeError, KeyError, AttributeError):
            needed = "'id'" if split == "test" else "'id' and 'template'"
            raise InputError(f"{path}: record {row} must have {needed}, got {str(record)[:80]!r}") from None
        if not isinstance(clip_id, str | int):
            raise InputError(f"{path}: id must be a string, got {clip_id!r} in record {row}")
        if template is not None and template not in class_ids:
            raise InputError(f"{path}: template must be one of labels.json, got {template!r} in record {clip_id!r}")
        columns["clip_id"].append(str(clip_id))
        columns["label_id"].append(None if template is None else class_ids[template])
        columns["template"].append(template)
        columns["caption"].append(None if template is None else record.get("label"))
    columns["split"].extend([split] * len(records))


def _find_media(root: DataRoot, ids: Sequence[str]) -> tuple[list[str], list[float | None]]:
    """Return each id's path, and the rate where that is a folder or tar of frames.

    A video is looked for before frames; where neither is there, the path is what the official archive would give.
    """
    videos = [(folder, names_below(root, folder)) for folder in VIDEO_FOLDERS]
    frames = [(folder, names_below(root, folder)) for folder in FRAME_FOLDERS]
    home = next((folder for folder, names in videos[:-1] if names), VIDEO_FOLDERS[0])
    paths: list[str] = []
    rates: list[float | None] = []
    for clip_id in ids:
        found = _first(videos, clip_id, VIDEO_SUFFIXES)
        rate = None
        if found is None:
            found = _first(frames, clip_id, ("", *TAR_SUFFIXES))
            rate = None if found is None else FRAME_FPS
        paths.append(found or f"{home}/{clip_id}.webm")
        rates.append(rate)
    return paths, rates


def _first(places: Sequence[tuple[str, Names]], clip_id: str, suffixes: Sequence[str]) -> str | None:
    for folder, names in places:
        for suffix in suffixes:
            name = names.get(clip_id + suffix)
            if name is not None:
                return name if folder == "." else f"{folder}/{name}"
    return None
