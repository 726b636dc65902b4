"""Compare ways to keep training clips: bytes, samples per second and core, quality.

`python benchmarks/clip_forms.py VIDEO... [--seconds 4]` prints a Markdown table. A sample is 16 frames
cropped to 224x224: `spread` are frames spread over the clip at random, `stride 2` every second frame from a random one
on, and `planes` the same left as they are coded, where a form allows it. Time is processor time of one thread. The
baselines decode the source: `source, PIL` as training code usually does it (every frame to a PIL image, PIL crop and
resize), `source, PyAV` as fast as PyAV can (only the wanted frames are converted).
"""

from __future__ import annotations

import argparse
import io
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from motionbox.store import clip_coder
from motionbox.store.clip_blocks import read_clip_frames, read_clip_planes
from motionbox.store.clip_coder import write_clip
from motionbox.video import probe, read_colour_frames
from motionbox.video.frames import ColourFrame

NUM_FRAMES, SIDE = 16, 224
Reader = Callable[[Sequence[int]], NDArray[np.uint8]]


def crop_of(width: int, height: int) -> tuple[int, int, int, int]:
    """Return the centre crop as left, top, width, height."""
    return (width - SIDE) // 2, (height - SIDE) // 2, SIDE, SIDE


def read_source(path: Path, indices: Sequence[int], *, with_pil: bool) -> NDArray[np.uint8]:
    """Decode 16 frames of the source and bring them to 224x224."""
    frames = []
    wanted = set(indices)
    with av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for position, picture in enumerate(container.decode(video=0)):
            if with_pil:
                image = picture.to_image()
                if position in wanted:
                    scale = SIDE / min(image.size)
                    size = (round(image.width * scale), round(image.height * scale))
                    frames.append(np.asarray(image.resize(size, 2).crop((0, 0, SIDE, SIDE))))
            elif position in wanted:
                rgb = picture.to_ndarray(format="rgb24")
                scale = SIDE / min(rgb.shape[:2])
                frames.append(cv2.resize(rgb, None, fx=scale, fy=scale)[:SIDE, :SIDE])
            if position >= indices[-1]:
                break
    return np.stack(frames)


def vp9_clip(frames: list[ColourFrame]) -> bytes:
    """Code the frames as WebM with a keyframe every 8 frames."""
    height, width = frames[0].rgb.shape[:2]
    buffer = io.BytesIO()
    options = {"crf": "34", "b": "0", "g": "8", "cpu-used": "5", "deadline": "good", "lag-in-frames": "0"}
    with av.open(buffer, "w", format="webm") as container:
        stream = container.add_stream("libvpx-vp9", rate=30, options={**options, "auto-alt-ref": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for position, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame.rgb, format="rgb24")
            picture.pts = position
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def read_vp9(data: bytes, indices: Sequence[int]) -> NDArray[np.uint8]:
    """Decode some frames of such a WebM, cropped."""
    wanted, frames = set(indices), []
    with av.open(io.BytesIO(data), format="webm") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        packets = [packet for packet in container.demux(stream) if packet.size]
        last = {position // 8: position for position in indices}
        needed = [p for group, end in last.items() for p in range(group * 8, end + 1)]
        for position in needed:
            pictures = stream.codec_context.decode(packets[position])
            frames.extend(picture.to_ndarray(format="rgb24") for picture in pictures if position in wanted)
    x, y, width, height = crop_of(*frames[0].shape[1::-1])
    return np.stack([frame[y : y + height, x : x + width] for frame in frames])


def spread_frames(num_frames: int, rng: np.random.Generator) -> list[int]:
    """Return 16 frames spread over a clip at random."""
    edges = np.linspace(0, num_frames, NUM_FRAMES + 1).astype(int)
    return sorted({int(rng.integers(a, max(a + 1, b))) for a, b in itertools.pairwise(edges)})


def second_frames(num_frames: int, rng: np.random.Generator) -> list[int]:
    """Return every second frame from a random one on, 16 of them."""
    first = int(rng.integers(num_frames - 2 * (NUM_FRAMES - 1)))
    return list(range(first, first + 2 * NUM_FRAMES - 1, 2))


def samples_per_second(read: Reader, draws: Sequence[Sequence[int]]) -> float:
    """Time reads by processor time."""
    read(draws[0])
    begin = time.process_time()
    for indices in draws:
        read(indices)
    return len(draws) / (time.process_time() - begin)


def sliced_clip(frames: list[ColourFrame]) -> bytes:
    """Code the frames as the store does, each picture in three slices."""
    options = {"x264-params": clip_coder._H264_OPTIONS["x264-params"] + ":slices=3"}
    with mock.patch.dict(clip_coder._H264_OPTIONS, options):
        return write_clip(frames, form="h264")


def psnr_db(frames: list[ColourFrame], decoded: NDArray[np.uint8], indices: Sequence[int]) -> float:
    """Return the mean quality of the centre crop against the frames that went in."""
    x, y, width, height = crop_of(*frames[0].rgb.shape[1::-1])
    truth = np.stack([frames[i].rgb[y : y + height, x : x + width] for i in indices]).astype(np.float64)
    return float(np.mean(10 * np.log10(255**2 / ((truth - decoded) ** 2).mean(axis=(1, 2, 3)))))


def compare(path: Path, seconds: float) -> None:
    """Print the rows of one video."""
    frames = list(read_colour_frames(path, short_side_px=256, stop_seconds=seconds))
    num_frames = len(frames)
    height, width = frames[0].rgb.shape[:2]
    x, y, *size = crop_of(width, height)
    cut = (slice(None), slice(y, y + size[1]), slice(x, x + size[0]))
    share = min(1.0, seconds / (probe(path).duration_seconds or seconds))
    source_bytes = path.stat().st_size * share
    rows: list[tuple[str, float, Reader, Reader | None, float]] = [
        ("source, PIL", source_bytes, lambda i: read_source(path, i, with_pil=True), None, 0.0),
        ("source, PyAV", source_bytes, lambda i: read_source(path, i, with_pil=False), None, 0.0),
    ]
    for name, encode in (
        ("JPEG", lambda: write_clip(frames, form="jpeg")),
        ("H.264, as it is", lambda: write_clip(frames, form="h264")),
        ("H.264, three slices", lambda: sliced_clip(frames)),
        ("VP9 WebM, keyframe every 8", lambda: vp9_clip(frames)),
    ):
        begin = time.process_time()
        data = encode()
        encode_fps = num_frames / (time.process_time() - begin)
        if name.startswith("VP9"):
            rows.append((name, len(data), lambda i, d=data: read_vp9(d, i), None, encode_fps))
        else:
            planes = None if name == "JPEG" else lambda i, d=data: read_clip_planes(d, i)
            rows.append((name, len(data), lambda i, d=data: read_clip_frames(d, i)[cut], planes, encode_fps))
    rng = np.random.default_rng(0)
    spread, second = ([draw(num_frames, rng) for _ in range(10)] for draw in (spread_frames, second_frames))
    indices = list(range(0, num_frames, 5))
    for name, num_bytes, read, planes, encode_fps in rows:
        count = 3 if name == "source, PIL" else 10
        rates = [samples_per_second(read, draws[:count]) for draws in (spread, second)]
        rates += [samples_per_second(planes, second)] if planes else []
        quality = "" if name.startswith("source") else f"{psnr_db(frames, read(indices), indices):.1f}"
        print(
            f"| {path.name} {width}x{height} | {name} | {num_bytes / 1e3:.0f} | {num_bytes / source_bytes:.2f} | "
            f"{num_bytes / num_frames / 1e3:.2f} | {quality} | {' | '.join(f'{rate:.0f}' for rate in rates)} | "
            f"{'' if planes else '| '}{'' if not encode_fps else f'{encode_fps:.0f}'} |",
            flush=True,
        )


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of the clip, from the video's start")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    print("| clip | form | kB | x source | kB/frame | PSNR dB | spread | stride 2 | planes | encode frames/s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for path in arguments.videos:
        compare(path, arguments.seconds)


if __name__ == "__main__":
    main()
