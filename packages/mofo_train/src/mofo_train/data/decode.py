"""Source media as training reads it: by motionbox's own reader, so that boxes and frames belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mofo_train.errors import DataError
from motionbox.errors import ClipError
from motionbox.video import read_frames_at


class ClipUnreadableError(DataError):
    """One clip cannot be decoded; training goes on without it."""


def decode_frames(
    path: Path, times_seconds: NDArray[np.float64], *, short_side_px: int, frame_fps: float | None = None
) -> NDArray[np.uint8]:
    """Decode the frames at the given times.

    Args:
        path: Video file, or folder or tar of JPEG or PNG frames.
        times_seconds: (n,) presentation times of the store; repeated times repeat their frame.
        short_side_px: Larger frames are reduced (area mean) to this short side.
        frame_fps: For a folder or tar: file number n has time n / frame_fps; None: file at position i has time i / 30.

    Returns:
        uint8 (n, h, w, 3) RGB, upright.

    Raises:
        ClipUnreadableError: The file is missing or broken, or has no frame at one of the times.
    """
    try:
        return read_frames_at(
            path, times_seconds, short_side_px=short_side_px, fps=frame_fps, numbered=frame_fps is not None
        )
    except ClipError as error:
        raise ClipUnreadableError(error.message) from None
