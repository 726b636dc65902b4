from __future__ import annotations

import json
from pathlib import Path

import pytest

from mofo_train.config import PretrainConfig
from mofo_train.errors import CheckpointError
from mofo_train.runtime.run_folder import claim_folder

CONFIG = PretrainConfig.model_validate({"stage": "pretrain", "data": {"dataset": "synthetic"}})
OTHER = CONFIG.model_copy(update={"seed": 1})


def test_a_run_that_took_a_step_keeps_its_folder(tmp_path: Path) -> None:
    claim_folder(tmp_path, CONFIG, write=True, data="boxes")
    (tmp_path / "checkpoints").mkdir()
    kept = (tmp_path / "recipe.json").read_bytes()
    claim_folder(tmp_path, CONFIG, write=True, data="boxes")
    with pytest.raises(CheckpointError, match=r"out must hold a run of the same recipe, got .* with another's"):
        claim_folder(tmp_path, OTHER, write=True, data="boxes")
    with pytest.raises(CheckpointError, match=r"out must hold a run on the same store and clips, got .* on others"):
        claim_folder(tmp_path, CONFIG, write=True, data="other boxes")
    assert (tmp_path / "recipe.json").read_bytes() == kept


def test_a_run_that_never_began_does_not_bar_its_folder(tmp_path: Path) -> None:
    claim_folder(tmp_path / "out", CONFIG, write=True, data="boxes")
    claim_folder(tmp_path / "out", OTHER, write=False, data="boxes")
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["config"]["seed"] == 0, "others do not write"
    claim_folder(tmp_path / "out", OTHER, write=True, data="other boxes")
    claim = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert (claim["config"]["seed"], claim["data"]) == (1, "other boxes")


@pytest.mark.parametrize("content", ['{"digest": ', None])
def test_a_folder_that_does_not_say_whose_it_is_stays_as_it_is(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "recipe.json").write_text(content)
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(CheckpointError, match=r"recipe\.json must say what run its folder is of"):
        claim_folder(tmp_path, CONFIG, write=True, data="boxes")


def test_how_a_run_is_carried_out_may_change(tmp_path: Path) -> None:
    claim_folder(tmp_path, CONFIG, write=True, data="boxes")
    (tmp_path / "checkpoints").mkdir()
    data = CONFIG.data.model_copy(update={"num_workers": 1, "max_bad_share": 0.5})
    run = CONFIG.run.model_copy(update={"log_every_steps": 1})
    claim_folder(tmp_path, CONFIG.model_copy(update={"data": data, "run": run}), write=True, data="boxes")
    claim = json.loads((tmp_path / "recipe.json").read_text())
    assert (claim["config"]["data"]["num_workers"], claim["data"]) == (1, "boxes")
    fp32 = CONFIG.run.model_copy(update={"precision": "fp32"})
    with pytest.raises(CheckpointError, match="out must hold a run of the same recipe"):
        claim_folder(tmp_path, CONFIG.model_copy(update={"run": fp32}), write=True, data="boxes")
