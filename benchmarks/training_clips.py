"""Compare reading training samples from a store's clips with decoding the source: samples per second and core, bytes.

`python benchmarks/training_clips.py --webm VIDEO... --footage VIDEO --out DIR` makes two data sets: the WebM files,
each a clip; and a long 1080p60 MP4 (footage scaled up, a keyframe every second, repeated to two minutes) with segments
of 3.1 s that overlap. Each is extracted with `--clips h264` and `--clips jpeg`, and read as pretraining does: 16
frames, stride 2, MultiScaleCrop to 224. `original loader` is PyAV with PIL transforms as in published code, and where
decord is installed that with the same transforms. Processor time of all threads, medians over `--rounds`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import av
import cv2
import torch

from mofo_train.benchmarks.parts import bench_loader
from mofo_train.config import ModelConfig
from mofo_train.data.reader import ClipReader
from motionbox.cli import main as motionbox
from motionbox.store import Store, open_store

FORMS = ("h264", "jpeg")
NUM_SEGMENTS, SEGMENT_SECONDS, STEP_SECONDS = 8, 3.1, 2.6


def write_long_video(footage: Path, target: Path, *, fps: int = 60, seconds: int = 4, repeats: int = 30) -> None:
    """Encode some seconds of footage at 1080p and repeat the packets."""
    with av.open(footage) as source, av.open(target, "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "20", "preset": "veryfast", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 1920, 1080, "yuv420p", fps
        packets = []
        for position, picture in enumerate(itertools.islice(source.decode(video=0), fps * seconds)):
            large = cv2.resize(picture.to_ndarray(format="rgb24"), (1920, 1080), interpolation=cv2.INTER_CUBIC)
            frame = av.VideoFrame.from_ndarray(large, format="rgb24")
            frame.pts = position
            packets += stream.encode(frame)
        packets += stream.encode(None)
        length = packets[-1].pts + packets[1].pts - packets[0].pts
        for turn in range(repeats):
            for packet in packets:
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base, copy.is_keyframe = stream, packet.time_base, packet.is_keyframe
                copy.pts = copy.dts = packet.pts + turn * length
                container.mux(copy)


def make_data(arguments: argparse.Namespace) -> dict[str, Path]:
    """Write both data sets; returns their folders by name."""
    webm, mp4 = arguments.out / "webm", arguments.out / "mp4"
    for folder in (webm, mp4):
        folder.mkdir(parents=True, exist_ok=True)
    for path in arguments.webm:
        (webm / path.name).unlink(missing_ok=True)
        (webm / path.name).symlink_to(path.resolve())
    if not (mp4 / "long.mp4").exists():
        write_long_video(arguments.footage, mp4 / "long.mp4")
    starts = [5.3 + 11 * (i // 2) + STEP_SECONDS * (i % 2) for i in range(NUM_SEGMENTS)]
    rows = [f"long.mp4,clip{i},{start},{start + SEGMENT_SECONDS}" for i, start in enumerate(starts)]
    (mp4 / "annotations.csv").write_text("\n".join(["path,clip_id,start_seconds,stop_seconds", *rows]) + "\n")
    return {"240p WebM": webm, "1080p60 MP4": mp4}


def extract(data: Path, form: str) -> Store:
    """Extract a data set with quick flow and return its store."""
    store = data.parent / f"{data.name}_{form}"
    options = ["--flow", "dis", "--backend", "opencv", "--clips", form, "--executor", "serial"]
    try:
        motionbox(["extract", "--data-root", str(data), "--store", str(store), *options])
    except SystemExit as stop:
        if stop.code:
            sys.exit(stop.code)
    return open_store(store)


def source_bytes(store: Store, data: Path) -> float:
    """Return the bytes of the source for the clips' time."""
    total = 0.0
    for row in store.clips().to_pylist():
        size = (data / row["path"]).stat().st_size
        if row["stop_seconds"] is None:
            total += size
        else:
            with av.open(data / row["path"]) as container:
                total += size * (row["stop_seconds"] - row["start_seconds"]) / (container.duration / av.time_base)
    return total


def main() -> None:
    """Parse the command line and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--webm", type=Path, nargs="+", required=True, help="short videos, one clip each")
    parser.add_argument("--footage", type=Path, required=True, help="4 s of it become the long MP4")
    parser.add_argument("--out", type=Path, required=True, help="folder for data sets and stores")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    print("| source | read from | samples/s and core | x original loader | bytes, x source |")
    print("|---|---|---|---|---|")
    for name, data in make_data(arguments).items():
        stores = {form: extract(data, form) for form in FORMS}
        options = {"split": None, "short_side_px": 256}
        readers = {"source": ClipReader(stores["h264"], data, from_source=True, **options)}
        readers |= {form: ClipReader(store, data, **options) for form, store in stores.items()}
        figures = bench_loader(readers, ModelConfig(), arguments.rounds, peers=True)
        base = figures["original loader"]["samples_per_core_second"]
        held = {form: store.info["training_clips"]["num_bytes"] for form, store in stores.items()}
        held |= dict.fromkeys(("source", "original loader"), source_bytes(stores["h264"], data))
        for key, figure in figures.items():
            rate = figure["samples_per_core_second"]
            share = held[key.split(",")[0]] / held["source"]
            print(f"| {name} | {key} | {rate:.1f} | {rate / base:.1f} | {share:.2f} |", flush=True)


if __name__ == "__main__":
    main()
