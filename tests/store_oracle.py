"""What must be true of a store whatever happened to it: the oracle of the fault injection."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from motionbox.store import Store, open_store
from motionbox.store.care.garbage import find_garbage, remove
from motionbox.store.care.verify import verify_store
from motionbox.store.layout import run_paths
from motionbox.store.units import units_of
from motionbox.store.writing.commit import read_commit
from motionbox.store.writing.runs import load_run
from store_support import green_of


def fingerprint(store: Store) -> str:
    """Return a digest of everything that a reader can see."""
    digest = hashlib.sha256()
    for row in store.clips().to_pylist():
        digest.update(repr(row).encode())
        clip_id = row["clip_id"]
        arrays = (store.frame_boxes, store.frame_times, store.motion_maps, store.motion_areas)
        for array in arrays:
            digest.update(array(clip_id).tobytes())
        if row["num_frames"] and store.config().store.flow != "none":
            digest.update(store.flow(clip_id).tobytes())
        if store.has_clip(clip_id):
            digest.update(store.clip_frames(clip_id, range(row["num_frames"])).tobytes())
    return digest.hexdigest()


def whole_fingerprint(store: Store) -> str:
    """Return a digest of everything that a reader can see, guidances that came later included."""
    digest = hashlib.sha256(fingerprint(store).encode())
    for source in store.guidance_sources():
        digest.update(source.encode())
        for clip_id in store.clips().column("clip_id").to_pylist():
            for array in (store.frame_boxes(clip_id, source=source), store.motion_areas(clip_id, source=source)):
                digest.update(array.tobytes())
    return digest.hexdigest()


def check_consistency(store: Path) -> list[str]:
    """Return what is wrong with a store right after a fault: everything visible must be whole."""
    if not (store / "store.json").exists():
        return []
    violations = [f"{check.name}: {check.problem}" for check in verify_store(store) if check.problem]
    for paths in run_paths(store):
        violations += [
            f"commit of {unit} names no attempt"
            for unit in paths.committed_units()
            if not paths.attempt(unit, read_commit(paths, unit)["attempt"]).is_dir()
        ]
    return violations


def check_complete(store: Path, digest: str, num_clips: int) -> list[str]:
    """Return what is wrong with a store after the resuming session: it must be the uninterrupted run's."""
    violations = check_consistency(store)
    paths = run_paths(store)[-1]
    planned = [unit.unit_id for unit in units_of(load_run(paths).plan())]
    if paths.committed_units() != planned:
        violations.append("not every unit has its commit record")
    with open_store(store) as reader:
        if reader.info["content_digest"] != digest:
            violations.append("the content is not that of an uninterrupted run")
        if not any(reader.motion_areas(clip_id).any() for clip_id in reader.clips().column("clip_id").to_pylist()):
            violations.append("no clip has areas")
        if len(reader) != num_clips:
            violations.append("clips are missing")
        clips = reader.clips().to_pylist() if reader.config().store.clips != "none" else []
        unread = [row["clip_id"] for row in clips if row["num_frames"] and not _readable(reader, row)]
        violations += [f"the frames of clip {clip_id} cannot be read" for clip_id in unread]
        remove(find_garbage(store))
    if find_garbage(store):
        violations.append("gc left something behind")
    return violations + check_consistency(store)


def _readable(reader: Store, row: dict[str, Any]) -> bool:
    frames = reader.clip_frames(row["clip_id"], range(row["num_frames"]))
    greens = [green_of(round(seconds * row["fps"])) for seconds in reader.frame_times(row["clip_id"])]
    return bool((abs(frames[..., 1].mean((1, 2)) - greens) < 5).all())
