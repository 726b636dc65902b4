"""Finding what siblings of a run have committed already, unit by unit, and their guidances."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from motionbox.errors import StoreError
from motionbox.storage import storage_of
from motionbox.storage.failpoints import failpoint
from motionbox.storage.files import write_file
from motionbox.store.areas.guidance import guidance_names
from motionbox.store.layout import RunPaths, files_of
from motionbox.store.writing.commit import read_commit, verify_files
from motionbox.store.writing.runs import Run, siblings


@dataclass(frozen=True)
class StoredUnit:
    """A unit as another run has committed it.

    Attributes:
        paths: That run.
        unit_id: The unit.
        attempt_id: The attempt that was committed.
        has_clips: Whether its training clips are those of the run that takes it over, too; where both keep none, so
            they are.
    """

    paths: RunPaths
    unit_id: str
    attempt_id: str
    has_clips: bool = False

    @property
    def run_id(self) -> str:
        """Return the run's name in the store."""
        return self.paths.root.name


class SiblingUnits:
    """The units that siblings of a run have committed; a run without siblings has none.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        store = run.paths.root.absolute().parent.parent  # workers have another working folder
        plan = run.plan()
        found = siblings(store, run.config, run.info["dataset_digest"], run.footage_digest)
        self._clips = run.config.store.clips
        fitting = [sibling for sibling in found if sibling.plan().equals(plan)]
        self._runs = sorted(fitting, key=lambda sibling: sibling.config.store.clips != self._clips)

    @cached_property
    def _run_of(self) -> dict[str, Run]:
        """Unit id -> the newest sibling that has committed it, best of all one with the same training clips."""
        return {unit_id: run for run in reversed(self._runs) for unit_id in run.paths.committed_units()}

    def runs_of(self, unit_ids: Collection[str]) -> dict[str, int]:
        """Return of which runs these units are known: run id -> how many."""
        known = [self._run_of[unit_id].run_id for unit_id in unit_ids if unit_id in self._run_of]
        return {run_id: known.count(run_id) for run_id in dict.fromkeys(known)}

    def get(self, unit_id: str) -> StoredUnit | None:
        """Return a unit as a sibling has committed it; None where none has, or its commit record is damaged."""
        run = self._run_of.get(unit_id)
        if run is None:
            return None
        with contextlib.suppress(StoreError, KeyError):
            attempt_id = str(read_commit(run.paths, unit_id)["attempt"])
            return StoredUnit(run.paths, unit_id, attempt_id, run.config.store.clips == self._clips)
        return None

    def carry_guidances(self, run: Run) -> list[str]:
        """Copy the newest version of every guidance that a sibling has and the run has not; return their names.

        Raises:
            OSError: The disk is full or broken.
            StoreError: One is damaged.
        """
        carried = []
        for sibling in self._runs:
            for name in guidance_names(sibling.paths):
                if name not in guidance_names(run.paths):
                    _copy_guidance(sibling.paths, run.paths, name)
                    carried.append(name)
        return carried


def _copy_guidance(source: RunPaths, target: RunPaths, name: str) -> None:
    number = source.guidance_numbers(name)[-1]
    info = source.guidance_info(name, number)
    directory = files_of(source.guidance(name, number), info)
    failpoint("guidance.write")
    with storage_of(target.root).new_number(target.guidances / name) as version:
        for file in info["files"]:
            write_file(version.directory / file, (directory / file).read_bytes(), point="run")
        verify_files(version.directory, info["files"])
        version.publish(info, point="guidance")
