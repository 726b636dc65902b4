"""`mofo-train inspect`: what the masks of a recipe will do on a store, before anything is trained."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mofo_train.commands import complete_recipe
from mofo_train.commands.pretrain import DEFAULT_RECIPE
from motionbox.command_line import StorePlace
from motionbox.storage import StorePath

if TYPE_CHECKING:
    from mofo_train.config import PretrainConfig
    from mofo_train.data.reader import ClipReader
    from mofo_train.guidance.inspection import FlowFigures, GuidanceFigures

_LOG = logging.getLogger(__name__)

EPILOG = """\b
Example:
  mofo-train inspect --recipe ssv2_pretrain_vitb_mofo --split train --out inspect/ssv2"""


@click.command(name="inspect", epilog=EPILOG)
@click.option(
    "--recipe", shell_complete=complete_recipe, default=DEFAULT_RECIPE, help="Name of a recipe, or a TOML file."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One value, e.g. data.dataset=folder.")
@click.option("--store", type=StorePlace(), help="Store of motion boxes.  [stores/<dataset>]")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder of the videos.  [that of the store]")
@click.option("--split", "splits", multiple=True, help="Only this split; may be repeated.  [each of the store]")
@click.option("--samples", type=click.IntRange(min=1), default=1000, help="Clips sampled in each split.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder for tables and a sheet of masks.  [none]")
def command(
    recipe: str,
    overrides: tuple[str, ...],
    store: StorePath | None,
    data_root: Path | None,
    splits: tuple[str, ...],
    samples: int,
    out: Path | None,
) -> None:
    """Measure how much of a training sample is inside, and whether the paper's rule can hold there.

    The rule: of all tubes 90 % are hidden, of those inside 75 % (the recipe's ratios). It needs so few tubes inside
    that enough others are left. Measured for boxes and areas of every guidance that the store holds. For masks that
    follow the flow (mask.kind = "flow_tube"): how far they do.
    """
    from mofo_train.config import PretrainConfig, load_recipe
    from mofo_train.data.sources import open_boxes
    from mofo_train.guidance.inspection import inspect_flow, reads_flow

    config = load_recipe(PretrainConfig, recipe, overrides)
    held, root = open_boxes(config.data.dataset, store, data_root)
    table = held.clips()
    usable = [status != "failed" for status in table.column("status").to_pylist()]
    listed = sorted({name for name in table.filter(usable).column("split").to_pylist() if name})
    names = splits or tuple(listed) or (None,)
    rows: list[GuidanceFigures] = []
    along: list[FlowFigures] = []
    shown: dict[str, ClipReader] = {}
    for split in names:
        readers = _readers(config, split, store, root, held.guidance_sources())
        shown = shown or readers
        rows += [_measure(config, reader, split or "", samples) for reader in readers.values()]
        if reads_flow(config):
            reader = next(iter(readers.values()))
            along.append(inspect_flow(config, reader, split=split or "", num_samples=samples))
    _print_table(rows, config)
    for flow in along:
        click.echo(
            f"masks along the flow, {flow.split or 'all'}: {flow.hidden:.1%} hidden in every slot; {flow.followed:.1%} "
            f"of what is visible lies elsewhere than in the middle slot; {flow.without_flow:.1%} of {flow.samples:,} "
            "samples have no flow, a plain tube mask"
        )
    if out is not None:
        _write(out, recipe, overrides, store, rows, along)
        from mofo_train.pictures.mask_sheet import draw_mask_sheet

        draw_mask_sheet(config, shown, out / "samples.png")
        click.echo(f"written: {', '.join(str(out / name) for name in ('inspect.json', 'inspect.csv', 'samples.png'))}")


def _readers(
    config: PretrainConfig, split: str | None, store: StorePath | None, root: Path, sources: list[str]
) -> dict[str, ClipReader]:
    """Open the clips of a split once for each guidance; says why where areas are missing."""
    from mofo_train.data.sources import open_clips
    from motionbox.errors import StoreError

    data = config.data.model_copy(update={"split": split})
    found = {}
    for source in sources:
        for kind in ("box", "area"):
            guidance = config.guidance.model_copy(update={"kind": kind, "source": source})
            try:
                found[f"{kind} {source}"] = open_clips(data, store, root, guidance=guidance)
            except StoreError as error:
                _LOG.warning("no areas of %s: %s", source, error)
    return found


def _measure(config: PretrainConfig, reader: ClipReader, split: str, samples: int) -> GuidanceFigures:
    from mofo_train.guidance.inspection import inspect_guidance

    return inspect_guidance(config, reader, reader.guidance, split=split, num_samples=samples)


def _print_table(rows: list[GuidanceFigures], config: PretrainConfig) -> None:
    from rich.console import Console
    from rich.table import Table

    mask = config.mask
    table = Table(
        title=f"masks that hide {mask.mask_ratio:.0%} of all tubes and {mask.inside_ratio:.0%} of those inside"
    )
    table.add_column("split", no_wrap=True)
    table.add_column("guidance", no_wrap=True)
    for name in ("crops", "none", "inside", "med.", "rule", "in", "out"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        shares = (
            *(row.unguided, row.share_inside_mean, row.share_inside_median),
            *(row.rule_holds, row.hidden_inside, row.hidden_outside),
        )
        percent = ("" if share is None else f"{share * 100:.1f}" for share in shares)
        table.add_row(row.split or "all", f"{row.kind} {row.source}", f"{row.samples:,}", *percent)
    Console().print(table)
    click.echo(
        "In percent. none: samples with nothing inside, a plain tube mask. inside, med.: of the crop, mean, median.\n"
        "rule: of the other samples, those that can hide exactly these shares. in, out: share of tubes hidden there."
    )


def _write(
    out: Path,
    recipe: str,
    overrides: tuple[str, ...],
    store: StorePath | None,
    rows: list[GuidanceFigures],
    along: list[FlowFigures],
) -> None:
    import csv
    import json

    out.mkdir(parents=True, exist_ok=True)
    figures = [row.as_row() for row in rows]
    record: dict[str, Any] = {
        "recipe": recipe,
        "overrides": list(overrides),
        "store": str(store or ""),
        "rows": figures,
        "along_flow": [flow.as_row() for flow in along],
    }
    (out / "inspect.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    with (out / "inspect.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(figures[0]))
        writer.writeheader()
        writer.writerows(figures)
