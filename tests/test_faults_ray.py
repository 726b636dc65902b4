"""Faults that need Ray: workers killed while they work, a node that leaves a cluster."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from motionbox.extraction.executors import RayExecutor, SerialExecutor, import_ray
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


def test_a_node_leaves_the_cluster(tmp_path: Path, data: Path, expected: str) -> None:
    ray = import_ray(local=True)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
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
    finally:
        if ray.is_initialized():
            ray.shutdown()
        cluster.shutdown()
