"""Reading a store again, every byte of it, against what was recorded when it was written."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator
from dataclasses import dataclass

from motionbox.errors import StoreError
from motionbox.storage import StorePath
from motionbox.storage.paths import children
from motionbox.store.areas.guidance import guidance_names
from motionbox.store.layout import RunPaths, check_store, files_of, run_paths
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
    numbers = paths.snapshot_numbers()
    known = _attempts_with_records(paths) if numbers else set()
    for number in numbers:
        yield _verify_snapshot(paths, number, known)
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


def _attempts_with_records(paths: RunPaths) -> set[tuple[str, str]]:
    """Return unit and attempt of every record that can be read, those that were retired included."""
    retired = (path.stem.partition(".") for path in children(paths.retired_commits))
    found = {(unit, attempt) for unit, _, attempt in retired}
    for unit_id in paths.committed_units():
        with contextlib.suppress(StoreError):
            found.add((unit_id, str(read_commit(paths, unit_id).get("attempt"))))
    return found


def _verify_snapshot(paths: RunPaths, number: int, known: Container[tuple[str, str]]) -> Check:
    name = f"snapshot {number}"
    try:
        info = paths.snapshot_info(number)
        verify_files(files_of(paths.snapshot(number), info), info["files"])
        for unit_id, attempt_id in info["units"]:
            if (unit_id, attempt_id) not in known:
                return Check(name, 0, f"it refers to attempt {attempt_id} of {unit_id}, which is not committed")
    except (StoreError, KeyError, TypeError) as error:
        return Check(name, 0, str(error))
    return Check(name, sum(entry["bytes"] for entry in info["files"].values()), None)


def _verify_guidance(paths: RunPaths, guidance: str, number: int) -> Check:
    name = f"guidance {guidance} {number}"
    try:
        info = paths.guidance_info(guidance, number)
        verify_files(files_of(paths.guidance(guidance, number), info), info["files"])
    except (StoreError, KeyError, TypeError) as error:
        return Check(name, 0, str(error))
    return Check(name, sum(entry["bytes"] for entry in info["files"].values()), None)
