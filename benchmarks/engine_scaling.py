"""How well extraction uses its workers: frames per second with 1 and 2 workers, and what the engine itself costs.

    python benchmarks/engine_scaling.py --data-root DIR [--flow tvl1] [--workers 1 --workers 2]

Run it on an otherwise idle machine; it prints the load average beside its figures.
"""

from __future__ import annotations

import io
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from motionbox.config import load_config
from motionbox.extraction.drive import EngineOptions, drive
from motionbox.extraction.executors import RayExecutor, SerialExecutor
from motionbox.extraction.plan import plan_units, scan_inputs
from motionbox.extraction.progress import PlainReporter
from motionbox.extraction.worker import default_tools
from motionbox.inputs.manifest import load_manifest
from motionbox.store.units import units_of
from motionbox.store.writing.attempt import Attempt
from motionbox.store.writing.commit import read_commit
from motionbox.store.writing.runs import Run, RunInputs, open_or_create_run, prepare_store
from motionbox.video.sources import HintProber


def make_run(store: Path, data_root: Path, flow: str) -> Run:
    """Plan a folder of videos into a new store."""
    manifest = load_manifest("folder", data_root)
    inputs = scan_inputs(data_root, manifest.column("path").to_pylist())
    prepare_store(store)
    parts = RunInputs("folder", data_root, manifest, inputs, load_config(overrides={"flow.method": flow}))
    with HintProber() as probe:
        return open_or_create_run(store, parts, lambda: plan_units(manifest, inputs, data_root, probe), new_run=False)


def measure(data_root: Path, flow: str, num_workers: int, directory: Path) -> dict[str, float]:
    """Extract once with warm workers; returns frames per second and where the time went."""
    run = make_run(directory / f"store{num_workers}", data_root, flow)
    warm = make_run(directory / f"warm{num_workers}", data_root, flow)
    executor = RayExecutor(num_workers=num_workers)
    try:
        drive_units(warm, executor, limit=2 * num_workers)
        driver = time.process_time()
        started = time.perf_counter()
        drive_units(run, executor)
        seconds = time.perf_counter() - started
        driver = time.process_time() - driver
    finally:
        executor.close()
    records = [read_commit(run.paths, unit_id) for unit_id in run.paths.committed_units()]
    frames = sum(record["num_frames"] for record in records)
    busy = sum(record["seconds"] for record in records)
    return {
        "workers": num_workers,
        "frames_per_second": frames / seconds,
        "idle_and_commit_share": 1 - busy / (seconds * num_workers),
        "driver_cpu_share": driver / (seconds * num_workers),
        "driver_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "load_average": os.getloadavg()[0],
    }


def drive_units(run: Run, executor: RayExecutor, limit: int | None = None) -> None:
    """Drive a run, or only its first units (to load and compile what workers need)."""
    if limit is not None:
        plan = run.plan()
        wanted = {unit.unit_id for unit in units_of(plan)[:limit]}
        keep = [unit_id in wanted for unit_id in plan.column("unit_id").to_pylist()]
        run = _Part(run.paths, run.config, run.info, plan.filter(keep))
    drive(run, executor, EngineOptions(), PlainReporter(io.StringIO()))


class _Part(Run):
    """A run of which only some units are driven."""

    def __init__(self, paths, config, info, plan) -> None:
        super().__init__(paths, config, info)
        object.__setattr__(self, "_plan", plan)

    def plan(self):
        """Return the units to drive."""
        return self._plan


class _Timed:
    """Calls a function and adds up its CPU seconds."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self.name = getattr(function, "name", "")
        self.seconds = 0.0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        started = time.process_time()
        try:
            return self._function(*arguments, **options)
        finally:
            self.seconds += time.process_time() - started


def measure_cpu(data_root: Path, flow: str, directory: Path) -> dict[str, float]:
    """Extract once in this process; returns the share of CPU time of each part (other programs do not disturb it)."""
    run = make_run(directory / "serial", data_root, flow)
    source, estimator = default_tools(run.config, "auto")
    still = np.zeros((64, 64), np.uint8)
    estimator(still, still)
    timed, commit = _Timed(estimator), _Timed(Attempt.commit)
    Attempt.commit = lambda *arguments, **facts: commit(*arguments, **facts)
    decode = -_cpu_of(source._running().pid)
    total = -time.process_time()
    drive(run, SerialExecutor(lambda *_: (source, timed)), EngineOptions(), PlainReporter(io.StringIO()))
    total += time.process_time()
    decode += _cpu_of(source._running().pid)
    frames = sum(read_commit(run.paths, unit_id)["num_frames"] for unit_id in run.paths.committed_units())
    parts = {"flow": timed.seconds, "decode": decode, "commit": commit.seconds}
    parts["boxes_and_engine"] = total - timed.seconds - commit.seconds
    return {
        "frames": frames,
        "cpu_ms_per_frame": (total + decode) * 1000 / frames,
        **{f"{name}_share": seconds / (total + decode) for name, seconds in parts.items()},
    }


def _cpu_of(process: int) -> float:
    """Return the CPU seconds that a running process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@click.command()
@click.option("--data-root", type=click.Path(path_type=Path, exists=True), required=True, help="A folder of videos.")
@click.option("--flow", default="tvl1", show_default=True, help="Flow method.")
@click.option("--workers", type=int, multiple=True, default=(1, 2), show_default=True, help="Worker counts; 0: none.")
def main(data_root: Path, flow: str, workers: tuple[int, ...]) -> None:
    """Measure; prints one JSON object per worker count."""
    with tempfile.TemporaryDirectory() as directory:
        figures = measure_cpu(data_root, flow, Path(directory))
        click.echo(json.dumps({key: round(value, 4) for key, value in figures.items()}))
        for number in filter(None, workers):
            figures = measure(data_root, flow, number, Path(directory))
            click.echo(json.dumps({key: round(value, 4) for key, value in figures.items()}))


if __name__ == "__main__":
    main()
