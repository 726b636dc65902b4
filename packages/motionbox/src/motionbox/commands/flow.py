"""`motionbox flow`: the optical flow of videos as files, in place of denseflow."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

import click

from motionbox.commands import FiniteRange
from motionbox.config import FLOW_METHODS
from motionbox.errors import ClipError, ExitCode, InputError

_LOG = logging.getLogger(__name__)

EPILOG = """\b
Examples:
  motionbox flow videos/a.mp4 videos/b.mp4 -o flow
  motionbox flow frames/P01_01 -o flow --layout epic --bound 20 --backend cuda"""


@click.command(
    help="Write the optical flow of videos, frame folders or frame tars to files; the same command resumes.",
    epilog=EPILOG,
)
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder; each video gets its own.")
@click.option("--format", "file_format", type=click.Choice(["jpg", "png", "flo", "zarr"]), default="jpg")
@click.option(
    "--layout",
    type=click.Choice(["denseflow", "epic"]),
    default="denseflow",
    help="Names of images: flow_x_00001.jpg or u/frame_0000000001.jpg.",
)
@click.option("--bound", type=FiniteRange(min=0, min_open=True), default=20.0,
              help="Largest displacement that an image keeps, pixels.")  # fmt: skip
@click.option("--step", type=click.IntRange(min=1), default=1, help="Frames within a pair.")
@click.option("--stride", type=click.IntRange(min=1), default=1, help="Frames from pair to pair.")
@click.option(
    "--short-side", type=click.IntRange(min=16), default=256, help="Shrink frames to this short side, pixels."
)
@click.option("--method", type=click.Choice(tuple(FLOW_METHODS)), default="tvl1")
@click.option("--backend", type=click.Choice(["auto", "numba", "cuda", "opencv"]), default="auto")
def flow(**options: Any) -> int:
    """Run the command; see the options."""
    return write_all(**options)


def write_all(
    *,
    videos: tuple[Path, ...],
    out: Path,
    file_format: Any,
    layout: Any,
    bound: float,
    step: int,
    stride: int,
    short_side: int,
    method: Any,
    backend: str,
) -> int:
    """Write the flow of every video; a broken one is reported and the others go on."""
    from motionbox.flow.files import FlowFileOptions, write_flow_files

    if not any(video.exists() for video in videos):
        raise InputError(f"at least one video must exist, got {', '.join(map(str, videos[:3]))}; check the paths")
    real = [Path(os.path.realpath(video)) for video in videos]  # links may go in circles
    names = [video.stem if video.is_file() else video.name for video in real]
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise InputError(
            f"videos must have names of their own, got {doubled[0]!r} twice; run the command for each alone"
        )
    settings = FlowFileOptions(
        format=file_format,
        layout=layout,
        bound_px=bound,
        step=step,
        stride=stride,
        short_side_px=short_side,
        method=method,
    )
    num_failed = 0
    for video, name in zip(videos, names, strict=True):
        try:
            result = write_flow_files(video, out / name, settings, backend=backend)
        except ClipError as error:
            num_failed += 1
            _LOG.warning("%s: %s", error.reason, error.message)
            continue
        click.echo(f"{video}: {result.num_flows} flows in {result.folder} ({result.num_new} new)")
        if result.error is not None:
            num_failed += 1
            _LOG.warning("%s; the flows before it are kept", result.error)
    if num_failed:
        _LOG.warning("%d of %d videos failed or broke off", num_failed, len(videos))
    return ExitCode.FAILED_CLIPS if num_failed else ExitCode.OK
