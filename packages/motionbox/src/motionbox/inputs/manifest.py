"""A data set's annotation files -> the list of clips to extract; `schema` says what such a list must be.

Nothing here imports a decoder, OpenCV or Ray: trainers read manifests too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from motionbox.errors import InputError
from motionbox.inputs import DATASETS
from motionbox.inputs.data_check import load_data_manifest
from motionbox.inputs.data_root import DataRoot, ListedPath, open_root
from motionbox.inputs.folder.scan import scan_media
from motionbox.inputs.frame_rates import settle_frame_rates
from motionbox.inputs.missing_media import describe_missing, find_missing_media
from motionbox.inputs.schema import NUM_CLASSES, SCHEMA, select_split, validate_manifest


def load_manifest(
    dataset: str,
    data_root: str | Path | ListedPath,
    split: str | None = None,
    require_media: bool = True,
    *,
    frame_fps: float | None = None,
) -> pa.Table:
    """Read a data set's annotations into a validated manifest, see `motionbox.inputs.schema` for its columns.

    Args:
        dataset: One of `motionbox.inputs.DATASETS`.
        data_root: Folder of the data set, or its URL in a bucket; for `folder` also one video file or one folder of
            frames.
        split: Keep only the clips of this split.
        require_media: Refuse a manifest whose videos are not all on disk.
        frame_fps: Rate of the folders and tars of frames whose rate the data set does not tell; None: 30, and the
            column `frame_fps_assumed` says so.

    Raises:
        InputError: Unknown data set, missing files, or an annotation that breaks a rule; says which and the remedy.
    """
    loader = _loader(dataset)
    root = open_root(data_root)
    if not _is_there(root):
        raise InputError(f"data root {root} does not exist; name it with --data-root{_how_to_get(dataset)}")
    table = _with_vocabulary(dataset, loader(root))
    if split is not None:
        table = select_split(table, split)
    table = settle_frame_rates(_without_rates(dataset, table, frame_fps), root, frame_fps)
    validate_manifest(table)
    if require_media:
        missing = find_missing_media(table, root)
        if missing.paths:
            raise InputError(
                describe_missing(missing, f"they belong below {root}; --allow-missing goes on without them")
            )
    return table


def compare_with_media(table: pa.Table, data_root: str | Path, consequence: str) -> tuple[str, list[str]]:
    """Compare a folder's list with the media below it.

    Args:
        table: The manifest of data set `folder`.
        data_root: The folder, or its URL in a bucket.
        consequence: What comes of media that are missing, for the sentence.

    Returns:
        What is listed and missing, in one sentence, empty where nothing is; and the media that no row names, sorted.

    Raises:
        InputError: The folder cannot be read.
    """
    root = open_root(data_root)
    missing = find_missing_media(table, root)
    unnamed = sorted(set(scan_media(root)[0]) - set(table["path"].to_pylist()))
    return describe_missing(missing, consequence) if missing.paths else "", unnamed


def _with_vocabulary(dataset: str, table: pa.Table) -> pa.Table:
    """Note the data set's number of classes with its label columns: a part of the set does not show them all."""
    manifest = load_data_manifest(dataset)
    for name, count in (manifest.vocabulary if manifest is not None else {}).items():
        if name in table.column_names:
            place = table.column_names.index(name)
            field = table.schema.field(name).with_metadata({NUM_CLASSES: str(count)})
            table = table.set_column(place, field, table[name])
    return table


def _without_rates(dataset: str, table: pa.Table, frame_fps: float | None) -> pa.Table:
    """Make room for another rate where the data set's own is a habit (ssv2: 12), not a way of counting (epic100)."""
    if frame_fps is None or dataset not in ("epic100", "ssv2"):
        return table
    if dataset == "epic100":
        raise InputError(f"frame_fps must be left out for epic100, whose numbers count at 60 or 50, got {frame_fps:g}")
    place = table.column_names.index("frame_fps")
    return table.set_column(place, SCHEMA.field("frame_fps"), pa.nulls(table.num_rows, pa.float64()))


def _is_there(root: DataRoot) -> bool:
    if isinstance(root, ListedPath):
        return root.exists()
    return os.path.exists(root)  # noqa: PTH110  (False, not an error, where it may not be looked at)


def _how_to_get(dataset: str) -> str:
    manifest = load_data_manifest(dataset)
    if manifest is None:
        return ""
    return f", or get {manifest.name}: annotations from {manifest.annotations_from}, videos from {manifest.media_from}"


def _loader(dataset: str) -> Callable[[DataRoot], pa.Table]:
    if dataset not in DATASETS:
        raise InputError(f"dataset must be one of {', '.join(DATASETS)}, got {dataset!r}")
    return DATASETS[dataset]
