"""What lists call a video and what lies below the data root: absolute, Windows and extensionless paths become ours."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from motionbox.errors import InputError, refuse_url
from motionbox.inputs.data_root import DataRoot, names_in, place_below
from motionbox.inputs.folder.clip_ids import stem_of
from motionbox.inputs.folder.scan import find_media
from motionbox.inputs.media import TAR_SUFFIXES, VIDEO_SUFFIXES, frame_number, is_frame_name, is_video_name
from motionbox.storage.reading import is_url

_DRIVE = re.compile(r"[A-Za-z]:/")


class ListedMedia:
    """The media below a data root, each folder listed once.

    Attributes:
        root: The data root.
        num_completed: Paths so far that were given the extension, or the folder, of the file on disk.
    """

    def __init__(self, root: DataRoot, prefix: str | None = None) -> None:
        """Take the data root and what the listed absolute paths lie below, where that is another folder."""
        self.root = root
        self.num_completed = 0
        self._prefix = None if prefix is None else prefix.replace("\\", "/").rstrip("/")
        self._names: dict[str, frozenset[str]] = {}
        self._ranges: dict[str, tuple[int, int, int] | None] = {}
        self._by_name: dict[str, list[str]] | None = None
        self._is_root: dict[str, bool] = {}

    def names(self, folder: str) -> frozenset[str]:
        """Return the names in a folder, relative to the root; none where it cannot be listed."""
        if folder not in self._names:
            self._names[folder] = frozenset(_list(place_below(self.root, folder or ".")))
        return self._names[folder]

    def has(self, path: str) -> bool:
        """Tell whether a path, relative to the root, is there."""
        folder, _, name = path.rpartition("/")
        return name in self.names(folder) or path == "."

    def has_listed(self, path: str) -> bool:
        """Tell whether a path as a list writes it names something below the root."""
        try:
            return self.has(self.relative(path))
        except InputError:
            return False

    def frame_range(self, path: str) -> tuple[int, int, int] | None:
        """Return how many frame files a folder holds, their first and their last number.

        None where it is no folder, or one whose frame files are not numbered without doubles.
        """
        if path not in self._ranges:
            folder = path if self.has(path) and not is_video_name(path) else None
            names = (
                []
                if folder is None
                else [name for name in _list(place_below(self.root, folder)) if is_frame_name(name)]
            )
            numbers = {number for number in map(frame_number, names) if number is not None}
            whole = numbers and len(numbers) == len(names)
            self._ranges[path] = (len(numbers), min(numbers), max(numbers)) if whole else None
        return self._ranges[path]

    def num_frames(self, listed: str) -> int | None:
        """Return how many frames the folder that a list names holds; None where it is no folder of numbered frames."""
        found = self.frame_range(self.relative(listed)) if self.has_listed(listed) else None
        return None if found is None else found[0]

    def relative(self, path: str) -> str:
        r"""Return a listed path relative to the data root, with forward slashes; a URL of elsewhere as it is.

        Backslashes are taken for slashes unless a file is named so. An absolute path may reach the root through links.

        Raises:
            InputError: It is a URL of a kind that is not read, or lies outside.
        """
        if is_url(path):
            return path.removeprefix(f"{self.root}/")
        refuse_url(path)
        if "\\" in path and not (self.root / path).exists():
            path = path.replace("\\", "/")
        if path.startswith("~/"):
            path = os.path.expanduser(path)  # noqa: PTH111  (stays a string)
        if path.startswith("/") or _DRIVE.match(path):
            path = self._below_root(path)
        pure = PurePosixPath(path)
        if ".." in pure.parts:
            raise InputError(f"path must lie below the data root, without '..', got {path!r}")
        return pure.as_posix()

    def _below_root(self, path: str) -> str:
        if self._prefix is not None and path.startswith(self._prefix + "/"):
            return path.removeprefix(self._prefix).lstrip("/")
        # no links resolved, unlike Path.resolve
        root = os.path.abspath(self.root) if isinstance(self.root, Path) else str(self.root)  # noqa: PTH100
        plain = os.path.normpath(path) if ".." not in path.split("/") else path
        if plain.startswith(root.rstrip("/") + "/"):
            return plain.removeprefix(root).lstrip("/")
        for ancestor in PurePosixPath(path).parents:
            if self._leads_to_root(str(ancestor)):
                return str(PurePosixPath(path).relative_to(ancestor))
        raise InputError(
            f"path must lie below the data root {root}, got {path!r}; where it comes from another machine, name the "
            "folder there that holds the same as the data root with --prefix"
        )

    def _leads_to_root(self, folder: str) -> bool:
        if not isinstance(self.root, Path):
            return False
        if folder not in self._is_root:
            try:
                self._is_root[folder] = os.path.samefile(folder, self.root)  # noqa: PTH121  (strings)
            except (OSError, ValueError):
                self._is_root[folder] = False
        return self._is_root[folder]

    def complete(self, path: str) -> str:
        """Return the path of the one file on disk that is meant: with its extension, or below the folder it lies in.

        A path that is there, and one that nothing on disk fits, stays as it is.

        Raises:
            InputError: Several files could be meant.
        """
        if self.has(path):
            return path
        if "/" not in path and self._below().get(path):
            return self._one_of(path, self._below()[path])
        if is_video_name(path):
            return path
        suffixes = [*VIDEO_SUFFIXES, *TAR_SUFFIXES]
        folder, _, name = path.rpartition("/")
        listed = self.names(folder)
        found = [name + end for suffix in suffixes for end in (suffix, suffix.upper()) if name + end in listed]
        return self._one_of(path, [f"{folder}/{each}" if folder else each for each in found]) if found else path

    def _one_of(self, path: str, found: list[str]) -> str:
        if len(found) > 1:
            raise InputError(f"path must name one file, got {path!r} for {' and '.join(found[:3])}; write it in full")
        self.num_completed += 1
        return found[0]

    def _below(self) -> dict[str, list[str]]:
        """Return name -> paths of all media below the root, with the extension and without."""
        if self._by_name is None:
            self._by_name = {}
            for path in find_media(self.root) if self.root.is_dir() else []:
                name = path.rpartition("/")[2]
                for key in {name, stem_of(name)}:
                    self._by_name.setdefault(key, []).append(path)
        return self._by_name


def _list(folder: DataRoot) -> list[str]:
    try:
        return names_in(folder)
    except (OSError, ValueError):
        return []
