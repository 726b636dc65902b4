"""The recipe of `mofo-train study`: curves, their points, and the tables that hold the rows of all points."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mofo_train.config import Section, load_recipe
from mofo_train.errors import DataError
from mofo_train.table.layout import MAX_SEEDS
from mofo_train.table.recipe import RowConfig, TableConfig, WorseConfig


class PointConfig(Section):
    """One point of a curve: what is changed of every row but the baseline. Without a change it is the table's own row.

    Attributes:
        at: What is varied.
        scale: How large the generated set draws hand and things; this changes the baseline too.
        pretrain_set: Changes to the pretraining recipe.
        shift: How far areas are moved, in extents (roots of a clip's mean area).
        shrink: Share of their cells that they lose.
    """

    at: float
    scale: float = 1.0
    pretrain_set: tuple[str, ...] = ()
    shift: float = Field(0.0, ge=0)
    shrink: float = Field(0.0, ge=0, lt=1)

    @property
    def worse(self) -> WorseConfig | None:
        """The guidance that areas made worse are kept as; None where they stay as they are."""
        if not (self.shift or self.shrink):
            return None
        name = f"shift_{round(100 * self.shift)}_shrink_{round(100 * self.shrink)}"
        return WorseConfig(name=name, shift=self.shift, shrink=self.shrink)

    def row(self, row: RowConfig) -> RowConfig:
        """Return a row of the table as it is at this point, under a name that says what was changed."""
        changes, parts = self.pretrain_set, [_short(change) for change in self.pretrain_set]
        worse, own = self.worse, dict[str, object]()
        if worse is not None:
            source = f"guidance.source={worse.name}"
            changes, parts = (*changes, source), [*parts, worse.name]
            own["finetune_set"] = (*row.finetune_set, source)
        name = "_".join([row.name, *parts])
        return row.model_copy(update={**own, "name": name, "pretrain_set": (*row.pretrain_set, *changes)})


def _short(change: str) -> str:
    """Return `inside_ratio_0_25` for `mask.inside_ratio=0.25`."""
    key, _, value = change.partition("=")
    return "".join(c if c.isalnum() else "_" for c in f"{key.rpartition('.')[2]}_{value}".lower())


class CurveConfig(Section):
    """One curve a row.

    Attributes:
        title: What is varied.
        axis: What the picture is drawn against: `at`, the share of the picture that true areas cover, or the overlap of
            areas with them, both as measured.
        rows: Names of the rows that are compared with the baseline.
        points: At least two.
    """

    title: str
    axis: Literal["at", "share", "overlap"] = "at"
    rows: tuple[str, ...] = Field(min_length=1)
    points: tuple[PointConfig, ...] = Field(min_length=2)


class StudyConfig(Section):
    """A recipe of `mofo-train study`.

    Attributes:
        title: Heading.
        table: Recipe of the table whose rows, baseline and data these are.
        setting: Name of the table's setting that is used.
        seeds: Seeds of every row.
        curves: The curves.
    """

    stage: Literal["study"]
    title: str
    table: str
    setting: str
    seeds: int = Field(3, ge=1, le=MAX_SEEDS)
    curves: tuple[CurveConfig, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _rows_fit(self) -> StudyConfig:
        table = load_recipe(TableConfig, self.table)
        known = {row.name for row in table.rows if row.pretrain is not None} - {table.baseline}
        if unknown := {name for curve in self.curves for name in curve.rows} - known:
            raise ValueError(
                f"curves.rows must name pretrained rows of {self.table} beside its baseline, got {min(unknown)!r}"
            )
        if table.dataset != "synthetic":
            raise ValueError(f"table must be one of data set synthetic, got {self.table!r} of {table.dataset}")
        if self.setting not in {setting.name for setting in table.settings}:
            raise ValueError(f"setting must be one of {self.table}, got {self.setting!r}")
        return self

    def tables(self, profile: str) -> dict[float, TableConfig]:
        """Return for each scale of the generated set the table of all rows that its points need.

        Args:
            profile: `full` or `smoke`, as a table's.

        Raises:
            DataError: Two different points have one name.
        """
        base = load_recipe(TableConfig, self.table).at(profile)
        seeds = self.seeds if profile == "full" else base.seeds
        rows: dict[float, dict[str, RowConfig]] = {}
        worse: dict[float, dict[str, WorseConfig]] = {}
        of = {row.name: row for row in base.rows}
        for point, row_name in ((p, name) for curve in self.curves for p in curve.points for name in curve.rows):
            there = rows.setdefault(point.scale, {base.baseline: of[base.baseline]})
            row = point.row(of[row_name])
            made = worse.setdefault(point.scale, {})
            same = there.setdefault(row.name, row) == row
            if point.worse is not None:
                same &= made.setdefault(point.worse.name, point.worse) == point.worse
            if not same:
                raise DataError(f"points must differ in what their rows are called, got {row.name!r} for two of them")
        own = tuple(setting for setting in base.settings if setting.name == self.setting)
        return {
            scale: base.model_copy(
                update={
                    "seeds": seeds,
                    "scale": scale,
                    "settings": own,
                    "rows": tuple(rows[scale].values()),
                    "worse": tuple(worse[scale].values()),
                }
            )
            for scale in rows
        }
