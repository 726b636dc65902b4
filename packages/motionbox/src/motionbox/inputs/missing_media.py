"""Which of a manifest's videos are not on the disk."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from motionbox.inputs.data_root import DataRoot, names_in, place_below
from motionbox.inputs.schema import REFUSED

_NUM_NAMED = 5


@dataclass(frozen=True)
class MissingMedia:
    """Media that a manifest names and the disk lacks.

    Attributes:
        num_videos: Videos in the manifest.
        paths: Those missing, relative to the data root, sorted.
        num_clips: Clips that lie in them.
    """

    num_videos: int
    paths: list[str]
    num_clips: int


def find_missing_media(table: pa.Table, data_root: DataRoot) -> MissingMedia:
    """Compare the manifest's paths with the disk, listing each folder once."""
    readable = table if REFUSED not in table.column_names else table.filter(pc.is_null(table[REFUSED]))
    paths = pc.unique(readable["path"]).to_pylist()
    names: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        parent, _, name = path.rpartition("/")
        if parent not in names:
            names[parent] = _list_names(place_below(data_root, parent or "."))
        if name not in names[parent] and not place_below(data_root, path).exists():
            missing.append(path)
    num_clips = pc.sum(pc.is_in(table["path"], pa.array(missing, pa.string()))).as_py() if missing else 0
    return MissingMedia(num_videos=len(paths), paths=sorted(missing), num_clips=num_clips)


def _list_names(folder: DataRoot) -> set[str]:
    try:
        return set(names_in(folder))
    except OSError:
        return set()


def describe_missing(missing: MissingMedia, remedy: str) -> str:
    """Say in one line how many videos are missing, which first, and the remedy."""
    first = ", ".join(missing.paths[:_NUM_NAMED]) + (", ..." if len(missing.paths) > _NUM_NAMED else "")
    count = f"{len(missing.paths)} of {missing.num_videos} videos ({missing.num_clips} clips)"
    return f"{count} are missing: {first}; {remedy}"
