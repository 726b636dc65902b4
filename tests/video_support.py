"""What the tests of reading video share: moving pictures, frame files, and a read that survives errors."""

from pathlib import Path

import cv2
import numpy as np

from motionbox.errors import ClipError
from motionbox.video import read_frames


def read_all(path: Path, **options) -> tuple[list, ClipError | None]:
    """Return the frames that come, and the error that ends them."""
    frames = []
    try:
        for frame in read_frames(path, **options):
            frames.append(frame)  # noqa: PERF402  (what came before an error counts)
    except ClipError as error:
        return frames, error
    return frames, None


def moving(num_frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Return uint8 (num_frames, height, width): a soft texture that moves by one pixel a frame."""
    rng = np.random.default_rng(1)
    base = cv2.GaussianBlur(rng.integers(0, 255, (height, width + num_frames), dtype=np.uint8), (0, 0), 2)
    return np.stack([base[:, i : i + width] for i in range(num_frames)])


def write_frames(folder: Path, frames: np.ndarray, pattern: str = "frame_{}.png", first: int = 1) -> Path:
    """Write frames as numbered image files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(frames, start=first):
        cv2.imwrite(str(folder / pattern.format(number)), image)
    return folder
