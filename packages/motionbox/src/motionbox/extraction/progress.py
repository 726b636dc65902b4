"""The live progress line: rich on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Any, Protocol

from motionbox.inputs.schema import ASSUMED_FRAME_FPS

_PLAIN_EVERY_SECONDS = 10.0


@dataclass
class Counts:
    """How far a run is.

    Attributes:
        num_units: Units of the plan.
        num_clips: Clips of the plan.
        num_frames_estimated: Frames to do in this session, from header hints, corrected as units finish.
        done_units: Units committed, of earlier sessions too.
        done_clips: Clips whose last unit is committed.
        num_frames: Frames committed in this session.
        num_frames_under_way: Frames done in units that are not committed yet, when last looked.
        num_failed_videos: Videos with an error, per unit, in this session.
        num_faults: Attempts that crashed or hung in this session.
        num_assumed_rates: Folders and tars of frames whose rate nobody said.
        started: `time.monotonic()` at the start of this session.
    """

    num_units: int
    num_clips: int
    num_frames_estimated: int
    done_units: int = 0
    done_clips: int = 0
    num_frames: int = 0
    num_frames_under_way: int = 0
    num_failed_videos: int = 0
    num_faults: int = 0
    num_assumed_rates: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Return the seconds since this session began."""
        return time.monotonic() - self.started

    @property
    def frames_per_second(self) -> float:
        """Return frames done per second of this session."""
        return self._frames_seen / self.seconds if self.seconds > 0 else 0.0

    @property
    def _frames_seen(self) -> int:
        return self.num_frames + self.num_frames_under_way

    @property
    def eta_seconds(self) -> float | None:
        """Return the expected seconds to the end; None before anything is done."""
        if self._frames_seen == 0:
            return None
        return max(self.num_frames_estimated - self._frames_seen, 0) / self.frames_per_second

    def summary(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {
            "num_units": self.num_units,
            "done_units": self.done_units,
            "num_clips": self.num_clips,
            "done_clips": self.done_clips,
            "num_failed_videos": self.num_failed_videos,
            "num_faults": self.num_faults,
            "frames_per_second": round(self.frames_per_second, 2),
            "eta_seconds": self.eta_seconds,
        }

    def line(self) -> str:
        """Return the progress as one line."""
        parts = [
            f"{self.done_clips:,}/{self.num_clips:,} clips",
            f"{self.done_units:,}/{self.num_units:,} units",
            f"{self.num_failed_videos:,} with errors",
            f"{self.frames_per_second:,.1f} frames/s",
            f"ETA {format_seconds(self.eta_seconds)}",
        ]
        if self.num_faults:
            parts.insert(3, f"{self.num_faults} faults")
        if self.num_assumed_rates:
            parts.append(
                f"{ASSUMED_FRAME_FPS:g} fps assumed for {self.num_assumed_rates:,} frame folders (--frame-fps)"
            )
        return " · ".join(parts)


def format_seconds(seconds: float | None) -> str:
    """Return seconds as h:mm:ss or m:ss, `-` for None."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Reporter(Protocol):
    """Shows progress; a context manager around the run."""

    def __enter__(self) -> Reporter:
        """Begin to show."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show for the last time."""
        ...

    def update(self, counts: Counts) -> None:
        """Show these counts."""
        ...


class PlainReporter:
    """Writes a line every ten seconds, and one at the end."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._counts: Counts | None = None
        self._line = ""
        self._shown = time.monotonic()

    def __enter__(self) -> PlainReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show()

    def update(self, counts: Counts) -> None:
        """Show the counts if the last line is old enough."""
        self._counts = counts
        if time.monotonic() - self._shown >= _PLAIN_EVERY_SECONDS:
            self._show()

    def _show(self) -> None:
        self._shown = time.monotonic()
        line = self._counts.line() if self._counts is not None else ""
        if line != self._line:
            self._stream.write(f"extract: {line}\n")
            self._stream.flush()
        self._line = line


class LiveReporter:
    """Keeps one line on a terminal up to date."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("extract"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[line]}"),
            console=Console(file=stream),
        )
        self._task = self._progress.add_task("extract", total=None, line="starting")

    def __enter__(self) -> LiveReporter:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, counts: Counts) -> None:
        """Show the counts."""
        self._progress.update(self._task, total=counts.num_units, completed=counts.done_units, line=counts.line())


def create_reporter(stream: IO[str] | None = None) -> Reporter:
    """Return the reporter that suits a stream, standard error by default."""
    stream = stream or sys.stderr
    return LiveReporter(stream) if stream.isatty() else PlainReporter(stream)
