"""Training clips: a clip's frames as JPEGs in one uncompressed zip, made once, read many times.

A source video must be decoded from a keyframe on, at full size, to get 16 of its frames; from a training clip those 16
are read alone. The file's name is a digest of the clip's id, so no index is needed; its zip comment says what it holds.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from mofo_train.data.decode import ClipUnreadableError, decode_frames
from mofo_train.errors import DataError

_SUFFIX = ".zip"


def training_clip_path(folder: Path, clip_id: str) -> Path:
    """Return where the training clip of `clip_id` is kept below `folder`."""
    name = hashlib.sha256(clip_id.encode()).hexdigest()[:32]
    return folder / name[:2] / (name + _SUFFIX)


def write_training_clip(folder: Path, clip_id: str, frames: NDArray[np.uint8], *, quality: int) -> Path:
    """Write all frames of a clip, atomically.

    Args:
        folder: Where training clips are kept.
        clip_id: The clip.
        frames: uint8 (T, h, w, 3) RGB, already reduced.
        quality: JPEG quality, 1 to 95.

    Raises:
        DataError: The disk is full or cannot be written.
    """
    path = training_clip_path(folder, clip_id)
    partial = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            archive.comment = json.dumps({"clip_id": clip_id, "num_frames": len(frames)}).encode()
            for index, frame in enumerate(frames):
                content = io.BytesIO()
                Image.fromarray(frame).save(content, "JPEG", quality=quality)
                archive.writestr(_frame_name(index), content.getvalue())
        partial.rename(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"training clip {path} must be writable, got: {error}; free space and repeat") from None
    return path


def read_training_clip(path: Path, frames: NDArray[np.int64], num_frames: int) -> NDArray[np.uint8]:
    """Read frames of a training clip.

    Args:
        path: The file.
        frames: (n,) positions in the clip, in any order; repeated ones are decoded once.
        num_frames: Frames that the store knows of the clip.

    Returns:
        uint8 (n, h, w, 3) RGB.

    Raises:
        ClipUnreadableError: Torn, or made of another version of the clip.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            held = json.loads(archive.comment)["num_frames"]
            if held != num_frames:
                raise ClipUnreadableError(f"{path} must hold {num_frames} frames, got {held}; delete it, prepare again")
            images = {index: _decode(archive.read(_frame_name(index))) for index in dict.fromkeys(frames.tolist())}
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise ClipUnreadableError(f"{path} must be an intact training clip, got: {error}; delete it") from None
    return np.stack([images[index] for index in frames.tolist()])


def prepare_training_clips(
    jobs: list[tuple[str, Path, NDArray[np.float64], float | None]],
    folder: Path,
    *,
    short_side_px: int,
    quality: int,
    num_workers: int,
    progress: Callable[[int], None],
) -> list[tuple[str, str]]:
    """Make the training clips that are not there yet.

    Args:
        jobs: Clip id, source video, the times of all its frames, frame rate of a numbered frame folder.
        folder: Where to put them.
        short_side_px: Larger videos are reduced to this short side.
        quality: JPEG quality.
        num_workers: Processes.
        progress: Called with the number of clips done.

    Returns:
        Clips that could not be read, and why; training reads those from the source, with the same result.

    Raises:
        DataError: The disk is full or cannot be written.
    """
    left = [job for job in jobs if not training_clip_path(folder, job[0]).exists()]
    failed: list[tuple[str, str]] = []
    done = len(jobs) - len(left)
    progress(done)
    with ProcessPoolExecutor(num_workers) as pool:
        tasks = [pool.submit(_prepare, job, folder, short_side_px, quality) for job in left]
        for job, task in zip(left, tasks, strict=True):
            try:
                task.result()
            except ClipUnreadableError as error:
                failed.append((job[0], str(error)))
            done += 1
            progress(done)
    return failed


def _prepare(
    job: tuple[str, Path, NDArray[np.float64], float | None], folder: Path, short_side_px: int, quality: int
) -> None:
    clip_id, path, times, frame_fps = job
    frames = decode_frames(path, times, short_side_px=short_side_px, frame_fps=frame_fps)
    write_training_clip(folder, clip_id, frames, quality=quality)


def _decode(content: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG to uint8 (h, w, 3); torchvision's decoder takes half the time of Pillow's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # It is to move to another package one day.
        image = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
    return np.asarray(image.permute(1, 2, 0).numpy(), np.uint8)


def _frame_name(index: int) -> str:
    return f"frame_{index:06d}.jpg"
