"""Buckets: names that one writer gets, by conditional puts. Nothing here is ever renamed, and no lock is relied on.

Three rules keep writers apart, whatever they believe and whenever they wake up:

- Every name that makes something visible is created with "only if there is none" and then never written again.
- A record is not moved away when it is retired: a second object says so, and the name's next record has the number of
  its *life* in its name. Who began in an earlier life can only try for a name that is taken.
- A version's files lie below a prefix of their own, `.<number>-<id>`; the manifest, put once under that number, names
  it.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from motionbox.errors import StoreError
from motionbox.storage.client import MANY
from motionbox.storage.failpoints import failpoint
from motionbox.storage.files import MANIFEST_FILE, to_json
from motionbox.storage.local_cache import make_work_folder, remove_work_folder
from motionbox.storage.paths import ObjectPath, StorePath

KEPT_SECONDS = 7 * 24 * 3600.0
"""How long `gc` leaves what a reader or a writer that it cannot see may still use."""

_T = TypeVar("_T")
_R = TypeVar("_R")
_RECORD = re.compile(r"(.+?)(?:\.(\d+))?\.json")
_RUN = re.compile("[0-9a-f]{16}")
_PRIVATE = re.compile(r"\.(\d+)-[0-9a-f]{32}")


class ObjectStorage:
    """`Storage` in a bucket."""

    poll_seconds = 30.0
    answers_late = True
    counts_retired = True

    def read_ranges(self, path: StorePath, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return ranges (offset, bytes) of an object, many requests in flight."""
        place = _object(path)
        return place.client.read_ranges(place.key, ranges)

    def digests(self, paths: Sequence[StorePath]) -> list[tuple[int, str] | None]:
        """Return size and SHA-256 of objects, read back from the bucket; None for one that is not there."""

        def read_back(path: StorePath) -> tuple[int, str] | None:
            failpoint("object.read_back")
            try:
                return _object(path).client.sha256(_object(path).key)
            except FileNotFoundError:
                return None

        return _many(read_back, paths)

    def make_directory(self, path: StorePath) -> None:
        """Do nothing: there are no directories in a bucket."""

    def publish(self, path: StorePath, data: bytes, *, point: str) -> bool:
        """Write an object whole under a name that one writer gets."""
        failpoint(f"{point}.write")
        failpoint(f"{point}.before_link")
        published = _object(path).client.put_new(_object(path).key, data)
        if published:
            failpoint(f"{point}.after_link")
        return published

    def replace(self, path: StorePath, data: bytes) -> None:
        """Write an object in place of another, if that is still the one that was there.

        Raises:
            OSError: Another writer was faster.
        """
        place = _object(path)
        failpoint("run.write")
        try:
            before = place.stat()
        except FileNotFoundError:
            if not place.client.put_new(place.key, data):
                raise _changed(place) from None
            return
        if not place.client.put_over(place.key, data, before.e_tag):
            raise _changed(place)

    def note(self, path: StorePath, data: bytes) -> None:
        """Leave a note."""
        _object(path).client.put(_object(path).key, data)

    def scribble(self, path: StorePath, data: bytes) -> None:
        """Leave a note; one that cannot be left is none."""
        with contextlib.suppress(OSError):
            self.note(path, data)

    def remove(self, path: StorePath) -> None:
        """Remove an object and all below it."""
        place = _object(path)
        keys = [entry.key for entry in place.client.walk(place.key)]
        # What names the others goes first: a reader then finds nothing rather than half of it.
        keys.sort(key=lambda key: not key.endswith((f"/{MANIFEST_FILE}", "/run.json")))
        place.client.delete(keys or [place.key])

    def remove_at_once(self, path: StorePath) -> None:
        """Remove an object and all below it, first of all what names the others."""
        self.remove(path)

    def staging(self, path: StorePath) -> Path:
        """Return a new local folder."""
        del path
        return make_work_folder()

    def settle(self, staged: Path, path: StorePath) -> None:
        """Put what was made in a local folder below a prefix."""
        place = _object(path)
        files = sorted(entry for entry in staged.rglob("*") if entry.is_file())

        def put(file: Path) -> None:
            failpoint("object.put")
            place.client.put((place / file.relative_to(staged).as_posix()).key, file)

        _many(put, files)

    def fetch(self, directory: StorePath, names: Sequence[str]) -> Path:
        """Return a new local folder with copies of objects, all of them under way together."""
        place, folder = _object(directory), make_work_folder()

        def get(name: str) -> None:
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes((place / name).read_bytes())

        try:
            _many(get, names)
        except BaseException:
            self.clear(folder)
            raise
        return folder

    def clear(self, staged: Path) -> None:
        """Remove a local folder."""
        remove_work_folder(staged)

    def records(self, directory: StorePath) -> dict[str, StorePath]:
        """Return the last records of the names that have more of them than retired ones, sorted by name."""
        # Retired ones first: what is retired and published between the two listings then counts once, not never.
        place = _object(directory)
        retired = _retired(place)
        written = Counter(_split(entry.name)[0] for entry in place.glob("*.json"))
        in_force = sorted(name for name, count in written.items() if count > retired[name])
        return {name: place / _record_name(name, retired[name]) for name in in_force}

    def places(self, directory: StorePath, names: Sequence[str]) -> dict[str, StorePath]:
        """Return where the records of names are that are in force, or those to come."""
        retired = _retired(_object(directory))
        return {name: _object(directory) / _record_name(name, retired[name]) for name in names}

    def record(self, directory: StorePath, name: str) -> ObjectPath:
        """Return where the record of a name is that is in force, or the one to come."""
        return _object(directory) / _record_name(name, self.life(directory, name))

    def life(self, directory: StorePath, name: str) -> int:
        """Return how many records of a name were retired."""
        place = _object(directory) / "retired"
        keys = (ObjectPath(place.bucket, entry.key) for entry in place.client.entries(place.key))
        return sum(entry.name.startswith(f"{name}.") for entry in keys)

    def publish_record(self, directory: StorePath, name: str, life: int, data: bytes, *, point: str) -> bool:
        """Publish the record of a name for one of its lives."""
        return self.publish(_object(directory) / _record_name(name, life), data, point=point)

    def retire_record(self, directory: StorePath, name: str, retired: StorePath) -> None:
        """Put a copy of the record where retired ones lie: from then on it is one of them."""
        data = self.record(directory, name).read_bytes()
        _object(retired).client.put_new(_object(retired).key, data)

    def create_directory(self, path: StorePath, files: Mapping[str, bytes], folders: Sequence[str]) -> None:
        """Put objects below a prefix, the last of which says that it is there; who is second leaves what is there."""
        del folders
        for name, data in files.items():
            failpoint("run.write")
            place = _object(path) / name
            place.client.put_new(place.key, data)

    @contextlib.contextmanager
    def new_number(self, parent: StorePath) -> Iterator[_NewPrefix]:
        """Begin a version in a local folder; it can appear under no other number than the one that is next now."""
        staged = self.staging(parent)
        try:
            yield _NewPrefix(_object(parent), _next_number(_object(parent)), staged)
        finally:
            self.clear(staged)

    def files_of(self, version: StorePath, manifest: dict[str, Any]) -> StorePath:
        """Return the prefix that a version's manifest names; its own in a copy of a local store."""
        place = _object(version)
        return place.parent / str(manifest["directory"]) if "directory" in manifest else place

    def parts_of(self, version: StorePath) -> list[StorePath]:
        """Return a version's manifest, and the prefix of its files."""
        manifest = _object(version) / MANIFEST_FILE
        return [version, _object(version).parent / _directory_of(manifest)]

    def is_held(self, version: StorePath) -> bool:
        """Return False: readers leave no trace in a bucket."""
        del version
        return False

    def in_use(self, version: StorePath, successor: StorePath) -> bool:
        """Return whether a version was superseded only days ago: readers leave no trace in a bucket."""
        del version
        return not is_old(successor)

    def abandoned(self, attempt: StorePath) -> bool:
        """Return whether nothing of an attempt was written for days: its worker may live, whoever has the lease."""
        return is_old(attempt)

    def half_made(self, runs: StorePath) -> list[StorePath]:
        """Return the prefixes of runs that have no run.json, days after somebody began them."""
        found = (run for run in _object(runs).iterdir() if _RUN.fullmatch(run.name))
        return [run for run in found if not (run / "run.json").is_file() and is_old(run)]

    def leftovers(self, parent: StorePath) -> list[StorePath]:
        """Return prefixes of versions that lost their number, or that nobody has gone on with for days."""
        place = _object(parent)
        names = [entry.name for entry in place.iterdir()]
        numbers = {int(name) for name in names if name.isdigit()}
        manifests = [place / str(number) / MANIFEST_FILE for number in sorted(numbers)]
        used = {_directory_of(manifest) for manifest in manifests}
        found = ((name, _PRIVATE.fullmatch(name)) for name in names)
        return [
            place / name
            for name, match in found
            if match and name not in used and (int(match[1]) in numbers or is_old(place / name))
        ]

    def check_exclusive(self, directory: StorePath) -> None:
        """Check that a name is kept from a second writer, and an object from one who knows an older content."""
        place = _object(directory) / f".probe-{uuid.uuid4().hex}"
        client, key = place.client, place.key
        try:
            got = [client.put_new(key, uuid.uuid4().bytes) for _ in range(2)]
            old = client.head(key).e_tag
            changed = [client.put_over(key, uuid.uuid4().bytes, old) for _ in range(2)]
        finally:
            client.delete([key])
        if got != [True, False] or changed != [True, False]:
            raise StoreError(
                f"store {directory} lies in a bucket that ignores conditional puts (If-None-Match, If-Match): two "
                "writers could destroy each other's work; give --store a bucket of a provider that honours them"
            )


class _NewPrefix:
    """Files in a local folder that go below a prefix of their own, and a manifest that names it."""

    def __init__(self, parent: ObjectPath, number: int, staged: Path) -> None:
        self.directory = staged
        self._parent = parent
        self._number = number

    def publish(self, manifest: dict[str, Any], *, point: str) -> int:
        """Put the files, read them back, then put the manifest under the number, if nobody has."""
        while True:
            name = f".{self._number}-{uuid.uuid4().hex}"
            OBJECTS.settle(self.directory, self._parent / name)
            written = [(entry["bytes"], entry["sha256"]) for entry in manifest["files"].values()]
            if OBJECTS.digests([self._parent / name / file for file in manifest["files"]]) != written:
                raise OSError(f"{self._parent / name} was read back with other digests than it was written with")
            failpoint(f"{point}.before_publish")
            target = self._parent / str(self._number) / MANIFEST_FILE
            if target.client.put_new(target.key, to_json({**manifest, "directory": name})):
                failpoint(f"{point}.after_publish")
                return self._number
            OBJECTS.remove(self._parent / name)
            self._number = max(_next_number(self._parent), self._number + 1)  # a listing may come late


def _many(function: Callable[[_T], _R], values: Sequence[_T]) -> list[_R]:
    """Return what a function gives for each value, `MANY` requests in flight."""
    with ThreadPoolExecutor(min(MANY, max(len(values), 1))) as pool:
        return list(pool.map(function, values))


def is_old(place: StorePath) -> bool:
    """Return whether an object, or whatever lies below a prefix, was not written for days."""
    entries = list(_object(place).client.walk(_object(place).key)) or [_object(place).stat()]
    return all(time.time() - entry.st_mtime > KEPT_SECONDS for entry in entries)


def _directory_of(manifest: ObjectPath) -> str:
    return str(json.loads(manifest.read_bytes())["directory"])


def _next_number(parent: ObjectPath) -> int:
    return max((int(entry.name) for entry in parent.iterdir() if entry.name.isdigit()), default=0) + 1


def _record_name(name: str, life: int) -> str:
    return f"{name}.{life}.json" if life else f"{name}.json"


def _split(file_name: str) -> tuple[str, int]:
    found = _RECORD.fullmatch(file_name)
    if found is None:
        raise OSError(f"{file_name} is no record")
    return found[1], int(found[2] or 0)


def _retired(directory: ObjectPath) -> Counter[str]:
    entries = directory.client.entries((directory / "retired").key)
    return Counter(entry.key.rpartition("/")[2].partition(".")[0] for entry in entries)


def _changed(place: ObjectPath) -> OSError:
    return OSError(f"{place} was changed by another process meanwhile; run the same command again")


def _object(path: StorePath) -> ObjectPath:
    if not isinstance(path, ObjectPath):
        raise AssertionError(f"{path} is no URL")
    return path


OBJECTS = ObjectStorage()
