"""Where a worker's frames come from."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from motionbox.errors import ClipError
from motionbox.frames import DecodeLimits, Frame, VideoInfo
from motionbox.plan import VideoHint
from motionbox.video import probe, read_frames


class DirectSource:
    """Decodes in this process: for debugging, and for inputs that are trusted."""

    def __init__(self, short_side_px: int, limits: DecodeLimits | None = None) -> None:
        self._short_side_px = short_side_px
        self._limits = limits or DecodeLimits()

    def open(
        self, path: Path, *, start_seconds: float | None, stop_seconds: float | None, frame_fps: float | None
    ) -> tuple[VideoInfo, Generator[Frame]]:
        """Return what the video is and its frames with start <= time < stop.

        Raises:
            ClipError: It cannot be opened.
        """
        info = probe(path, limits=self._limits, fps=frame_fps)
        return info, self._frames(path, start_seconds, stop_seconds, frame_fps)

    def _frames(
        self, path: Path, start_seconds: float | None, stop_seconds: float | None, frame_fps: float | None
    ) -> Generator[Frame]:
        yield from read_frames(
            path,
            short_side_px=self._short_side_px,
            start_seconds=start_seconds,
            stop_seconds=stop_seconds,
            limits=self._limits,
            fps=frame_fps,
            numbered=frame_fps is not None,
        )


def probe_hint(path: Path) -> VideoHint | None:
    """Return what a video's header says of its length; None where it cannot be read."""
    try:
        info = probe(path)
    except ClipError:
        return None
    num_frames = info.num_frames_hint
    if num_frames is None and info.duration_seconds is not None:
        num_frames = int(info.duration_seconds * info.fps)
    return VideoHint(num_frames, info.fps)
