"""What a folder holds: videos, frame folders and tars below it, and what of them cannot be read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from motionbox.errors import InputError
from motionbox.inputs.data_root import DataRoot, ListedPath
from motionbox.inputs.folder.clip_ids import unused
from motionbox.inputs.media import is_frame_name, is_video_name, natural_key

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def find_media(root: DataRoot) -> list[str]:
    """List videos, frame tars and frame folders below a root: relative POSIX paths in natural order.

    Hidden files and folders are passed over; links to folders are followed, each folder once. What cannot be read, or
    has a name that is not UTF-8 or holds control characters, is left out.

    Raises:
        InputError: The root itself cannot be read.
    """
    return scan_media(root)[0]


def scan_media(root: DataRoot) -> tuple[list[str], dict[str, str]]:
    """List the media below a root as `find_media` does, and why others are refused, by a path that can be written.

    Raises:
        InputError: The root itself cannot be read.
    """
    faults: list[tuple[str, str]] = []
    folders = _walk(root, faults) if isinstance(root, Path) else _folders_of(root)
    found: list[str] = []
    for folder, names in folders:
        prefix = f"{folder}/" if folder else ""
        videos = [name for name in names if is_video_name(name)]
        found.extend(prefix + name for name in videos)
        if not videos and folder and any(map(is_frame_name, names)):
            found.append(folder)
    faults += [(path, reason) for path in found if (reason := _name_fault(path)) is not None]
    kept = sorted({*found} - {path for path, _ in faults}, key=natural_key)
    refused: dict[str, str] = {}
    for path, reason in sorted(faults):
        refused[unused(written(path), {*kept, *refused})] = reason
    return kept, refused


def _walk(root: Path, faults: list[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder below a root, "" for itself, with its names; note those that cannot be entered."""
    seen: set[tuple[int, int]] = set()

    def note(error: OSError) -> None:
        if os.path.samefile(error.filename, root):  # noqa: PTH121  (not a Path)
            raise InputError(f"data root {root} cannot be read: {error.strerror}") from None
        faults.append((os.path.relpath(error.filename, root), f"folder cannot be entered: {error.strerror}"))

    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=note):
        status = os.stat(folder)  # noqa: PTH116  (may hold bytes that are no UTF-8)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        relative = os.path.relpath(folder, root)
        yield "" if relative == "." else relative, names


def _folders_of(root: ListedPath) -> Iterable[tuple[str, list[str]]]:
    """Return each folder of a bucket below a root, as `_walk` does."""
    folders: dict[str, list[str]] = {}
    for key in root.walk():
        folder, _, name = key.rpartition("/")
        if not key.startswith(".") and "/." not in key:
            folders.setdefault(folder, []).append(name)
    return folders.items()


def _name_fault(path: str) -> str | None:
    """Return why a path cannot be written down; None where it can."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "name is not UTF-8; rename it"
    return "name holds a line end or another control character; rename it" if _CONTROL.search(path) else None


def written(path: str) -> str:
    r"""Return a path with what cannot be written as `\xff` or `\n`."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)
