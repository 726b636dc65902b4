"""Somebody else's masks: a PNG for each annotated frame, `<folder>/<clip id>/<frame number>.png`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from motionbox.errors import InputError

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MaskedClip:
    """The masks of one clip.

    Attributes:
        clip_id: As in the store: the folder's path below the folder of all masks.
        numbers: int64 (N,), the frame numbers in the files' names, rising; counted from 1, or from 0 where there is a
            mask of number 0.
        files: The N files.
    """

    clip_id: str
    numbers: npt.NDArray[np.int64]
    files: tuple[Path, ...]

    @property
    def first_number(self) -> int:
        """Return the number that the clip's first frame has."""
        return 0 if self.numbers[0] == 0 else 1


def holds_masks(path: Path) -> bool:
    """Return whether a path is a folder of masks, rather than of boxes in JSON."""
    return path.is_dir() and next(path.glob("*.json"), None) is None and next(path.rglob("*.png"), None) is not None


def read_mask_folder(path: Path) -> list[MaskedClip]:
    """List the masks in a folder; the files are read when they are needed.

    Raises:
        InputError: A file's name is no number.
    """
    clips = []
    for folder in sorted({file.parent for file in path.rglob("*.png")}):
        numbered = sorted((_number(file), file) for file in folder.glob("*.png"))
        numbers = np.array([number for number, _ in numbered], np.int64)
        clip_id = folder.relative_to(path).as_posix()
        clips.append(MaskedClip(clip_id, numbers, tuple(file for _, file in numbered)))
    return clips


def _number(path: Path) -> int:
    if not path.stem.isascii() or not path.stem.isdigit():
        raise InputError(f"a mask's file must be named by its frame's number, as 0001.png, got {path}")
    return int(path.stem)


def read_mask(path: Path, frame_wh: tuple[int, int]) -> Mask:
    """Read a mask: whatever is not black (0 in every channel) is inside.

    Args:
        path: The PNG.
        frame_wh: Width and height of the clip's frames; the mask may be larger or smaller, but of the same shape.

    Returns:
        bool (H, W), at the size of the file.

    Raises:
        InputError: It cannot be read or has another shape.
    """
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise InputError(f"mask {path} must be a readable PNG")
    inside = pixels > 0 if pixels.ndim == 2 else (pixels[..., :3] > 0).any(axis=2)
    height, width = inside.shape
    if abs(width * frame_wh[1] - height * frame_wh[0]) > max(width, height, *frame_wh):
        raise InputError(
            f"mask {path} must have the shape of its clip's {frame_wh[0]}x{frame_wh[1]} frames, got {width}x{height}"
        )
    return np.asarray(inside)
