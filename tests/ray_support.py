"""What the tests on Ray share: real frame folders, runs over them, and an action at the first sign of life."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from motionbox.extraction.drive import EngineOptions, drive
from motionbox.extraction.executors import Executor
from motionbox.extraction.plan import plan_units, scan_inputs
from motionbox.extraction.progress import Counts, PlainReporter
from motionbox.extraction.snapshot import make_snapshot
from motionbox.inputs.data_root import DataRoot
from motionbox.inputs.manifest import load_manifest
from motionbox.storage import StorePath
from motionbox.store import open_store
from motionbox.store.writing.runs import Run, RunInputs, open_or_create_run, prepare_store
from store_support import small_config


def frame_folders(root: Path) -> Path:
    """Write six folders of 24 frames in which a square moves over noise."""
    base = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 90, (64, 64), np.uint8), (5, 5), 0)
    for number in range(6):
        (root / f"v{number}").mkdir()
        for index in range(24):
            image = base.copy()
            x = (2 * index + 3 * number) % 40
            image[20:36, x : x + 16] = 190
            cv2.imwrite(str(root / f"v{number}" / f"{index:04d}.png"), image)
    return root


def make_folder_run(store: StorePath, data: DataRoot) -> Run:
    """Create a run of three units over frame folders, or tars of them."""
    manifest = load_manifest("folder", data)
    inputs = scan_inputs(data, manifest.column("path").to_pylist())
    prepare_store(store)
    parts = RunInputs("folder", data, manifest, inputs, small_config(**{"flow.method": "dis"}))
    plan = plan_units(manifest, inputs, data, lambda _path: None, max_frames=48)
    return open_or_create_run(store, parts, lambda: plan, new_run=False)


def finish(run: Run, executor: Executor, reporter: PlainReporter | None = None) -> str:
    """Drive a run to its end; returns the content digest."""
    drive(run, executor, EngineOptions(backend="opencv"), reporter or PlainReporter())
    make_snapshot(run)
    with open_store(run.paths.root.parent.parent) as store:
        assert store.info["statuses"] == {"ok": 6}
        return str(store.info["content_digest"])


class WhenStarted(PlainReporter):
    """Does something once, when a worker gives its first sign of life; the action gets the worker's process id."""

    def __init__(self, run: Run, action: Callable[[int], None]) -> None:
        super().__init__()
        self._run = run
        self._action = action
        self.done = False

    def update(self, counts: Counts) -> None:
        """Look for signs of life."""
        super().update(counts)
        for path in () if self.done else self._run.paths.attempts.glob("*/working-*"):
            try:
                pid = json.loads(path.read_text())[3]
            except (OSError, ValueError):
                continue
            self.done = True
            self._action(pid)
            return
