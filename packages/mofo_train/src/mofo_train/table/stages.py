"""The stages of a table: every pretraining and finetuning, and what its result depends on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mofo_train.config import PretrainConfig, config_digest, load_recipe
from mofo_train.finetune_config import FinetuneConfig
from mofo_train.table.recipe import TableConfig


@dataclass(frozen=True)
class Stage:
    """One piece of work of one seed.

    Attributes:
        kind: `pretrain`, `finetune` (which tests what it trained).
        key: Folder below the table's.
        row: Row that it is of; empty for pretraining, which rows share.
        setting: Setting that it is of; empty for pretraining.
        seed: Seed.
        config: Its recipe.
        preset: Preset of its motion boxes.
        source: The pretraining that it starts from.
    """

    kind: Literal["pretrain", "finetune"]
    key: str
    row: str
    seed: int
    config: PretrainConfig | FinetuneConfig
    preset: str
    source: Stage | None = None
    setting: str = ""

    def fingerprint(self, data: str) -> str:
        """Return the SHA-256 of all that the result depends on; `data` names the store's content."""
        parts = [self.kind, config_digest(self.config), data]
        parts.append("" if self.source is None else self.source.fingerprint(data))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def fold_tables(table: TableConfig) -> list[tuple[str, TableConfig]]:
    """Return a table for each of its folds, which trains and tests on that fold's clips, with the folder's name.

    Without folds, the table itself and an empty name.
    """
    if table.folds is None:
        return [("", table)]
    parts = []
    for fold in range(table.folds):
        own = (f"data.folds.number={table.folds}", f"data.folds.held_out={fold}")
        sets = {"pretrain_set": (*table.pretrain_set, *own), "finetune_set": (*table.finetune_set, *own)}
        parts.append((f"fold-{fold}", table.model_copy(update=sets)))
    return parts


def all_stages(table: TableConfig) -> list[Stage]:
    """List the stages of a table, of all its folds, by their folders below the table's."""
    return [
        replace(stage, key=f"{name}/{stage.key}" if name else stage.key)
        for name, part in fold_tables(table)
        for stage in plan_stages(part)
    ]


def plan_stages(table: TableConfig) -> list[Stage]:
    """List the stages of a table in order: every seed's pretrainings once, then its rows."""
    stages = []
    for seed in range(table.seeds):
        shared: dict[str, Stage] = {}
        for row in table.rows:
            source = None
            if row.pretrain is not None:
                config = load_recipe(
                    PretrainConfig, row.pretrain, (*table.pretrain_set, *row.pretrain_set, f"seed={seed}")
                )
                key = f"pretrain-{Path(row.pretrain).stem}-{config_digest(config)[:8]}-{row.preset}"
                if key not in shared:
                    shared[key] = Stage("pretrain", key, "", seed, config, row.preset)
                    stages.append(shared[key])
                source = shared[key]
            for setting in table.settings:
                if not setting.has(row):
                    continue
                changes = (*table.finetune_set, *row.finetune_set, *setting.finetune_set, f"seed={seed}")
                tuned = load_recipe(FinetuneConfig, row.finetune, changes)
                key = "-".join(("row", row.name, *filter(None, [setting.name]), "seed", str(seed)))
                stages.append(Stage("finetune", key, row.name, seed, tuned, row.preset, source, setting.name))
    return stages
