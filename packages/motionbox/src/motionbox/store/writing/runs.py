"""Creating a run in a store, finding it again, and saying what changed when it is not the same run any more."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import platform
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import pyarrow as pa

from motionbox.config import ExtractConfig, config_of_run
from motionbox.errors import StoreError
from motionbox.inputs.data_root import DataRoot, open_root
from motionbox.inputs.schema import ASSUMED_RATE, REFUSED, SCHEMA
from motionbox.storage import StorePath, storage_of
from motionbox.storage.files import parquet_bytes, read_table, to_json
from motionbox.storage.paths import children
from motionbox.store.layout import FORMAT_NAME, FORMAT_VERSION, RunPaths, check_store, read_json, run_paths
from motionbox.store.units import InputFile, inputs_table

# Raised by every change of the code that changes numbers under the same config.
ALGORITHM_VERSION = 4

# The columns of a manifest that say what is decoded, and how; all others are labels and splits.
_FOOTAGE_COLUMNS = {*SCHEMA.names, REFUSED, ASSUMED_RATE} - {"split"}
_SHAPING_LIBRARIES = ("motionbox", "numpy", "scipy", "opencv-contrib-python-headless", "numba", "av", "pyarrow", "zarr")
_NUM_NAMED = 5


@dataclass(frozen=True)
class RunInputs:
    """What a run is made from.

    Attributes:
        dataset: Name of the data set.
        data_root: What its files are relative to.
        manifest: The clips, with label columns.
        inputs: The files behind them.
        config: Every number of the extraction.
    """

    dataset: str
    data_root: DataRoot
    manifest: pa.Table
    inputs: Sequence[InputFile]
    config: ExtractConfig

    def dataset_digest(self) -> str:
        """Return the SHA-256 of the manifest and of path, size and time of change of every input."""
        return _digest_of(self.manifest, inputs_table(self.inputs))

    def footage_digest(self) -> str:
        """Return the same of all but labels and splits, on which nothing depends that is computed."""
        return _footage_digest(self.manifest, inputs_table(self.inputs))

    def parts(self) -> dict[str, Any]:
        """Return what a run is known by: the digests of its parameters and inputs, and the algorithm's version."""
        return {
            "config_digest": self.config.digest(),
            "algorithm_version": ALGORITHM_VERSION,
            "dataset_digest": self.dataset_digest(),
        }


def _digest_of(*tables: pa.Table) -> str:
    digest = hashlib.sha256()
    for table in tables:
        for name in table.column_names:
            values = table.column(name).to_pylist()
            digest.update(json.dumps([name, values], default=str).encode())
    return digest.hexdigest()


def _footage_digest(manifest: pa.Table, inputs: pa.Table) -> str:
    return _digest_of(manifest.select([name for name in manifest.column_names if name in _FOOTAGE_COLUMNS]), inputs)


@dataclass(frozen=True)
class Run:
    """A run as found in a store.

    Attributes:
        paths: Where its files are.
        config: Its resolved configuration.
        info: The content of `run.json`.
    """

    paths: RunPaths
    config: ExtractConfig
    info: dict[str, Any]

    @property
    def run_id(self) -> str:
        """Return the run's name in the store."""
        return self.paths.root.name

    @property
    def data_root(self) -> DataRoot:
        """Return what the inputs are relative to."""
        return open_root(self.info["data_root"])

    def manifest(self) -> pa.Table:
        """Read the clips of the data set, with label columns."""
        return read_table(self.paths.manifest)

    def replaced_files(self, inputs: RunInputs) -> set[str] | None:
        """Return the input files that differ now, None where anything else does, too."""
        known = {"config_digest": inputs.config.digest(), "algorithm_version": ALGORITHM_VERSION}
        if any(self.info.get(name) != value for name, value in known.items()) or self.manifest() != inputs.manifest:
            return None
        before = {row["path"]: row for row in read_table(self.paths.inputs).to_pylist()}
        return {row["path"] for row in inputs_table(inputs.inputs).to_pylist() if before.get(row["path"]) != row}

    def inputs(self) -> list[InputFile]:
        """Read the input files as they were when the run was made."""
        return [InputFile(**row) for row in read_table(self.paths.inputs).to_pylist()]

    def footage_digest(self) -> str:
        """Return what `RunInputs.footage_digest` says of the inputs that the run was made from."""
        return _footage_digest(self.manifest(), read_table(self.paths.inputs))

    def plan(self) -> pa.Table:
        """Read the pieces of all units, `plan.PLAN_SCHEMA`."""
        return read_table(self.paths.plan)


def load_run(paths: RunPaths) -> Run:
    """Read a run's `run.json`.

    Raises:
        StoreError: It is unreadable.
    """
    info = read_json(paths.run_json)
    return Run(paths, config_of_run(info["config"]), info)


def prepare_store(store: StorePath) -> None:
    """Create a store, or check that an existing one is ours and can be written.

    Raises:
        StoreError: Another program's store, a newer version, a directory with other things in it, or no permission.
    """
    storage = storage_of(store)
    try:
        others = not _has_marker(store) and any(not entry.name.startswith(".") for entry in children(store))
        if _has_marker(store):  # looked for again: another session may have made the store meanwhile
            check_store(store)
        elif others:
            raise StoreError(f"store {store} is a directory with other files in it; give --store another path")
        else:
            storage.make_directory(store)
            content = {"format": FORMAT_NAME, "version": FORMAT_VERSION, "uuid": str(uuid.uuid4())}
            storage.replace(store / "store.json", to_json(content))
        storage.make_directory(store / "runs")
        storage.check_exclusive(store)
    except OSError as error:
        raise StoreError(f"store {store} cannot be written: {error.strerror or error}") from None


def _has_marker(store: StorePath) -> bool:
    """Return whether a store's first file is there. It is read: a bucket says only to who reads why it refuses."""
    try:
        (store / "store.json").read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False
    return True


def find_run(store: StorePath, inputs: RunInputs) -> Run | None:
    """Return the run of a store that these inputs and parameters belong to, None where it has none."""
    parts = inputs.parts()
    return next((run for run in map(load_run, run_paths(store)) if _is_of(run, parts)), None)


def _is_of(run: Run, parts: Mapping[str, Any]) -> bool:
    return {name: run.info.get(name) for name in parts} == parts


def siblings(
    store: StorePath, config: ExtractConfig, dataset_digest: str, footage_digest: Callable[[], str]
) -> list[Run]:
    """Return the other runs of a store whose rows are those of a run with these inputs and parameters, newest first.

    They differ from it in labels and splits of the same clips, in the training clips that are kept, or in both. A run
    that keeps none takes nothing over from one that does.

    Args:
        store: The store's directory.
        config: Parameters of the run.
        dataset_digest: As `RunInputs.dataset_digest` returns it.
        footage_digest: Returns the same of all but labels and splits; asked where the lists differ.
    """
    wanted, footage = (_without_clips(config).digest(), ALGORITHM_VERSION), functools.cache(footage_digest)
    found = []
    for run in map(load_run, reversed(run_paths(store))):
        has_clips = run.config.store.clips == config.store.clips
        same_list = run.info["dataset_digest"] == dataset_digest
        is_like = (_without_clips(run.config).digest(), run.info["algorithm_version"]) == wanted
        if not is_like or not (has_clips or config.store.clips != "none") or (has_clips and same_list):
            continue
        if same_list or run.footage_digest() == footage():
            found.append(run)
    return found


def _without_clips(config: ExtractConfig) -> ExtractConfig:
    return config.model_copy(update={"store": config.store.model_copy(update={"clips": "none"})})


def open_or_create_run(store: StorePath, inputs: RunInputs, make_plan: Callable[[], pa.Table], *, new_run: bool) -> Run:
    """Return the run of a store that these inputs and parameters belong to, creating it where the store has none.

    Args:
        store: A store that `prepare_store` has seen.
        inputs: Data set and config.
        make_plan: Returns `plan.PLAN_SCHEMA`; called only for a new run that has no siblings.
        new_run: Create a further run where the inputs differ from the store's last one. Not needed where they differ by
            `store.clips` alone. A further run takes over the plan and the rows of its siblings.

    Raises:
        StoreError: They differ and `new_run` is False; says what changed.
    """
    found = find_run(store, inputs)
    if found is not None:
        return found
    runs = run_paths(store)
    parts = inputs.parts()
    known = siblings(store, inputs.config, parts["dataset_digest"], inputs.footage_digest)
    if runs and not new_run and all(run.info["dataset_digest"] != parts["dataset_digest"] for run in known):
        changes = describe_changes(load_run(runs[-1]), inputs)
        kept = f", which takes over what run {known[0].run_id} has computed" if known else ""
        raise StoreError(
            f"store {store} holds a run of other inputs or parameters: {'; '.join(changes)}; restore them to resume "
            f"it, or add --new-run to start another run in this store{kept}"
        )
    run_id = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    while (paths := RunPaths(store / "runs" / run_id)).run_json.is_file():
        run = load_run(paths)
        if _is_of(run, parts):  # a bucket's listing came too late to show it
            return run
        run_id = hashlib.sha256(run_id.encode()).hexdigest()[:16]  # whose failed files were replaced has kept its name
    try:
        return _create_run(store, run_id, inputs, known[0].plan() if known else make_plan(), parts)
    except OSError as error:
        raise StoreError(f"store {store} cannot be written: {error.strerror or error}") from None


def _create_run(store: StorePath, run_id: str, inputs: RunInputs, plan: pa.Table, parts: dict[str, Any]) -> Run:
    info = {
        "format": FORMAT_NAME,
        "run_id": run_id,
        **parts,
        "created_unix": time.time(),
        "dataset": inputs.dataset,
        "data_root": str(inputs.data_root.resolve()),
        "num_clips": inputs.manifest.num_rows,
        "num_videos": len(set(inputs.manifest.column("video_id").to_pylist())),
        "num_units": len(set(plan.column("unit_id").to_pylist())),
        "versions": library_versions(),
        "config": inputs.config.model_dump(mode="json"),
    }
    files = {
        "manifest.parquet": parquet_bytes(inputs.manifest),
        "inputs.parquet": parquet_bytes(inputs_table(inputs.inputs)),
        "plan.parquet": parquet_bytes(plan),
        "run.json": to_json(info),
    }
    folders = ("attempts", "commits", "failures", "snapshots")
    storage_of(store).create_directory(store / "runs" / run_id, files, folders)
    return load_run(RunPaths(store / "runs" / run_id))


def library_versions() -> dict[str, str]:
    """Return the versions of everything that shapes the numbers; what is not installed is left out."""
    versions = {"python": sys.version.split()[0], "platform": platform.platform()}
    for name in _SHAPING_LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def describe_changes(run: Run, inputs: RunInputs) -> list[str]:
    """Say line by line how inputs and parameters differ from a run's."""
    lines = _config_changes(run.info["config"], inputs.config.model_dump(mode="json"), "")
    if run.info.get("algorithm_version") != ALGORITHM_VERSION:
        lines.append(f"algorithm version: {run.info.get('algorithm_version')} -> {ALGORITHM_VERSION}")
    lines += _row_changes("clip", run.manifest(), inputs.manifest, "clip_id")
    lines += _row_changes("input file", read_table(run.paths.inputs), inputs_table(inputs.inputs), "path")
    return lines or ["the order of the clips"]


def _config_changes(old: dict[str, Any], new: dict[str, Any], prefix: str) -> list[str]:
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += _config_changes(before, after, f"{prefix}{key}.")
        elif before != after and key != "preset":
            lines.append(f"{prefix}{key}: {before!r} -> {after!r}")
    return lines


def _row_changes(noun: str, old: pa.Table, new: pa.Table, key: str) -> list[str]:
    before = {row[key]: row for row in old.to_pylist()}
    after = {row[key]: row for row in new.to_pylist()}
    groups = {
        "removed": [name for name in before if name not in after],
        "added": [name for name in after if name not in before],
        "changed": [name for name, row in after.items() if name in before and before[name] != row],
    }
    columns = {
        column
        for name in groups["changed"]
        for column in before[name].keys() | after[name].keys()
        if before[name].get(column) != after[name].get(column)
    }
    places = {"changed": f" (in {_first_few(sorted(columns))})"}
    return [
        f"{len(names):,} {noun}{'s' if len(names) != 1 else ''} {what}: {_first_few(names)}{places.get(what, '')}"
        for what, names in groups.items()
        if names
    ]


def _first_few(names: list[str]) -> str:
    named = ", ".join(name if len(name) <= 80 else name[:77] + "..." for name in names[:_NUM_NAMED])
    return named + (", ..." if len(names) > _NUM_NAMED else "")
