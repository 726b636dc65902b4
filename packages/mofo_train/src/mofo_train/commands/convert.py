"""`mofo-train convert`: weights of one program for another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mofo_train.models.weights import ModelCard

EPILOG = """\b
Examples:
  mofo-train convert pretrain.pth pretrain.safetensors
  mofo-train convert runs/mean/best/step-000001200 hub/mean --to huggingface --report runs/mean/test/report.json"""


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
@click.option(
    "--weights",
    "kind",
    type=click.Choice(["model", "ema"]),
    help="Which of a file that holds both: the model's, or their moving average.  [model]",
)
@click.option("--num-frames", type=click.IntRange(min=2), help="Frames of a clip.  [the checkpoint's, or 16]")
@click.option("--image-px", type=click.IntRange(min=16), help="Side of a frame.  [the checkpoint's, or 224]")
@click.option(
    "--report", type=click.Path(path_type=Path), help="report.json of `evaluate`, for the model card.  [none]"
)
@click.option("--licence", help="Licence of the weights for the model card, as the Hub spells it.  [none]")
def command(
    source: Path,
    target: Path,
    layout: Any,
    kind: Any,
    num_frames: int | None,
    image_px: int | None,
    report: Path | None,
    licence: str | None,
) -> None:
    """Read the checkpoint SOURCE, whoever wrote it, and write its weights to TARGET."""
    from mofo_train.errors import CheckpointError
    from mofo_train.models.weights import checkpoint_of, load_checkpoint, save_checkpoint

    if target.exists():
        raise CheckpointError(f"TARGET must not exist, got {target}; choose another name or move it away")
    source = checkpoint_of(source)
    state = load_checkpoint(source, kind)
    info = _read_json(source / "checkpoint.json") if (source / "checkpoint.json").is_file() else {}
    model = info.get("config", {}).get("model", {})
    save_checkpoint(
        state,
        target,
        layout,
        num_frames=num_frames or model.get("num_frames", 16),
        image_px=image_px or model.get("image_px", 224),
        card=_model_card(info, report, licence),
    )
    click.echo(f"{target}: {len(state)} weights, layout {layout}")


def _model_card(info: dict[str, Any], report: Path | None, licence: str | None) -> ModelCard:
    """Say of weights what their checkpoint and a report know."""
    from mofo_train.data.labels import LabelSpace
    from mofo_train.models.weights import ModelCard

    names: list[str] = []
    if "label_space" in info:
        space = LabelSpace.from_json(info["label_space"])
        for head, count in space.heads.items():
            own = space.class_names.get(head, tuple(map(str, range(count))))
            names += [name if len(space.heads) == 1 else f"{head}: {name}" for name in own]
    figures = {}
    selection = info.get("selection", {})
    if "held_out_top1" in selection:
        figures["top-1 on held-out training clips, by which the weights were chosen"] = (
            f"{selection['held_out_top1']:.1%}"
        )
    for head, values in (_read_json(report).get("heads", {}) if report else {}).items():
        if values is not None:
            figures[f"{head}, test clips"] = (
                f"top-1 {values['top1']:.1%}, top-5 {values['top5']:.1%} of {values['num_clips']} clips"
            )
    return ModelCard(tuple(names), info.get("config", {}), figures, licence)


def _read_json(path: Path) -> dict[str, Any]:
    import json

    from mofo_train.errors import CheckpointError

    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{path} must be a readable JSON file, got: {reason}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must be a JSON object, got {type(values).__name__}")
    return values
