"""Open a store of SSV2's size in a bucket, and load its training clips, with 20 ms added to every request.

    python benchmarks/bucket_reading.py --directory /tmp/bucket-reading

The bucket is `slow_bucket`'s on the loopback address. The stores are made from a few generated clips (`synth`,
`extract --clips`). For opening, the snapshot is repeated until it has 220,847 clips. For loading, it is repeated with
its units, so that no two clips share a request, and read from its folder and from the bucket in turn.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from slow_bucket import slow_bucket

NUM_CLIPS = 220_847
NUM_LOADED = 20 * 24
BATCH_CLIPS = 16


def make_store(directory: Path, num_clips: int) -> Path:
    """Generate clips and extract them with their frames; returns the store."""
    motionbox = [sys.executable, "-m", "motionbox"]
    if not (directory / "store").exists():
        subprocess.run([*motionbox, "synth", "-o", directory / "data", "--num-clips", str(num_clips)], check=True)
        places = ["--data-root", directory / "data", "--store", directory / "store"]
        subprocess.run([*motionbox, "extract", *places, "--flow", "dis", "--clips", "--workers", "0"], check=True)
    return directory / "store"


def enlarge(store: Path, target: Path, num_clips: int, *, blocks: bool) -> Path:
    """Copy a store whose snapshot is repeated until it has so many clips, also in the folder of the bucket.

    Args:
        store: A store with one run and one snapshot.
        target: The copy.
        num_clips: Clips that it has.
        blocks: Repeat the blocks of frames and their units, too; else every repetition has those of the first, and the
            frames are left out.
    """
    shutil.rmtree(target, ignore_errors=True)
    left_out = None if blocks else shutil.ignore_patterns("clips.bin", "motion.zarr")
    shutil.copytree(store, target, ignore=left_out)
    (folder,) = target.glob("runs/*/snapshots/1")
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    table = pq.read_table(folder / "clips.parquet")
    times = -(-num_clips // table.num_rows)
    rows = np.load(folder / "boxes.npy").shape[0]
    large = pa.concat_tables([table] * times).slice(0, num_clips)
    nth = np.arange(num_clips) // table.num_rows
    changed = {
        "clip_id": pa.array([f"{number:06d}" for number in range(num_clips)]),
        "video_id": pa.array([f"{number:06d}" for number in range(num_clips)]),
        "first_row": pa.array(large.column("first_row").to_numpy() + nth * rows),
    }
    if blocks:
        index = np.load(folder / "clip_blocks.npy")
        changed["first_clip_block"] = pa.array(large.column("first_clip_block").to_numpy() + nth * len(index))
        units = np.repeat(np.arange(times) * len(manifest["units"]), len(index))
        index = np.tile(index, (times, 1))
        index[:, 1] += units
        np.save(folder / "clip_blocks.npy", index)
        manifest["units"] *= times
    for name, values in changed.items():
        place = large.column_names.index(name)
        large = large.set_column(place, large.schema.field(name), values.cast(large.schema.field(name).type))
    pq.write_table(large, folder / "clips.parquet", compression="zstd")
    for name in ("boxes", "times", "sources", "maps", "confidences"):
        array = np.load(folder / f"{name}.npy")
        np.save(folder / f"{name}.npy", np.tile(array, (times, *[1] * (array.ndim - 1))))
    for name in manifest["files"]:
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    return target


OPEN = """
import json, os, sys, time
import numpy as np
from motionbox.store import open_store
began, processor = time.perf_counter(), time.process_time()
store = open_store(sys.argv[1])
opened, used = time.perf_counter() - began, time.process_time() - processor
clips = store.clips().column("clip_id").to_pylist()
store.frame_boxes(clips[0])
chosen = [clips[i] for i in np.random.default_rng(0).integers(0, len(clips), 100_000)]
begin = time.process_time()
for clip in chosen:
    store.frame_boxes(clip)
print(json.dumps([opened, used, len(chosen) / (time.process_time() - begin)]))
"""


def opened(place: str | Path) -> list[float]:
    """Return seconds to open a store in a fresh process, those of its processor, and boxes a processor second."""
    done = subprocess.run([sys.executable, "-c", OPEN, str(place)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return list(json.loads(done.stdout))


def loaded(place: str | Path, num_batches: int, num_workers: int) -> list[float]:
    """Return clips a second of a loader that pretrains on a store, and processor seconds of a clip in this process."""
    from mofo_train.config import PretrainConfig, load_recipe
    from mofo_train.data.dataset import PretrainClips
    from mofo_train.data.loader import create_loader
    from mofo_train.data.reader import ClipReader
    from mofo_train.data.sampler import ResumableSampler
    from motionbox.store import open_store

    config, num_clips = load_recipe(PretrainConfig, "folder_pretrain", ()), num_batches * BATCH_CLIPS
    with open_store(place) as store:
        reader = ClipReader(store, Path("none"), split=None, short_side_px=config.data.short_side_px)
        clips = PretrainClips(reader, config.model, config.data, seed=0, patch_px=16)
        epochs = 2 + num_clips // len(reader)
        sampler = ResumableSampler(len(reader), BATCH_CLIPS, seed=0, epochs=epochs)
        batches = iter(create_loader(clips, sampler, num_workers=num_workers, pin=False))
        for _ in range(2 + 2 * num_workers):
            next(batches)
        begin, used = time.perf_counter(), sum(os.times()[:2])
        for _ in range(num_batches):
            next(batches)
        return [num_clips / (time.perf_counter() - begin), (sum(os.times()[:2]) - used) / num_clips]


@click.command()
@click.option("--directory", type=click.Path(path_type=Path), required=True, help="Where stores and cache go.")
@click.option("--latency-ms", default=20.0, help="Added to every request.")
@click.option("--clips", "num_clips", default=24, help="Generated clips.")
@click.option("--batches", default=4, help="Batches of 16 clips of each turn.")
@click.option("--turns", default=5, help="Turns of folder and bucket.")
@click.option("--workers", default=0, help="Processes of the loader; 0 = this one.")
def main(directory: Path, latency_ms: float, num_clips: int, batches: int, turns: int, workers: int) -> None:
    """Measure; prints one JSON object."""
    stores = directory / "bucket"
    stores.mkdir(parents=True, exist_ok=True)
    small = make_store(directory, num_clips)
    large = enlarge(small, stores / "large", NUM_CLIPS, blocks=False)
    several = enlarge(small, stores / "several", NUM_LOADED, blocks=True)
    os.environ["MOTIONBOX_CACHE_DIR"] = str(directory / "cache")
    shutil.rmtree(directory / "cache", ignore_errors=True)
    with slow_bucket(stores, latency_ms / 1000) as bucket:
        os.environ |= bucket.environment
        cold, requests = opened("s3://bucket/large"), bucket.num_requests()
        cached = [opened("s3://bucket/large") for _ in range(3)]
        folder = [opened(large) for _ in range(3)]
        loaded(several, 2, workers)
        rates = []
        for _ in range(turns):
            before = bucket.num_requests()
            rates.append((loaded(several, batches, workers), loaded("s3://bucket/several", batches, workers)))
            loader_requests = bucket.num_requests() - before
    figures = {
        "megabytes": sum(p.stat().st_size for p in (directory / "cache").iterdir()) / 1e6,
        "load_average": os.getloadavg()[0],
        "open_cold_seconds": cold[0],
        "open_cold_processor_seconds": cold[1],
        "open_cold_requests": requests,
        "open_cached_seconds": median(times[0] for times in cached),
        "open_cached_processor_seconds": median(times[1] for times in cached),
        "open_folder_seconds": median(times[0] for times in folder),
        "boxes_per_processor_second_bucket": median(times[2] for times in cached),
        "boxes_per_processor_second_folder": median(times[2] for times in folder),
        "loader_requests": loader_requests,
        "loader_folder_clips_per_second": median(one for (one, _), _ in rates),
        "loader_bucket_clips_per_second": median(two for _, (two, _) in rates),
        "loader_ratio": median(two / one for (one, _), (two, _) in rates),
        "loader_folder_processor_ms_per_clip": 1e3 * median(one for (_, one), _ in rates),
        "loader_bucket_processor_ms_per_clip": 1e3 * median(two for _, (_, two) in rates),
    }
    click.echo(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
