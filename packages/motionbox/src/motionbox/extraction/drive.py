"""Driving a run: hand out units, count faults, try again, stop in time. Knows nothing of pixels."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from motionbox.errors import InputError, Interrupted, Reason
from motionbox.extraction.executors import Executor
from motionbox.extraction.progress import Counts, Reporter
from motionbox.extraction.worker import Acknowledgement, Task, last_heard
from motionbox.inputs.data_root import is_object
from motionbox.inputs.schema import num_assumed_rates, refused_videos
from motionbox.signals import handling
from motionbox.storage import storage_of
from motionbox.storage.local_cache import DEFAULT_SCRATCH_GIB
from motionbox.store.reuse.sibling_units import SiblingUnits
from motionbox.store.units import InputFile, Unit, units_of
from motionbox.store.writing.failures import Fault, quarantined, record_fault
from motionbox.store.writing.runs import Run

_LOG = logging.getLogger(__name__)

_MAX_STORE_ERRORS = 3
_WAIT_SECONDS = 0.5
_PROGRESS_EVERY_SECONDS = 2.0


@dataclass(frozen=True)
class EngineOptions:
    """How a run is driven; nothing here changes its numbers.

    Attributes:
        backend: Flow backend of the CPU workers.
        drain_seconds: How long work under way may go on after a signal.
        stall_seconds: A worker that shows no sign of life for this long is killed.
        lost: Returns why the store is no longer this process's to write to, None while it is.
        scratch_gib: How much of a bucket's videos may lie on a worker's machine at a time.
    """

    backend: str = "auto"
    drain_seconds: float = 30.0
    stall_seconds: float = 900.0
    lost: Callable[[], str | None] | None = None
    scratch_gib: float = DEFAULT_SCRATCH_GIB


@dataclass
class Stop:
    """Whether and since when the run is to stop, and why.

    Attributes:
        reason: One line; None while the run goes on.
        deadline: `time.monotonic()` when work under way is abandoned.
    """

    reason: str | None = None
    deadline: float = float("inf")

    def request(self, reason: str, drain_seconds: float) -> None:
        """Ask for a stop; a second request abandons work under way at once."""
        self.deadline = time.monotonic() + (drain_seconds if self.reason is None else 0.0)
        self.reason = self.reason or reason

    def overdue(self) -> bool:
        """Return whether work under way is to be abandoned."""
        return time.monotonic() >= self.deadline

    def check(self) -> None:
        """Raise `Interrupted` when overdue."""
        if self.overdue():
            raise Interrupted(self.reason or "stopped")


@dataclass
class _InFlight:
    task: Task
    submitted_unix: float


@dataclass
class _State:
    pending: deque[Unit]
    refused: Mapping[str, tuple[Reason, str]]
    known: SiblingUnits
    objects: Mapping[str, InputFile]
    in_flight: dict[str, _InFlight] = field(default_factory=dict)
    store_errors: Counter[str] = field(default_factory=Counter)
    unstored: dict[str, str] = field(default_factory=dict)


def drive(run: Run, executor: Executor, options: EngineOptions, reporter: Reporter) -> Counts:
    """Process every unit of a run that is not committed.

    Args:
        run: The run.
        executor: Where units are executed.
        options: How.
        reporter: Told of every unit.

    Returns:
        What was done in this session.

    Raises:
        Interrupted: By a signal, a full disk, or because some units could not be stored; resumable.
        InputError: Workers lack a library or a device.
    """
    units = units_of(run.plan())
    manifest = run.manifest()
    done = set(run.paths.committed_units())
    refused = {video_id: (Reason.UNREADABLE, reason) for video_id, reason in refused_videos(manifest).items()}
    objects = {entry.path: entry for entry in run.inputs() if is_object(run.data_root, entry.path)}
    pending = deque(unit for unit in units if unit.unit_id not in done)
    state = _State(pending, refused, SiblingUnits(run), objects)
    counts = Counts(
        num_units=len(units),
        num_clips=sum(unit.num_clips for unit in units),
        num_frames_planned=sum(unit.estimated_frames for unit in state.pending),
        done_units=len(units) - len(state.pending),
        done_clips=sum(unit.num_clips for unit in units if unit.unit_id in done),
        num_assumed_rates=num_assumed_rates(manifest),
        rows_of=state.known.runs_of([unit.unit_id for unit in state.pending]),
    )
    stop = Stop()
    with handling(lambda name: stop.request(f"stopped by {name}", options.drain_seconds)), reporter:
        reporter.update(counts)
        _loop(run, executor, options, state, stop, counts, reporter)
    if stop.reason is not None:
        left = f"{len(state.pending):,} units" if state.pending else "only the snapshot"
        raise Interrupted(f"{stop.reason} with {left} left; the same command resumes the run")
    if state.unstored:
        unit_id, message = next(iter(state.unstored.items()))
        raise Interrupted(
            f"{len(state.unstored)} units could not be stored, the first is {unit_id}: {message}; "
            "the same command tries them again"
        )
    return counts


def _loop(
    run: Run,
    executor: Executor,
    options: EngineOptions,
    state: _State,
    stop: Stop,
    counts: Counts,
    reporter: Reporter,
) -> None:
    by_id = {unit.unit_id: unit for unit in state.pending}
    written = 0.0
    watch = _Watch(run, options)
    while state.in_flight or (state.pending and stop.reason is None):
        while state.pending and stop.reason is None and len(state.in_flight) < executor.num_slots:
            task = _task(run, state.pending.popleft(), options, state, executor.num_slots)
            state.in_flight[task.unit.unit_id] = _InFlight(task, time.time())
            executor.submit(task, stop.check)
        for acknowledgement in executor.wait(_WAIT_SECONDS):
            del state.in_flight[acknowledgement.unit_id]
            _settle(run, acknowledgement, by_id[acknowledgement.unit_id], options, state, stop, counts)
        if stop.overdue():
            for entry in state.in_flight.values():
                executor.cancel(entry.task)
                state.pending.append(entry.task.unit)
            state.in_flight.clear()
        watch.look(executor, state, stop)
        if time.monotonic() - written > max(_PROGRESS_EVERY_SECONDS, watch.every_seconds):
            written = time.monotonic()
            counts.num_frames_under_way = watch.num_frames(state)
            counts.look()
            _write_progress(run, counts, state)
        reporter.update(counts)
    _write_progress(run, counts, state)


def _task(run: Run, unit: Unit, options: EngineOptions, state: _State, num_slots: int) -> Task:
    videos = list(dict.fromkeys(piece.video_id for piece in unit.pieces))
    # Workers that are about equally fast take the units in turn.
    following = state.pending[num_slots - 1].pieces[0] if len(state.pending) >= num_slots else None
    if following is not None and following.path not in state.objects:
        following = None
    named = [*unit.pieces, *([] if following is None else [following])]
    return Task(
        run_root=run.paths.root.absolute(),  # workers have another working folder
        data_root=run.data_root,
        unit=unit,
        config=run.config,
        backend=options.backend,
        token=uuid.uuid4().hex,
        skip={video_id: state.refused[video_id] for video_id in videos if video_id in state.refused}
        | quarantined(run.paths, unit.unit_id, videos),
        stored=state.known.get(unit.unit_id),
        inputs={piece.path: state.objects[piece.path] for piece in named if piece.path in state.objects},
        scratch_gib=options.scratch_gib,
        following=following,
    )


def _settle(
    run: Run,
    answer: Acknowledgement,
    unit: Unit,
    options: EngineOptions,
    state: _State,
    stop: Stop,
    counts: Counts,
) -> None:
    """Take note of what became of an attempt, and put the unit back where it is not done."""
    if answer.fatal is not None:
        raise InputError(f"a worker cannot process any unit: {answer.fatal}")
    if answer.fault is not None:
        _count_fault(run, unit, answer.fault, options, stop)
        state.pending.append(unit)
        counts.num_faults += 1
    elif answer.lost is not None:
        state.pending.append(unit)
        counts.num_faults += 1
    elif answer.stop is not None:
        stop.request(answer.stop, options.drain_seconds)
        state.pending.append(unit)
    elif answer.store_error is not None:
        state.store_errors[unit.unit_id] += 1
        if answer.store_full:
            stop.request(f"the store cannot be written: {answer.store_error}", options.drain_seconds)
            state.pending.append(unit)
        elif state.store_errors[unit.unit_id] < _MAX_STORE_ERRORS:
            state.pending.append(unit)
        else:
            state.unstored[unit.unit_id] = answer.store_error
    else:
        counts.commit(
            num_clips=unit.num_clips,
            num_frames=answer.num_frames,
            num_frames_planned=unit.estimated_frames,
            failed_videos=answer.failed_videos,
        )
        counts.seconds_by_step.update(answer.seconds_by_step)
        _LOG.debug("unit %s: %d clips, %d frames", unit.unit_id, unit.num_clips, answer.num_frames)


def _count_fault(run: Run, unit: Unit, fault: Fault, options: EngineOptions, stop: Stop) -> None:
    try:
        record_fault(run.paths, unit.unit_id, fault)
    except OSError as error:
        stop.request(f"the store cannot be written: {error}", options.drain_seconds)


class _Watch:
    """Looks after the tasks under way: as often as it is asked on a file system, now and then in a bucket."""

    def __init__(self, run: Run, options: EngineOptions) -> None:
        self._options = options
        self.every_seconds = storage_of(run.paths.root).poll_seconds
        self._heard_at = self._looked_at = -self.every_seconds
        self._num_frames = 0

    def look(self, executor: Executor, state: _State, stop: Stop) -> None:
        """Kill workers that show no sign of life; ask for a stop where another process has the store."""
        reason = self._options.lost() if self._options.lost is not None and stop.reason is None else None
        if reason is not None:
            stop.request(reason, self._options.drain_seconds)
        if time.monotonic() - self._looked_at < self.every_seconds:
            return
        self._looked_at = time.monotonic()
        _cancel_stalled(executor, state, self._options)

    def num_frames(self, state: _State) -> int:
        """Return the frames done of the units under way, when last looked."""
        if time.monotonic() - self._heard_at >= self.every_seconds:
            self._heard_at = time.monotonic()
            self._num_frames = sum(last_heard(entry.task)[1] for entry in state.in_flight.values())
        return self._num_frames


def _cancel_stalled(executor: Executor, state: _State, options: EngineOptions) -> None:
    now = time.time()
    for entry in state.in_flight.values():
        heard = entry.submitted_unix
        with contextlib.suppress(OSError):
            heard = max(heard, entry.task.sign_of_life.stat().st_mtime)
        if now - heard > options.stall_seconds:
            executor.cancel(entry.task)


def _write_progress(run: Run, counts: Counts, state: _State) -> None:
    """Leave a note for `motionbox status`; a torn or missing one harms nobody, so it is not forced to disk."""
    content: dict[str, Any] = {
        "updated_unix": time.time(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "units_in_flight": sorted(state.in_flight),
        **counts.summary(),
    }
    with contextlib.suppress(OSError):
        storage_of(run.paths.root).note(run.paths.progress, json.dumps(content).encode())
