"""Presentation times that always increase, whatever a file says."""

from __future__ import annotations

from fractions import Fraction

from av.video.frame import VideoFrame

_MAX_HALVINGS = 8


class Clock:
    """Gives each picture of a video its time.

    A picture without a timestamp is shown one mean frame duration after its predecessor, in decoding order; so is one
    whose timestamp lies a frame or more behind. One that repeats its predecessor's timestamp comes half a frame after
    it (the next repeat a quarter after that, and so on), so that the pictures behind it keep their own times: they have
    the same ones in a read that begins at a later keyframe. AVI keeps no timestamps: there time is position over rate.
    """

    def __init__(self, *, origin_seconds: float, step_seconds: float, time_base: Fraction | None) -> None:
        """Start a read.

        Args:
            origin_seconds: Zero of the file's times.
            step_seconds: Mean frame duration.
            time_base: Unit in seconds of the stream's timestamps; None where the container keeps none.
        """
        self._origin, self._step, self._base = origin_seconds, step_seconds, time_base
        self._last: float | None = None
        self._repeats = 0
        self.end_seconds = 0.0

    def tick(self, picture: VideoFrame, index: int) -> float:
        """Return the time in seconds of the picture at position `index`; call it once for each, in order."""
        stamp = self._stamp(picture, index)
        if self._last is None:
            time_seconds = 0.0 if stamp is None else stamp
        elif stamp is None:
            time_seconds = self._last + self._step
        elif stamp > self._last:
            time_seconds, self._repeats = stamp, 0
        else:
            time_seconds = self._last + self._pause(self._last - stamp)
        self._last = time_seconds
        length = picture.duration * float(self._base) if picture.duration and self._base is not None else self._step
        self.end_seconds = time_seconds + length
        return time_seconds

    def _stamp(self, picture: VideoFrame, index: int) -> float | None:
        if self._base is None:
            return index * self._step
        if picture.pts is None:
            return None
        return picture.pts * self._base.numerator / self._base.denominator - self._origin

    def _pause(self, behind_seconds: float) -> float:
        self._repeats += 1
        if behind_seconds >= self._step or self._repeats > _MAX_HALVINGS:
            return self._step
        return self._step * 0.5**self._repeats
