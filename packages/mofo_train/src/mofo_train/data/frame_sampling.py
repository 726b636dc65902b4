"""Which frames of a clip a model sees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dense_frames(num_frames: int, clip_frames: int, stride: int, position: float) -> NDArray[np.int64]:
    """Choose frames at a fixed stride, as pretraining does.

    Args:
        num_frames: Frames of the clip, at least 1.
        clip_frames: Frames wanted.
        stride: Distance of the chosen frames, smaller where the clip is too short for it.
        position: Where the window lies, in [0, 1): 0 = at the beginning; drawn uniformly in training.

    Returns:
        int64 (clip_frames,), not decreasing, in [0, num_frames). A clip of fewer frames than wanted is spread out, so
        that frames repeat evenly instead of freezing at the end.

    Raises:
        ValueError: Fewer than one frame, or `position` outside [0, 1).
    """
    _check(num_frames, clip_frames)
    if not 0 <= position < 1:
        raise ValueError(f"position must be in [0, 1), got {position!r}")
    reach = (clip_frames - 1) * stride + 1
    if num_frames < reach:
        return np.linspace(0, num_frames - 1, clip_frames).round().astype(np.int64)
    first = int(position * (num_frames - reach + 1))
    return np.arange(clip_frames, dtype=np.int64) * stride + first


def segment_frames(num_frames: int, clip_frames: int, jitter: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
    """Choose one frame from each of `clip_frames` equal segments (TSN), as finetuning on SSV2 does.

    Args:
        num_frames: Frames of the clip, at least 1.
        clip_frames: Segments.
        jitter: (clip_frames,) in [0, 1), the place within each segment; None = its middle.

    Returns:
        int64 (clip_frames,), not decreasing, in [0, num_frames).

    Raises:
        ValueError: Fewer than one frame.
    """
    _check(num_frames, clip_frames)
    place = np.full(clip_frames, 0.5) if jitter is None else jitter
    chosen = np.floor((np.arange(clip_frames) + place) * num_frames / clip_frames)
    return np.clip(chosen, 0, num_frames - 1).astype(np.int64)


def _check(num_frames: int, clip_frames: int) -> None:
    for name, value in (("num_frames", num_frames), ("clip_frames", clip_frames)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}")
