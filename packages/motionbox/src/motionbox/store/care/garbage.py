"""What nothing in a store refers to: attempts that lost or died, half-written files, old snapshots and records."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from motionbox.errors import StoreError
from motionbox.store.areas.guidance import guidance_names
from motionbox.store.layout import SNAPSHOT_FILE, RunPaths, check_store, run_paths
from motionbox.store.writing.commit import read_commit


@dataclass(frozen=True)
class Garbage:
    """A file or directory that nothing refers to.

    Attributes:
        path: What.
        why: Why nothing needs it.
        num_bytes: Its size.
    """

    path: Path
    why: str
    num_bytes: int


def find_garbage(
    store: Path, *, keep_snapshots: int = 1, drop_guidances: Collection[str] = (), drop_runs: Collection[str] = ()
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
    found = [(path, "half-made run") for path in _private(store / "runs")]
    dropped = {_named_run(store, name).root for name in drop_runs}
    for paths in run_paths(store):
        if paths.root in dropped:
            found.append((paths.root, "run that is not needed any more"))
            continue
        numbers = paths.snapshot_numbers()
        old = [n for n in numbers[: -max(keep_snapshots, 1)] if not is_pinned(paths.snapshot(n))]
        kept = _shown_attempts(paths, [number for number in numbers if number not in old])
        found += [(path, "records of attempts that no snapshot shows") for path in _idle_records(paths, kept)]
        found += [(paths.snapshot(number), "superseded snapshot") for number in old]
        found += [(path, "attempt that was not committed") for path in _lost_attempts(paths, kept)]
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
            if entry.path.is_dir():
                private = entry.path.with_name(f".{uuid.uuid4().hex}")
                entry.path.rename(private)
                shutil.rmtree(private, ignore_errors=True)
            else:
                entry.path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{entry.path} cannot be removed: {error.strerror or error}") from None


def is_pinned(snapshot: Path) -> bool:
    """Return whether a reader holds a snapshot open (on this host, or wherever the file system shares locks)."""
    try:
        descriptor = os.open(snapshot / SNAPSHOT_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _named_run(store: Path, name: str) -> RunPaths:
    found = [paths for paths in run_paths(store) if name and paths.root.name.startswith(name)]
    if len(found) != 1:
        known = ", ".join(paths.root.name for paths in run_paths(store)) or "none"
        raise StoreError(f"--run must name one run of store {store}, got {name!r}; its runs: {known}")
    if any(is_pinned(found[0].snapshot(number)) for number in found[0].snapshot_numbers()):
        raise StoreError(f"--run {name!r} of store {store} is held open by a reader; end that first")
    return found[0]


def _idle_records(paths: RunPaths, kept: set[Path]) -> list[Path]:
    """Return the records of retired attempts that no snapshot shows; their directory where that is all of them."""
    directory = paths.retired_commits
    if not directory.is_dir():
        return []
    records = sorted(directory.iterdir())
    idle = [path for path in records if paths.attempt(*path.name.removesuffix(".json").split(".")) not in kept]
    return [directory] if idle == records else idle


def _shown_attempts(paths: RunPaths, numbers: list[int]) -> set[Path]:
    """Return the attempts whose maps, flow and clips the given snapshots show."""
    shown = (entry for number in numbers for entry in paths.snapshot_info(number)["units"])
    return {paths.attempt(unit, attempt) for unit, attempt in shown}


def _lost_attempts(paths: RunPaths, kept: set[Path]) -> Iterator[Path]:
    kept = kept | {paths.attempt(unit, str(read_commit(paths, unit)["attempt"])) for unit in paths.committed_units()}
    for unit in sorted(paths.attempts.iterdir()) if paths.attempts.is_dir() else []:
        yield from (entry for entry in sorted(unit.iterdir()) if entry not in kept)


def _half_written(paths: RunPaths) -> Iterator[Path]:
    for directory in (paths.root, paths.commits, paths.snapshots):
        yield from _private(directory)
    if paths.failures.is_dir():
        for unit in sorted(paths.failures.iterdir()):
            yield from _private(unit)


def _guidances(paths: RunPaths, dropped: Collection[str]) -> Iterator[tuple[Path, str]]:
    for name in guidance_names(paths):
        numbers = paths.guidance_numbers(name)
        for number in numbers if name in dropped else numbers[:-1]:
            if not is_pinned(paths.guidance(name, number)):
                why = f"guidance {name!r}" if name in dropped else f"superseded version of guidance {name!r}"
                yield paths.guidance(name, number), why
    if paths.guidances.is_dir():
        yield from ((path, "half-written guidance") for path in sorted(paths.guidances.glob("*/.*")))


def _private(directory: Path) -> list[Path]:
    return sorted(directory.glob(".*")) if directory.is_dir() else []


def _size(path: Path) -> int:
    total = 0
    for entry in [path, *path.rglob("*")] if path.is_dir() else [path]:
        with contextlib.suppress(OSError):
            total += entry.stat().st_size if entry.is_file() else 0
    return total
