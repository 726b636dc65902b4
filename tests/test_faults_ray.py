"""Faults that need Ray: workers killed while they work, a node that leaves a cluster."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from motionbox.errors import Interrupted
from motionbox.extraction.executors import RayExecutor, SerialExecutor, ray_environment
from motionbox.store.units import units_of
from motionbox.store.writing.failures import recorded_faults
from motionbox.store.writing.runs import Run
from ray_support import WhenStarted, finish, frame_folders, make_folder_run
from store_oracle import check_complete

pytestmark = pytest.mark.faults
NUM_WORKER_KILLS = 20
NUM_NODES_REMOVED = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return frame_folders(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, data: Path) -> str:
    return finish(make_folder_run(tmp_path_factory.mktemp("serial") / "s", data), SerialExecutor())


def judge(run: Run, digest: str, expected: str) -> None:
    assert digest == expected
    assert check_complete(run.paths.root.parent.parent, expected, 6) == []
    faults = [fault for unit in units_of(run.plan()) for fault in recorded_faults(run.paths, unit.unit_id)]
    assert len(faults) <= 1


@pytest.fixture(scope="module")
def workers() -> Iterator[RayExecutor]:
    executor = RayExecutor(num_workers=2)
    yield executor
    executor.close()


def test_workers_killed_at_work(tmp_path: Path, data: Path, expected: str, workers: RayExecutor) -> None:
    rng = random.Random(3)
    struck = 0
    for number in range(NUM_WORKER_KILLS):
        run = make_folder_run(tmp_path / f"s{number}", data)

        def kill(pid: int) -> None:
            time.sleep(rng.uniform(0, 0.3))
            os.kill(pid, signal.SIGKILL)

        reporter = WhenStarted(run, kill)
        judge(run, finish(run, workers, reporter), expected)
        struck += reporter.done
    assert struck >= NUM_WORKER_KILLS * 0.8


@pytest.fixture(scope="module")
def token() -> Iterator[None]:
    """A token for clusters, which the drivers below inherit; Ray reads it once in a process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ray_environment(local=True).items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def cluster(token: None) -> Iterator[Any]:
    """A head node with one CPU, in this process's hands."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def test_a_node_leaves_the_cluster(tmp_path: Path, data: Path, expected: str, cluster: Any) -> None:
    for number in range(NUM_NODES_REMOVED):
        node = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        executor = RayExecutor(num_workers=2, address=cluster.address)
        assert executor.num_slots == 2
        run = make_folder_run(tmp_path / f"s{number}", data)
        reporter = WhenStarted(run, lambda _pid, node=node: cluster.remove_node(node, allow_graceful=False))
        digest = finish(run, executor, reporter)
        assert reporter.done
        judge(run, digest, expected)
        executor.close()


@pytest.mark.parametrize("whole", [False, True], ids=["its control store", "all of it"])
def test_the_head_node_dies(tmp_path: Path, data: Path, expected: str, cluster: Any, whole: bool) -> None:
    executor = RayExecutor(num_workers=1, address=cluster.address)
    run = make_folder_run(tmp_path / "s", data)

    def kill(_pid: int) -> None:
        if whole:
            cluster.remove_node(cluster.head_node, allow_graceful=False)
        else:
            cluster.head_node.kill_gcs_server(check_alive=False)
        executor._process.wait(60)  # less than Ray itself takes

    reporter = WhenStarted(run, kill)
    with pytest.raises(Interrupted, match=r"Ray.* the same command resumes the run"):
        finish(run, executor, reporter)
    executor.close()
    assert reporter.done
    judge(run, finish(run, SerialExecutor()), expected)


def test_a_killed_command_leaves_no_ray_behind(tmp_path: Path) -> None:
    script = (
        "import os, signal; from motionbox.extraction.executors import RayExecutor;"
        "executor = RayExecutor(num_workers=1); print(executor._process.pid, executor._folder, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    process, folder = done.stdout.split()
    deadline = time.monotonic() + 60
    while (Path(f"/proc/{process}").exists() or Path(folder).exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{process}").exists()
    assert not Path(folder).exists()
