"""Reading a store again, every byte of it, against what was recorded when it was written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from motionbox.errors import StoreError
from motionbox.storage import StorePath
from motionbox.store.areas.guidance import guidance_names
from motionbox.store.layout import RunPaths, check_store, run_paths
from motionbox.store.units import units_of
from motionbox.store.writing.commit import read_commit, verify_files
from motionbox.store.writing.runs import load_run


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: What, e.g. `unit u000012`.
        num_bytes: Bytes read.
        problem: What is wrong; None when nothing is.
    """

    name: str
    num_bytes: int
    problem: str | None


def verify_store(store: StorePath) -> Iterator[Check]:
    """Check every committed unit, every snapshot and every guidance of a store.

    Args:
        store: The store's directory.

    Yields:
        A `Check` per run, unit, snapshot and version of a guidance.

    Raises:
        StoreError: It is no store, see `check_store`.
    """
    check_store(store)
    for paths in run_paths(store):
        yield from _verify_run(paths)


def _verify_run(paths: RunPaths) -> Iterator[Check]:
    try:
        planned = {unit.unit_id for unit in units_of(load_run(paths).plan())}
    except (StoreError, OSError, ValueError, KeyError) as error:
        yield Check(f"run {paths.root.name}", 0, f"its run.json or plan is damaged: {error}")
        return
    committed = paths.committed_units()
    strangers = sorted(set(committed) - planned)
    yield Check(
        f"run {paths.root.name}", 0, f"commits of units that it never planned: {strangers[:5]}" if strangers else None
    )
    for unit_id in committed:
        yield _verify_unit(paths, unit_id)
    for number in paths.snapshot_numbers():
        yield _verify_snapshot(paths, number)
    for name in guidance_names(paths):
        for number in paths.guidance_numbers(name):
            yield _verify_guidance(paths, name, number)


def _verify_unit(paths: RunPaths, unit_id: str) -> Check:
    name = f"unit {unit_id}"
    try:
        record = read_commit(paths, unit_id)
        verify_files(paths.attempt(unit_id, record["attempt"]), record["files"])
    except (StoreError, KeyError, TypeError) as error:
        return Check(name, 0, str(error))
    return Check(name, sum(entry["bytes"] for entry in record["files"].values()), None)


def _was_committed(paths: RunPaths, unit_id: str, attempt_id: str) -> bool:
    if paths.retired_commit(unit_id, attempt_id).exists():
        return True
    return bool(read_commit(paths, unit_id).get("attempt") == attempt_id)


def _verify_snapshot(paths: RunPaths, number: int) -> Check:
    name = f"snapshot {number}"
    try:
        info = paths.snapshot_info(number)
        verify_files(paths.snapshot_files(number), info["files"])
        for unit_id, attempt_id in info["units"]:
            if not _was_committed(paths, unit_id, attempt_id):
                return Check(name, 0, f"it refers to attempt {attempt_id} of {unit_id}, which is not committed")
    except (StoreError, KeyError, TypeError) as error:
        return Check(name, 0, str(error))
    return Check(name, sum(entry["bytes"] for entry in info["files"].values()), None)


def _verify_guidance(paths: RunPaths, guidance: str, number: int) -> Check:
    name = f"guidance {guidance} {number}"
    try:
        info = paths.guidance_info(guidance, number)
        verify_files(paths.guidance_files(guidance, number), info["files"])
    except (StoreError, KeyError, TypeError) as error:
        return Check(name, 0, str(error))
    return Check(name, sum(entry["bytes"] for entry in info["files"].values()), None)
