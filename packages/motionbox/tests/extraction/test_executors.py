"""Ray: starting it costs seconds, so these tests share one."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from motionbox.errors import InputError, Interrupted, Reason
from motionbox.extraction import executors, ray_process
from motionbox.extraction.executors import RayExecutor, SerialExecutor
from motionbox.extraction.worker import Acknowledgement
from motionbox.signals import interrupted_by_signals
from motionbox.store.units import units_of
from motionbox.store.writing.failures import recorded_faults
from ray_support import WhenStarted, finish, frame_folders, make_folder_run

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def ray_executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayExecutor]:
    """A Ray that starts where others left their traces, in a temporary folder too deep for sockets."""
    deep = tmp_path_factory.mktemp("d" * 60)
    (deep / "ray").mkdir()
    (deep / "ray" / "ray_current_cluster").write_text("192.0.2.1:6379")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(deep))
        patch.setattr(tempfile, "tempdir", None)  # where the module remembers TMPDIR
        patch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
        patch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere")
        executor = RayExecutor(num_workers=2)
    yield executor
    folder = executor._folder
    executor.close()
    assert not folder.exists()


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
    answer = Acknowledgement("u000000", 4096, ("P01_01", "P01_02", "P01_03"), 12.5)
    assert len(pickle.dumps(answer)) < 500


@pytest.mark.parametrize("kind", [ray.exceptions.AuthenticationError, Exception])
def test_a_ray_that_cannot_be_used_is_one_line(monkeypatch, kind) -> None:
    def refuse(**_: object) -> None:
        raise kind("the token is missing\nor wrong")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(InputError, match=rf"cluster head:6379: {kind.__name__}: the token is missing.*; check"):
        ray_process.start_ray(ray, 1, "head:6379")


def stand_in(monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    """Put a few lines of Python in the place of the process that talks to Ray."""
    begin = (
        "import os, signal, sys, time; from multiprocessing.connection import Connection;"
        "pipe = Connection(int(sys.argv[1])); pipe.recv();"
    )
    monkeypatch.setattr(executors, "_START", begin + then)


def test_a_signal_while_ray_starts_stops_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "os.kill(os.getppid(), signal.SIGTERM); time.sleep(600)")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped by SIGTERM"), interrupted_by_signals():
        RayExecutor(num_workers=1)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_ray_that_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "pipe.send(('refused', '--gpus must be at most 0'))")
    with pytest.raises(InputError, match="--gpus must be at most 0"):
        RayExecutor(num_workers=1)
    stand_in(monkeypatch, "raise MemoryError('no room')")
    with pytest.raises(InputError, match=r"Ray cannot start: .*MemoryError: no room"):
        RayExecutor(num_workers=1)
    stand_in(monkeypatch, "os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(Interrupted, match="the process that talks to Ray has ended; the same command resumes"):
        RayExecutor(num_workers=1)


@pytest.mark.parametrize("slow_starts", [2, 3])
def test_a_ray_that_is_slow_to_start_is_started_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, slow_starts: int
) -> None:
    tries = tmp_path / "tries"
    answer = f"('slow', 'too slow') if os.path.getsize({str(tries)!r}) <= {slow_starts} else ('ready', 1)"
    stand_in(monkeypatch, f"open({str(tries)!r}, 'a').write('.'); pipe.send({answer}); pipe.recv()")
    if slow_starts < 3:
        executors.start_ray_executor(num_workers=1).close()
    else:
        with pytest.raises(InputError, match="too slow"):
            executors.start_ray_executor(num_workers=1)
    assert tries.read_text() == "..."


def test_only_a_local_ray_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    def time_out(**_: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because")

    monkeypatch.setattr(ray, "init", time_out)
    with pytest.raises(ray_process.SlowStart, match=r"timed out during startup.*; run it again .* or with --workers 0"):
        ray_process.start_ray(ray, 1, None)
    with pytest.raises(InputError, match="check --ray-address") as refused:
        ray_process.start_ray(ray, 1, "head:6379")
    assert not isinstance(refused.value, ray_process.SlowStart)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (f"sys.exit({ray_process.HEAD_LOST})", r"the head node of the Ray cluster head:6379 has not answered for 15 s"),
        ("print('first'); print('gcs is gone', flush=True); os.abort()", r"talks to Ray has ended \(gcs is gone\)"),
        ("pipe.send(('lost', 'ConnectionError: reset'))", "the connection to Ray broke: ConnectionError: reset"),
    ],
)
def test_a_ray_that_goes_leaves_a_run_that_can_be_resumed(monkeypatch: pytest.MonkeyPatch, end, message) -> None:
    stand_in(monkeypatch, f"pipe.send(('ready', 3)); {end}")
    executor = RayExecutor(num_workers=3, address="head:6379")
    assert executor.num_slots == 3
    with pytest.raises(Interrupted, match=message + "; the same command resumes the run"):
        executor.wait(60)
    executor.close()


def test_a_head_node_is_lost_once_it_refuses_connections_for_long() -> None:
    script = (
        "import socket, sys, threading; from motionbox.extraction import ray_process as r;"
        "r.HEAD_SECONDS, r._PROBE_SECONDS = 0.4, 0.05;"
        "head = socket.create_server(('127.0.0.1', 0)); r.watch_head('127.0.0.1:%d' % head.getsockname()[1]);"
        "seen = [head.accept() for _ in range(12)];"  # longer than it may be away
        "print('alive', flush=True); head.close(); threading.Event().wait()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (ray_process.HEAD_LOST, "alive\n")


def test_no_folder_for_sockets_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_SOCKET_PATH_BYTES", 80)
    with pytest.raises(InputError, match=r"whose path has at most -?\d+ bytes, none of .*/tmp, .*set RAY_TMPDIR"):
        RayExecutor(num_workers=1)


def test_a_signal_after_the_work_meets_no_handler_of_ray(data: Path, tmp_path: Path) -> None:
    """The whole command in a process of its own, stopped while the snapshot is made."""
    script = (
        "import os, signal, sys; from motionbox.cli import main; from motionbox.extraction import snapshot;"
        "snapshot.read_parts = lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM); main(sys.argv[1:])"
    )
    arguments = ["extract", "--data-root", data, "--store", tmp_path / "s", "--flow", "dis", "--workers", "1"]
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 75, done.stderr
    told = [line for line in done.stderr.splitlines() if not line.startswith("extract: ")]
    assert told == ["motionbox: error: stopped by SIGTERM; run the same command again"]
