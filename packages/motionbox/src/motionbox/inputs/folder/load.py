"""Any folder of videos, or of folders or tars of frames; and the generated data set, which is one with a list."""

from __future__ import annotations

from pathlib import PurePosixPath

import pyarrow as pa

from motionbox.errors import InputError
from motionbox.inputs.data_root import DataRoot
from motionbox.inputs.folder.annotations import read_annotations
from motionbox.inputs.folder.clip_ids import video_ids
from motionbox.inputs.folder.scan import scan_media, written
from motionbox.inputs.media import is_frame_folder
from motionbox.inputs.schema import REFUSED, build_table

ANNOTATIONS_NAME = "annotations.csv"
"""Optional list beside the media: which clips, their spans, splits and labels."""


def load_folder(root: DataRoot) -> pa.Table:
    """Read a folder, one video file or one folder of frames into a manifest.

    Clip ids are the paths below the root, without extension for files; where that makes two the same, the files among
    them keep theirs. A folder that directly holds JPEG or PNG files, and no videos, is one clip. With an
    `annotations.csv` in the root, its rows are the clips, see `annotations.read_annotations`. What cannot be read,
    or has a name that cannot be written down, is a row that says so in the column `refused`.

    Raises:
        InputError: Nothing to read, or a broken `annotations.csv`.
    """
    try:
        if (root / ANNOTATIONS_NAME).is_file():
            return read_annotations(root / ANNOTATIONS_NAME)
        whole = root.is_file() or is_frame_folder(root)
    except OSError as error:
        raise InputError(f"data root {root} cannot be read: {error.strerror or error}") from None
    if whole:
        name = written(root.resolve().name)
        return _whole_videos([PurePosixPath(name).stem if root.is_file() else name], ["."], {})
    paths, refused = scan_media(root)
    if not paths:
        raise InputError(
            f"data root {root} holds no video (.mp4, .webm, .mkv, ...), frame folder or frame tar; check --data-root"
        )
    ids = video_ids([*paths, *refused])
    return _whole_videos(list(ids.values()), list(ids), refused)


def load_synthetic(root: DataRoot, made_by: str = "motionbox synth") -> pa.Table:
    """Read a generated data set into a manifest.

    Args:
        root: Its folder.
        made_by: The command that makes such a set, for who lacks it.

    Raises:
        InputError: It is not there, or its `annotations.csv` is broken.
    """
    if not (root / ANNOTATIONS_NAME).is_file():
        raise InputError(f"data root {root} has no {ANNOTATIONS_NAME}; generate the set with: {made_by} -o {root}")
    # its columns of sizes and rates are what results have, too: no news for anyone
    return read_annotations(root / ANNOTATIONS_NAME).replace_schema_metadata(None)


def _whole_videos(names: list[str], paths: list[str], refused: dict[str, str]) -> pa.Table:
    reasons = {REFUSED: pa.array([refused.get(path) for path in paths], pa.string())} if refused else {}
    return build_table({"clip_id": names, "video_id": names, "path": paths}, reasons)
