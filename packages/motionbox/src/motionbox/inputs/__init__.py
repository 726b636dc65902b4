"""Which clips there are: annotation files, lists and folders -> one validated manifest.

In the order of the data: `data_root` (a folder, or a prefix of a bucket), `media` (what is a video, a frame folder, a
tar), `tables` (reading annotation files), `epic100`, `ssv2`, `folder` (one reader for each kind of data set), `lists`
(other tools' clip lists), `data_check` (what should be on disk), `manifest` (the table that everything after this room
reads).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from motionbox.inputs.data_root import DataRoot


def _load_epic100(data_root: DataRoot) -> pa.Table:
    from motionbox.inputs.epic100 import load_epic100

    return load_epic100(data_root)


def _load_ssv2(data_root: DataRoot) -> pa.Table:
    from motionbox.inputs.ssv2 import load_ssv2

    return load_ssv2(data_root)


def _load_synthetic(data_root: DataRoot) -> pa.Table:
    from motionbox.inputs.folder.load import load_synthetic

    return load_synthetic(data_root)


def _load_metaworld(data_root: DataRoot) -> pa.Table:
    from motionbox.inputs.folder.load import load_synthetic

    return load_synthetic(data_root, made_by="motionbox synth --metaworld")


def _load_folder(data_root: DataRoot) -> pa.Table:
    from motionbox.inputs.folder.load import load_folder

    return load_folder(data_root)


DATASETS: dict[str, Callable[[DataRoot], pa.Table]] = {
    "epic100": _load_epic100,
    "ssv2": _load_ssv2,
    "synthetic": _load_synthetic,
    "metaworld": _load_metaworld,
    "folder": _load_folder,
}
"""Name -> what reads the annotation files below a data root into a manifest; its module is imported on first use."""
