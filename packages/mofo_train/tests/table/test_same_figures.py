"""A table that was killed in the middle of a stage ends with the figures of one that was not, to the digit.

What came after is another process's work in another folder: so two runs have the same figures, too.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from messages_support import messages
from mofo_train.config import load_recipe
from mofo_train.evaluation.predictions import Predictions, read_predictions
from mofo_train.runtime.ranks import Ranks
from mofo_train.table.layout import Table
from mofo_train.table.recipe import TableConfig
from mofo_train.table.run import run_folds

RECIPE = """
stage = "table"
title = "tiny"
dataset = "synthetic"
seeds = 1
folds = 2
baseline = "area"
pretrain_set = [
    "model.name=videomae_tiny", "model.num_frames=4", "model.image_px=32", "data.short_side_px=48",
    "data.num_workers=0", "optim.batch_size=2", "optim.epochs=2", "optim.warmup_epochs=0", "mask.mask_ratio=0.75",
    "run.precision=fp32", "run.log_every_steps=1", "run.checkpoint_every_steps=3", "run.picture_every_epochs=0",
]
finetune_set = [
    "model.name=videomae_tiny", "model.num_frames=4", "model.image_px=32", "data.short_side_px=48",
    "data.num_workers=0", "optim.batch_size=2", "optim.epochs=2", "optim.warmup_epochs=0", "selection.share=0",
    "run.precision=fp32", "run.log_every_steps=1", "run.checkpoint_every_steps=3",
]

[[rows]]
name = "area"
title = "areas"
pretrain = "synthetic_pretrain_mini_mofo_area"
finetune = "synthetic_finetune_mini_mca_area"
preset = "tuned"
"""

# Runs the table until a line is said whose end is given, and dies of it.
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from messages_support import messages
from test_same_figures import run

def die(line):
    if line.startswith({line!r}):
        os.kill(os.getpid(), signal.SIGKILL)

with messages("mofo_train", die):
    run(Path({recipe!r}), Path({store!r}), Path({out!r}))
"""


def run(recipe: Path, store: Path, out: Path) -> Table:
    torch.set_num_threads(1)
    table = load_recipe(TableConfig, recipe)
    return run_folds(table, out, Ranks(0, 1, torch.device("cpu")), stores={"tuned": store}, data_root=None)


def predictions(out: Path) -> dict[str, Predictions]:
    """Return what every row's stages predicted, by their folders below a table's."""
    return {str(path.relative_to(out)): read_predictions(path) for path in sorted(out.glob("*/*/predictions.parquet"))}


def logits(out: Path) -> dict[str, np.ndarray]:
    return {f"{key} {head}": values for key, own in predictions(out).items() for head, values in own.logits.items()}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def whole(recipe: Path, store_path: Path) -> tuple[Path, Table]:
    """The folder of a table that nobody stopped, and the table."""
    return recipe.parent / "whole", run(recipe, store_path, recipe.parent / "whole")


@pytest.mark.parametrize("stage", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_table_killed_in_the_middle_of_a_stage_goes_on(
    stage: int, whole: tuple[Path, Table], recipe: Path, store_path: Path
) -> None:
    """The fifth step of the first fold's pretraining, or finetuning, is said, and the process is no more."""
    out = recipe.parent / f"killed-{stage}"
    path = [str(Path(__file__).parent), *sys.path]
    script = KILLED.format(
        path=path, line=f"[{stage}/2] step 5/", recipe=str(recipe), store=str(store_path), out=str(out)
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list(out.glob("*/*/result.json"))) == stage - 1
    with messages("mofo_train") as lines:
        found = run(recipe, store_path, out)
    assert sum("done before" in line for line in lines) == stage - 1
    assert any(line.startswith(f"[{stage}/2] ") and "step-000000003" in line for line in lines), "from its checkpoint"
    assert found.panels == whole[1].panels
    expected = logits(whole[0])
    assert len(expected) == 4, "verbs and nouns of both folds"
    assert all(values.std() > 0 for values in expected.values())
    for key, values in logits(out).items():
        np.testing.assert_array_equal(values, expected.pop(key), err_msg=key)
    assert not expected


def test_chance_and_the_clips_of_both_folds_are_said(whole: tuple[Path, Table]) -> None:
    (panel,) = whole[1].panels
    own = list(predictions(whole[0]).values())
    labels = {head: np.concatenate([one.labels[head] for one in own]) for head in ("verb", "noun")}
    for head, values in labels.items():
        assert panel.chance(f"{head}_top1") == pytest.approx(100 * np.bincount(values).max() / 12)
    pairs = list(zip(labels["verb"].tolist(), labels["noun"].tolist(), strict=True))
    assert panel.chance("action_top1") == pytest.approx(100 * max(map(pairs.count, pairs)) / 12)
    assert whole[1].notes[1].startswith("12 clips of ")
    assert whole[1].notes[-1].startswith("fold 1: seeds 0; 6 test clips")
