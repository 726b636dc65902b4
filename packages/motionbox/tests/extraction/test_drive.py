import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from messages_support import messages
from motionbox.cli import main
from motionbox.errors import InputError, Interrupted, Reason
from motionbox.extraction.drive import EngineOptions, Stop, _State, _task, drive
from motionbox.extraction.executors import SerialExecutor
from motionbox.extraction.progress import Counts, PlainReporter
from motionbox.extraction.snapshot import make_snapshot
from motionbox.extraction.worker import Acknowledgement, Task
from motionbox.storage import failpoints
from motionbox.store import open_store
from motionbox.store.care.garbage import find_garbage, remove
from motionbox.store.care.verify import verify_store
from motionbox.store.layout import read_json
from motionbox.store.reuse.sibling_units import SiblingUnits
from motionbox.store.units import InputFile, units_of
from motionbox.store.writing.failures import MAX_FAULTS, Fault, quarantined, record_fault, recorded_faults
from motionbox.store.writing.lock import store_lock
from motionbox.store.writing.runs import Run
from motionbox.video.frames import WHOLE
from store_support import DifferenceFlow, NumberSource, make_run, number_executor, number_videos

VIDEOS = {"a": "60@25", "b": "30@25", "c": "300@25", "d": "10@25"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    manifest = number_videos(tmp_path / "videos", VIDEOS)
    return make_run(tmp_path / "store", tmp_path / "videos", manifest, max_frames=100)


def drive_serially(run: Run, executor: SerialExecutor | None = None, **options) -> str:
    with messages("motionbox") as lines:
        drive(run, executor or number_executor(), EngineOptions(**options), PlainReporter())
    return "\n".join(lines)


def statuses(run: Run) -> dict[str, tuple[str, str]]:
    make_snapshot(run)
    rows = open_store(run.paths.root.parent.parent).clips().to_pylist()
    return {row["clip_id"]: (row["status"], row["reason"].split(":")[0]) for row in rows}


def test_a_run_commits_every_unit_and_a_second_does_nothing(run: Run) -> None:
    text = drive_serially(run)
    assert "4/4 clips" in text
    assert run.paths.committed_units() == [unit.unit_id for unit in units_of(run.plan())]
    assert statuses(run) == dict.fromkeys(VIDEOS, ("ok", ""))
    assert not list(run.paths.attempts.rglob("working-*"))
    drive_serially(run, SerialExecutor(lambda *_: pytest.fail("a unit is processed again")))


def test_a_deterministic_error_is_a_result_of_the_first_attempt(tmp_path: Path) -> None:
    manifest = number_videos(tmp_path / "videos", {**VIDEOS, "x": "error not_a_video"})
    run = make_run(tmp_path / "store", tmp_path / "videos", manifest)
    drive_serially(run)
    assert statuses(run)["x"] == ("failed", "not_a_video")
    assert not any(run.paths.failures.iterdir())


def test_a_video_that_crashes_three_times_is_quarantined_alone(tmp_path: Path) -> None:
    manifest = number_videos(tmp_path / "videos", {**VIDEOS, "x": "error crashed", "y": "error timeout"})
    run = make_run(tmp_path / "store", tmp_path / "videos", manifest)
    text = drive_serially(run)
    assert statuses(run) == {
        **dict.fromkeys(VIDEOS, ("ok", "")),
        "x": ("failed", "crashed"),
        "y": ("failed", "timeout"),
    }
    faults = [f for unit in units_of(run.plan()) for f in recorded_faults(run.paths, unit.unit_id)]
    assert sorted(f.video_id for f in faults) == ["x"] * MAX_FAULTS + ["y"] * MAX_FAULTS
    assert f"{2 * MAX_FAULTS} faults" in text


def test_faults_are_counted_over_sessions(run: Run) -> None:
    for number in range(MAX_FAULTS):
        assert quarantined(run.paths, "u000000", ["a", "b"]) == {}
        record_fault(run.paths, "u000000", Fault(Reason.CRASHED, f"crash {number}", "a"))
    found = quarantined(run.paths, "u000000", ["a", "b"])
    assert list(found) == ["a"]
    assert found["a"][0] is Reason.CRASHED
    assert quarantined(run.paths, "u000001", ["a"]) == {}


def test_faults_without_a_culprit_quarantine_the_unit(run: Run) -> None:
    for _ in range(MAX_FAULTS):
        record_fault(run.paths, "u000000", Fault(Reason.OUT_OF_MEMORY, "killed", None))
    assert set(quarantined(run.paths, "u000000", ["a", "b"])) == {"a", "b"}


class Failing(SerialExecutor):
    """Answers the first attempts itself."""

    def __init__(self, answers: list[Acknowledgement]) -> None:
        super().__init__(lambda *_: (NumberSource(), DifferenceFlow()))
        self.answers = answers
        self.attempts: list[str] = []

    def wait(self, timeout_seconds: float) -> list[Acknowledgement]:
        self.attempts.append(self._waiting[0][0].unit.unit_id)
        if self.answers and self.answers[0].unit_id == self.attempts[-1]:
            self._waiting.pop()
            return [self.answers.pop(0)]
        return super().wait(timeout_seconds)


def test_a_store_fault_is_tried_again_and_never_blamed_on_a_video(run: Run) -> None:
    executor = Failing([Acknowledgement("u000000", store_error="EIO")] * 2)
    drive(run, executor, EngineOptions(), PlainReporter())
    assert executor.attempts.count("u000000") == 3
    assert statuses(run) == dict.fromkeys(VIDEOS, ("ok", ""))
    assert not any(run.paths.failures.iterdir())


def test_a_unit_that_cannot_be_stored_leaves_the_run_resumable(run: Run) -> None:
    executor = Failing([Acknowledgement("u000001", store_error="EIO")] * 3)
    with pytest.raises(Interrupted, match="1 units could not be stored, the first is u000001: EIO"):
        drive(run, executor, EngineOptions(), PlainReporter())
    assert "u000001" not in run.paths.committed_units()
    drive_serially(run)
    assert statuses(run) == dict.fromkeys(VIDEOS, ("ok", ""))


@pytest.fixture
def fault() -> Iterator[Callable[[str], None]]:
    """Plants a fault in this process, see `failpoints`."""
    yield failpoints.arm
    failpoints.arm(None)


def test_a_full_disk_stops_the_run(run: Run, fault: Callable[[str], None]) -> None:
    fault("commit.write:1:enospc")
    with pytest.raises(Interrupted, match=r"No space left on device.*units left; the same command resumes"):
        drive_serially(run)
    assert run.paths.committed_units() == []
    drive_serially(run)
    assert len(run.paths.committed_units()) == len(units_of(run.plan()))


def test_a_machine_that_lacks_something_ends_the_run_and_blames_no_video(run: Run) -> None:
    def tools(*_arguments: object) -> None:
        raise ModuleNotFoundError("No module named 'numba'")

    with pytest.raises(InputError, match="No module named 'numba'"):
        drive_serially(run, SerialExecutor(tools))
    assert not any(run.paths.failures.iterdir())


def test_a_bug_on_one_video_costs_that_video(tmp_path: Path) -> None:
    class Buggy(DifferenceFlow):
        def __call__(self, frame0, frame1, *, initial=None):
            if int(frame0[0, 0]) == int(bad[0, 0]) and (frame0[24:] == bad[24:]).all():
                raise ZeroDivisionError("planted")
            return super().__call__(frame0, frame1, initial=initial)

    manifest = number_videos(tmp_path / "videos", VIDEOS)
    run = make_run(tmp_path / "store", tmp_path / "videos", manifest)
    path = tmp_path / "videos" / "d.num"
    bad = next(NumberSource().open(path)[1]).grey
    drive_serially(run, number_executor(flow=Buggy()))
    assert statuses(run) == {**dict.fromkeys(VIDEOS, ("ok", "")), "d": ("failed", "internal")}


def test_a_lost_node_costs_an_attempt_and_no_blame(run: Run) -> None:
    executor = Failing([Acknowledgement("u000000", lost="node died")] * 5)
    drive(run, executor, EngineOptions(), PlainReporter())
    assert statuses(run) == dict.fromkeys(VIDEOS, ("ok", ""))


class Signalling(NumberSource):
    """Sends this process one signal, when it opens a video: the first one, or the one of a name."""

    def __init__(self, number: signal.Signals, name: str | None = None) -> None:
        super().__init__()
        self._number: signal.Signals | None = number
        self._name = name

    def open(self, path: Path, span=WHOLE):
        if self._number is not None and self._name in (None, path.stem):
            os.kill(os.getpid(), self._number)
            self._number = None
        return super().open(path, span)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_and_the_same_command_resumes(run: Run, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"stopped by {number.name} with .* units left"):
        drive_serially(run, number_executor(Signalling(number)))
    assert len(run.paths.committed_units()) == 1  # the unit under way was finished
    assert signal.getsignal(number) is before
    drive_serially(run)
    assert len(run.paths.committed_units()) == len(units_of(run.plan()))


def test_a_signal_at_the_last_unit_leaves_only_the_snapshot(run: Run) -> None:
    last = units_of(run.plan())[-1]
    assert [piece.video_id for piece in last.pieces] == ["d"]
    with pytest.raises(Interrupted, match="stopped by SIGTERM with only the snapshot left"):
        drive_serially(run, number_executor(Signalling(signal.SIGTERM, "d")))


def test_work_under_way_is_abandoned_when_the_drain_is_over(run: Run) -> None:
    with pytest.raises(Interrupted):
        drive_serially(run, number_executor(Signalling(signal.SIGTERM)), drain_seconds=0.0)
    assert run.paths.committed_units() == []
    assert not list(run.paths.attempts.rglob("working-*"))


class Deaf(SerialExecutor):
    """Works for ever; SIGTERM comes while it does."""

    num_slots = 2

    def wait(self, timeout_seconds: float) -> list[Acknowledgement]:  # noqa: ARG002
        os.kill(os.getpid(), signal.SIGTERM)
        return []

    def cancel(self, task: Task) -> None:  # noqa: ARG002
        self._waiting.clear()


def test_a_task_names_what_its_worker_is_likely_to_be_given_next(run: Run) -> None:
    """Of two workers the one that begins a unit is given the unit after the next; only objects can be fetched."""
    first, *rest = units_of(run.plan())
    objects = {piece.path: InputFile(piece.path, "file", 5, 0) for unit in (first, *rest) for piece in unit.pieces}
    state = _State(deque(rest), {}, SiblingUnits(run), objects)
    task = _task(run, first, EngineOptions(), state, num_slots=2)
    assert task.following == rest[1].pieces[0]
    assert set(task.inputs) == {piece.path for piece in (*first.pieces, rest[1].pieces[0])}
    state.pending = deque(rest[:1])
    assert _task(run, first, EngineOptions(), state, num_slots=2).following is None
    assert _task(run, first, EngineOptions(), state, num_slots=1).following == rest[0].pieces[0]
    state.objects = {}
    assert _task(run, first, EngineOptions(), state, num_slots=1).following is None


def test_abandoned_units_are_among_those_left(run: Run) -> None:
    with pytest.raises(Interrupted, match=f"with {len(units_of(run.plan()))} units left"):
        drive(run, Deaf(), EngineOptions(drain_seconds=0.0), PlainReporter())


def test_a_second_signal_ends_the_drain() -> None:
    stop = Stop()
    stop.request("first", 30.0)
    assert not stop.overdue()
    stop.request("second", 30.0)
    assert stop.overdue()
    assert stop.reason == "first"


class Stalling(SerialExecutor):
    """Gives a sign of life long ago and never an answer, until the engine kills the attempt."""

    def __init__(self) -> None:
        super().__init__(lambda *_: (NumberSource(), DifferenceFlow()))
        self.num_cancelled = 0

    def submit(self, task, check) -> None:
        super().submit(task, check)
        if self.num_cancelled < MAX_FAULTS:
            task.sign_of_life.parent.mkdir(parents=True, exist_ok=True)
            task.sign_of_life.write_text('["a", 7]')

    def wait(self, timeout_seconds: float) -> list[Acknowledgement]:
        task = self._waiting[0][0]
        if task.unit.unit_id != "u000000" or "a" in task.skip:
            return super().wait(timeout_seconds)
        if task.token != getattr(self, "killed", None):
            return []
        self._waiting.pop()
        return [Acknowledgement("u000000", fault=Fault(Reason.TIMEOUT, "no sign of life", "a"))]

    def cancel(self, task: Task) -> None:
        self.killed = task.token
        self.num_cancelled += 1


def test_a_worker_without_a_sign_of_life_is_killed(run: Run) -> None:
    executor = Stalling()
    drive(run, executor, EngineOptions(stall_seconds=0.0), PlainReporter())
    assert statuses(run) == {**dict.fromkeys(VIDEOS, ("ok", "")), "a": ("failed", "timeout")}


def test_progress_is_left_for_status(run: Run) -> None:
    drive_serially(run)
    progress = read_json(run.paths.progress)
    assert (progress["done_units"], progress["done_clips"]) == (progress["num_units"], 4)


def test_progress_line() -> None:
    counts = Counts(num_units=10, num_clips=2000, num_frames_planned=9000, done_units=4, done_clips=1200)
    assert counts.line().endswith("ETA -")
    counts.started -= 10
    counts.num_frames, counts.failed_videos = 900, {"a", "b"}
    assert counts.line().startswith("1,200/2,000 clips · 4/10 units · 2 videos with errors · 90.0 frames/s · ETA -")


def test_a_video_with_errors_in_several_units_is_one_video() -> None:
    counts = Counts(num_units=3, num_clips=3, num_frames_planned=300)
    for videos in (("a", "b"), ("b",), ("b", "c")):
        counts.commit(num_clips=1, num_frames=100, num_frames_planned=100, failed_videos=videos)
    assert (counts.failed_videos, counts.done_units, counts.done_clips) == ({"a", "b", "c"}, 3, 3)


def test_the_eta_waits_until_it_can_be_right() -> None:
    """Workers take a minute to start, and the headers promise three times the frames that there are."""
    now = time.monotonic()
    counts = Counts(num_units=10, num_clips=10, num_frames_planned=30_000, started=now - 100)
    counts.num_frames_under_way = 100
    counts.look(now - 40)
    assert counts.eta_seconds is None, "no unit is done: the headers may be wrong by any factor"
    counts.num_frames_under_way = 1100
    counts.commit(num_clips=1, num_frames=1000, num_frames_planned=3000, failed_videos=())
    counts.look(now - 20)  # changes nothing
    counts.num_frames_under_way = 1100
    # 2,000 frames in 40 s since the first 100 were seen; of 10,000 frames 9,000 are not committed, 1,100 of them done
    assert counts.frames_per_second == pytest.approx(50, rel=0.01)
    assert counts.eta_seconds == pytest.approx((9000 - 1100) / 50, rel=0.01)
    early = Counts(num_units=10, num_clips=10, num_frames_planned=100, num_frames=50, num_frames_planned_done=50)
    early.look(now - 5)
    assert early.eta_seconds is None, "a rate of five seconds"


@pytest.mark.parametrize("alive", [True, False])
def test_status_and_a_driver_that_was_killed(run: Run, capsys: pytest.CaptureFixture[str], alive: bool) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    note = {"updated_unix": time.time(), "host": socket.gethostname(), "pid": child.pid, "units_in_flight": ["u000000"]}
    counts = Counts(num_units=len(units_of(run.plan())), num_clips=4, num_frames_planned=400)
    run.paths.progress.write_text(json.dumps(note | counts.summary()))
    if not alive:
        child.kill()
        child.wait()
    store = run.paths.root.parent.parent
    with pytest.raises(SystemExit):
        main(["status", str(store)])
    text = capsys.readouterr().out
    with store_lock(store), pytest.raises(SystemExit):
        main(["status", str(store)])
    resumed = capsys.readouterr().out
    child.kill()
    child.wait()
    assert ("1 units under way" in text, "stopped, last heard of at" in text) == (alive, not alive)
    assert ("the same command resumes" in text, "said nothing yet is at work" in resumed) == (not alive, not alive)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS], ids=errno.errorcode.__getitem__)
def test_a_store_without_hard_links_is_driven_verified_and_cleaned(tmp_path: Path, monkeypatch, number: int) -> None:
    """As exFAT and SMB refuse a link, as network file systems do, and as FUSE does that knows none."""

    def refuse(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    manifest = number_videos(tmp_path / "videos", {**VIDEOS, "x": "error crashed"})
    run = make_run(tmp_path / "store", tmp_path / "videos", manifest)
    drive_serially(run)
    assert statuses(run) == {**dict.fromkeys(VIDEOS, ("ok", "")), "x": ("failed", "crashed")}
    half_written = run.paths.commits / ".u000001.json.1234.d"
    half_written.mkdir()
    (half_written / "record.json").write_text("{}")
    assert [check.problem for check in verify_store(tmp_path / "store") if check.problem] == []
    found = find_garbage(tmp_path / "store")
    assert [entry.path for entry in found] == [half_written]
    remove(found)
    assert find_garbage(tmp_path / "store") == []
    assert statuses(run)["x"] == ("failed", "crashed")
