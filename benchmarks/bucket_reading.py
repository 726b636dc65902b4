"""Open a store of SSV2's size in a bucket, and load its training clips, with 20 ms added to every request.

    python benchmarks/bucket_reading.py --directory /tmp/bucket-reading

The bucket is moto's on the loopback address; a proxy before it holds every request back. The store is made from a few
generated clips (`motionbox synth`, `extract --clips`): for opening, its snapshot is repeated until it has 220,847
clips; for loading, it is read as it is, from its folder and from the bucket in turn.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median

import click
import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.store import from_url

NUM_CLIPS = 220_847


class Proxy:
    """Passes connections on to a server; what a client sends first, or after an answer, is held back."""

    def __init__(self, port: int, seconds: float) -> None:
        self._target, self.seconds, self.num_requests = port, seconds, 0
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        idle = True

        async def answers() -> None:
            nonlocal idle
            while data := await there.read(1 << 18):
                idle = True
                writer.write(data)
                await writer.drain()
            writer.close()

        answering = asyncio.ensure_future(answers())
        try:
            while data := await reader.read(1 << 18):
                if idle:
                    idle = False
                    self.num_requests += 1
                    await asyncio.sleep(self.seconds)
                back.write(data)
                await back.drain()
        except ConnectionError:
            pass
        back.close()
        await asyncio.gather(answering, return_exceptions=True)


def start_server() -> tuple[subprocess.Popen[bytes], int]:
    """Start moto in a process of its own; returns it and its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "moto.server", "-p", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            break
    return server, port


def make_store(directory: Path, num_clips: int) -> Path:
    """Generate clips and extract them with their frames; returns the store."""
    motionbox = [sys.executable, "-m", "motionbox"]
    if not (directory / "store").exists():
        subprocess.run([*motionbox, "synth", "-o", directory / "data", "--num-clips", str(num_clips)], check=True)
        places = ["--data-root", directory / "data", "--store", directory / "store"]
        subprocess.run([*motionbox, "extract", *places, "--flow", "dis", "--clips", "--workers", "0"], check=True)
    return directory / "store"


def enlarge(store: Path, target: Path) -> Path:
    """Copy a store whose snapshot is repeated until it has `NUM_CLIPS` clips."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(store, target, ignore=shutil.ignore_patterns("clips.bin", "motion.zarr"))
    (folder,) = target.glob("runs/*/snapshots/1")
    table = pq.read_table(folder / "clips.parquet")
    times = -(-NUM_CLIPS // table.num_rows)
    rows = np.load(folder / "boxes.npy").shape[0]
    large = pa.concat_tables([table] * times).slice(0, NUM_CLIPS)
    nth = np.arange(NUM_CLIPS) // table.num_rows
    changed = {
        "clip_id": pa.array([f"{number:06d}" for number in range(NUM_CLIPS)]),
        "video_id": pa.array([f"{number:06d}" for number in range(NUM_CLIPS)]),
        "first_row": pa.array(large.column("first_row").to_numpy() + nth * rows),
    }
    for name, values in changed.items():
        place = large.column_names.index(name)
        large = large.set_column(place, large.schema.field(name), values.cast(large.schema.field(name).type))
    pq.write_table(large, folder / "clips.parquet", compression="zstd")
    for name in ("boxes", "times", "sources", "maps", "confidences"):
        array = np.load(folder / f"{name}.npy")
        np.save(folder / f"{name}.npy", np.tile(array, (times, *[1] * (array.ndim - 1))))
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    for name in manifest["files"]:
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    return target


def upload(url: str, folder: Path) -> None:
    """Copy a folder into the bucket."""
    store = from_url(url, client_options={"allow_http": True, "timeout": "600s"})
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            obstore.put(store, path.relative_to(folder).as_posix(), path)


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


def loaded(place: str | Path, num_batches: int) -> float:
    """Return clips a second of one loader that pretrains on a store, in this process."""
    from mofo_train.config import PretrainConfig, load_recipe
    from mofo_train.data.dataset import PretrainClips
    from mofo_train.data.reader import ClipReader
    from mofo_train.data.sampler import SampleKey
    from motionbox.store import open_store

    config = load_recipe(PretrainConfig, "folder_pretrain", ())
    with open_store(place) as store:
        reader = ClipReader(store, Path("none"), split=None, short_side_px=config.data.short_side_px)
        clips = PretrainClips(reader, config.model, config.data, seed=0, patch_px=16)
        batches = [
            [SampleKey(batch, position, position % len(reader)) for position in range(batch * 16, batch * 16 + 16)]
            for batch in range(num_batches)
        ]
        list(clips.__getitems__(batches[0]))
        begin = time.perf_counter()
        count = sum(len(list(clips.__getitems__(batch))) for batch in batches)
        return count / (time.perf_counter() - begin)


@click.command()
@click.option("--directory", type=click.Path(path_type=Path), required=True, help="Where stores and cache go.")
@click.option("--latency-ms", default=20.0, help="Added to every request.")
@click.option("--clips", "num_clips", default=24, help="Generated clips.")
@click.option("--batches", default=4, help="Batches of 16 clips of each turn.")
@click.option("--turns", default=5, help="Turns of folder and bucket.")
def main(directory: Path, latency_ms: float, num_clips: int, batches: int, turns: int) -> None:
    """Measure; prints one JSON object."""
    import boto3

    directory.mkdir(parents=True, exist_ok=True)
    small = make_store(directory, num_clips)
    large = enlarge(small, directory / "large")
    server, port = start_server()
    try:
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **keys).create_bucket(Bucket="bucket")
        os.environ |= {name.upper(): value for name, value in keys.items() if name != "region_name"}
        os.environ |= {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        upload("s3://bucket/small", small)
        upload("s3://bucket/large", large)
        proxy = Proxy(port, latency_ms / 1000)
        os.environ |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}
        os.environ["MOTIONBOX_CACHE_DIR"] = str(directory / "cache")
        shutil.rmtree(directory / "cache", ignore_errors=True)
        before = proxy.num_requests
        cold = opened("s3://bucket/large")
        requests = proxy.num_requests - before
        cached = [opened("s3://bucket/large") for _ in range(3)]
        folder = [opened(large) for _ in range(3)]
        rates = [(loaded(small, batches), loaded("s3://bucket/small", batches)) for _ in range(turns)]
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
            "loader_folder_clips_per_second": median(one for one, _ in rates),
            "loader_bucket_clips_per_second": median(two for _, two in rates),
            "loader_ratio": median(two / one for one, two in rates),
        }
        click.echo(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=1))
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
