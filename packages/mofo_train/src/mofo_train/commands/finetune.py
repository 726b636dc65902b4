"""`mofo-train finetune`: a classifier from pretrained weights."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import click

from mofo_train.commands import complete_recipe
from motionbox.command_line import StorePlace
from motionbox.storage import StorePath

_LOG = logging.getLogger(__name__)

DEFAULT_RECIPE = "synthetic_finetune_tiny_mca"


EPILOG = """\b
Examples:
  mofo-train finetune --recipe ssv2_finetune_vitb_mca --init pretrain.pth --out runs/mca
  torchrun --nproc-per-node 8 -m mofo_train finetune --recipe ssv2_finetune_vitb_mca"""


@click.command(name="finetune", epilog=EPILOG)
@click.option(
    "--recipe", shell_complete=complete_recipe, default=DEFAULT_RECIPE, help="Name of a recipe, or a TOML file."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One value, e.g. model.fusion=mca.")
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    help="Checkpoint or folder of a run to start from; the same as model.init.  [the recipe's]",
)
@click.option("--store", type=StorePlace(), help="Store of motion boxes.  [stores/<dataset>]")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder of the videos.  [that of the store]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [runs/<recipe>]")
def command(
    recipe: str,
    overrides: tuple[str, ...],
    init: Path | None,
    store: StorePath | None,
    data_root: Path | None,
    out: Path | None,
) -> None:
    """Finetune a classifier; the same command resumes. The weights kept are chosen on held-out training clips.

    On several devices: torchrun --nproc-per-node N -m mofo_train finetune ...
    """
    from mofo_train.config import load_recipe
    from mofo_train.data.sources import open_clips
    from mofo_train.finetune_config import FinetuneConfig
    from mofo_train.runtime.ranks import ranks_of_this_run
    from mofo_train.training.finetuning import finetune

    changes = overrides if init is None else (*overrides, f"model.init={json.dumps(str(init))}")
    config = load_recipe(FinetuneConfig, recipe, changes)
    reader = open_clips(config.data, store, data_root, guidance=config.guidance)
    out = out or Path("runs") / Path(recipe).stem
    with ranks_of_this_run() as ranks:
        _LOG.info(reader.remarks())
        best = finetune(config, reader, out, ranks)
        if ranks.is_first:
            click.echo(f"done: {best}")
