"""`mofo-train convert`: weights of one program for another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

EPILOG = """\b
Examples:
  mofo-train convert pretrain.pth pretrain.safetensors
  mofo-train convert model.safetensors model.pth --to videomae"""


@click.command(name="convert", epilog=EPILOG)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "layout",
    type=click.Choice(["ours", "videomae", "huggingface"]),
    default="ours",
    help="Names to write: ours (.safetensors), the original VideoMAE's or MOFO's (.pth), Hugging Face's (folder).",
)
@click.option("--num-frames", type=click.IntRange(min=2), default=16, help="Frames of a clip.")
@click.option("--image-px", type=click.IntRange(min=16), default=224, help="Side of a frame.")
def command(source: Path, target: Path, layout: Any, num_frames: int, image_px: int) -> None:
    """Read the checkpoint SOURCE, whoever wrote it, and write its weights to TARGET."""
    from mofo_train.errors import CheckpointError
    from mofo_train.models.weights import load_checkpoint, save_checkpoint

    if target.exists():
        raise CheckpointError(f"TARGET must not exist, got {target}; choose another name or move it away")
    state = load_checkpoint(source)
    save_checkpoint(state, target, layout, num_frames=num_frames, image_px=image_px)
    click.echo(f"{target}: {len(state)} weights, layout {layout}")
