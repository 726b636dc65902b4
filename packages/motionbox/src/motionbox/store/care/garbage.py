"""What nothing in a store refers to: attempts that lost or died, half-written files, old snapshots and records."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from motionbox.errors import StoreError
from motionbox.storage import StorePath, storage_of
from motionbox.storage.paths import children
from motionbox.store.areas.guidance import guidance_names
from motionbox.store.layout import RunPaths, check_store, run_paths
from motionbox.store.writing.commit import read_commits


@dataclass(frozen=True)
class Garbage:
    """A file or directory that nothing refers to.

    Attributes:
        path: What.
        why: Why nothing needs it.
        num_bytes: Its size.
    """

    path: StorePath
    why: str
    num_bytes: int


def find_garbage(
    store: StorePath,
    *,
    keep_snapshots: int = 1,
    drop_guidances: Collection[str] = (),
    drop_runs: Collection[str] = (),
) -> list[Garbage]:
    """Return what may be removed from a store that no process is writing to.

    Args:
        store: The store's directory.
        keep_snapshots: Snapshots of each run that stay, the newest ones; those that a reader holds open stay too.
        drop_guidances: Names of guidances that may go; of the others the newest version stays.
        drop_runs: Run ids, or beginnings of them, of runs that may go.

    Raises:
        StoreError: It is no store, it has no guidance or run of such a name, a reader holds that run open, or a commit
            record is damaged (its attempts are then not told apart).
    """
    check_store(store)
    unknown = set(drop_guidances).difference(*(guidance_names(paths) for paths in run_paths(store)))
    if unknown:
        raise StoreError(f"--guidance must name a guidance of store {store}, got {sorted(unknown)[0]!r}")
    storage = storage_of(store)
    found: list[tuple[StorePath, str]] = [(path, "half-made run") for path in storage.half_made(store / "runs")]
    dropped = {_named_run(store, name).root for name in drop_runs}
    for paths in run_paths(store):
        if paths.root in dropped:
            found.append((paths.root, "run that is not needed any more"))
            continue
        attempts = _attempts(paths)  # before the commit records: what is found here then belongs to what they decided
        numbers = paths.snapshot_numbers()
        old = [
            number
            for number, next_one in itertools.pairwise(numbers)
            if number in numbers[: -max(keep_snapshots, 1)]
            and not storage.in_use(paths.snapshot(number), paths.snapshot(next_one))
        ]
        kept = _shown_attempts(paths, [number for number in numbers if number not in old])
        found += [(path, "records of attempts that no snapshot shows") for path in _idle_records(paths, kept)]
        for number in old:
            found += [(path, "superseded snapshot") for path in storage.parts_of(paths.snapshot(number))]
        found += [(path, "attempt that was not committed") for path in _lost_attempts(paths, attempts, kept)]
        found += [(path, "half-written file") for path in _half_written(paths)]
        found += _guidances(paths, drop_guidances)
    return [Garbage(path, why, _size(path)) for path, why in found]


def remove(garbage: list[Garbage]) -> None:
    """Remove what `find_garbage` found; what is gone already is no error.

    A directory goes at once, by a new name that makes it a half-written one: nobody sees half a snapshot or run.

    Raises:
        StoreError: The store cannot be written.
    """
    try:
        for entry in garbage:
            storage_of(entry.path).remove_at_once(entry.path)
    except OSError as error:
        raise StoreError(f"{entry.path} cannot be removed: {error.strerror or error}") from None


def _named_run(store: StorePath, name: str) -> RunPaths:
    found = [paths for paths in run_paths(store) if name and paths.root.name.startswith(name)]
    if len(found) != 1:
        known = ", ".join(paths.root.name for paths in run_paths(store)) or "none"
        raise StoreError(f"--run must name one run of store {store}, got {name!r}; its runs: {known}")
    snapshots = map(found[0].snapshot, found[0].snapshot_numbers())
    if any(storage_of(store).is_held(snapshot) for snapshot in snapshots):
        raise StoreError(f"--run {name!r} of store {store} is held open by a reader; end that first")
    return found[0]


def _idle_records(paths: RunPaths, kept: set[StorePath]) -> list[StorePath]:
    """Return the records of retired attempts that no snapshot shows; their directory where that is all of them."""
    if storage_of(paths.root).counts_retired:
        return []
    directory = paths.retired_commits
    records = children(directory)
    idle = [path for path in records if paths.attempt(*path.name.removesuffix(".json").split(".")) not in kept]
    return [directory] if idle and idle == records else idle


def _shown_attempts(paths: RunPaths, numbers: list[int]) -> set[StorePath]:
    """Return the attempts whose maps, flow and clips the given snapshots show."""
    shown = (entry for number in numbers for entry in paths.snapshot_info(number)["units"])
    return {paths.attempt(unit, attempt) for unit, attempt in shown}


def _attempts(paths: RunPaths) -> dict[str, list[StorePath]]:
    """Return the attempts that are there, by unit, sorted."""
    return {unit.name: children(unit) for unit in children(paths.attempts)}


def _lost_attempts(paths: RunPaths, attempts: dict[str, list[StorePath]], kept: set[StorePath]) -> Iterator[StorePath]:
    committed = read_commits(paths)
    kept = kept | {paths.attempt(unit, str(record["attempt"])) for unit, record in committed.items()}
    storage = storage_of(paths.root)
    for unit, found in attempts.items():
        lost = (entry for entry in found if entry not in kept)
        yield from (entry for entry in lost if unit in committed or storage.abandoned(entry))


def _half_written(paths: RunPaths) -> Iterator[StorePath]:
    storage = storage_of(paths.root)
    for directory in (paths.root, paths.commits, paths.snapshots):
        yield from storage.leftovers(directory)
    for unit in children(paths.failures):
        yield from storage.leftovers(unit)


def _guidances(paths: RunPaths, dropped: Collection[str]) -> Iterator[tuple[StorePath, str]]:
    storage = storage_of(paths.root)
    for name in guidance_names(paths):
        numbers = paths.guidance_numbers(name)
        for number in numbers if name in dropped else numbers[:-1]:
            version = paths.guidance(name, number)
            if not storage.in_use(version, paths.guidance(name, numbers[-1])):
                why = f"guidance {name!r}" if name in dropped else f"superseded version of guidance {name!r}"
                yield from ((path, why) for path in storage.parts_of(version))
    for folder in children(paths.guidances):
        yield from ((path, "half-written guidance") for path in storage.leftovers(folder))


def _size(path: StorePath) -> int:
    entries: list[StorePath] = [path, *path.rglob("*")] if path.is_dir() else [path]
    total = 0
    for entry in entries:
        with contextlib.suppress(OSError):
            total += entry.stat().st_size if entry.is_file() else 0
    return total
