"""`mofo-train bench`: how fast model, loader, masks and fusion are on this machine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

PARTS = ("model", "masks", "fusion", "loader")


EPILOG = """\b
Examples:
  mofo-train bench
  mofo-train bench loader --store stores/synthetic"""


@click.command(name="bench", epilog=EPILOG)
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--model", "model_name", default="videomae_base", help="Size of the model.")
@click.option("--batch-size", type=click.IntRange(min=1), default=2, help="Clips of a step.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, help="Timed rounds; medians count.")
@click.option("--compile/--no-compile", "compiled", default=False, help="Run the model through torch.compile.")
@click.option("--peers/--no-peers", default=False, help="Time transformers and the original code's operations too.")
@click.option("--dataset", default="synthetic", help="Data set of the loader.")
@click.option("--store", type=click.Path(path_type=Path), help="Store of motion boxes.  [stores/<dataset>]")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder of the videos.  [that of the store]")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there.  [none]")
def command(
    parts: tuple[str, ...],
    model_name: str,
    batch_size: int,
    rounds: int,
    compiled: bool,
    peers: bool,
    dataset: str,
    store: Path | None,
    data_root: Path | None,
    json_path: Path | None,
) -> None:
    """Time PARTS of training: model, masks, fusion, loader (which needs a store); the first three by default."""
    import torch

    from mofo_train import bench
    from mofo_train.config import ModelConfig
    from mofo_train.data.dataset import ClipReader
    from mofo_train.data.sources import open_boxes

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    results: dict[str, Any] = {"device": _describe(device), "threads": torch.get_num_threads()}
    results["torch"] = torch.__version__
    for part in parts or PARTS[:3]:
        if part == "model":
            results[part] = bench.bench_model(model_name, batch_size, rounds, device, compiled=compiled, peers=peers)
        elif part == "masks":
            timings = bench.bench_masks(batch_size, rounds, device)
            results[part] = {name: dataclasses.asdict(timing) for name, timing in timings.items()}
        elif part == "fusion":
            results[part] = bench.bench_fusion(batch_size, rounds, device)
        else:
            boxes, root = open_boxes(dataset, store, data_root)
            readers = {"source": ClipReader(boxes, root, split=None, short_side_px=256, from_source=True)}
            if any(map(boxes.has_clip, readers["source"].clip_ids)):
                readers["store"] = ClipReader(boxes, root, split=None, short_side_px=256)
            results[part] = bench.bench_loader(readers, ModelConfig(), rounds, peers=peers)
    text = json.dumps(results, indent=2)
    click.echo(text)
    if json_path is not None:
        json_path.write_text(text + "\n", encoding="utf-8")


def _describe(device: Any) -> str:
    import os
    import platform

    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{len(os.sched_getaffinity(0))} cores, {platform.processor() or platform.machine()}"
