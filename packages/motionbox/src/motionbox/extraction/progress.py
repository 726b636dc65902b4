"""The live progress line: rich on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Any, Protocol

from motionbox.inputs.schema import ASSUMED_FRAME_FPS
from motionbox.wording import format_seconds

_LOG = logging.getLogger(__name__)

_PLAIN_EVERY_SECONDS = 10.0
_MEASURED_SECONDS = 15.0


@dataclass
class Counts:
    """How far a run is.

    Attributes:
        num_units: Units of the plan.
        num_clips: Clips of the plan.
        num_frames_planned: Frames of this session's units, from header hints.
        done_units: Units committed, of earlier sessions too.
        done_clips: Clips whose last unit is committed.
        num_frames: Frames committed in this session.
        num_frames_planned_done: What the hints had said of them.
        num_frames_under_way: Frames done in units that are not committed yet, when last looked.
        failed_videos: Videos with an error in this session.
        seconds_by_step: Where the workers' time of this session went.
        num_faults: Attempts that crashed or hung in this session.
        rows_of: Whose rows this session's units take over, so that at most frames are coded: run id -> units.
        num_assumed_rates: Folders and tars of frames whose rate nobody said.
        started: `time.monotonic()` at the start of this session.
        first_seen: When the first frames of this session were seen, and how many they were.
    """

    num_units: int
    num_clips: int
    num_frames_planned: int
    done_units: int = 0
    done_clips: int = 0
    num_frames: int = 0
    num_frames_planned_done: int = 0
    num_frames_under_way: int = 0
    failed_videos: set[str] = field(default_factory=set)
    seconds_by_step: Counter[str] = field(default_factory=Counter)
    num_faults: int = 0
    rows_of: Mapping[str, int] = field(default_factory=dict)
    num_assumed_rates: int = 0
    started: float = field(default_factory=time.monotonic)
    first_seen: tuple[float, int] | None = None

    def commit(self, *, num_clips: int, num_frames: int, num_frames_planned: int, failed_videos: Iterable[str]) -> None:
        """Count a unit that was committed."""
        self.done_units += 1
        self.done_clips += num_clips
        self.num_frames += num_frames
        self.num_frames_planned_done += num_frames_planned
        self.num_frames_under_way = max(0, self.num_frames_under_way - num_frames)
        self.failed_videos.update(failed_videos)

    def look(self, now: float | None = None) -> None:
        """Note when the first frames were seen: rates are counted from there, without the time that workers start."""
        if self.first_seen is None and self._frames_seen > 0:
            self.first_seen = (time.monotonic() if now is None else now, self._frames_seen)

    @property
    def frames_per_second(self) -> float:
        """Return frames done per second since the first were seen, or of the whole session where that says nothing."""
        now = time.monotonic()
        since, already = self.first_seen or (now, 0)
        if now - since > 1 and self._frames_seen > already:
            return (self._frames_seen - already) / (now - since)
        return self._frames_seen / (now - self.started) if now > self.started else 0.0

    @property
    def _frames_seen(self) -> int:
        return self.num_frames + self.num_frames_under_way

    @property
    def eta_seconds(self) -> float | None:
        """Return the expected seconds to the end; None while it could only be guessed.

        Header hints may be off by a factor, so a unit must have been committed, which says by what factor; and the
        rate must have been measured for a while.
        """
        if self.done_units == self.num_units:
            return 0.0
        measured = self.first_seen is not None and time.monotonic() - self.first_seen[0] >= _MEASURED_SECONDS
        if not measured or self.num_frames_planned_done == 0 or self.frames_per_second == 0:
            return None
        factor = self.num_frames / self.num_frames_planned_done
        expected = (self.num_frames_planned - self.num_frames_planned_done) * factor
        return max(expected - self.num_frames_under_way, 0) / self.frames_per_second

    def summary(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {
            "num_units": self.num_units,
            "done_units": self.done_units,
            "num_clips": self.num_clips,
            "done_clips": self.done_clips,
            "num_failed_videos": len(self.failed_videos),
            "num_faults": self.num_faults,
            "frames_per_second": round(self.frames_per_second, 2),
            "eta_seconds": self.eta_seconds,
        }

    def line(self) -> str:
        """Return the progress as one line."""
        parts = [
            f"{self.done_clips:,}/{self.num_clips:,} clips",
            f"{self.done_units:,}/{self.num_units:,} units",
            f"{len(self.failed_videos):,} videos with errors",
            f"{self.frames_per_second:,.1f} frames/s",
            f"ETA {format_seconds(self.eta_seconds)}",
        ]
        if self.num_faults:
            parts.insert(3, f"{self.num_faults} faults")
        for run_id, count in self.rows_of.items():
            parts.append(f"rows of run {run_id} taken over where its {count:,} units are whole")
        if self.num_assumed_rates:
            parts.append(
                f"{ASSUMED_FRAME_FPS:g} fps assumed for {self.num_assumed_rates:,} frame folders (--frame-fps)"
            )
        return " · ".join(parts)


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
    """Logs a line every ten seconds, and one at the end."""

    def __init__(self) -> None:
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
            _LOG.info("extract: %s", line)
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
            disable=not _LOG.isEnabledFor(logging.INFO),
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
    return LiveReporter(stream) if stream.isatty() else PlainReporter()
