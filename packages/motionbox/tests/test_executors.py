"""Ray: starting it costs seconds, so these tests share one."""

import io
import json
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from motionbox.engine import EngineOptions, drive
from motionbox.errors import Reason
from motionbox.executors import RayExecutor, SerialExecutor
from motionbox.failures import recorded_faults
from motionbox.manifest import load_manifest
from motionbox.plan import plan_units, scan_inputs, units_of
from motionbox.progress import Counts, PlainReporter
from motionbox.runs import Run, RunInputs, open_or_create_run, prepare_store
from motionbox.snapshot import make_snapshot
from motionbox.store import open_store
from motionbox.worker import Acknowledgement
from store_support import small_config

pytest.importorskip("ray")


@pytest.fixture(scope="module")
def ray_executor() -> Iterator[RayExecutor]:
    executor = RayExecutor(num_workers=2)
    yield executor
    executor.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six folders of frames in which a square moves over noise."""
    root = tmp_path_factory.mktemp("data")
    base = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 90, (64, 64), np.uint8), (5, 5), 0)
    for number in range(6):
        (root / f"v{number}").mkdir()
        for index in range(24):
            image = base.copy()
            x = (2 * index + 3 * number) % 40
            image[20:36, x : x + 16] = 190
            cv2.imwrite(str(root / f"v{number}" / f"{index:04d}.png"), image)
    return root


def make(store: Path, data: Path, *, method: str = "dis") -> Run:
    manifest = load_manifest("folder", data)
    inputs = scan_inputs(data, manifest.column("path").to_pylist())
    prepare_store(store)
    parts = RunInputs("folder", data, manifest, inputs, small_config(**{"flow.method": method}))
    plan = plan_units(manifest, inputs, data, lambda _path: None, max_frames=48)
    return open_or_create_run(store, parts, lambda: plan, new_run=False)


def finish(run: Run, executor, reporter=None) -> str:
    drive(run, executor, EngineOptions(backend="opencv"), reporter or PlainReporter(io.StringIO()))
    make_snapshot(run)
    store = open_store(run.paths.root.parent.parent)
    assert store.info["statuses"] == {"ok": 6}
    return str(store.info["content_digest"])


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, data: Path) -> str:
    return finish(make(tmp_path_factory.mktemp("serial") / "s", data), SerialExecutor())


class WhenStarted(PlainReporter):
    """Does something once, when a worker gives its first sign of life."""

    def __init__(self, run: Run, action: Callable[[int], None]) -> None:
        super().__init__(io.StringIO())
        self._run = run
        self._action = action
        self.done = False

    def update(self, counts: Counts) -> None:
        for path in () if self.done else self._run.paths.attempts.glob("*/working-*"):
            try:
                pid = json.loads(path.read_text())[3]
            except (OSError, ValueError):
                continue
            self.done = True
            self._action(pid)
            return


def test_two_workers_give_the_same_content_as_serial(tmp_path, data, expected, ray_executor) -> None:
    assert ray_executor.num_slots == 2
    assert finish(make(tmp_path / "s", data), ray_executor) == expected


def test_a_killed_worker_costs_an_attempt(tmp_path, data, expected, ray_executor) -> None:
    run = make(tmp_path / "s", data)
    units = units_of(run.plan())
    assert len(units) == 3
    killed = WhenStarted(run, lambda pid: os.kill(pid, signal.SIGKILL))
    while not killed.done:  # a small unit may end before it is seen
        digest = finish(run, ray_executor, killed)
        if not killed.done:
            for unit in units:
                run.paths.commit(unit.unit_id).unlink()
    assert digest == expected
    faults = [fault for unit in units for fault in recorded_faults(run.paths, unit.unit_id)]
    assert len(faults) <= 1
    assert all(fault.reason is Reason.CRASHED and fault.video_id is not None for fault in faults)


def test_answers_are_small() -> None:
    answer = Acknowledgement("u000000", 4096, 3, 12.5)
    assert len(pickle.dumps(answer)) < 500
