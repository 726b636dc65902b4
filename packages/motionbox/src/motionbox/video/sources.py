"""Where a worker's frames come from: a child process that may crash, hang or run out of memory, or this process."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from motionbox.errors import ClipError, Reason
from motionbox.video import probe, read_frames
from motionbox.video.frames import WHOLE, DecodeLimits, Frame, Span, VideoHint, VideoInfo
from motionbox.video.messages import LENGTH, send

_QUEUED_ANSWERS = 8
# The child imports from the user's environment, never from the working folder (-P), and this package from its place.
_CHILD = "import sys; sys.path.append(sys.argv.pop(1)); from motionbox.video.decode_child import main; main()"
_PACKAGES = str(Path(__file__).resolve().parents[2])
_PROBE_SIDE_PX = 16


class DirectSource:
    """Decodes in this process: in the child, and wherever inputs are trusted."""

    def __init__(
        self, short_side_px: int, limits: DecodeLimits | None = None, *, colour_short_side_px: int | None = None
    ) -> None:
        """Take the sizes of grey and of colour frames; colour None: grey alone."""
        self._short_side_px = short_side_px
        self._colour_short_side_px = colour_short_side_px
        self._limits = limits or DecodeLimits()

    def open(self, path: Path, span: Span = WHOLE) -> tuple[VideoInfo, Generator[Frame]]:
        """Return what the video is and those of its frames that are wanted.

        Raises:
            ClipError: It cannot be opened.
        """
        info = probe(path, limits=self._limits, fps=span.frame_fps)
        frames = read_frames(
            path,
            short_side_px=self._short_side_px,
            start_seconds=span.start_seconds,
            stop_seconds=span.stop_seconds,
            limits=self._limits,
            fps=span.frame_fps,
            numbered=span.frame_fps is not None,
            colour_short_side_px=self._colour_short_side_px,
        )
        return info, until(frames, span.enough_seconds)


def until(frames: Iterable[Frame], enough_seconds: float | None) -> Generator[Frame]:
    """Yield frames up to the first at or after a time; None: all."""
    for frame in frames:
        yield frame
        if enough_seconds is not None and frame.time_seconds >= enough_seconds:
            return


@dataclass(frozen=True)
class ChildLimits:
    """What a decoding child may use up.

    Attributes:
        answer_seconds: Longest wait for the next few frames.
        memory_bytes: Address space of the child.
    """

    answer_seconds: float = 60.0
    memory_bytes: int = 8 << 30


class ChildSource:
    """Decodes in a child process, one video at a time, a few frames ahead of the reader.

    A child that crashes or does not answer is killed and replaced; the video ends with a ClipError whose reason is one
    of `pipeline.FAULT_REASONS`.
    """

    def __init__(
        self, short_side_px: int, limits: ChildLimits | None = None, *, colour_short_side_px: int | None = None
    ) -> None:
        """Take the sizes of grey and of colour frames; colour None: grey alone."""
        self._limits = limits or ChildLimits()
        numbers = (short_side_px, colour_short_side_px or 0, self._limits.memory_bytes)
        self._arguments = ["-P", "-c", _CHILD, _PACKAGES, *map(str, numbers)]
        self._child: subprocess.Popen[bytes] | None = None

    def open(self, path: Path, span: Span = WHOLE) -> tuple[VideoInfo, Generator[Frame]]:
        """Return what the video is and those of its frames that are wanted.

        Raises:
            ClipError: It cannot be opened, or the child crashed or hung over it.
        """
        info = self._ask(("open", str(path), span), path)
        return info, self._frames(path)

    def _frames(self, path: Path) -> Generator[Frame]:
        with _ReadAhead(lambda: self._ask(("next",), path)) as answers:
            for answer in answers:
                yield from answer

    def _ask(self, request: tuple[Any, ...], path: Path) -> Any:
        """Send a request and return the answer's content."""
        child = self._running()
        try:
            send(cast("IO[bytes]", child.stdin), request)
            kind, *content = self._answer(child, path)
        except (OSError, EOFError):
            code = self._kill(grace_seconds=1.0)
            raise ClipError(Reason.CRASHED, f"{path}: decoding crashed ({_exit_name(code)})") from None
        if kind == "error":
            if content[0] == Reason.OUT_OF_MEMORY:
                self._kill()
            raise ClipError(*content)
        return content[0]

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._child = subprocess.Popen(
                [sys.executable, *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self._child

    def _answer(self, child: subprocess.Popen[bytes], path: Path) -> Any:
        deadline = time.monotonic() + self._limits.answer_seconds
        length = LENGTH.unpack(self._read(child, LENGTH.size, deadline, path))[0]
        return pickle.loads(self._read(child, length, deadline, path))  # noqa: S301  (from our own child)

    def _read(self, child: subprocess.Popen[bytes], count: int, deadline: float, path: Path) -> bytes:
        descriptor = cast("IO[bytes]", child.stdout).fileno()
        parts = bytearray()
        while len(parts) < count:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self._kill()
                seconds = self._limits.answer_seconds
                raise ClipError(Reason.TIMEOUT, f"{path}: decoding gave no frame for {seconds:g} s and was killed")
            data = os.read(descriptor, min(count - len(parts), 1 << 20))
            if not data:
                raise EOFError
            parts += data
        return bytes(parts)

    def _kill(self, grace_seconds: float = 0.0) -> int | None:
        if self._child is None:
            return None
        try:
            code = self._child.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self._child.kill()
            code = self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._child = None
        return code

    def close(self) -> None:
        """End the child."""
        self._kill()


def _exit_name(code: int | None) -> str:
    return f"exit code {code}" if code is None or code >= 0 else f"signal {-code}"


class _ReadAhead:
    """Asks for answers in a thread, a few ahead of the reader, until an empty one."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self._ask = ask
        self._queue: queue.Queue[Any] = queue.Queue(_QUEUED_ANSWERS)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="decode", daemon=True)

    def __enter__(self) -> Generator[list[Frame]]:
        self._thread.start()
        return self._answers()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._queue.get_nowait()
            self._thread.join(0.01)

    def _work(self) -> None:
        answer: Any = None
        while not self._stopped.is_set() and answer != [] and not isinstance(answer, ClipError):
            try:
                answer = self._ask()
            except ClipError as error:
                answer = error
            self._queue.put(answer)

    def _answers(self) -> Generator[list[Frame]]:
        while True:
            answer = self._queue.get()
            if isinstance(answer, ClipError):
                raise answer
            if not answer:
                return
            yield answer


class HintProber:
    """Reads headers for the planner, in child processes: one for each thread that asks."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._sources: list[ChildSource] = []

    def __enter__(self) -> HintProber:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for source in self._sources:
            source.close()

    def __call__(self, path: Path) -> VideoHint | None:
        """Return what a video's header says of its length; None where it cannot be read."""
        if not hasattr(self._local, "source"):
            self._local.source = ChildSource(_PROBE_SIDE_PX)
            self._sources.append(self._local.source)
        try:
            info, _ = self._local.source.open(path)
        except ClipError:
            return None
        num_frames = info.num_frames_hint
        if num_frames is None and info.duration_seconds is not None:
            num_frames = int(info.duration_seconds * info.fps)
        return VideoHint(num_frames, info.fps)
