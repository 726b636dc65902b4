"""`mofo-train pretrain`: masked pretraining from a store of motion boxes."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from mofo_train.commands import complete_recipe
from motionbox.command_line import StorePlace
from motionbox.storage import StorePath

_LOG = logging.getLogger(__name__)

DEFAULT_RECIPE = "synthetic_pretrain_tiny"


EPILOG = """\b
Examples:
  mofo-train pretrain --recipe ssv2_pretrain_vitb_mofo --set optim.epochs=2400
  torchrun --nproc-per-node 8 -m mofo_train pretrain --recipe ssv2_pretrain_vitb_mofo"""


@click.command(name="pretrain", epilog=EPILOG)
@click.option(
    "--recipe", shell_complete=complete_recipe, default=DEFAULT_RECIPE, help="Name of a recipe, or a TOML file."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One value, e.g. optim.epochs=100.")
@click.option("--store", type=StorePlace(), help="Store of motion boxes.  [stores/<dataset>]")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder of the videos.  [that of the store]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [runs/<recipe>]")
def command(
    recipe: str,
    overrides: tuple[str, ...],
    store: StorePath | None,
    data_root: Path | None,
    out: Path | None,
) -> None:
    """Pretrain a masked autoencoder guided by motion boxes; the same command resumes.

    On several devices: torchrun --nproc-per-node N -m mofo_train pretrain ...
    """
    from mofo_train.config import PretrainConfig, load_recipe
    from mofo_train.data.sources import open_clips
    from mofo_train.runtime.ranks import ranks_of_this_run
    from mofo_train.training.pretraining import pretrain

    config = load_recipe(PretrainConfig, recipe, overrides)
    reader = open_clips(config.data, store, data_root, guidance=config.guidance)
    out = out or Path("runs") / Path(recipe).stem
    with ranks_of_this_run() as ranks:
        _LOG.info(reader.remarks())
        final = pretrain(config, reader, out, ranks)
        if ranks.is_first:
            click.echo(f"done: {final}")
