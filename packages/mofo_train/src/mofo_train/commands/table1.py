"""`mofo-train table1`: every row of Table 1, or of an ablation, from data to table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mofo_train.commands import complete_recipe
from mofo_train.commands.helping import helpers, jobs_option, options, profile_option, set_option
from motionbox.command_line import StorePlace
from motionbox.storage.paths import StorePath

if TYPE_CHECKING:
    from mofo_train.runtime.ranks import Ranks
    from mofo_train.table.recipe import TableConfig

_LOG = logging.getLogger(__name__)

EPILOG = """\b
Examples:
  mofo-train table1 --dataset folder --data-root my-videos --folds 5 --jobs 2
  mofo-train table1 --dataset epic100 --plan --assume h100"""


@click.command(name="table1", epilog=EPILOG)
@click.option(
    "--dataset",
    type=click.Choice(["synthetic", "metaworld", "folder", "ssv2", "epic100"]),
    default="synthetic",
    help="What the table is of.",
)
@click.option(
    "--recipe",
    shell_complete=complete_recipe,
    help="A table's recipe, e.g. synthetic_ablation_mask.  [<dataset>_table1]",
)
@set_option
@profile_option
@click.option("--store", type=StorePlace(), help="Store of motion boxes.  [generated, or stores/<dataset>]")
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    help="Folder of the videos; of folder, with annotations.csv.  [that of the store, or data/<dataset>]",
)
@click.option("--folds", type=click.IntRange(2), help="Cross-validate: each clip is tested once.  [5 for folder]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of all stages.  [runs/<dataset>-<profile>]")
@click.option("--plan", "only_plan", is_flag=True, help="Print stages, device-hours, disk and what is missing; stop.")
@click.option(
    "--assume",
    type=click.Choice(["h100", "h200", "cpu"]),
    help="Plan for such a device by rates measured before, the data official and elsewhere.  [measure this one]",
)
@jobs_option
@click.option("--stages-only", is_flag=True, help="Finish the stages and write no table, to help another process.")
def command(
    dataset: str,
    recipe: str | None,
    overrides: tuple[str, ...],
    profile: str,
    store: StorePath | None,
    data_root: Path | None,
    folds: int | None,
    out: Path | None,
    only_plan: bool,
    assume: str | None,
    jobs: int,
    stages_only: bool,
) -> int:
    """Pretrain, finetune and test every row with every seed; the same command resumes, done stages are skipped.

    The default generates its data. --dataset folder takes any labelled folder and tests each of its clips in one of
    --folds. For all but synthetic the plan is printed first. Small models on processors: --jobs; several devices for
    every stage: torchrun --nproc-per-node N -m mofo_train table1 ...
    """
    from mofo_train.config import load_recipe
    from mofo_train.errors import ExitCode
    from mofo_train.runtime.ranks import ranks_of_this_run
    from mofo_train.table.generated import PREPARED, data_of, with_labels
    from mofo_train.table.recipe import TableConfig
    from mofo_train.table.run import run_folds
    from motionbox.store import open_store

    name = recipe or f"{dataset}_table1"
    own = (*overrides, f"folds={folds}") if folds else overrides
    table = load_recipe(TableConfig, name, own).at(profile)
    if assume is not None:
        _plan_on_paper(table, assume, only_plan=only_plan)
        return ExitCode.OK
    folder = out or Path("runs") / f"{table.dataset}-{profile}"  # tables share the stages that they have in common
    prepared = table.dataset in PREPARED and store is None
    if prepared:
        data_root = data_of(table, folder, data_root, smoke=profile == "smoke")
    stores = _stores(table, folder, store, prepared=prepared)
    with ranks_of_this_run() as ranks:
        # Data: the first rank makes what is missing, once; a helping process finds it made.
        if prepared:
            if ranks.is_first:
                _prepare(table, folder, data_root, only_plan=only_plan, stages_only=stages_only)
            ranks.gather(None)  # the others wait
        if table.dataset == "folder" and not only_plan:
            labelled = next(iter(stores.values()))
            table = with_labels(table, labelled, open_store(labelled).clips())
        if only_plan or not (table.dataset == "synthetic" or stages_only):
            _say_plan(table, folder, stores, data_root, ranks, only_plan=only_plan)
            if only_plan:
                return ExitCode.OK
        # Stages: this process and its helpers take one after the other from the same folder.
        given = {"--recipe": recipe, "--store": store, "--data-root": data_root, "--folds": folds}
        helping = ["table1", "--dataset", dataset, "--profile", profile, "--out", str(folder)]
        with helpers(jobs, [*helping, *options(given, overrides)]):
            result = run_folds(table, folder, ranks, stores=stores, data_root=data_root)
        if ranks.is_first and not stages_only:
            stem = "table1" if name.endswith("table1") else Path(name).stem
            paths = result.write(folder, stem)
            click.echo(result.markdown())
            click.echo("written: " + ", ".join(str(path) for path in paths))
    return ExitCode.OK


def _prepare(table: TableConfig, out: Path, data_root: Path | None, *, only_plan: bool, stages_only: bool) -> None:
    """Say which clips of a labelled folder take part, then make what is missing; a plan makes nothing, nor a helper."""
    from mofo_train.table.generated import data_of, describe_folder, generate_data, require_data

    if table.dataset == "folder" and not stages_only:
        for line in describe_folder(table, data_of(table, out, data_root)):
            _LOG.info(line)
    if only_plan:
        return
    if stages_only:
        require_data(table, out)
    else:
        generate_data(table, out, data_root)


def _plan_on_paper(table: TableConfig, machine: str, *, only_plan: bool) -> None:
    from mofo_train.table.on_paper import plan_on_paper

    if not only_plan:
        raise click.UsageError("--assume must come with --plan: what is assumed cannot be run")
    for line in plan_on_paper(table, machine).lines():
        click.echo(line)


def _stores(table: TableConfig, out: Path, store: StorePath | None, *, prepared: bool) -> dict[str, StorePath]:
    """Return the store of each preset of the rows."""
    from mofo_train.errors import DataError
    from mofo_train.table.generated import generated_stores

    if prepared:
        return dict(generated_stores(table, out))
    stores: dict[str, StorePath] = {row.preset: store or Path("stores") / table.dataset for row in table.rows}
    if len(stores) > 1:
        raise DataError(f"rows of a table over one store must have one preset, got {', '.join(sorted(stores))}")
    return stores


def _say_plan(
    table: TableConfig,
    out: Path,
    stores: Mapping[str, StorePath],
    data_root: Path | None,
    ranks: Ranks,
    *,
    only_plan: bool,
) -> None:
    """Measure and print what a table costs; refuse to run one whose data are missing."""
    from mofo_train.errors import DataError
    from mofo_train.table.plan import make_plan

    _LOG.info("measuring a training step of each kind on %s ...", ranks.device.type)
    plan = make_plan(table, out, ranks.device, stores=stores, data_root=data_root)
    if ranks.is_first:
        click.echo("\n".join(plan.lines()))
    if plan.missing and not only_plan:
        raise DataError(f"data of {table.dataset} must be there, got: {plan.missing}")
