"""Ray: starting it costs seconds, so these tests share one."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from motionbox.errors import InputError, Interrupted, Reason
from motionbox.extraction.executors import RayExecutor, SerialExecutor, _start_ray
from motionbox.extraction.worker import Acknowledgement
from motionbox.signals import interrupted_by_signals
from motionbox.store.units import units_of
from motionbox.store.writing.failures import recorded_faults
from ray_support import WhenStarted, finish, frame_folders, make_folder_run

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def ray_executor() -> Iterator[RayExecutor]:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    executor = RayExecutor(num_workers=2)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    yield executor
    executor.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return frame_folders(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, data: Path) -> str:
    return finish(make_folder_run(tmp_path_factory.mktemp("serial") / "s", data), SerialExecutor())


def test_two_workers_give_the_same_content_as_serial(tmp_path, data, expected, ray_executor) -> None:
    assert ray_executor.num_slots == 2
    assert finish(make_folder_run(tmp_path / "s", data), ray_executor) == expected


def test_a_killed_worker_costs_an_attempt(tmp_path, data, expected, ray_executor) -> None:
    run = make_folder_run(tmp_path / "s", data)
    units = units_of(run.plan())
    assert len(units) == 3
    killed = WhenStarted(run, lambda pid: os.kill(pid, signal.SIGKILL))
    assert finish(run, ray_executor, killed) == expected
    faults = [fault for unit in units for fault in recorded_faults(run.paths, unit.unit_id)]
    assert len(faults) <= 1
    assert all(fault.reason is Reason.CRASHED and fault.video_id is not None for fault in faults)


def test_answers_are_small() -> None:
    answer = Acknowledgement("u000000", 4096, 3, 12.5)
    assert len(pickle.dumps(answer)) < 500


@pytest.mark.parametrize("kind", [ray.exceptions.AuthenticationError, Exception])
def test_a_ray_that_cannot_be_used_is_one_line(monkeypatch, kind) -> None:
    def refuse(**_: object) -> None:
        raise kind("the token is missing\nor wrong")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(InputError, match=rf"cluster head:6379: {kind.__name__}: the token is missing.*; check"):
        _start_ray(ray, 1, "head:6379")


def test_a_signal_while_ray_starts_waits_until_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def stopped(**_options: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("Ray is up")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(ray, "init", stopped)
    with pytest.raises(Interrupted, match="stopped by SIGTERM"), interrupted_by_signals():
        _start_ray(ray, 1, None)
    assert done == ["Ray is up"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_after_the_work_meets_no_handler_of_ray(data: Path, tmp_path: Path) -> None:
    """The whole command in a process of its own, stopped while the snapshot is made."""
    script = (
        "import os, signal, sys; from motionbox.cli import main; from motionbox.extraction import snapshot;"
        "snapshot.read_parts = lambda *_: os.kill(os.getpid(), signal.SIGTERM); main(sys.argv[1:])"
    )
    arguments = ["extract", "--data-root", data, "--store", tmp_path / "s", "--flow", "dis", "--workers", "1"]
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 75, done.stderr
    told = [line for line in done.stderr.splitlines() if not line.startswith("extract: ")]
    assert told == ["motionbox: error: stopped by SIGTERM; run the same command again"]
