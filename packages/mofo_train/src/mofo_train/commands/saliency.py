"""`mofo-train saliency`: where classifiers look, beside where the motion is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from motionbox.command_line import StorePlace
from motionbox.storage.paths import StorePath

EPILOG = """\b
Example:
  mofo-train saliency --checkpoint runs/mca/best/step-000001200 --method rollout --out saliency"""


@click.command(name="saliency", epilog=EPILOG)
@click.option(
    "--checkpoint",
    "checkpoints",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Folder of a finetuning, or `best/step-...` in it; give two to see them side by side.",
)
@click.option("--title", "titles", multiple=True, help="Name of each checkpoint in the picture.  [its run's folder]")
@click.option("--method", type=click.Choice(["gradcam", "rollout"]), default="gradcam")
@click.option("--block", type=click.IntRange(min=1), help="Block of Grad-CAM, from 1.  [5, or the last of fewer]")
@click.option("--clip", "clip_id", help="Clip of the picture.  [the first]")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first clips of the test split.  [all]")
@click.option("--store", type=StorePlace(), help="Store of motion boxes.  [stores/<dataset>]")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder of the videos.  [that of the store]")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for figures and pictures.")
def command(
    checkpoints: tuple[Path, ...],
    titles: tuple[str, ...],
    method: Any,
    block: int | None,
    clip_id: str | None,
    limit: int | None,
    store: StorePath | None,
    data_root: Path | None,
    out: Path,
) -> None:
    """Measure how much of a classifier's saliency lies inside the motion box or area, and draw one clip.

    Lift is that share over the share of the tokens inside: 1 is what a map without preference gives.
    """
    import csv
    import json
    import math

    import torch

    from mofo_train.errors import ConfigError, DataError
    from mofo_train.models.weights import checkpoint_of
    from mofo_train.pictures.saliency import draw_saliency, saliency_of_checkpoint

    checkpoints = tuple(map(checkpoint_of, checkpoints))
    names = list(titles) or [Path(os.path.realpath(path)).parent.parent.name for path in checkpoints]
    if len(names) != len(checkpoints) or len(set(names)) != len(names):
        raise ConfigError(f"--title must be given once for each checkpoint, all different, got {names!r}")
    identity = {"method": method, "block": block, "checkpoints": [str(path) for path in checkpoints]}
    _check_folder(out / "saliency.json", identity)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shown, rows, summary = {}, [], {}
    for name, checkpoint in zip(names, checkpoints, strict=True):
        sources: dict[str, Any] = {"store": store, "data_root": data_root}
        found = saliency_of_checkpoint(checkpoint, device, method=method, block=block, limit=limit, **sources)
        shares = []
        for clip in found:
            lift = clip.share / clip.area_share if clip.area_share else math.nan
            rows.append([name, clip.clip_id, f"{clip.share:.6f}", f"{clip.area_share:.6f}", f"{lift:.6f}"])
            shares.append((clip.share, clip.area_share))
            if name not in shown and clip_id in (None, clip.clip_id):
                shown[name] = clip
        known = [(share, area) for share, area in shares if share == share]  # NaN: an empty map
        if not known or name not in shown:
            raise DataError(f"clip must be a readable clip of the test split with a saliency map, got {clip_id!r}")
        summary[name] = _summary(known, len(shares) - len(known))
        click.echo(f"{name}: {_sentence(summary[name])}")
    out.mkdir(parents=True, exist_ok=True)
    record = {**identity, "models": summary}
    (out / "saliency.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    with (out / "saliency.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["model", "clip_id", "share_inside", "area_share", "lift"], *rows])
    draw_saliency(shown, out / "saliency.png")
    click.echo(f"written: {out / 'saliency.json'}, {out / 'saliency.csv'}, {out / 'saliency.png'}")


def _summary(known: list[tuple[float, float]], num_empty: int) -> dict[str, Any]:
    share, area = (sum(values) / len(known) for values in zip(*known, strict=True))
    lift = share / area if area else None
    return {
        "share_inside": share,
        "area_share": area,
        "lift": lift,
        "num_clips": len(known),
        "num_empty_maps": num_empty,
    }


def _sentence(row: dict[str, Any]) -> str:
    left_out = f", {row['num_empty_maps']} more have an empty map" if row["num_empty_maps"] else ""
    counted = f"({row['num_clips']} clips{left_out})"
    lift = "" if row["lift"] is None else f", lift {row['lift']:.2f}"
    return f"{row['share_inside']:.1%} of the saliency inside, {row['area_share']:.1%} of the tokens{lift} {counted}"


def _check_folder(path: Path, identity: dict[str, Any]) -> None:
    """Refuse a folder that holds another comparison; the same one may be drawn again, of another clip."""
    import json

    from mofo_train.errors import ConfigError

    if not path.exists():
        return
    try:
        other = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        other = {}
    if any(other.get(name) != value for name, value in identity.items()):
        raise ConfigError(
            f"--out must hold figures of the same method and checkpoints, got {path.parent} with others'; choose one"
        )
