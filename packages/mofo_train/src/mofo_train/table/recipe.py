"""The recipe of `mofo-train table1`: rows, seeds and the smaller profile."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from mofo_train.config import Section, read_recipe
from mofo_train.errors import DataError
from mofo_train.table.layout import MAX_SEEDS

MEANINGLESS = "profile smoke: shows that every stage works, its figures mean nothing"


class RowConfig(Section):
    """One row of a table.

    Attributes:
        name: Short name.
        title: For the reader.
        pretrain: Recipe of its pretraining; None = from scratch. Rows with equal pretraining share it.
        pretrain_set: Changes to that recipe.
        finetune: Recipe of its finetuning.
        finetune_set: Changes to that recipe.
        preset: Preset of the motion boxes (data set `synthetic`).
    """

    name: str = Field(pattern="^[a-z0-9_]+$")
    title: str
    pretrain: str | None = None
    pretrain_set: tuple[str, ...] = ()
    finetune: str
    finetune_set: tuple[str, ...] = ()
    preset: Literal["paper", "release", "tuned"] = "paper"


class SettingConfig(Section):
    """A way to learn from a pretraining that every row is tried with: few labels or all, everything trained or a probe.

    Attributes:
        name: Short name.
        title: For the reader.
        finetune_set: Changes to every row's finetuning recipe.
        rows: Names of the rows that are tried so; None = all.
    """

    name: str = Field(pattern="^[a-z0-9_]*$")
    title: str
    finetune_set: tuple[str, ...] = ()
    rows: tuple[str, ...] | None = None

    def has(self, row: RowConfig) -> bool:
        """Say whether a row is tried so."""
        return self.rows is None or row.name in self.rows


class ProfileConfig(Section):
    """A smaller version of a table, to see that it works.

    Attributes:
        seeds: Seeds.
        num_clips: As in the table.
        pretrain_set: Changes to every pretraining recipe.
        finetune_set: Changes to every finetuning recipe.
    """

    seeds: int = Field(2, ge=1, le=MAX_SEEDS)
    num_clips: int = Field(24, ge=1)
    pretrain_set: tuple[str, ...] = ()
    finetune_set: tuple[str, ...] = ()


class WorseConfig(Section):
    """A guidance made of the true areas: moved and smaller.

    Attributes:
        name: What the store calls it.
        shift: How far, in extents (roots of a clip's mean area).
        shrink: Share of their cells that they lose, those farthest from the centre.
    """

    name: str = Field(pattern="^[a-z0-9_]+$")
    shift: float = Field(0.0, ge=0)
    shrink: float = Field(0.0, ge=0, lt=1)


class TableConfig(Section):
    """A recipe of `mofo-train table1`.

    Attributes:
        title: Heading.
        dataset: Data set of all rows.
        seeds: Seeds of every row: 0, 1, ...
        num_clips: Clips that are generated for data set `synthetic`; for `metaworld`, of each verb of each noun.
        camera_motion: Whether the camera of these clips moves.
        baseline: Row that the others are compared with.
        pretrain_set: Changes to the pretraining recipes of all rows.
        finetune_set: Changes to the finetuning recipes of all rows.
        rows_of: Recipe of another table whose rows these are; its settings and profile `smoke` count where this one has
            none of its own. None = own rows.
        without: Names of rows that are left out, of the settings too.
        folds: Folds of a cross-validation, which tests every clip once a seed; None = the splits of the data set.
        small_clips: Whether these clips are 84x64 pixels and 16 frames, for small models.
        controls: Guidances of the generated set that rows may name beside `motion`: `annotated` (the true areas),
            `random` (true areas at a random place) and `other` (those of another clip).
        worse: More of them: true areas made worse.
        scale: How large hand and things of the generated set are drawn.
        settings: What every row is tried with.
        smoke: The profile `smoke`.
        rows: The rows.
    """

    stage: Literal["table"]
    title: str
    dataset: str
    seeds: int = Field(3, ge=1, le=MAX_SEEDS)
    num_clips: int = Field(200, ge=1)
    camera_motion: bool = True
    small_clips: bool = False
    pretrain_set: tuple[str, ...] = ()
    finetune_set: tuple[str, ...] = ()
    rows_of: str | None = None
    without: tuple[str, ...] = ()
    folds: int | None = Field(None, ge=2)
    controls: tuple[Literal["annotated", "random", "other"], ...] = ()
    worse: tuple[WorseConfig, ...] = ()
    scale: float = 1.0
    baseline: str
    settings: tuple[SettingConfig, ...] = Field((SettingConfig(name="", title=""),), min_length=1)
    smoke: ProfileConfig | None = None
    rows: tuple[RowConfig, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _take_rows(cls, values: Any) -> Any:
        """Take the rows of another table, and what else is not said; a row that is left out has to be there."""
        if not isinstance(values, dict):
            return values
        name, without = values.get("rows_of"), values.get("without", ())
        if name and values.get("rows"):  # taken before
            return values
        other = read_recipe(name) if name else values
        taken = {key: other[key] for key in ("settings", "smoke") if key in other}
        merged, rows = {**taken, **values}, other.get("rows", ())
        if not without:
            return {**merged, "rows": rows}
        unknown = set(without) - {row["name"] for row in rows}
        if unknown:
            raise ValueError(f"without must name rows of {name or 'the table'}, got {min(unknown)!r}")
        if "settings" in merged:
            merged["settings"] = [
                {**own, "rows": [row for row in own["rows"] if row not in without]} if "rows" in own else own
                for own in merged["settings"]
            ]
        return {**merged, "rows": [row for row in rows if row["name"] not in without]}

    @model_validator(mode="after")
    def _rows_fit(self) -> TableConfig:
        names = [row.name for row in self.rows]
        if len(set(names)) != len(names) or self.baseline not in names:
            raise ValueError(f"rows must have different names, baseline {self.baseline!r} among them, got {names!r}")
        for setting in self.settings:
            if setting.rows is not None and (unknown := set(setting.rows) - set(names)):
                raise ValueError(f"settings.rows must name rows, got {min(unknown)!r} in {setting.name!r}")
            if not setting.has(next(row for row in self.rows if row.name == self.baseline)):
                raise ValueError(f"settings.rows must hold baseline {self.baseline!r}, got none in {setting.name!r}")
        return self

    def at(self, profile: str) -> TableConfig:
        """Return the table at profile `full` or `smoke`."""
        if profile == "full":
            return self
        if self.smoke is None:
            raise DataError(f"profile must be full for dataset {self.dataset}, got {profile!r}")
        small = self.smoke
        settings = tuple(
            setting.model_copy(update={"finetune_set": (*setting.finetune_set, *small.finetune_set)})
            for setting in self.settings
        )
        rows = tuple(
            row.model_copy(update={"pretrain_set": (*row.pretrain_set, *small.pretrain_set)}) for row in self.rows
        )
        title = f"{self.title} ({MEANINGLESS})"
        changes = {"title": title, "rows": rows, "settings": settings}
        return self.model_copy(update={**changes, "seeds": small.seeds, "num_clips": small.num_clips})
