"""Chosen frames of a folder or tar archive of JPEG or PNG files, for training.

Names are ordered and numbered as `motionbox extract` does, so that the store's times find the same files.
"""

from __future__ import annotations

import contextlib
import functools
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

TAR_SUFFIX = ".tar"
_FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
_DEFAULT_FPS = 30.0
_KEPT_INDEXES = 1024
_LARGEST_NUMBER = 2**62


def read_frame_files(path: Path, times_seconds: NDArray[np.float64], fps: float | None) -> Iterator[bytes]:
    """Yield the JPEG or PNG files of the frames at the given times.

    Args:
        path: Folder or tar archive.
        times_seconds: (n,) times of frames.
        fps: File number n has time n / fps; None: the file at position i in natural order has time i / 30.

    Raises:
        OSError: The folder or archive cannot be read or has no frame at one of the times.
        tarfile.TarError: The archive is none.
    """
    if path.is_dir():
        names = _in_order([entry.name for entry in path.iterdir()])
        for place in _places(_numbers(names), times_seconds, fps):
            yield (path / names[place]).read_bytes()
        return
    status = path.stat()
    index = _index_tar(path, status.st_mtime_ns, status.st_size)
    with path.open("rb") as archive:
        for place in _places(index.numbers, times_seconds, fps):
            archive.seek(int(index.offsets[place]))
            yield archive.read(int(index.sizes[place]))


def _places(numbers: NDArray[np.int64], times_seconds: NDArray[np.float64], fps: float | None) -> Iterator[int]:
    """Yield where in the order the wanted frames are, given the number in each file's name."""
    counts = np.arange(len(numbers)) if fps is None else numbers
    for time_seconds in times_seconds.tolist():
        found = np.flatnonzero(counts == round(time_seconds * (fps or _DEFAULT_FPS)))
        if len(found) == 0:
            raise OSError(f"{len(numbers)} frames and no frame at {time_seconds:.3f} s")
        yield int(found[0])


@dataclass(frozen=True)
class _TarIndex:
    """Where the frames of an archive are, in natural order: arrays, for an EPIC video has up to 200,000 of them."""

    numbers: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]


@functools.lru_cache(maxsize=_KEPT_INDEXES)
def _index_tar(path: Path, modified_ns: int, size: int) -> _TarIndex:  # noqa: ARG001
    """List an archive once per process and state of the file; one that is cut off lists what is whole."""
    members: dict[str, tuple[int, int]] = {}
    with tarfile.open(path, mode="r:") as archive, contextlib.suppress(tarfile.TarError):
        members.update((member.name, (member.offset_data, member.size)) for member in archive if member.isreg())
    names = _in_order(list(members))
    spans = np.array([members[name] for name in names], np.int64).reshape(-1, 2)
    return _TarIndex(_numbers(names), spans[:, 0], spans[:, 1])


def _in_order(names: list[str]) -> list[str]:
    """Return the names of frame files in natural order, `frame_2` before `frame_10`."""
    return sorted(filter(_is_frame, names), key=_natural_key)


def _is_frame(name: str) -> bool:
    pure = PurePosixPath(name)
    return pure.suffix.lower() in _FRAME_SUFFIXES and not pure.name.startswith(".")


def _natural_key(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), part) if part.isascii() and part.isdigit() else (1, 0, part) for part in parts]


def _numbers(names: list[str]) -> NDArray[np.int64]:
    """Return the last number in each name's stem, -1 where there is none."""
    found = [re.findall(r"[0-9]+", PurePosixPath(name).stem) for name in names]
    return np.array([min(int(numbers[-1]), _LARGEST_NUMBER) if numbers else -1 for numbers in found], np.int64)
