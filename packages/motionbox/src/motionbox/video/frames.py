"""What decoding yields: frames with timestamps, limits and sizes; and which frames only repeat the one before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_SIDE_PX = 16
"""Frames smaller than this on either side are refused: optical flow needs at least that much."""

DEFAULT_FRAME_FPS = 30.0
"""Rate of a frame folder or frame tar when nobody says another."""

MAX_REPEATS = 4
"""Longest run of repeats that duplicate recognition accepts; a longer one is a scene that stands still."""

STILL_GREY_LEVELS = 0.5
"""Differences up to this are coding noise: footage that moves no more than that has no repeats to speak of."""

DUPLICATE_CONTEXT_FRAMES = MAX_REPEATS + 1
"""A frame's duplicate flag depends on no frame further away than this."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video says about itself, checked by decoding its first frame.

    Attributes:
        width: Display width in pixels, after the rotation of the metadata (pixel aspect ratio is not applied).
        height: Display height in pixels, after rotation.
        fps: Average frames per second; a hint for videos of variable rate.
        duration_seconds: Duration of the header, None where there is none; a hint.
        num_frames_hint: Number of frames of the header, None where there is none; never trusted.
        codec: Name of the decoder, `jpeg` or `png` for frame files.
        container: Name of the demuxer, `frames` for a folder of frames, `tar` for a tar of frames.
        rotation_degrees: Counter-clockwise rotation that makes the decoded picture upright: 0, 90, 180 or 270.
    """

    width: int
    height: int
    fps: float
    duration_seconds: float | None
    num_frames_hint: int | None
    codec: str
    container: str
    rotation_degrees: int


@dataclass(frozen=True)
class VideoHint:
    """What a header says about a video.

    Attributes:
        num_frames: Frames, None when unknown.
        fps: Frames per second.
    """

    num_frames: int | None
    fps: float


@dataclass(frozen=True)
class Span:
    """What is asked of a video: which of its frames, and at what rate they are numbered.

    Attributes:
        start_seconds: Time of the first frame at the earliest; None = from the first.
        stop_seconds: Frames come before this time; None = to the last.
        frame_fps: Rate of numbered frame files; None for videos.
        enough_seconds: The first frame at or after it is the last; None = as `stop_seconds` says. Who needs no later
            one says so, since frames are decoded ahead of their reader.
    """

    start_seconds: float | None = None
    stop_seconds: float | None = None
    frame_fps: float | None = None
    enough_seconds: float | None = None


WHOLE = Span()
"""All frames of a video."""


@dataclass(frozen=True)
class Frame:
    """One decoded frame.

    Attributes:
        index: Position counted from 0, from the start of the video or folder where decoding began there, else from
            the first frame of the span.
        time_seconds: Presentation time, counted from the start of the video; strictly increasing.
        grey: uint8 (h, w), full range 0 to 255, working size.
        rgb: uint8 (H, W, 3), full range, of the size that training clips have; None where nobody asked for it.
    """

    index: int
    time_seconds: float
    grey: NDArray[np.uint8]
    rgb: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class ColourFrame:
    """One decoded frame in colour.

    Attributes:
        index: As in `Frame`.
        time_seconds: As in `Frame`.
        rgb: uint8 (h, w, 3), full range.
    """

    index: int
    time_seconds: float
    rgb: NDArray[np.uint8]


@dataclass(frozen=True)
class DecodeLimits:
    """Where decoding refuses to go on: protection against files that claim to be, or are, absurdly large.

    Attributes:
        max_pixels: Largest width times height of a frame (the default leaves room for 8K).
        max_duration_seconds: Longest video, by its header and by its timestamps.
        max_frames: Most frames read in one pass.
    """

    max_pixels: int = 8192 * 4608
    max_duration_seconds: float = 12 * 3600.0
    max_frames: int = 4_000_000


def working_size(width: int, height: int, short_side_px: int) -> tuple[int, int]:
    """Return the (width, height) whose short side is at most `short_side_px`, same proportions, never enlarged.

    Raises:
        ValueError: A side or `short_side_px` is under 1.
    """
    for name, value in (("width", width), ("height", height), ("short_side_px", short_side_px)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}")
    short = min(width, height)
    if short <= short_side_px:
        return width, height
    scale = short_side_px / short
    return max(1, round(width * scale)), max(1, round(height * scale))


def find_duplicates(differences: NDArray[np.floating], ratio: float) -> NDArray[np.bool_]:
    """Find the frames that only repeat the frame before them, as in 30 fps footage stored at 60 fps.

    A run of at most `MAX_REPEATS` frames repeats when all its differences are under `ratio` times the smaller of the
    two differences that enclose the run, and that one is above `STILL_GREY_LEVELS`. Footage that
    stands still has no such enclosing differences, neither has a scene cut, nor a run at the very start or end of the
    video: nothing is marked there. Exact repeats within a longer still stretch are not marked either: the scene stands
    still, and flow says so.

    Args:
        differences: Float (T - 1,): mean absolute difference in grey levels of each frame to the frame before it.
        ratio: Share from `FramesConfig.duplicate_ratio`; 0 marks nothing.

    Returns:
        Bool (T,), True for a repeat; the first frame never is. (1,) for empty `differences`.

    Raises:
        ValueError: `differences` is not one-dimensional.
    """
    if differences.ndim != 1:
        raise ValueError(f"differences must be one-dimensional, got shape {differences.shape}")
    num = len(differences)
    flags = np.zeros(num + 1, dtype=bool)
    for length in range(1, min(MAX_REPEATS, num - 2) + 1):
        runs = np.lib.stride_tricks.sliding_window_view(differences[1:-1], length)
        sides = np.minimum(differences[: -length - 1], differences[length + 1 :])
        starts = np.flatnonzero((sides > STILL_GREY_LEVELS) & (runs.max(axis=1) < ratio * sides)) + 1
        for offset in range(length):
            flags[starts + offset + 1] = True
    return flags


def mean_difference(frame0: NDArray[np.uint8], frame1: NDArray[np.uint8]) -> float:
    """Return the mean absolute difference of two uint8 (h, w) frames in grey levels, 0 to 255."""
    return float(np.mean(np.maximum(frame0, frame1) - np.minimum(frame0, frame1)))
