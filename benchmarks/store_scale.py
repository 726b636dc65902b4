"""Plan, fill and read stores of the size of SSV2 and EPIC-KITCHENS-100, with invented boxes, through the real writer.

    python benchmarks/store_scale.py ssv2 --directory /tmp/scale
    python benchmarks/store_scale.py epic --directory /tmp/scale

Everything but decoding and flow is the real thing: planner, commits (verified, forced to disk), snapshot, reader.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pyarrow as pa

from motionbox.config import load_config
from motionbox.extraction.plan import plan_units, scan_inputs
from motionbox.extraction.snapshot import make_snapshot
from motionbox.inputs.schema import build_table
from motionbox.storage.files import make_directory
from motionbox.store.units import BLOCK_SECONDS, InputFile, Unit, units_of
from motionbox.store.writing.commit import (
    BLOCKS_SCHEMA,
    FRAMES_SCHEMA,
    UnitTables,
    publish_commit,
    verify_files,
    write_tables,
)
from motionbox.store.writing.runs import RunInputs, open_or_create_run, prepare_store
from motionbox.video.frames import VideoHint

SIZES = {"ssv2": (220_847, 220_847, 45.3), "epic": (700, 90_000, 28_571.0)}
_READER = """
import json, sys, time
import numpy as np
started = time.perf_counter()
from motionbox.store import open_store
imported = time.perf_counter()
store = open_store(sys.argv[1])
opened = time.perf_counter()
clips = store.clips().column("clip_id").to_pylist()
store.frame_boxes(clips[0])
memory = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
chosen = [clips[i] for i in np.random.default_rng(0).integers(0, len(clips), 200_000)]
begin = time.perf_counter()
for clip_id in chosen:
    store.frame_boxes(clip_id)
boxes = len(chosen) / (time.perf_counter() - begin)
begin = time.perf_counter()
for clip_id in chosen[:500]:
    store.motion_maps(clip_id)
maps = 500 / (time.perf_counter() - begin)
print(json.dumps({"import_seconds": imported - started, "open_seconds": opened - imported, "open_mib": memory,
                  "boxes_per_second": boxes, "maps_per_second": maps}))
"""


def clips_of(size: str, scale: float) -> tuple[pa.Table, dict[str, float]]:
    """Return a manifest and the length of each video in frames."""
    num_videos, num_clips, mean_frames = SIZES[size]
    num_videos, num_clips = max(1, int(num_videos * scale)), max(1, int(num_clips * scale))
    rng = np.random.default_rng(0)
    videos = [f"v{number:06d}" for number in range(num_videos)]
    if size == "ssv2":
        lengths = np.clip(rng.normal(mean_frames, 10, num_videos), 12, 96).astype(int)
        table = build_table({"clip_id": videos, "video_id": videos, "path": [f"{v}.webm" for v in videos]})
        return table, dict(zip(videos, lengths.tolist(), strict=True))
    lengths = (rng.uniform(0.5, 1.5, num_videos) * mean_frames).astype(int)
    owner = np.sort(rng.integers(0, num_videos, num_clips))
    starts = rng.uniform(0, 1, num_clips) * (lengths[owner] / 50 - 10)
    columns = {
        "clip_id": [f"c{number:06d}" for number in range(num_clips)],
        "video_id": [videos[i] for i in owner],
        "path": [f"{videos[i]}.MP4" for i in owner],
        "start_seconds": starts,
        "stop_seconds": starts + rng.uniform(0.5, 8, num_clips),
    }
    return build_table(columns), dict(zip(videos, lengths.tolist(), strict=True))


def fake_tables(unit: Unit, lengths: dict[str, float], fps: float, rng: np.random.Generator) -> UnitTables:
    """Invent what processing a unit gives: boxes that wander, maps with one bright patch."""
    names, times, blocks = [], [], []
    for piece in unit.pieces:
        first = piece.first_block or 0
        stop = (
            piece.stop_block if piece.stop_block is not None else 1 + int(lengths[piece.video_id] / fps / BLOCK_SECONDS)
        )
        clock = np.arange(lengths[piece.video_id]) / fps
        own = clock[(clock >= first * BLOCK_SECONDS) & (clock < stop * BLOCK_SECONDS)]
        names.append(np.full(len(own), piece.video_id))
        times.append(own)
        numbers, counts = np.unique((own // BLOCK_SECONDS).astype(int), return_counts=True)
        blocks += [
            {"video_id": piece.video_id, "block": int(b), "num_frames": int(c), "width": 427, "height": 240, "fps": fps,
             "map_width": 54, "map_height": 30, "reason": "", "message": "", "digest": rng.bytes(16)}
            for b, c in zip(numbers, counts, strict=True)
        ]  # fmt: skip
    count = sum(map(len, times))
    corner = np.cumsum(rng.integers(-3, 4, (count, 2)), axis=0) % np.array([200, 100])
    columns = [
        pa.array(np.concatenate(names)).dictionary_encode(),
        np.concatenate(times),
        *(pa.array(values.astype(np.int16)) for values in (corner[:, 0], corner[:, 1])),
        *(pa.array(values.astype(np.int16)) for values in (corner[:, 0] + 120, corner[:, 1] + 90)),
        rng.random(count).astype(np.float32) + 0.1,
        rng.random(count).astype(np.float32),
        np.zeros(count, np.uint8),
        np.arange(count, dtype=np.int32),
    ]
    maps = np.zeros((count, 30, 54), np.uint8)
    maps[:, 8:16, 16:32] = rng.integers(0, 40, (count, 8, 16), np.uint8)
    return UnitTables(
        pa.Table.from_arrays(columns, schema=FRAMES_SCHEMA), pa.Table.from_pylist(blocks, schema=BLOCKS_SCHEMA), maps
    )


def peak_mib() -> float:
    """Return this process's peak memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@click.command()
@click.argument("size", type=click.Choice(list(SIZES)))
@click.option(
    "--directory", type=click.Path(path_type=Path), required=True, help="Where the store goes; removed after."
)
@click.option("--scale", type=float, default=1.0, help="Share of the full size.")
@click.option("--keep", is_flag=True, help="Leave the store there.")
def main(size: str, directory: Path, scale: float, keep: bool) -> None:
    """Measure; prints one JSON object."""
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "data").mkdir(parents=True)
    manifest, lengths = clips_of(size, scale)
    fps = 12.0 if size == "ssv2" else 50.0
    for path in dict.fromkeys(manifest.column("path").to_pylist()):
        os.close(os.open(directory / "data" / path, os.O_CREAT))
        os.truncate(directory / "data" / path, 93_000 if size == "ssv2" else 1 << 30)
    figures: dict[str, float | int] = {"num_clips": manifest.num_rows, "num_frames": sum(lengths.values())}
    run = _plan(directory, manifest, lengths, fps, figures)
    _fill(run, lengths, fps, figures)
    _snapshot(run, figures)
    figures["num_files"] = sum(len(names) for _, _, names in os.walk(directory / "store"))
    figures["store_gb"] = sum(p.stat().st_size for p in (directory / "store").rglob("*") if p.is_file()) / 1e9
    done = subprocess.run([sys.executable, "-c", _READER, str(directory / "store")], capture_output=True, check=True)
    figures |= json.loads(done.stdout)
    click.echo(json.dumps({key: round(value, 3) for key, value in figures.items()}, indent=1))
    if not keep:
        shutil.rmtree(directory)


def _plan(directory: Path, manifest: pa.Table, lengths: dict[str, float], fps: float, figures: dict[str, float]):
    def probe(path: Path) -> VideoHint:
        return VideoHint(int(lengths[path.stem]), fps)

    root = directory / "data"
    started = time.perf_counter()
    inputs: list[InputFile] = scan_inputs(root, manifest.column("path").to_pylist())
    plan = plan_units(manifest, inputs, root, probe)
    figures["plan_seconds"] = time.perf_counter() - started
    prepare_store(directory / "store")
    parts = RunInputs("folder", root, manifest, inputs, load_config())
    started = time.perf_counter()
    run = open_or_create_run(directory / "store", parts, lambda: plan, new_run=False)
    figures["create_run_seconds"] = time.perf_counter() - started
    started = time.perf_counter()
    open_or_create_run(directory / "store", parts, lambda: plan, new_run=False)
    figures["resume_seconds"] = time.perf_counter() - started
    figures["num_units"] = len(set(plan.column("unit_id").to_pylist()))
    return run


def _fill(run, lengths: dict[str, float], fps: float, figures: dict[str, float]) -> None:
    rng = np.random.default_rng(1)
    units = units_of(run.plan())
    seconds, half = 0.0, 0.0
    for number, unit in enumerate(units):
        tables = fake_tables(unit, lengths, fps, rng)
        started = time.perf_counter()
        directory = run.paths.attempt(unit.unit_id, "0")
        make_directory(directory)
        digests = write_tables(directory, tables)
        verify_files(directory, digests)
        counts = {"num_frames": tables.frames.num_rows, "num_failed_videos": 0}
        publish_commit(run.paths, unit.unit_id, "0", digests, **counts)
        seconds += time.perf_counter() - started
        half = peak_mib() if number == len(units) // 2 else half
    figures |= {"commit_ms_per_unit": seconds / len(units) * 1000, "peak_mib_half": half, "peak_mib_filled": peak_mib()}


def _snapshot(run, figures: dict[str, float]) -> None:
    started = time.perf_counter()
    make_snapshot(run)
    figures |= {"snapshot_seconds": time.perf_counter() - started, "peak_mib_snapshot": peak_mib()}


if __name__ == "__main__":
    main()
