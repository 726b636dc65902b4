"""Runs extractions in forked processes, breaks them, resumes them, and asks an oracle whether the store ever lied.

Everything is small (a few units of numbers, a flow that costs nothing) but goes through the real planner, pipeline,
write path, engine and reader. Forking a warm process makes a trial cost a fraction of a second.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy.random
import pyarrow.dataset
import zarr.codecs
import zarr.storage

from motionbox.config import ExtractConfig
from motionbox.errors import Interrupted, StoreError
from motionbox.extraction import work_unit as pipeline
from motionbox.extraction.drive import EngineOptions, drive
from motionbox.extraction.progress import PlainReporter
from motionbox.extraction.snapshot import make_snapshot
from motionbox.scoring.guidance.controls import write_random
from motionbox.signals import interrupted_by_signals
from motionbox.storage import failpoints
from motionbox.store import open_store
from motionbox.store.care.garbage import find_garbage, remove
from motionbox.store.care.verify import verify_store
from motionbox.store.layout import run_paths
from motionbox.store.reuse.sibling_units import SiblingUnits
from motionbox.store.writing.attempt import Attempt
from motionbox.store.writing.commit import read_commit
from motionbox.store.writing.guidance_writer import GuidanceWriter
from motionbox.store.writing.runs import Run, library_versions
from motionbox.video.frames import WHOLE
from store_oracle import check_complete, check_consistency, fingerprint, whole_fingerprint
from store_support import SIDE, NumberSource, make_run, number_executor, number_videos, small_config

VIDEOS = {"a": "14@4", "b": "1@4", "c": "30@4", "d": "error not_a_video", "e": "10@4!6", "f": "16@4"}
MAX_FRAMES = 16
CONFIG = small_config(**{"store.clips": "jpeg", "store.flow": "float16", "frames.short_side_px": SIDE})
# Loaded before anything is forked, so that the processes need not do it again and again.
WARM = (numpy.random, pyarrow.dataset, pipeline, zarr.codecs, zarr.storage, library_versions())
DONE, INTERRUPTED, FAILED, KILLED = 0, 75, 70, -9
_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class Fault:
    """One fault to plant.

    Attributes:
        kind: `failpoint`, `sigkill`, `sigterm`, `race` or `damage`.
        detail: `<point>:<nth>:<kind>` for a failpoint; otherwise what the random numbers decide.
        seed: Seed of those random numbers.
        partial: Units that a session before the fault commits, with a snapshot; -1: the fault meets an empty store.
        links: Whether the file system has hard links.
        known: Whether another run has the rows, so that sessions code frames alone.
    """

    kind: str
    detail: str
    seed: int
    partial: int
    links: bool = True
    known: bool = False


@dataclass
class Outcome:
    """What became of a trial.

    Attributes:
        fault: What was planted.
        struck: Whether it happened (a failpoint may lie behind the end of the run).
        violations: What the oracle found wrong.
        redone: Units processed more often than once.
    """

    fault: Fault
    struck: bool = False
    violations: list[str] = field(default_factory=list)
    redone: int = 0


def fork(function: Callable[[], int]) -> int:
    """Run a function in a forked process with the signal handlers of a fresh one; returns its process id."""
    process = os.fork()
    if process:
        return process
    code = FAILED
    try:
        # Another test of this process may have started Ray, whose handler of SIGTERM stays.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = function()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(process: int, timeout_seconds: float = _TIMEOUT_SECONDS) -> int:
    """Return a process's exit code, negative for a signal; kill it when it takes too long."""
    descriptor = os.pidfd_open(process)
    try:
        import select

        if not select.select([descriptor], [], [], timeout_seconds)[0]:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            raise TimeoutError(f"process {process} did not end within {timeout_seconds} s")
    finally:
        os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


class Stage:
    """A store under test, and the sessions that work on it; without hard links where asked for."""

    def __init__(self, root: Path, *, links: bool = True, videos: dict[str, str] = VIDEOS) -> None:
        self.links = links
        self.lost: Callable[[], str | None] | None = None
        self.root = root
        self.store = root / "store"
        self.journal = root / "journal"
        self.marker = root / "struck"
        root.mkdir(parents=True)
        self.manifest = number_videos(root / "videos", videos)
        for path in (root / "videos").iterdir():
            os.utime(path, (1, 1))

    def session(
        self, *, fault: str | None = None, stop_after: int | None = None, config: ExtractConfig = CONFIG
    ) -> int:
        """Do what `motionbox extract` does; to be called in a forked process."""
        os.environ["MOTIONBOX_FAULT_ONCE"] = str(self.marker)
        failpoints.arm(fault)
        if not self.links:
            os.link = _refuse_link
        if stop_after is not None:
            _stop_after(stop_after)
        try:
            with interrupted_by_signals():
                run = make_run(self.store, self.root / "videos", self.manifest, config=config, max_frames=MAX_FRAMES)
                drive(run, number_executor(_Journalled(self.journal)), EngineOptions(lost=self.lost), PlainReporter())
                make_snapshot(run)
                SiblingUnits(run).carry_guidances(run)
                self._guide(run)
        except Interrupted:
            if stop_after is not None:
                make_snapshot(run)
            return INTERRUPTED
        except (OSError, StoreError):
            return FAILED
        return DONE

    def _guide(self, run: Run) -> None:
        """Do what `motionbox import-boxes` does."""
        with open_store(self.store) as store, GuidanceWriter(run.paths, "random") as writer:
            write_random(store, writer, like="motion", seed=5)
            writer.publish({"made": "at random"})

    def make_rows(self) -> None:
        """Make a run without colour frames, from whose rows those of the next sessions are taken."""
        config = small_config(**{"store.flow": "float16", "frames.short_side_px": SIDE})
        assert wait(fork(lambda: self.session(config=config))) == DONE
        self.journal.unlink()

    def processed(self) -> list[str]:
        """Return the units that were begun, in order, over all sessions."""
        return self.journal.read_text().split() if self.journal.exists() else []


class _Journalled(NumberSource):
    """Notes each opening of a piece's video."""

    def __init__(self, journal: Path) -> None:
        super().__init__(colour=True)
        self._journal = journal

    def open(self, path, span=WHOLE):
        with self._journal.open("a") as file:
            file.write(f"{path.stem}:{span.start_seconds}\n")
        return super().open(path, span)


def _refuse_link(source: Path, target: Path) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(source), None, str(target))


def _stop_after(num_units: int) -> None:
    """Ask this session to stop once it has committed so many units."""
    real = Attempt.commit
    count = 0

    def counting(*arguments, **facts):
        nonlocal count
        count += 1
        if count == num_units:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **facts)

    Attempt.commit = counting


@dataclass(frozen=True)
class Expected:
    """What an uninterrupted run gives.

    Attributes:
        digest: Its content digest.
        fingerprint: Of everything that a reader sees.
        num_opened: How often a video was opened.
    """

    digest: str
    fingerprint: str
    num_opened: int


def reference(root: Path) -> Expected:
    """Return what an uninterrupted run gives."""
    stage = Stage(root)
    assert wait(fork(stage.session)) == DONE

    def look() -> int:
        with open_store(stage.store) as store:
            return _write(root / "seen", f"{store.info['content_digest']} {whole_fingerprint(store)}")

    assert wait(fork(look)) == DONE
    return Expected(*(root / "seen").read_text().split(), num_opened=len(stage.processed()))


def _write(path: Path, text: str) -> int:
    path.write_text(text)
    return DONE


def run_trial(root: Path, fault: Fault, expected: Expected) -> Outcome:
    """Plant one fault, resume, and judge; in a process of its own."""
    stage = Stage(root, links=fault.links)
    result = root / "outcome.json"

    def supervise() -> int:
        outcome = _trial(stage, fault, expected)
        return _write(
            result,
            json.dumps({"struck": outcome.struck, "violations": outcome.violations, "redone": outcome.redone}),
        )

    outcome = Outcome(fault)
    try:
        if wait(fork(supervise)) == DONE:
            return Outcome(fault, **json.loads(result.read_text()))
        outcome.violations.append("the trial itself broke")
    except TimeoutError as error:
        outcome.violations.append(str(error))
    return outcome


def _trial(stage: Stage, fault: Fault, expected: Expected) -> Outcome:
    outcome = Outcome(fault)
    rng = random.Random(fault.seed)
    if fault.known:
        stage.make_rows()
    if fault.partial >= 0:
        code = wait(fork(lambda: stage.session(stop_after=fault.partial)))
        if code not in (INTERRUPTED, DONE):
            outcome.violations.append(f"the session before the fault ended with {code}")
    # Damage is done to what a pinned reader shows, so it may see that.
    with contextlib.nullcontext() if fault.kind == "damage" else _pinned_reader(stage, outcome):
        _PLANTERS[fault.kind](stage, fault, rng, outcome)
        outcome.violations += check_consistency(stage.store)
        stage.marker.touch()
        code = wait(fork(stage.session))
        if code != DONE:
            outcome.violations.append(f"the resuming session ended with {code}")
        outcome.violations += check_complete(stage.store, expected.digest, len(VIDEOS))
    with open_store(stage.store) as store:
        if whole_fingerprint(store) != expected.fingerprint:
            outcome.violations.append("a reader sees something else than after an uninterrupted run")
    outcome.redone = len(stage.processed()) - expected.num_opened
    return outcome


@contextlib.contextmanager
def _pinned_reader(stage: Stage, outcome: Outcome) -> Iterator[None]:
    """Hold the store's snapshot open meanwhile and compare what it shows before and after."""
    try:
        reader = open_store(stage.store)
    except StoreError:
        yield
        return
    before = fingerprint(reader)
    yield
    remove(find_garbage(stage.store))
    if fingerprint(reader) != before:
        outcome.violations.append("a pinned reader saw its snapshot change")
    reader.close()


def _plant_failpoint(stage: Stage, fault: Fault, rng: random.Random, outcome: Outcome) -> None:
    process = fork(lambda: stage.session(fault=fault.detail))
    if fault.detail.endswith("hang"):
        _kill_when(process, stage.marker.exists, outcome)
    code = wait(process)
    outcome.struck = stage.marker.exists()
    if code not in (DONE, INTERRUPTED, FAILED, KILLED):
        outcome.violations.append(f"the session ended with {code}")
    if outcome.struck and fault.detail.endswith("enospc") and code == DONE:
        outcome.violations.append("a full disk went unnoticed")


def _kill_when(process: int, condition: Callable[[], bool], outcome: Outcome) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not condition() and time.monotonic() < deadline:
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)


def _plant_signal(stage: Stage, fault: Fault, rng: random.Random, outcome: Outcome) -> None:
    process = fork(stage.session)
    time.sleep(rng.uniform(0.0, float(fault.detail)))
    number = signal.SIGKILL if fault.kind == "sigkill" else signal.SIGTERM
    running = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    os.kill(process, number)
    code = wait(process)
    outcome.struck = running
    # Before its handlers are set a session simply dies of SIGTERM.
    allowed = {DONE, KILLED} if fault.kind == "sigkill" else {DONE, INTERRUPTED, -signal.SIGTERM}
    if code not in allowed:
        outcome.violations.append(f"the session ended with {code}")


def _plant_race(stage: Stage, fault: Fault, rng: random.Random, outcome: Outcome) -> None:
    race(stage.session, fault, rng, outcome, wait)


def race(
    session: Callable[[], int], fault: Fault, rng: random.Random, outcome: Outcome, wait_for: Callable[[int], int]
) -> None:
    """Two drivers on one store that ask nobody; in half of the trials one of them is killed on its way."""
    processes = [fork(session) for _ in range(2)]
    outcome.struck = True
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0.0, float(fault.detail)))
        os.kill(processes[0], signal.SIGKILL)
    for process in processes:
        code = wait_for(process)
        if code not in (DONE, KILLED):
            outcome.violations.append(f"a racing session ended with {code}")


def _plant_damage(stage: Stage, fault: Fault, rng: random.Random, outcome: Outcome) -> None:
    """Tear or flip a committed file: `verify` must say so, and a run without that commit must heal it."""
    process = fork(stage.session)
    wait(process)
    paths = run_paths(stage.store)[-1]
    unit_id = rng.choice(paths.committed_units())
    record = read_commit(paths, unit_id)
    name = rng.choice(sorted(name for name, told in record["files"].items() if told["bytes"]))
    target = paths.attempt(unit_id, record["attempt"]) / name
    data = bytearray(target.read_bytes())
    if fault.detail == "flip":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    else:
        del data[rng.randrange(len(data)) :]
    target.write_bytes(data)
    outcome.struck = True
    problems = [check.name for check in verify_store(stage.store) if check.problem]
    if problems != [f"unit {unit_id}"]:
        outcome.violations.append(f"verify named {problems} for damage to {unit_id}")
    for path in (paths.commit(unit_id), *(paths.snapshots / str(number) for number in paths.snapshot_numbers())):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


_PLANTERS: dict[str, Callable[[Stage, Fault, random.Random, Outcome], None]] = {
    "failpoint": _plant_failpoint,
    "sigkill": _plant_signal,
    "sigterm": _plant_signal,
    "race": _plant_race,
    "damage": _plant_damage,
}
