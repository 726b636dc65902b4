"""`motionbox demo`: the whole pipeline on generated videos, in one command and without any data."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from motionbox.config import FLOW_METHODS, preset_names
from motionbox.errors import ExitCode, MotionBoxError

if TYPE_CHECKING:
    from motionbox.scoring.score_tables import ScoreRow

_REFERENCES = ("full frame", "centre half")


EPILOG = """\b
Example:
  motionbox demo --num-clips 8 --flow dis"""


@click.command(help="Generate videos, extract their boxes, score them against the truth and draw them.", epilog=EPILOG)
@click.option("--out", default="demo", type=click.Path(path_type=Path), help="Folder of everything.")
@click.option("--num-clips", default=32, type=click.IntRange(1, 9999), help="Videos to generate.")
@click.option("--preset", "presets", multiple=True, default=("paper", "tuned"),
              type=click.Choice(preset_names()), help="Score these; the last one is drawn.")  # fmt: skip
@click.option("--flow", type=click.Choice(tuple(FLOW_METHODS)), default="tvl1", help="Flow method.")
@click.option("--workers", type=click.IntRange(min=0), help="Worker processes; 0: in this process.  [all cores]")
def demo(out: Path, num_clips: int, presets: Sequence[str], flow: str, workers: int | None) -> int:
    """Run the command; see the options."""
    import os

    from motionbox.pictures.demo import draw_pictures
    from motionbox.scoring.box_metrics import read_boxes
    from motionbox.scoring.score_tables import score_store
    from motionbox.store import open_store
    from motionbox.synthetic import SyntheticConfig, write_dataset

    cores = len(os.sched_getaffinity(0)) if workers is None else workers
    data = out / "videos"
    started = time.monotonic()
    dataset = write_dataset(data, SyntheticConfig(num_clips), num_workers=max(1, cores))
    drawn = f"{dataset.num_drawn} drawn in {time.monotonic() - started:.0f} s" if dataset.num_drawn else "there already"
    click.echo(f"1. videos: {num_clips} in {data}, {drawn}")
    truths = read_boxes(data / "boxes.json").values()
    rows: dict[str, ScoreRow] = {}
    speeds: dict[str, str] = {}
    for preset in presets:
        click.echo(f"2. boxes, preset {preset}:")
        speeds[preset] = _extract(data, out / "stores" / preset, preset, flow, workers)
        with open_store(out / "stores" / preset) as store:
            found = {row.name: row for row in score_store(store, truths)[0]}
        rows.update({name: found[name] for name in _REFERENCES})
        rows[preset] = found["store"]
    with open_store(out / "stores" / presets[-1]) as store:
        num_frames = store.info["num_frame_rows"]
        files = draw_pictures(store, data, out)
    click.echo("3. IoU with the true boxes of hand and object, mean over clips (95 % interval):")
    _print_table(rows, speeds, num_frames)
    click.echo("4. pictures: " + ", ".join(str(file) for file in files))
    return ExitCode.OK


def _extract(data: Path, store: Path, preset: str, flow: str, workers: int | None) -> str:
    """Extract the boxes; returns the speed in words."""
    from motionbox.commands.extract import extract
    from motionbox.store import open_store

    try:
        with open_store(store) as opened:
            before = opened.info["num_frame_rows"]
    except MotionBoxError:
        before = 0
    started = time.monotonic()
    arguments = ["--dataset", "synthetic", "--data-root", str(data), "--store", str(store)]
    arguments += ["--preset", preset, "--flow", flow]
    arguments += [] if workers is None else ["--workers", str(workers)]
    arguments += ["--executor", "serial"] if workers == 0 else []
    extract.main(arguments, standalone_mode=False)
    seconds = time.monotonic() - started
    with open_store(store) as opened:
        fresh = opened.info["num_frame_rows"] - before
    return f"{fresh / seconds:.1f}" if fresh > 0 else "there already"


def _print_table(rows: dict[str, ScoreRow], speeds: dict[str, str], num_frames: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("boxes", "clips", "frames", "frames/s", "IoU per frame", "IoU of the clips' unions")
    for name, row in rows.items():
        summary = row.summary()
        cells = [
            f"{summary[metric].mean:.2f} ({summary[metric].low:.2f} to {summary[metric].high:.2f})"
            for metric in ("frame_iou", "clip_iou")
        ]
        table.add_row(name, f"{len(row.scores):,}", f"{num_frames:,}", speeds.get(name, ""), *cells)
    Console(width=100).print(table)
