"""Where things are in a store, and what its first file, `store.json`, must say. See docs/store.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motionbox.errors import StoreError, refuse_url

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
SNAPSHOT_FILE = "MANIFEST.json"
RECORD_FILE = "record.json"
"""What a record, such as `commits/u000000.json`, holds where it is a directory: on file systems without hard links."""


@dataclass(frozen=True)
class RunPaths:
    """The names below `runs/<run id>/`.

    Attributes:
        root: The run's directory.
    """

    root: Path

    @property
    def run_json(self) -> Path:
        """Config, data set and versions; written last when a run is created: a run exists once it is there."""
        return self.root / "run.json"

    @property
    def manifest(self) -> Path:
        """The data set's clips with their label columns."""
        return self.root / "manifest.parquet"

    @property
    def inputs(self) -> Path:
        """The input files with size and modification time."""
        return self.root / "inputs.parquet"

    @property
    def plan(self) -> Path:
        """Pieces of videos grouped to work units."""
        return self.root / "plan.parquet"

    @property
    def attempts(self) -> Path:
        """Private directories of attempts, `<unit>/<uuid>/`."""
        return self.root / "attempts"

    @property
    def commits(self) -> Path:
        """Commit records, `<unit>.json`."""
        return self.root / "commits"

    @property
    def failures(self) -> Path:
        """Failure records, `<unit>/<attempt>.json`."""
        return self.root / "failures"

    @property
    def snapshots(self) -> Path:
        """What readers read, `<n>/`."""
        return self.root / "snapshots"

    @property
    def guidances(self) -> Path:
        """Boxes and areas that came from elsewhere, `<name>/<n>/`."""
        return self.root / "guidance"

    @property
    def progress(self) -> Path:
        """What the driving process last said of its progress."""
        return self.root / "progress.json"

    def attempt(self, unit_id: str, attempt_id: str) -> Path:
        """Return the directory of one attempt at a unit."""
        return self.attempts / unit_id / attempt_id

    def commit(self, unit_id: str) -> Path:
        """Return the commit record of a unit."""
        return self.commits / f"{unit_id}.json"

    @property
    def retired_commits(self) -> Path:
        """Commit records of units that were done again."""
        return self.commits / "retired"

    def retired_commit(self, unit_id: str, attempt_id: str) -> Path:
        """Return where the commit record of an attempt goes when its unit is done again."""
        return self.retired_commits / f"{unit_id}.{attempt_id}.json"

    def snapshot(self, number: int) -> Path:
        """Return the directory of a snapshot."""
        return self.snapshots / str(number)

    def snapshot_info(self, number: int) -> dict[str, Any]:
        """Read what a snapshot says about itself.

        Raises:
            StoreError: It is missing or unreadable.
        """
        return read_json(self.snapshot(number) / SNAPSHOT_FILE)

    def guidance(self, name: str, number: int) -> Path:
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
        return sorted(entry.stem for entry in _files(self.commits, "*.json"))

    def snapshot_numbers(self) -> list[int]:
        """Return the numbers of the published snapshots, oldest first."""
        return _numbers(self.snapshots)

    def guidance_numbers(self, name: str) -> list[int]:
        """Return the numbers of the published versions of a guidance, oldest first."""
        return _numbers(self.guidances / name)


def _numbers(directory: Path) -> list[int]:
    """Return the numbers that finished directories below this one bear, sorted."""
    return sorted(int(entry.parent.name) for entry in _files(directory, f"[0-9]*/{SNAPSHOT_FILE}"))


def _files(directory: Path, pattern: str) -> list[Path]:
    """Return what a pattern finds below a directory; names that begin with a dot are private to their writers."""
    found = directory.glob(pattern) if directory.is_dir() else ()
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(directory).parts)]


def run_paths(store: Path) -> list[RunPaths]:
    """Return the runs of a store, in the order of their creation."""
    runs = [RunPaths(path.parent) for path in _files(store / "runs", "*/run.json")]
    return sorted(runs, key=lambda run: (read_json(run.run_json).get("created_unix", 0), run.root.name))


def read_json(path: Path) -> dict[str, Any]:
    """Read one of the store's JSON files, or the one in the directory that stands in its place (`RECORD_FILE`).

    Raises:
        StoreError: It is missing, unreadable or not a JSON object.
    """
    try:
        try:
            data = path.read_bytes()
        except IsADirectoryError:
            data = (path / RECORD_FILE).read_bytes()
        value = json.loads(data)
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} must be readable JSON: {error}; run `motionbox verify` on the store") from None
    if not isinstance(value, dict):
        raise StoreError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def check_store(store: Path) -> dict[str, Any]:
    """Read `store.json` and refuse what this version cannot read.

    Args:
        store: The store's directory.

    Returns:
        The content of `store.json`: `format`, `version`, `uuid`.

    Raises:
        StoreError: Not a store, a store of another program, or of a newer version.
        InputError: It is a URL.
    """
    refuse_url(store)
    marker = store / "store.json"
    if not marker.is_file():
        what = "is not a motionbox store (no store.json)" if store.exists() else "does not exist"
        raise StoreError(f"store {store} {what}; `motionbox extract --store {store}` makes one")
    content = read_json(marker)
    if content.get("format") != FORMAT_NAME:
        raise StoreError(f"store {store} belongs to another program: format is {content.get('format')!r}")
    version = content.get("version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise StoreError(
            f"store {store} has format version {version!r}, this motionbox reads up to {FORMAT_VERSION}; "
            "upgrade motionbox"
        )
    return content
