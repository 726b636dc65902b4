"""`mofo-train bench`: how fast model, loader, both together, masks and fusion are on this machine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from motionbox.command_line import StorePlace
from motionbox.storage import StorePath

if TYPE_CHECKING:
    from mofo_train.config import CompileMode, Precision
    from mofo_train.data.reader import ClipReader

PARTS = ("model", "masks", "fusion", "loader", "both")
COMPILE_MODES = ("reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
PRECISIONS = ("fp32", "bf16", "fp8")

EPILOG = """\b
Examples:
  mofo-train bench model --batch-size 256 --precision bf16 --compile
  mofo-train bench loader --store stores/synthetic"""


@click.command(name="bench", epilog=EPILOG)
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--model", "model_name", default="videomae_base", help="Size of the model.")
@click.option("--batch-size", type=click.IntRange(min=1), default=2, help="Clips of a step.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, help="Timed rounds; medians count.")
@click.option("--compile/--no-compile", "compiled", default=False, help="Run the model through torch.compile.")
@click.option("--compile-mode", type=click.Choice(COMPILE_MODES), help="Its mode; implies `--compile`.  [PyTorch's]")
@click.option("--peers/--no-peers", default=False, help="Time transformers and the original code's operations too.")
@click.option("--dataset", default="synthetic", help="Data set of the loader.")
@click.option("--store", type=StorePlace(), help="Store of motion boxes.  [stores/<dataset>]")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder of the videos.  [that of the store]")
@click.option("--num-workers", type=click.IntRange(min=0), default=1, help="Decoding processes of `both`.")
@click.option("--steps", type=click.IntRange(min=1), default=8, help="Steps of a turn of `both`, at least.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(PRECISIONS),
    help="Precision; may be repeated; fusion has no fp8.  [fp32 and bf16 for model, fp32 for fusion, bf16 for `both`]",
)
@click.option("--frames", "num_frames", default=16, help="Frames of a clip of loader and `both`.")
@click.option("--image-px", default=224, help="Side of a clip of loader and `both`.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there.  [none]")
def command(
    parts: tuple[str, ...],
    model_name: str,
    batch_size: int,
    rounds: int,
    compiled: bool,
    compile_mode: CompileMode | None,
    peers: bool,
    dataset: str,
    store: StorePath | None,
    data_root: Path | None,
    num_workers: int,
    steps: int,
    precisions: tuple[Precision, ...],
    num_frames: int,
    image_px: int,
    json_path: Path | None,
) -> None:
    """Time PARTS of training: model, masks, fusion, and with a store loader and both; the first three by default.

    `both` is the training loop with the real loader, beside the loader alone, the model alone and the roof.
    """
    import torch

    from mofo_train.benchmarks import parts as bench
    from mofo_train.benchmarks.with_loader import bench_both
    from mofo_train.config import ModelConfig, override_recipe

    fields = {"name": model_name, "num_frames": num_frames, "image_px": image_px}
    shape = override_recipe(ModelConfig, fields, (), "of the options")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    results: dict[str, Any] = {"device": _describe(device), "threads": torch.get_num_threads()}
    results["torch"] = torch.__version__
    size = (batch_size, rounds, device)
    mode = compile_mode or compiled
    for part in parts or PARTS[:3]:
        if part == "model":
            kinds = precisions or ("fp32", "bf16")
            results[part] = bench.bench_model(model_name, *size, precisions=kinds, compile_mode=mode, peers=peers)
        elif part == "masks":
            timings = bench.bench_masks(*size)
            results[part] = {name: dataclasses.asdict(timing) for name, timing in timings.items()}
        elif part == "fusion":
            kinds = tuple(kind for kind in precisions if kind != "fp8") or ("fp32",)
            results[part] = {kind: bench.bench_fusion(*size, precision=kind) for kind in kinds}
        elif part == "loader":
            results[part] = bench.bench_loader(_readers(dataset, store, data_root), shape, rounds, peers=peers)
        else:
            kinds = precisions or ("bf16",)
            reader = list(_readers(dataset, store, data_root).values())[-1]
            options: Any = {"num_workers": num_workers, "compile_mode": mode, "steps": steps}
            results[part] = {kind: bench_both(reader, shape, *size, precision=kind, **options) for kind in kinds}
    text = json.dumps(results, indent=2)
    click.echo(text)
    if json_path is not None:
        json_path.write_text(text + "\n", encoding="utf-8")


def _readers(dataset: str, store: StorePath | None, data_root: Path | None) -> dict[str, ClipReader]:
    """Open a data set's clips, read from the source media and, where the store keeps their frames, from there."""
    from mofo_train.data.reader import ClipReader
    from mofo_train.data.sources import open_boxes

    boxes, root = open_boxes(dataset, store, data_root)
    readers = {"source": ClipReader(boxes, root, split=None, short_side_px=256, from_source=True)}
    if any(map(boxes.has_clip, readers["source"].clip_ids)):
        readers["store"] = ClipReader(boxes, root, split=None, short_side_px=256)
    return readers


def _describe(device: Any) -> str:
    import os
    import platform

    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{len(os.sched_getaffinity(0))} cores, {platform.processor() or platform.machine()}"
