"""The study: its recipe becomes tables of all points, its results curves of known gains."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mofo_train.config import load_recipe
from mofo_train.errors import ConfigError, DataError
from mofo_train.runtime.ranks import Ranks
from mofo_train.study import run as study_run
from mofo_train.study.curves import Curve, Point, Study
from mofo_train.study.recipe import StudyConfig
from mofo_train.study.run import folder_of, measure_areas, run_study
from mofo_train.table.generated import generate_data
from mofo_train.table.layout import MeasuredRow
from mofo_train.table.recipe import TableConfig
from mofo_train.table.run import Trainings
from mofo_train.table.stages import plan_stages
from motionbox.cli import main

ONE = Ranks(0, 1, torch.device("cpu"))


def study(*overrides: str) -> StudyConfig:
    return load_recipe(StudyConfig, "synthetic_study", overrides)


def test_every_point_is_a_row_and_unchanged_ones_are_those_of_the_table() -> None:
    tables = study().tables("full")
    assert sorted(tables) == [0.5, 1.0, 1.5, 2.2, 3.0]
    usual = load_recipe(TableConfig, "synthetic_table1")
    shared = {stage.key for stage in plan_stages(usual)}
    for scale, table in tables.items():
        stages = plan_stages(table)
        assert len({stage.key for stage in stages}) == len(stages)
        assert table.rows[0].name == table.baseline == "videomae"
        rows = {row.name for row in table.rows}
        if scale != 1:
            assert rows == {"videomae", "area", "true_areas"}
            continue
        plain = [row.name for row in table.rows if row in usual.rows]
        assert sorted(plain) == ["area", "true_areas", "videomae"]
        own = {stage.key for stage in stages if stage.row in plain}
        assert own <= shared, "a table in the same folder has them trained"
        ratios = {s.row: s.source.config.mask.inside_ratio for s in stages if s.source and s.seed == 0}  # type: ignore[union-attr]
        assert sorted({ratio for row, ratio in ratios.items() if row.startswith("true_areas")}) == [
            0,
            0.25,
            0.5,
            0.75,
            0.95,
        ]
        worse = {one.name: (one.shift, one.shrink) for one in table.worse}
        assert sorted(worse.values()) == [(0.25, 0.125), (0.5, 0.25), (1.0, 0.5)]
        for stage in stages:
            if stage.row.startswith("true_areas_shift"):
                assert stage.source is not None
                assert (
                    stage.config.guidance.source
                    == stage.source.config.guidance.source
                    == stage.row[len("true_areas_") :]
                )


def test_the_data_of_a_scale_are_its_own_and_the_usual_ones_those_of_the_table(tmp_path: Path) -> None:
    commands: list[list[str]] = []

    def run(command: list[str]) -> int:
        commands.append(command[3:])
        return 0

    tables = study().tables("smoke")
    for scale in (1.0, 2.2):
        generate_data(tables[scale], folder_of(tmp_path, scale), run=run)
    told = [" ".join(command) for command in commands]
    assert [line for line in told if "synth " in line] == [
        f"motionbox synth -o {tmp_path}/data --num-clips 36 --small",
        f"motionbox synth -o {tmp_path}/scale-2.2/data --num-clips 36 --small --scale 2.2",
    ]
    degraded = [line for line in told if "--shift" in line]
    assert degraded[1].endswith("--name shift_50_shrink_25 --like annotated --shift 0.5 --shrink 0.25")
    assert len(degraded) == 3
    commands.clear()
    generate_data(load_recipe(TableConfig, "synthetic_table1").at("smoke"), tmp_path, run=run)
    assert commands == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("setting=al", "setting must be one of synthetic_table1, got 'al'"),
        (
            'curves=[{title="a", rows=["scratch"], points=[{at=0}, {at=1}]}]',
            "must name pretrained rows .* got 'scratch'",
        ),
        ('curves=[{title="a", rows=["area"], points=[{at=0}]}]', "points: "),
        ("table=metaworld_table1", "table must be one of data set synthetic, got 'metaworld_table1' of metaworld"),
        ("table=synthetic_tabl1", "did you mean 'synthetic_table1'"),
    ],
)
def test_wrong_recipes_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study(override)


def test_points_that_would_share_a_name_are_refused() -> None:
    points = 'points=[{at=1, pretrain_set=["mask.inside_ratio=0.25"]}, {at=2, pretrain_set=["mask.inside_ratio=0_25"]}]'
    with pytest.raises(DataError, match="got 'area_inside_ratio_0_25' for two of them"):
        study(f'curves=[{{title="a", rows=["area"], {points}}}]').tables("full")
    nearly = "points=[{at=1, shift=0.25}, {at=2, shift=0.252}]"
    with pytest.raises(DataError, match="got 'area_shift_25_shrink_0' for two of them"):
        study(f'curves=[{{title="a", rows=["area"], {nearly}}}]').tables("full")


def test_gains_are_those_of_the_rows(store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row's verbs stand a known number of points above the baseline, whose own depend on the scale alone."""
    store = tmp_path / "store"
    shutil.copytree(store_path, store)
    for name in ("annotated", *(one.name for one in study().tables("smoke")[1.0].worse)):
        with pytest.raises(SystemExit, match="0"):
            main(["import-boxes", str(store), "--name", name, "--like", "motion", "--shift", "0"])
    monkeypatch.setattr(study_run, "generated_stores", lambda *_: {"tuned": store})
    monkeypatch.setattr(study_run, "measure_areas", lambda *_: study_run.Areas(0.2, 0.5))
    gains = {"videomae": 0.0, "area": 3.0, "true_areas": 7.0}

    def pretrain(*arguments: Any) -> Path:
        folder = Path(arguments[2])
        folder.mkdir(parents=True)
        return folder / "checkpoint"

    def finetune(stage: Any, *arguments: Any) -> dict[str, Any]:
        arguments[4].mkdir(parents=True)
        gain = gains.get(stage.row, -4.0) * (3 if "scale-3" in str(arguments[4]) else 1)
        values = {"verb_top1": 20.0 + stage.seed + gain, "noun_top1": 50.0, "action_top1": 5.0}
        tested = {"num_test_clips": 2, "num_unreadable": 0, "num_without_box": 0}
        return {"checkpoint": "", "values": values, **tested}

    for scale in study().tables("smoke"):
        (folder_of(tmp_path, scale) / "data").mkdir(parents=True)
    result = run_study(study(), "smoke", tmp_path, ONE, trainings=Trainings(pretrain, finetune))
    inside, quality, by_scale = result.curves
    found = {title: [point.gain("verb_top1").mean for point in points] for title, points in by_scale.rows.items()}
    assert found == {
        "MOFO by areas, both": [3, 3, 3, 3, 9],
        "control: true areas, both": [7, 7, 7, 7, 21],
    }
    assert [[p.gain("verb_top1").mean for p in own] for own in inside.rows.values()] == [[-4, -4, -4, 7, -4]]
    assert [[p.gain("verb_top1").mean for p in own] for own in quality.rows.values()] == [[7, -4, -4, -4]]
    assert result.baseline == "VideoMAE (tube masks, mean)"
    assert "figures mean nothing" in result.markdown().splitlines()[0]


def test_curves_are_written_with_their_bands(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = MeasuredRow("base", "base", {"verb_top1": [50.0, 50.0]}, {"verb_top1": rng.random((2, 400)) < 0.5})
    better = {"verb_top1": base.right["verb_top1"] | (rng.random((2, 400)) < 0.4)}
    row = MeasuredRow("row", "row", {"verb_top1": [70.0, 70.0]}, better)
    points = (Point(1.0, 0.2, 0.9, base, row), Point(2.0, 0.1, 0.4, base, base))
    done = Study("Title", "base", ("verb_top1",), (Curve("what", "share", {"row": points}),), ("note",))
    paths = done.write(tmp_path)
    assert [path.name for path in paths] == ["study.md", "study.csv", "study.png"]
    with paths[1].open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    expected = 100 * (better["verb_top1"].mean() - base.right["verb_top1"].mean())
    assert float(lines[0]["gain_points"]) == pytest.approx(expected, abs=1e-4)
    assert 0 < float(lines[0]["low"]) < expected < float(lines[0]["high"])
    assert [float(lines[1][key]) for key in ("gain_points", "low", "high")] == [0, 0, 0]
    text = paths[0].read_text(encoding="utf-8")
    assert f"| 1 | row | 20% | 0.90 | {points[0].gain('verb_top1').text()} |" in text
    assert "| 2 | row | 10% | 0.40 | +0.0 ± 0.0 |" in text
    assert done.curves[0].label == "share of the picture that true areas cover"


class TwoClips:
    """A store of two clips whose areas are known."""

    def __init__(self) -> None:
        true = np.zeros((3, 4, 5), np.uint8)
        true[1:, :2, :2] = 200
        own = np.zeros((3, 4, 5), np.uint8)
        own[1:, :2, 1:3] = 90
        self.areas = {"annotated": true, "own": own}

    def clips(self) -> dict[str, Any]:
        class Column:
            def to_pylist(self) -> list[str]:
                return ["a", "b"]

        return {"clip_id": Column()}

    def motion_areas(self, _: str, *, source: str) -> np.ndarray:
        return self.areas[source]


def test_areas_are_measured_against_the_true_ones() -> None:
    store: Any = TwoClips()
    assert measure_areas(store, "own") == (4 / 20, pytest.approx(2 / 6))
    assert measure_areas(store, "annotated") == (4 / 20, 1.0)
