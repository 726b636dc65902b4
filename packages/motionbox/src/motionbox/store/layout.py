"""Where things are in a store, and what its first file, `store.json`, must say. See docs/store.md."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motionbox.errors import StoreError, refuse_url
from motionbox.storage import StorePath, storage_of
from motionbox.storage.files import MANIFEST_FILE, RECORD_FILE
from motionbox.storage.paths import children, matching

FORMAT_NAME = "motionbox-store"
FORMAT_VERSION = 1

FRAMES_FILE = "frames.parquet"
BLOCKS_FILE = "blocks.parquet"
MAPS_DIRECTORY = "motion.zarr"
MAPS_ARRAY = "maps"
FLOW_DIRECTORY = "flow.zarr"
CLIPS_FILE = "clips.bin"
AREAS_FILE = "areas.bin"
AREA_BLOCKS_FILE = "area_blocks.npy"
SNAPSHOT_FILE = MANIFEST_FILE


class MissingError(StoreError):
    """A file of a store is not there."""


@dataclass(frozen=True)
class RunPaths:
    """The names below `runs/<run id>/`.

    Attributes:
        root: The run's directory.
    """

    root: StorePath

    @property
    def run_json(self) -> StorePath:
        """Config, data set and versions; written last when a run is created: a run exists once it is there."""
        return self.root / "run.json"

    @property
    def manifest(self) -> StorePath:
        """The data set's clips with their label columns."""
        return self.root / "manifest.parquet"

    @property
    def inputs(self) -> StorePath:
        """The input files with size and modification time."""
        return self.root / "inputs.parquet"

    @property
    def plan(self) -> StorePath:
        """Pieces of videos grouped to work units."""
        return self.root / "plan.parquet"

    @property
    def attempts(self) -> StorePath:
        """Private directories of attempts, `<unit>/<uuid>/`."""
        return self.root / "attempts"

    @property
    def commits(self) -> StorePath:
        """Commit records, `<unit>.json`."""
        return self.root / "commits"

    @property
    def failures(self) -> StorePath:
        """Failure records, `<unit>/<attempt>.json`."""
        return self.root / "failures"

    @property
    def snapshots(self) -> StorePath:
        """What readers read, `<n>/`."""
        return self.root / "snapshots"

    @property
    def guidances(self) -> StorePath:
        """Boxes and areas that came from elsewhere, `<name>/<n>/`."""
        return self.root / "guidance"

    @property
    def progress(self) -> StorePath:
        """What the driving process last said of its progress."""
        return self.root / "progress.json"

    def attempt(self, unit_id: str, attempt_id: str) -> StorePath:
        """Return the directory of one attempt at a unit."""
        return self.attempts / unit_id / attempt_id

    def commit(self, unit_id: str) -> StorePath:
        """Return the commit record of a unit, or where its next one will be."""
        return storage_of(self.root).record(self.commits, unit_id)

    @property
    def retired_commits(self) -> StorePath:
        """Commit records of units that were done again."""
        return self.commits / "retired"

    def retired_commit(self, unit_id: str, attempt_id: str) -> StorePath:
        """Return where the commit record of an attempt goes when its unit is done again."""
        return self.retired_commits / f"{unit_id}.{attempt_id}.json"

    def snapshot(self, number: int) -> StorePath:
        """Return the directory of a snapshot."""
        return self.snapshots / str(number)

    def snapshot_info(self, number: int) -> dict[str, Any]:
        """Read what a snapshot says about itself.

        Raises:
            StoreError: It is missing or unreadable.
        """
        return read_json(self.snapshot(number) / SNAPSHOT_FILE)

    def guidance(self, name: str, number: int) -> StorePath:
        """Return the directory of a version of a guidance."""
        return self.guidances / name / str(number)

    def guidance_info(self, name: str, number: int) -> dict[str, Any]:
        """Read what a version of a guidance says about itself.

        Raises:
            StoreError: It is missing or unreadable.
        """
        return read_json(self.guidance(name, number) / SNAPSHOT_FILE)

    def committed_units(self) -> list[str]:
        """Return the ids of the units that are committed, sorted."""
        return list(storage_of(self.root).records(self.commits))

    def snapshot_numbers(self) -> list[int]:
        """Return the numbers of the published snapshots, oldest first."""
        return _numbers(self.snapshots)

    def guidance_numbers(self, name: str) -> list[int]:
        """Return the numbers of the published versions of a guidance, oldest first."""
        return _numbers(self.guidances / name)


def files_of(version: StorePath, info: dict[str, Any]) -> StorePath:
    """Return where the files of a snapshot, or of a version of a guidance, are whose MANIFEST.json says `info`."""
    return storage_of(version).files_of(version, info)


def _numbers(directory: StorePath) -> list[int]:
    """Return the numbers that finished directories below this one bear, sorted."""
    return sorted(int(entry.parent.name) for entry in _files(directory, f"[0-9]*/{SNAPSHOT_FILE}"))


def _files(directory: StorePath, pattern: str) -> list[StorePath]:
    """Return what a pattern finds below a directory; names that begin with a dot are private to their writers."""
    depth = pattern.count("/") + 1
    found = matching(directory, pattern)
    return [path for path in found if not any(part.startswith(".") for part in str(path).split("/")[-depth:])]


def run_paths(store: StorePath) -> list[RunPaths]:
    """Return the runs of a store, in the order of their creation."""
    return [run for run, _ in run_infos(store)]


def run_infos(store: StorePath) -> list[tuple[RunPaths, dict[str, Any]]]:
    """Return the runs of a store with what their run.json says, in the order of their creation.

    Raises:
        StoreError: A run.json is unreadable.
    """
    found = []
    for entry in children(store / "runs"):
        if not entry.name.startswith("."):
            with contextlib.suppress(MissingError):
                found.append((RunPaths(entry), read_json(entry / "run.json")))
    return sorted(found, key=lambda run: (run[1].get("created_unix", 0), run[0].root.name))


def read_json(path: StorePath) -> dict[str, Any]:
    """Read one of the store's JSON files, or the one in the directory that stands in its place (`RECORD_FILE`).

    Raises:
        MissingError: It is not there.
        StoreError: It is unreadable or not a JSON object.
    """
    try:
        try:
            data = path.read_bytes()
        except IsADirectoryError:
            data = (path / RECORD_FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise MissingError(f"{path} does not exist") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    return _json_object(path, data)


def _unreadable(path: StorePath, error: Exception) -> StoreError:
    return StoreError(f"{path} must be readable JSON: {error}; run `motionbox verify` on the store")


def _json_object(path: StorePath, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise _unreadable(path, error) from None
    if not isinstance(value, dict):
        raise StoreError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def check_store(store: StorePath) -> dict[str, Any]:
    """Read `store.json` and refuse what this version cannot read.

    Args:
        store: The store's directory.

    Returns:
        The content of `store.json`: `format`, `version`, `uuid`.

    Raises:
        StoreError: Not a store, a store of another program, or of a newer version.
        InputError: It is a URL.
    """
    if isinstance(store, Path):
        refuse_url(store)  # a `Path` made of a URL has lost a slash
    try:
        data = (store / "store.json").read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        what = "is not a motionbox store (no store.json)" if store.exists() else "does not exist"
        raise StoreError(f"store {store} {what}; `motionbox extract --store {store}` makes one") from None
    except OSError as error:
        if isinstance(store, Path):
            raise
        raise StoreError(f"store {store} cannot be read: {error.strerror or error}") from None
    content = _json_object(store / "store.json", data)
    if content.get("format") != FORMAT_NAME:
        raise StoreError(f"store {store} belongs to another program: format is {content.get('format')!r}")
    version = content.get("version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise StoreError(
            f"store {store} has format version {version!r}, this motionbox reads up to {FORMAT_VERSION}; "
            "upgrade motionbox"
        )
    return content
