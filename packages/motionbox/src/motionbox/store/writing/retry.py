"""Trying failed videos again: their units' commits are retired, so that the run does these units once more.

A retired commit record stays (`commits/retired/<unit>.<attempt>.json`) as long as a snapshot made before shows its
attempt; then `motionbox gc` removes it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from motionbox.errors import StoreError
from motionbox.storage import StorePath, storage_of
from motionbox.storage.files import parquet_bytes, read_table, to_json
from motionbox.storage.paths import children
from motionbox.store.layout import BLOCKS_FILE, run_paths
from motionbox.store.units import inputs_table, units_of
from motionbox.store.writing.commit import read_commit, read_commits
from motionbox.store.writing.runs import Run, RunInputs, find_run, load_run


@dataclass(frozen=True)
class Retry:
    """What is tried again.

    Attributes:
        videos: Videos that had failed or broken off, by id.
        num_units: Units that are done again for them.
        num_replaced: Input files that were replaced since the run was made.
    """

    videos: tuple[str, ...]
    num_units: int
    num_replaced: int


def retry_failed(store: StorePath, inputs: RunInputs) -> Retry:
    """Have the failed, quarantined and partly read videos of a run done again by the next drive.

    The run is the one of these inputs; else the newest, where they differ from its own by nothing but files of failed
    videos and of videos not done yet: then these inputs become the run's.

    Args:
        store: The store, locked by this process.
        inputs: Data set and config, as they are now.

    Raises:
        StoreError: The store is damaged or cannot be written.
    """
    run = find_run(store, inputs)
    replaced: set[str] = set()
    if run is None and (runs := run_paths(store)):
        run = load_run(runs[-1])
        replaced = run.replaced_files(inputs) or set()
        if not replaced or not _adoptable(run, replaced):
            return Retry((), 0, 0)  # another run, and `open_or_create_run` says why
    if run is None:
        return Retry((), 0, 0)
    try:
        failed = _failed_videos(run)
        units = {
            unit.unit_id for unit in units_of(run.plan()) if any(piece.video_id in failed for piece in unit.pieces)
        }
        num_retired = sum(_retire(run, unit_id) for unit_id in sorted(units))
        storage = storage_of(store)
        for directory in children(run.paths.failures):
            storage.remove(directory)
        if replaced:
            storage.replace(run.paths.inputs, parquet_bytes(inputs_table(inputs.inputs)))
            storage.replace(run.paths.run_json, to_json(run.info | {"dataset_digest": inputs.dataset_digest()}))
    except OSError as error:
        raise StoreError(f"store {store} cannot be written: {error.strerror or error}") from None
    return Retry(tuple(sorted(failed)), num_retired, len(replaced))


def _adoptable(run: Run, paths: Collection[str]) -> bool:
    """Tell whether nothing that stays in a run was made from the files of these paths."""
    failed = _failed_videos(run)
    committed = set(run.paths.committed_units())
    return all(
        piece.path not in paths or piece.video_id in failed or unit.unit_id not in committed
        for unit in units_of(run.plan())
        for piece in unit.pieces
    )


def _failed_videos(run: Run) -> set[str]:
    """Return the videos with an error in a committed unit."""
    failed: set[str] = set()
    for unit_id, record in read_commits(run.paths).items():
        if record["num_failed_videos"]:
            blocks = run.paths.attempt(unit_id, record["attempt"]) / BLOCKS_FILE
            rows = read_table(blocks, columns=["video_id", "reason"]).to_pylist()
            failed.update(row["video_id"] for row in rows if row["reason"])
    return failed


def _retire(run: Run, unit_id: str) -> bool:
    """Take a unit's commit back, if it has one."""
    commit = run.paths.commit(unit_id)
    if not commit.exists():
        return False
    retired = run.paths.retired_commit(unit_id, read_commit(run.paths, unit_id)["attempt"])
    storage_of(run.paths.root).retire_record(run.paths.commits, unit_id, retired)
    return True
