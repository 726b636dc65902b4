"""Compare ways to code training clips in H.264: chains, distance of keyframes and quality, or options of the coder.

`python benchmarks/clip_chains.py VIDEO...` prints a Markdown table per video; with `--options`, of other options of
x264 for the coding that is used. A read is 16 frames at stride 2 from a random place in the first four seconds; time is
processor time of one thread, of decoding and conversion, with `--options` of decoding alone. Bytes and time are
relative to the first row, PSNR is the mean over all frames; coding is processor time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

from motionbox.store import clip_blocks, clip_coder
from motionbox.store.clip_blocks import read_clip_frames, read_clip_planes, read_index
from motionbox.store.clip_coder import write_clip
from motionbox.video import read_colour_frames
from motionbox.video.frames import ColourFrame

SETTINGS = ((1, 8, 24), (2, 8, 24), (2, 8, 23), (2, 8, 22), (2, 12, 23), (2, 4, 24), (4, 4, 24))  # chains, group, CRF
NUM_FRAMES, STRIDE = 16, 2
FINE, SLOW = ":no-psy=1:partitions=i4x4,i8x8:8x8dct=1", ":me=umh:subme=9:trellis=2"
# Of the chains that are used: name, frames from keyframe to keyframe, CRF, what is added to x264's options.
OPTIONS = (
    ("as it is", 12, 23.0, ""),
    ("no psy", 12, 23.0, ":no-psy=1"),
    ("no psy, CRF 22.5", 12, 22.5, ":no-psy=1"),
    ("no psy, no AQ", 12, 23.0, ":no-psy=1:aq-mode=0"),
    ("no psy, no macroblock tree", 12, 23.0, ":no-psy=1:mbtree=0"),
    ("no psy, 4x4 and 8x8 intra, 8x8 transform", 12, 23.0, ":no-psy=1:partitions=i4x4,i8x8:8x8dct=1"),
    ("no psy, 8x8 inter", 12, 23.0, ":no-psy=1:partitions=p8x8"),
    ("no psy, whole pixels", 12, 23.0, ":no-psy=1:subme=0"),
    ("no psy, larger dead zone", 12, 23.0, ":no-psy=1:trellis=0:deadzone-inter=28:deadzone-intra=15"),
    ("no psy, 8x8 intra, 8x8 transform, CRF 22.8", 12, 22.8, ":no-psy=1:partitions=i8x8:8x8dct=1"),
    ("... and 4x4 intra, subme 8", 12, 22.8, f"{FINE}:subme=8"),
    ("... and trellis 2", 12, 22.8, f"{FINE}:trellis=2"),
    ("... trellis 2, subme 9, umh, CRF 22.7", 12, 22.7, f"{FINE}{SLOW}"),
    ("... keyframe every 8, CRF 22.9", 8, 22.9, f"{FINE}{SLOW}"),
    ("... keyframe every 24, CRF 22.6", 24, 22.6, f"{FINE}{SLOW}"),
    ("no psy, 8x8 transform, deblocking, CRF 23.2", 12, 23.2, f"{FINE}:deblock=0,0:no-deblock=0"),
    ("keyframe every 8", 8, 23.0, ""),
    ("keyframe every 8, CRF 23.2", 8, 23.2, ""),
    ("keyframe every 24", 24, 23.0, ""),
    ("keyframe every 24, no psy, CRF 22.5", 24, 22.5, ":no-psy=1"),
)
Setting = tuple[int, int, float, str]


@contextmanager
def coding(num_chains: int, group_frames: int, crf: float, added: str) -> Iterator[None]:
    """Let clip blocks have another number of chains, group, CRF and more of x264's options for a while."""
    options = {"g": str(group_frames), "keyint_min": str(group_frames), "crf": str(crf)}
    options["x264-params"] = clip_coder._H264_OPTIONS["x264-params"] + added
    codings = {**clip_blocks._CODINGS, 2: ("h264", num_chains, group_frames)}
    with (
        mock.patch.object(clip_coder, "NUM_CHAINS", num_chains),
        mock.patch.dict(clip_coder._H264_OPTIONS, options),
        mock.patch.object(clip_blocks, "_CODINGS", codings),
    ):
        yield


def compare(path: Path, rounds: int, settings: dict[str, Setting], *, planes: bool) -> None:
    """Print the table of one video; with `planes`, of reads that convert nothing."""
    read: Callable[..., object] = read_clip_planes if planes else read_clip_frames
    frames: list[ColourFrame] = list(read_colour_frames(path, short_side_px=256, stop_seconds=4.0))
    truth = np.stack([frame.rgb for frame in frames]).astype(np.float64)
    reach = (NUM_FRAMES - 1) * STRIDE + 1
    rng = np.random.default_rng(0)
    starts = rng.integers(len(frames) - reach + 1, size=20).tolist()
    data, quality, coding_ms = [], [], []
    for setting in settings.values():
        with coding(*setting):
            begin = time.process_time()
            data.append(write_clip(frames))
            coding_ms.append((time.process_time() - begin) / len(frames) * 1e3)
            decoded = read_clip_frames(data[-1], range(len(frames)))
        errors = ((truth - decoded) ** 2).mean(axis=(1, 2, 3))
        quality.append(float(np.mean(10 * np.log10(255**2 / errors))))
    seconds: list[list[float]] = [[] for _ in settings]
    for _ in range(rounds):
        for place, setting in enumerate(settings.values()):
            with coding(*setting):
                begin = time.process_time()
                for start in starts:
                    read(data[place], range(start, start + reach, STRIDE))
                seconds[place].append(time.process_time() - begin)
    ratios = [statistics.median(one / base for one, base in zip(own, seconds[0], strict=True)) for own in seconds]
    lines = [f"{path.name}, {len(frames)} frames of {read_index(data[0]).width}x{read_index(data[0]).height}", ""]
    lines += ["| coding | bytes | PSNR, dB | time of a read | coding, ms a frame |", "|---|---|---|---|---|"]
    for name, block, psnr, ratio, coded in zip(settings, data, quality, ratios, coding_ms, strict=True):
        lines.append(f"| {name} | {len(block) / len(data[0]):.2f} | {psnr:.2f} | {ratio:.2f} | {coded:.1f} |")
    print("\n".join(lines), flush=True)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--options", action="store_true", help="compare options of x264 instead")
    arguments = parser.parse_args()
    settings: dict[str, Setting] = {f"{c} x {group}, {crf}": (c, group, crf, "") for c, group, crf in SETTINGS}
    if arguments.options:
        settings = {name: (clip_coder.NUM_CHAINS, *setting) for name, *setting in OPTIONS}
    for path in arguments.videos:
        compare(path, arguments.rounds, settings, planes=arguments.options)


if __name__ == "__main__":
    main()
