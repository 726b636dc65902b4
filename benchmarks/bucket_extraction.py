"""Cost of a bucket to a flow-bound extraction: videos and store in moto's S3 server against a folder, in turn.

`python benchmarks/bucket_extraction.py --directory D` generates clips, and extracts them again and again, each time
into a new store, in a new process. A machine that has other work spoils wall times; the processor time of the
extraction itself, children included, the server's not, is beside them.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import boto3
import click
import obstore
from obstore.store import from_url

EXTRACT = """
import json, os, sys, time
from motionbox.cli import main
began = time.perf_counter()
try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert not stop.code, stop.code
times = os.times()
print(json.dumps([time.perf_counter() - began, sum(times[:4])]))
"""


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


def upload(url: str, folder: Path) -> None:
    """Copy a folder into the bucket."""
    store = from_url(url, client_options={"allow_http": True, "timeout": "600s"})
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            obstore.put(store, path.relative_to(folder).as_posix(), path)


def extracted(data: str | Path, store: str | Path) -> list[float]:
    """Return the seconds of an extraction, and those of its processors."""
    words = ["extract", "--dataset", "synthetic", "--data-root", str(data), "--store", str(store), "--workers", "0"]
    command = [sys.executable, "-c", EXTRACT, *words, "--clips", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return list(json.loads(done.stdout.splitlines()[-1]))


@click.command()
@click.option("--directory", type=click.Path(path_type=Path), required=True, help="Where videos and stores go.")
@click.option("--clips", "num_clips", default=8, help="Generated clips.")
@click.option("--turns", default=5, help="Turns of folder and bucket.")
def main(directory: Path, num_clips: int, turns: int) -> None:
    """Measure; prints one JSON object."""
    directory.mkdir(parents=True, exist_ok=True)
    data = directory / "data"
    if not data.exists():
        synth = [sys.executable, "-m", "motionbox", "synth", "-o", data, "--num-clips", str(num_clips)]
        subprocess.run(synth, check=True)
    server, port = start_server()
    try:
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **keys).create_bucket(Bucket="bucket")
        os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
        os.environ |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        upload("s3://bucket/data", data)
        extracted(data, directory / "warm")  # compiles what is not compiled yet
        shutil.rmtree(directory / "warm")
        rows = []
        for turn in range(turns):
            shutil.rmtree(directory / "store", ignore_errors=True)
            pair = [extracted(data, directory / "store"), extracted("s3://bucket/data", f"s3://bucket/store{turn}")]
            rows.append(pair)
            click.echo(json.dumps(pair), err=True)
        figures = {
            "load_average": os.getloadavg()[0],
            "folder_seconds": median(folder[0] for folder, _ in rows),
            "bucket_seconds": median(bucket[0] for _, bucket in rows),
            "ratio": median(bucket[0] / folder[0] for folder, bucket in rows),
            "folder_processor_seconds": median(folder[1] for folder, _ in rows),
            "bucket_processor_seconds": median(bucket[1] for _, bucket in rows),
            "processor_ratio": median(bucket[1] / folder[1] for folder, bucket in rows),
        }
        click.echo(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=1))
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
