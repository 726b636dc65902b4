"""Run a study: the data of every scale, all rows as stages of tables, then the curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mofo_train.config import PretrainConfig, load_recipe
from mofo_train.runtime.ranks import Ranks
from mofo_train.study.curves import Curve, Point, Study
from mofo_train.study.recipe import CurveConfig, StudyConfig
from mofo_train.table.generated import data_of, generated_stores
from mofo_train.table.layout import Table
from mofo_train.table.recipe import MEANINGLESS, RowConfig, TableConfig
from mofo_train.table.run import Trainings, run_table
from motionbox.store import Store, open_store

_TRUE = "annotated"
_MEASURED_CLIPS = 200


class Areas(NamedTuple):
    """What a guidance's areas are like.

    Attributes:
        share: Share of the picture that true areas cover, median over the frames that have any.
        overlap: The intersection over union of its areas with them, mean over the frames where either has any.
    """

    share: float
    overlap: float


def folder_of(out: Path, scale: float) -> Path:
    """Return the folder of the stages at a scale; the usual scale shares that of the table."""
    return out if scale == 1 else out / f"scale-{scale:g}"


def run_study(
    study: StudyConfig, profile: str, out: Path, ranks: Ranks, *, trainings: Trainings | None = None
) -> Study:
    """Run what is missing of a study; its data must be there, see `table.generated.generate_data`.

    Args:
        study: The recipe.
        profile: `full` or `smoke`.
        out: Folder of all stages.
        ranks: This process among all.
        trainings: What trains; None = this package's.

    Raises:
        MofoTrainError: As `table.run.run_table`.
    """
    tables = study.tables(profile)
    results, stores = dict[float, Table](), dict[float, dict[str, Path]]()
    for scale, table in tables.items():
        own = folder_of(out, scale)
        stores[scale] = generated_stores(table, own)
        data_root = data_of(table, own, None)
        results[scale] = run_table(
            table, own, ranks, stores=dict(stores[scale]), data_root=data_root, trainings=trainings
        )

    @cache
    def areas_of(scale: float, preset: str, source: str) -> Areas:
        with open_store(stores[scale][preset]) as store:
            return measure_areas(store, source)

    rows = {row.name: row for row in load_recipe(TableConfig, study.table).at(profile).rows}
    curves = tuple(_curve(curve, rows, results, areas_of) for curve in study.curves)
    first = next(iter(results.values()))
    baseline = first.panels[0].base(first.baseline)
    notes = [note for result in results.values() for note in result.notes[-1:]]
    title = study.title if profile == "full" else f"{study.title} ({MEANINGLESS})"
    return Study(title, baseline.title, first.metrics, curves, (first.notes[0], *notes))


def _curve(
    curve: CurveConfig,
    rows: Mapping[str, RowConfig],
    results: Mapping[float, Table],
    areas_of: Callable[[float, str, str], Areas],
) -> Curve:
    found = {}
    for name in curve.rows:
        points = []
        for point in curve.points:
            result, row = results[point.scale], point.row(rows[name])
            panel = result.panels[0]
            areas = areas_of(point.scale, row.preset, _source(row))
            points.append(Point(point.at, *areas, panel.base(result.baseline), panel.base(row.name)))
        found[rows[name].title] = tuple(points)
    return Curve(curve.title, curve.axis, found)


def _source(row: RowConfig) -> str:
    """Return the guidance that a row's pretraining follows.

    Raises:
        ValueError: It has no pretraining.
    """
    if row.pretrain is None:
        raise ValueError(f"pretrain must name a recipe, got none for row {row.name!r}")
    return load_recipe(PretrainConfig, row.pretrain, row.pretrain_set).guidance.source


def measure_areas(store: Store, source: str) -> Areas:
    """Compare a guidance's areas with the true ones on a store's first clips, cell by cell.

    Args:
        store: The store.
        source: The guidance.
    """
    shares, overlaps = list[float](), list[float]()
    for clip_id in store.clips()["clip_id"].to_pylist()[:_MEASURED_CLIPS]:
        own = store.motion_areas(clip_id, source=source) > 0
        true = store.motion_areas(clip_id, source=_TRUE) > 0
        either, both = (own | true).sum((1, 2)), (own & true).sum((1, 2))
        shares += true.mean((1, 2))[true.any((1, 2))].tolist()
        overlaps += (both[either > 0] / either[either > 0]).tolist()
    return Areas(float(np.median(shares)) if shares else 0.0, float(np.mean(overlaps)) if overlaps else 0.0)
