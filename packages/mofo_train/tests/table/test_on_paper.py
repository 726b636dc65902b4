"""Plans of machines that are not here: their arithmetic, and the page that shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mofo_train import cli
from mofo_train.config import load_recipe
from mofo_train.errors import DataError
from mofo_train.table.on_paper import PaperPlan, plan_on_paper
from mofo_train.table.rates import DATA_SETS, MACHINES
from mofo_train.table.recipe import TableConfig

PAGE = Path(__file__).resolve().parents[4] / "docs" / "how-fast.md"


def plan(dataset: str, machine: str, **options: int) -> PaperPlan:
    return plan_on_paper(load_recipe(TableConfig, f"{dataset}_table1"), machine, **options)


def test_pretraining_takes_its_crops_at_the_measured_rate() -> None:
    found = plan("ssv2", "h100")
    names = [cost.name.split("-")[0] for cost in found.costs]
    assert names.count("pretrain") == 3, "rows share them"
    assert names.count("row") == 7
    hours = 800 * 168_913 / MACHINES["h100"].crops_per_second / 3600
    assert found.costs[1].device_hours == pytest.approx(hours, rel=1e-6)
    half = plan("ssv2", "h100", num_train_clips=DATA_SETS["ssv2"].train_clips // 2)
    assert half.costs[1].device_hours == pytest.approx(hours / 2, rel=1e-4)


def test_a_row_takes_the_operations_of_the_whole_encoder() -> None:
    """1,568 tokens through 12 blocks of 768 values, three times, against 200 GFLOP of a pretraining crop."""
    found = plan("ssv2", "h100").costs[2]
    tokens, dim = 1568, 768
    forward = 12 * (24 * dim * dim * tokens + 4 * tokens * tokens * dim) + 2 * tokens * 1536 * dim
    operations = forward * (3 * 40 * 2 * 168_913 + 6 * 24_777)
    pretraining = plan("ssv2", "h100").costs[1]
    per_crop = operations / (found.device_hours / pretraining.device_hours) / (800 * 168_913)
    assert per_crop == pytest.approx(200e9, rel=0.02)


def test_extraction_counts_pixels_and_store() -> None:
    cost = plan("epic100", "cpu").costs[0]
    assert cost.device_hours == pytest.approx(19_813_555 * 38.4e-3 / 3600)
    assert cost.disk_gib == pytest.approx(19_813_555 * (150 + 228e3 / 59.94) / 2**30)


@pytest.mark.parametrize("dataset", ["ssv2", "epic100"])
@pytest.mark.parametrize("machine", MACHINES)
def test_the_page_shows_what_the_command_prints(dataset: str, machine: str) -> None:
    assert plan(dataset, machine).row() in PAGE.read_text(encoding="utf-8")


def test_the_command_needs_no_data_and_says_where_its_rates_are_from(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["table1", "--dataset", "epic100", "--plan", "--assume", "h100"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "nothing is measured now" in text
    assert all(where in text for where in MACHINES["h100"].where)


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--dataset", "ssv2"], "must come with --plan"), (["--plan"], "known size")]
)
def test_what_cannot_be_assumed_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["table1", *arguments, "--assume", "cpu"])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_table_of_generated_data_has_no_official_size() -> None:
    with pytest.raises(DataError, match="known size"):
        plan("synthetic", "cpu")
