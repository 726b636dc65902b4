"""Something-Something V2: the official JSON files and the folder of WebM videos.

A record's class is its template without square brackets, looked up in `labels.json`. Ids are strings.
"""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa

from motionbox.errors import InputError
from motionbox.inputs.schema import build_table
from motionbox.inputs.tables import find_file

SPLITS = ("train", "validation", "test")
ANNOTATION_FOLDERS = (".", "labels", "annotations")
"""Where below the data root the JSON files may lie."""

VIDEO_FOLDERS = ("20bn-something-something-v2", "videos", ".")
"""Where below the data root the videos may lie."""

FRAME_FOLDER = "frames"
"""Alternative to videos: one folder per id with 1-based JPEG frames at `FRAME_FPS`, as Something-Else has them."""

FRAME_FPS = 12.0
_PREFIX = "something-something-v2-"


def load_ssv2(root: Path) -> pa.Table:
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


def _load(root: Path) -> pa.Table:
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
    folder, suffix, frame_fps = _find_media(root)
    return build_table(
        {
            "clip_id": ids,
            "video_id": ids,
            "path": [f"{folder}{clip_id}{suffix}" for clip_id in ids],
            "split": columns["split"],
            "frame_fps": [frame_fps] * len(ids),
        },
        {
            "label_id": pa.array(columns["label_id"], pa.int64()),
            "template": pa.array(columns["template"], pa.string()),
            "caption": pa.array(columns["caption"], pa.string()),
        },
    )


def _find_json(root: Path, name: str) -> Path | None:
    return find_file(root, ANNOTATION_FOLDERS, f"{name}.json", f"{_PREFIX}{name}.json")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: must be a JSON file in UTF-8: {error}; get the file again") from None


def _read_labels(path: Path) -> dict[str, int]:
    content = _read_json(path)
    try:
        return {str(template): int(number) for template, number in content.items()}
    except (AttributeError, TypeError, ValueError):
        raise InputError(f'{path}: must be an object like {{"Closing something": "5", ...}}') from None


def _append_split(columns: dict[str, list[Any]], path: Path, split: str, class_ids: dict[str, int]) -> None:
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


def _find_media(root: Path) -> tuple[str, str, float | None]:
    """Return what stands before and after an id in its path, and the rate where that is a folder of frames."""
    for folder in VIDEO_FOLDERS:
        if _holds_webm(root / folder):
            return ("" if folder == "." else f"{folder}/"), ".webm", None
    if (root / FRAME_FOLDER).is_dir():
        return f"{FRAME_FOLDER}/", "", FRAME_FPS
    return f"{VIDEO_FOLDERS[0]}/", ".webm", None


def _holds_webm(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.endswith(".webm") for entry in entries)
    except OSError:
        return False
