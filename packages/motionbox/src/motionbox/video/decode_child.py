"""The child process that decodes: whatever a broken or hostile file does, it does it here.

Reads requests from standard input and answers on standard output. A request is a pickled tuple: `("open", path, span)`,
answered by `("info", VideoInfo)`, or `("next",)`, answered by `("frames", [...])` with the next few frames (none left:
an empty list). Every failure is answered by `("error", reason, message)`.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motionbox.video.messages import receive, send

if TYPE_CHECKING:
    from motionbox.video.frames import Span

FRAMES_PER_ANSWER = 8


def main() -> None:
    """Serve requests until standard input ends.

    Arguments: short side of grey frames, of colour frames (0: none are wanted) in pixels, memory limit in bytes.
    """
    short_side_px, colour_short_side_px, memory_bytes = map(int, sys.argv[1:4])
    _die_with_parent()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import cv2

    from motionbox.errors import ClipError, Reason

    cv2.setNumThreads(1)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    video = _Video(short_side_px, colour_short_side_px or None)
    with contextlib.suppress(EOFError):
        while True:
            verb, *arguments = receive(sys.stdin.buffer)
            answer: tuple[Any, ...]
            try:
                answer = ("info", video.open(*arguments)) if verb == "open" else ("frames", video.next_frames())
            except ClipError as error:
                answer = ("error", error.reason, error.message)
            except MemoryError:
                answer = ("error", Reason.OUT_OF_MEMORY, f"decoding needs more than {memory_bytes >> 20} MiB")
            send(answers, answer)


class _Video:
    """The video that is being decoded."""

    def __init__(self, short_side_px: int, colour_short_side_px: int | None) -> None:
        self._short_side_px = short_side_px
        self._colour_short_side_px = colour_short_side_px
        self._frames: Iterator[Any] = iter(())
        self._error: Exception | None = None

    def open(self, path: str, span: Span) -> Any:
        """Open a video in place of the one before; returns its VideoInfo."""
        from motionbox.video.sources import DirectSource

        self._frames, self._error = iter(()), None
        source = DirectSource(self._short_side_px, colour_short_side_px=self._colour_short_side_px)
        info, self._frames = source.open(Path(path), span)
        return info

    def next_frames(self) -> list[Any]:
        """Return the next few frames; those before an error first, then the error."""
        from motionbox.errors import ClipError

        if self._error is not None:
            raise self._error
        frames: list[Any] = []
        try:
            for frame in itertools.islice(self._frames, FRAMES_PER_ANSWER):
                frames.append(frame)  # noqa: PERF402  (what came before an error is kept)
        except ClipError as error:
            self._error = error
            if not frames:
                raise
        return frames


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, even while it hangs in a codec."""
    pr_set_pdeathsig = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


if __name__ == "__main__":
    main()
