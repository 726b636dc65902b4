"""A store's boxes in other tools' forms: the MOFO authors' JSON, CSV, COCO JSON.

`mofo-json` is `{"<stem>": [{"labels": [{"box2d": {"x1", "y1", "x2", "y2"}, "gt_annotation": "union"}]}, ...]}`, one
entry per frame, integers; the stem is the clip id's last part. The authors' `x2` and `y2` are the last pixel within the
box: one less than the half-open ones here.

`csv` has one row per frame: clip_id, frame_index, time_seconds, x1, y1, x2, y2 (half-open pixels), source.

`coco` has one video per clip, one image per frame and one annotation per box (`bbox`: x, y, width, height; the one
category is `motion`); frame and video ids count from 1.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, get_args

from motionbox.errors import InputError
from motionbox.output import whole_file
from motionbox.store import Store

ExportFormat = Literal["mofo-json", "csv", "coco"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)


def export_store(store: Store, path: Path, file_format: ExportFormat, *, split: str | None = None) -> int:
    """Write the stabilised boxes of every clip that has some; the file appears whole or not at all.

    Args:
        store: A store.
        path: File to write, replaced where it exists.
        file_format: One of `FORMATS`.
        split: Only clips of this split.

    Returns:
        Number of clips written; failed clips have no boxes and are left out.

    Raises:
        InputError: Unknown format or split, two clips with one stem (`mofo-json`), or the file cannot be written.
        StoreError: The store is broken.
    """
    if file_format not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}, got {file_format!r}")
    clips = _rows(store, split)
    writer = {"mofo-json": _write_mofo, "csv": _write_csv, "coco": _write_coco}[file_format]
    with whole_file(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        return writer(store, clips, file)


def mofo_stem(clip_id: str) -> str:
    """Return the name that the authors' JSON has for a clip: the file name without folders and extension."""
    name = PurePosixPath(clip_id).name
    return name.rsplit(".", 1)[0] if "." in name.strip(".") else name


def _rows(store: Store, split: str | None) -> list[dict[str, Any]]:
    table = store.clips()
    if split is not None:
        known = sorted({value for value in table["split"].to_pylist() if value is not None})
        if split not in known:
            raise InputError(f"split must be one of {', '.join(known) or 'none'}, got {split!r}")
    names = ["clip_id", "status", "width", "height", "split", "num_frames"]
    rows = table.select(names).to_pylist()
    return [row for row in rows if row["num_frames"] and (split is None or row["split"] == split)]


def _write_mofo(store: Store, clips: list[dict[str, Any]], file: IO[str]) -> int:
    counts = Counter(mofo_stem(row["clip_id"]) for row in clips)
    doubled = [stem for stem, count in counts.items() if count > 1]
    if doubled:
        raise InputError(f"clips must have names of their own for mofo-json, got {doubled[0]!r} twice; use csv or coco")
    entries = (
        f"{json.dumps(mofo_stem(row['clip_id']))}: {json.dumps(_mofo_frames(store, row['clip_id']))}" for row in clips
    )
    _write_joined(file, "{", entries, "}\n")
    return len(clips)


def _mofo_frames(store: Store, clip_id: str) -> list[dict[str, Any]]:
    return [
        {"labels": [{"box2d": {"x1": x1, "y1": y1, "x2": x2 - 1, "y2": y2 - 1}, "gt_annotation": "union"}]}
        for x1, y1, x2, y2 in store.frame_boxes(clip_id).tolist()
    ]


def _write_csv(store: Store, clips: list[dict[str, Any]], file: IO[str]) -> int:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["clip_id", "frame_index", "time_seconds", "x1", "y1", "x2", "y2", "source"])
    for row in clips:
        clip_id = row["clip_id"]
        boxes, times = store.frame_boxes(clip_id).tolist(), store.frame_times(clip_id).tolist()
        sources = store.frame_sources(clip_id).tolist()
        for index, (time_seconds, box, source) in enumerate(zip(times, boxes, sources, strict=True)):
            writer.writerow([clip_id, index, repr(time_seconds), *box, source])
    return len(clips)


def _write_coco(store: Store, clips: list[dict[str, Any]], file: IO[str]) -> int:
    """Write piece by piece: a data set's frames do not fit into memory as Python objects."""
    videos = (
        json.dumps({"id": number, "name": row["clip_id"], "width": row["width"], "height": row["height"]})
        for number, row in enumerate(clips, start=1)
    )
    _write_joined(file, '{"categories": [{"id": 1, "name": "motion"}],\n"videos": [', videos, "],\n")
    _write_joined(file, '"images": [', _coco_images(store, clips), "],\n")
    _write_joined(file, '"annotations": [', _coco_annotations(store, clips), "]}\n")
    return len(clips)


def _coco_images(store: Store, clips: list[dict[str, Any]]) -> Iterator[str]:
    image_id = 0
    for number, row in enumerate(clips, start=1):
        size = {"width": row["width"], "height": row["height"]}
        for index, time_seconds in enumerate(store.frame_times(row["clip_id"]).tolist()):
            image_id += 1
            name = f"{row['clip_id']}/{index + 1:06d}.jpg"
            frame = {"id": image_id, "video_id": number, "frame_id": index, "time_seconds": time_seconds}
            yield json.dumps({**frame, "file_name": name, **size})


def _coco_annotations(store: Store, clips: list[dict[str, Any]]) -> Iterator[str]:
    image_id = 0
    for row in clips:
        for x1, y1, x2, y2 in store.frame_boxes(row["clip_id"]).tolist():
            image_id += 1
            width, height = x2 - x1, y2 - y1
            box = {"bbox": [x1, y1, width, height], "area": width * height, "iscrowd": 0}
            yield json.dumps({"id": image_id, "image_id": image_id, "category_id": 1, **box})


def _write_joined(file: IO[str], opening: str, entries: Iterator[str], closing: str) -> None:
    file.write(opening)
    for number, entry in enumerate(entries):
        file.write(("" if number == 0 else ",") + "\n" + entry)
    file.write("\n" + closing)
