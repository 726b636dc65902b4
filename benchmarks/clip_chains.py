"""Compare ways to code training clips in H.264: chains, groups and quality, or options of the coder.

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

# Chains, frames of a group, CRF; then the same with every other group coded backwards, as it is done.
SETTINGS = ((1, 8, 24), (2, 8, 24), (2, 8, 23), (2, 8, 22), (2, 12, 23), (2, 4, 24), (4, 4, 24))
TURNING = ((2, 12, 23), (2, 8, 23), (2, 16, 23), (2, 24, 23))
NUM_FRAMES, STRIDE = 16, 2
SLOW = ":me=umh:subme=9:trellis=2"
PLAIN = ":no-psy=0:partitions=none:8x8dct=0"
# Of the chains that are used: name, frames of a group, CRF, what is added to x264's options.
OPTIONS = (
    ("as it is", 12, 22.5, ""),
    ("psychovisual, no small intra blocks, no 8x8 transform, CRF 22.6", 12, 22.6, PLAIN),
    ("8x8 intra alone", 12, 22.5, ":partitions=i8x8"),
    ("8x8 inter", 12, 22.5, ":partitions=p8x8,i4x4,i8x8"),
    ("whole pixels", 12, 22.5, ":subme=0"),
    ("larger dead zone", 12, 22.5, ":trellis=0:deadzone-inter=28:deadzone-intra=15"),
    ("no macroblock tree", 12, 22.5, ":mbtree=0"),
    ("weaker adaptive quantisation, CRF 23.2", 12, 23.2, ":aq-strength=0.6"),
    ("no adaptive quantisation, CRF 22.3", 12, 22.3, ":aq-mode=0"),
    ("subme 8", 12, 22.5, ":subme=8"),
    ("trellis 2", 12, 22.5, ":trellis=2"),
    ("trellis 2, subme 9, umh", 12, 22.5, SLOW),
    ("deblocking, CRF 23", 12, 23.0, ":deblock=0,0:no-deblock=0"),
    ("groups of 8", 8, 22.5, ""),
    ("groups of 24", 24, 22.5, ""),
    ("three slices", 12, 22.5, ":slices=3"),
    ("CABAC", 12, 23.0, ":no-cabac=0:cabac=1"),
)
Setting = tuple[int, int, float, str, bool]


@contextmanager
def coding(num_chains: int, group_frames: int, crf: float, added: str, turns: bool) -> Iterator[None]:
    """Let clip blocks have other chains, groups and CRF and more of x264's options for a while."""
    options = {"g": str(group_frames), "keyint_min": str(group_frames), "crf": str(crf)}
    options["x264-params"] = clip_coder._H264_OPTIONS["x264-params"] + added
    codings = {**clip_blocks._CODINGS, 3: ("h264", num_chains, group_frames, turns)}
    with (
        mock.patch.object(clip_coder, "NUM_CHAINS", num_chains),
        mock.patch.object(clip_coder, "GROUP_FRAMES", group_frames),
        mock.patch.object(clip_coder, "runs_back", lambda group: turns and clip_blocks.runs_back(group)),
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
    settings: dict[str, Setting] = {f"{c} x {group}, {crf}": (c, group, crf, "", False) for c, group, crf in SETTINGS}
    settings |= {f"{c} x {group}, {crf}, turning": (c, group, crf, "", True) for c, group, crf in TURNING}
    if arguments.options:
        settings = {name: (clip_coder.NUM_CHAINS, *setting, True) for name, *setting in OPTIONS}
    for path in arguments.videos:
        compare(path, arguments.rounds, settings, planes=arguments.options)


if __name__ == "__main__":
    main()
