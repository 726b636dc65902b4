"""What runs in a worker: one unit, from its videos to its commit record, answered by a small acknowledgement."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from motionbox.config import ExtractConfig
from motionbox.errors import CredentialsError, Interrupted, MotionBoxError, Reason, StoreError
from motionbox.extraction.media.fetching import FetchingSource, scratch_cache
from motionbox.extraction.time_spent import TimeSpent
from motionbox.inputs.data_root import DataRoot, place_below
from motionbox.storage import StorePath, storage_of
from motionbox.storage.failpoints import failpoint
from motionbox.storage.local_cache import DEFAULT_SCRATCH_GIB
from motionbox.store.layout import RunPaths
from motionbox.store.reuse.sibling_units import StoredUnit
from motionbox.store.reuse.stored_blocks import StoredBlocks
from motionbox.store.units import InputFile, Piece, Unit
from motionbox.store.writing.attempt import Attempt
from motionbox.store.writing.failures import Fault

if TYPE_CHECKING:
    from motionbox.extraction.work_unit import FrameSource
    from motionbox.flow import FlowEstimator

OTHER = "other"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}  # EACCES: rights or credentials of a bucket ended
# What mallopt calls the settings of `keep_freed_memory`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 256 << 20
_LARGEST_FROM_HEAP_BYTES = 32 << 20  # glibc takes no more


@dataclass(frozen=True)
class Task:
    """One attempt at a unit.

    Attributes:
        run_root: The run's directory.
        data_root: What the inputs are relative to.
        unit: What to process.
        config: Every number of the extraction.
        backend: Flow backend.
        token: Names this attempt's sign of life.
        skip: Quarantined videos with reason and message.
        stored: The unit as a run has it that differs by labels or training clips alone; None where none has.
        inputs: Path of each video in a bucket -> the object as the run knows it.
        scratch_gib: How much of them may lie on a worker's machine at a time.
        following: A piece of the unit that this worker will likely be given next, whose object is in `inputs`.
    """

    run_root: StorePath
    data_root: DataRoot
    unit: Unit
    config: ExtractConfig
    backend: str
    token: str
    skip: Mapping[str, tuple[Reason, str]]
    stored: StoredUnit | None = None
    inputs: Mapping[str, InputFile] = field(default_factory=dict)
    scratch_gib: float = DEFAULT_SCRATCH_GIB
    following: Piece | None = None

    @property
    def paths(self) -> RunPaths:
        """Return the run's directories."""
        return RunPaths(self.run_root)

    @property
    def sign_of_life(self) -> StorePath:
        """Return the file that names the video being processed and is touched with every block."""
        return self.paths.attempts / self.unit.unit_id / f"working-{self.token}"


@dataclass(frozen=True)
class Acknowledgement:
    """What a worker answers: a few hundred bytes, whatever the unit's size.

    Attributes:
        unit_id: The unit.
        num_frames: Frames processed.
        failed_videos: Videos with an error in this unit.
        seconds: Wall time of the attempt.
        seconds_by_step: The same by step, see `TimeSpent`.
        fault: Why the attempt is void; None when the unit is committed.
        store_error: Why the result could not be stored; None when it could.
        store_full: Whether that will not go away by trying again.
        lost: Why the attempt was lost through no fault of its videos (a node went away); None otherwise.
        fatal: Why no attempt can work here (a library or a device is missing); None otherwise.
        stop: Why the run is to stop and be resumed later (credentials have expired); None otherwise.
    """

    unit_id: str
    num_frames: int = 0
    failed_videos: tuple[str, ...] = ()
    seconds: float = 0.0
    seconds_by_step: Mapping[str, float] = field(default_factory=dict)
    fault: Fault | None = None
    store_error: str | None = None
    store_full: bool = False
    lost: str | None = None
    fatal: str | None = None
    stop: str | None = None


Tools = Callable[[ExtractConfig, str], "tuple[FrameSource, FlowEstimator]"]
"""What makes a worker's decoder and flow estimator, of the config and the flow backend."""


@lru_cache(maxsize=1)
def default_tools(config: ExtractConfig, backend: str) -> tuple[FrameSource, FlowEstimator]:
    """Return what decodes in a child process and what computes the flow, kept from unit to unit."""
    import cv2

    from motionbox.flow import create_flow_estimator
    from motionbox.store.clip_blocks import SHORT_SIDE_PX
    from motionbox.video.sources import ChildSource

    cv2.setNumThreads(1)
    keep_freed_memory()
    colour_px = None if config.store.clips == "none" else SHORT_SIDE_PX
    source = ChildSource(config.frames.short_side_px, colour_short_side_px=colour_px)
    return source, create_flow_estimator(config.flow, backend=backend)


def execute(task: Task, *, check: Callable[[], None] | None = None, tools: Tools = default_tools) -> Acknowledgement:
    """Process a unit and commit its result.

    Args:
        task: The attempt.
        check: Called with every sign of life; may raise to abandon the attempt.
        tools: Makes what decodes and what computes the flow.

    Returns:
        What happened; faults of videos and of the store are answers, not exceptions.
    """
    from motionbox.extraction.work_unit import PieceFault, process_unit

    started = time.perf_counter()
    sign = _SignOfLife(task.sign_of_life, check)
    spent = TimeSpent()
    unit_id, config = task.unit.unit_id, task.config
    try:
        decoder, estimator = tools(config, task.backend)
        stored = None if task.stored is None else StoredBlocks(task.stored, config)
        with (
            spent.on(OTHER),
            contextlib.closing(_source(task, decoder, sign)) as source,
            Attempt(task.paths, unit_id, config.store) as attempt,
        ):
            for rows in process_unit(
                task.unit,
                config,
                task.data_root,
                source,
                estimator,
                skip=task.skip,
                stored=stored,
                on_video=lambda video_id: sign.give(video_id, attempt.rows.num_frames),
                spent=spent,
            ):
                with spent.on("store"):
                    attempt.add(rows)
                sign.give(rows.video_id, attempt.rows.num_frames)
            source.keep_following()
            seconds = time.perf_counter() - started
            with spent.on("store"):
                attempt.commit(seconds=round(seconds, 3), backend=estimator.name, **_taken_over(task.stored, stored))
        failpoint("unit.acknowledge")
        return Acknowledgement(
            unit_id, attempt.rows.num_frames, attempt.rows.failed_videos, seconds, seconds_by_step=dict(spent.seconds)
        )
    except PieceFault as error:
        return Acknowledgement(task.unit.unit_id, fault=Fault(error.reason, error.message, error.video_id))
    except MemoryError:
        fault = Fault(Reason.OUT_OF_MEMORY, "the worker ran out of memory", sign.video_id)
        return Acknowledgement(task.unit.unit_id, fault=fault)
    except (OSError, StoreError) as error:
        full = isinstance(error, OSError) and error.errno in _FULL
        return Acknowledgement(task.unit.unit_id, store_error=str(error), store_full=full)
    except CredentialsError as error:
        return Acknowledgement(task.unit.unit_id, stop=str(error))
    except Interrupted:
        raise
    except Exception as error:  # a bug, or a machine that lacks something: told apart by whether a video was begun
        what = f"{type(error).__name__}: {error}"
        if sign.video_id is None or isinstance(error, ImportError | MotionBoxError):
            return Acknowledgement(task.unit.unit_id, fatal=what)
        return Acknowledgement(task.unit.unit_id, fault=Fault(Reason.INTERNAL, what, sign.video_id))
    finally:
        sign.remove()


def _taken_over(unit: StoredUnit | None, stored: StoredBlocks | None) -> dict[str, Any]:
    """Return what the commit record says of rows that are another run's."""
    if unit is None or stored is None or stored.num_read == 0:
        return {}
    return {"rows_of": unit.run_id, "num_blocks_taken": stored.num_read}


def _source(task: Task, decoder: FrameSource, sign: _SignOfLife) -> FetchingSource:
    pieces = [(piece, place_below(task.data_root, piece.path)) for piece in task.unit.pieces]
    following = None
    if task.following is not None:
        following = (task.following, place_below(task.data_root, task.following.path))
    cache = scratch_cache(task.scratch_gib)
    return FetchingSource(decoder, cache, pieces, task.inputs, following=following, beat=sign.repeat)


def keep_freed_memory() -> bool:
    """Tell the C library to keep up to 256 MiB of freed memory, for arrays of up to 32 MiB.

    By default it hands the arrays of a frame back to the system and gets them again for the next frame, as pages that
    must be filled with zeros first: that took a third of the time of all steps after flow.

    Returns:
        Whether it was told: C libraries other than glibc have no such setting.
    """
    try:
        tune = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(tune(_MMAP_THRESHOLD, _LARGEST_FROM_HEAP_BYTES)) and bool(tune(_TRIM_THRESHOLD, _KEPT_BYTES))


class _SignOfLife:
    """Says in the store which video is being processed, so that a crash or hang is counted against that video.

    In a bucket it is told at once when a video begins, and otherwise now and then: each note is a request.
    """

    def __init__(self, path: StorePath, check: Callable[[], None] | None) -> None:
        self._path = path
        self._check = check
        self._every = storage_of(path).poll_seconds
        self._given_at = 0.0
        self._num_frames = 0
        self.video_id: str | None = None

    def give(self, video_id: str, num_frames: int) -> None:
        """Note the video, and how many frames of the unit are done."""
        if self._check is not None:
            self._check()
        if video_id == self.video_id and time.monotonic() - self._given_at < self._every:
            return
        if self.video_id is None:
            storage_of(self._path).make_directory(self._path.parent)
        self.video_id, self._num_frames = video_id, num_frames
        self._given_at = time.monotonic()
        storage_of(self._path).scribble(
            self._path, json.dumps([video_id, num_frames, socket.gethostname(), os.getpid()]).encode()
        )

    def repeat(self) -> None:
        """Say that the worker lives while a video is on its way."""
        if self.video_id is not None:
            self.give(self.video_id, self._num_frames)

    def remove(self) -> None:
        """Remove the note."""
        with contextlib.suppress(OSError) if self._every else contextlib.nullcontext():
            if self.video_id is not None or not self._every:
                self._path.unlink(missing_ok=True)


def last_heard(task: Task) -> tuple[str | None, int]:
    """Return the video that an attempt was processing when it was last heard of, and the frames done by then."""
    try:
        video_id, num_frames, *_ = json.loads(task.sign_of_life.read_text())
        return str(video_id), int(num_frames)
    except (OSError, ValueError, TypeError):
        return None, 0
