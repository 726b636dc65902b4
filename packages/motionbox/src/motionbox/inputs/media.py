"""Which paths are videos, frames or frame archives, by name alone: nothing is opened and no decoder is imported."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from motionbox.inputs.data_root import DataRoot, names_in

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".flv", ".ogv"),
    *(".wmv", ".3gp"),
)
"""Suffixes, in lower case, of the files that a folder of videos is searched for."""

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
"""Suffixes, in lower case, of frame files."""

TAR_SUFFIXES = (".tar",)
"""Suffixes, in lower case, of archives of frames."""

_FLOW = re.compile(r"flow_[xy]_?[0-9]+\.", re.IGNORECASE)  # denseflow writes pictures of the flow beside the frames


def is_frame_name(name: str) -> bool:
    """Tell whether a file name, with or without folders, is that of a JPEG or PNG frame, and not of its flow."""
    pure = PurePosixPath(name)
    return pure.suffix.lower() in FRAME_SUFFIXES and not pure.name.startswith(".") and not _FLOW.match(pure.name)


def is_video_name(name: str) -> bool:
    """Tell whether a file name is that of a video file or a tar of frames."""
    pure = PurePosixPath(name)
    return pure.suffix.lower() in VIDEO_SUFFIXES + TAR_SUFFIXES and not pure.name.startswith(".")


def is_frame_folder(path: DataRoot) -> bool:
    """Tell whether a path is a folder that directly holds JPEG or PNG files and no video beside them."""
    if not path.is_dir():
        return False
    names = names_in(path)
    return any(map(is_frame_name, names)) and not any(map(is_video_name, names))


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts `frame_2` before `frame_10`."""
    return tuple(
        (0, int(part), part) if part.isascii() and part.isdigit() else (1, 0, part)
        for part in re.split(r"([0-9]+)", name)
    )


def frame_number(name: str) -> int | None:
    """Return the last whole number in a frame file's stem: 7 for `frame_0000000007.jpg`; None where there is none."""
    numbers = re.findall(r"[0-9]+", PurePosixPath(name).stem)
    return int(numbers[-1]) if numbers else None


class Names:
    """The names in a folder, found whatever the case of their extension."""

    def __init__(self, names: Iterable[str]) -> None:
        """Take the names."""
        self._names = {}
        for name in names:
            stem, dot, suffix = name.rpartition(".")
            self._names[f"{stem}.{suffix.lower()}" if dot else name] = name

    def __bool__(self) -> bool:
        return bool(self._names)

    def get(self, name: str) -> str | None:
        """Return a name, given with its extension in lower case, as it stands on disk; None where there is none."""
        return self._names.get(name)


def names_below(root: DataRoot, folder: str) -> Names:
    """Return the names in a folder below a root; none where it cannot be listed."""
    try:
        return Names(names_in(root / folder))
    except OSError:
        return Names(())
