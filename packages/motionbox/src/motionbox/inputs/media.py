"""Which paths are videos, frames or frame archives, by name alone: nothing is opened and no decoder is imported."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

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


def is_frame_folder(path: Path) -> bool:
    """Tell whether a path is a folder that directly holds JPEG or PNG files and no video beside them."""
    if not path.is_dir():
        return False
    names = [entry.name for entry in os.scandir(path)]
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
