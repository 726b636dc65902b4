from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch

from messages_support import messages
from mofo_train import cli
from mofo_train.config import PretrainConfig, load_recipe, recipe_names
from mofo_train.data.sources import open_clips
from mofo_train.errors import CheckpointError, ConfigError, DataError, ExitCode, Interrupted
from mofo_train.finetune_config import FinetuneConfig
from mofo_train.guidance.mask_kinds import MASKS
from mofo_train.models import FUSIONS
from mofo_train.runtime.ranks import Ranks
from mofo_train.table import plan
from mofo_train.table import run as table1
from mofo_train.table.generated import generated_stores
from mofo_train.table.layout import METRIC_NAMES, Table
from mofo_train.table.plan import StepSpeed, estimate_costs, make_plan
from mofo_train.table.recipe import SettingConfig, TableConfig
from mofo_train.table.run import Trainings, run_table
from mofo_train.table.stages import plan_stages

ONE = Ranks(0, 1, torch.device("cpu"))
PAPER_ROWS = ("scratch", "videomae", "mofo_masks", "mofo_mca", "mofo")
TABLES = [name for name in recipe_names() if name.endswith("_table1") or "_ablation_" in name]


@pytest.mark.parametrize(("head", "num_classes", "figures"), [("noun", 11, 2), ("verb", 10, 1), ("label", 174, 2)])
def test_figures_of_one_head_have_headings(head: str, num_classes: int, figures: int) -> None:
    report = {"heads": {head: {"top1": 0.25, "top5": 0.5}}}
    found = table1.headline(report, {head: num_classes})
    assert list(found.values()) == [25, 50][:figures]
    assert set(found) <= set(METRIC_NAMES)


@pytest.mark.parametrize("name", TABLES)
def test_recipes_plan_without_mistakes(name: str) -> None:
    table = load_recipe(TableConfig, name)
    stages = plan_stages(table)
    assert {stage.config.data.dataset for stage in stages} == {table.dataset}
    assert len({stage.key for stage in stages}) == len(stages)
    shapes = {(s.config.model.name, s.config.model.num_frames, s.config.model.image_px) for s in stages}
    assert len(shapes) == 1, "pretrained weights fit the classifier"
    if table.smoke is not None:
        assert plan_stages(table.at("smoke"))


@pytest.mark.parametrize("dataset", ["ssv2", "epic100"])
def test_published_recipes_are_the_published_numbers(dataset: str) -> None:
    mca, mean = (load_recipe(FinetuneConfig, f"{dataset}_finetune_vitb_{fusion}") for fusion in ("mca", "mean"))
    assert mca.model_copy(update={"model": mean.model}) == mean, "they differ in the fusion alone"
    assert (mca.model.fusion, mean.model.fusion) == ("mca", "mean")
    optim, augment = mca.optim, mca.augment
    assert (optim.base_lr, optim.layer_decay, optim.warmup_epochs, mca.model.drop_path) == (5e-4, 0.75, 5, 0.1)
    assert (augment.mixup_alpha, augment.cutmix_alpha, augment.label_smoothing) == (0.8, 1.0, 0.1)
    assert (augment.rand_ops, augment.rand_magnitude, augment.erase_probability) == (4, 7, 0.25)
    assert (augment.flip_probability, mca.test.segments, mca.test.crops) == (0, 2, 3)


@pytest.mark.parametrize(
    "base", ["ssv2_pretrain_vitb_mofo", "epic100_pretrain_vitb_mofo", "synthetic_pretrain_mini_mofo"]
)
def test_area_recipes_differ_in_their_guidance_alone(base: str) -> None:
    box, area = (load_recipe(PretrainConfig, name) for name in (base, f"{base}_area"))
    assert (box.guidance.kind, area.guidance.kind) == ("box", "area")
    assert area.model_copy(update={"guidance": box.guidance}) == box
    name = base.replace("pretrain", "finetune").replace("mofo", "mca")
    mca, guided = (load_recipe(FinetuneConfig, name) for name in (name, f"{name}_area"))
    assert guided.model_copy(update={"guidance": mca.guidance}) == mca
    assert guided.guidance == area.guidance, "the same tokens are inside in both stages"


def test_the_rows_of_masks_alone_differ_in_their_mask_alone() -> None:
    plain, flow, boxes = (
        load_recipe(PretrainConfig, f"synthetic_pretrain_mini_{name}") for name in ("videomae", "mgmae", "mofo")
    )
    assert [config.mask.kind for config in (plain, flow, boxes)] == ["tube", "flow_tube", "motion"]
    assert flow.model_copy(update={"mask": plain.mask}) == plain
    assert boxes.model_copy(update={"mask": plain.mask}) == plain


def test_rows_share_their_pretraining() -> None:
    stages = plan_stages(load_recipe(TableConfig, "synthetic_table1"))
    pretrained = [stage for stage in stages if stage.kind == "pretrain"]
    assert len(pretrained) == 7 * 3
    tuned = [stage for stage in stages if stage.kind == "finetune" and stage.seed == 1]
    sources = {stage.row: stage.source for stage in tuned if stage.setting == "all"}
    assert sources == {stage.row: stage.source for stage in tuned if stage.setting == "few"}
    assert all(stage.config.model.fusion == "mean" for stage in tuned if stage.setting == "probe")
    assert sources["scratch"] is None
    assert sources["videomae"] is sources["mofo_mca"] is not sources["mofo"]
    assert sources["mofo"] is sources["mofo_masks"]
    assert all(stage.config.seed == stage.seed for stage in stages)


def test_the_long_table_is_the_table_with_another_pretraining() -> None:
    """Rows, settings and finetunings are the table's; pretrainings see more, for longer, and differ in masks alone."""
    table, whole = (load_recipe(TableConfig, name) for name in ("synthetic_table1", "synthetic_long"))
    seeds = f"seeds={table.seeds}"  # it has more seeds, and one more setting
    settings = tuple(setting for setting in whole.settings if setting.name != "few_long")
    long = load_recipe(TableConfig, "synthetic_long", [seeds]).model_copy(update={"settings": settings})
    assert (long.settings, long.smoke) == (table.settings, table.smoke)
    assert whole.seeds > table.seeds
    pairs = list(zip(plan_stages(table), plan_stages(long), strict=True))
    for short_stage, stage in pairs:
        if stage.kind == "finetune":
            assert (stage.key, stage.config) == (short_stage.key, short_stage.config)
        else:
            assert isinstance(stage.config, PretrainConfig)
            assert (stage.config.optim.epochs, stage.config.target, stage.config.model.freeze_patch_embed) == (
                60,
                "normalised",
                False,
            )
            assert (stage.config.mask.mask_ratio, stage.config.mask.inside_ratio) == (0.6, 0.4)
    own = [stage.config for _, stage in pairs if stage.kind == "pretrain" and stage.seed == 0]
    alike = {"mask": own[0].mask, "guidance": own[0].guidance}
    assert all(config.model_copy(update=alike) == own[0] for config in own)


@pytest.mark.parametrize("command", ["table1", "study"])
def test_a_helper_says_what_makes_the_data_that_are_not_there(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--stages-only", "--profile", "smoke", "--out", str(tmp_path / "new")])
    assert ended.value.code == ExitCode.USAGE
    assert "start the same command without --stages-only first, which makes the data" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_few_labels_are_also_finetuned_with_as_many_steps_as_all() -> None:
    stages = plan_stages(load_recipe(TableConfig, "synthetic_long", ["seeds=1"]))
    crops = {
        stage.setting: (stage.config.data.num_labelled or 2400) * stage.config.optim.epochs
        for stage in stages
        if isinstance(stage.config, FinetuneConfig)
    }
    assert crops == {"all": 24_000, "few": 4_800, "few_long": 24_000, "probe": crops["probe"]}


def test_presets_have_their_own_stores_and_pretrainings(tmp_path: Path) -> None:
    table = load_recipe(TableConfig, "synthetic_ablation_boxes")
    assert set(generated_stores(table, tmp_path)) == {"paper", "release", "tuned"}
    stages = {stage.key: stage for stage in plan_stages(table) if stage.kind == "pretrain" and stage.seed == 0}
    assert len(stages) == 5
    assert sorted(stage.preset for stage in stages.values()) == ["paper"] * 3 + ["release", "tuned"]


def test_ablations_have_a_recipe_each() -> None:
    """Inside ratio 0 to 0.95, mask type, fusion, where boxes come from, and how far they are trusted."""

    def first_stages(name: str, kind: str) -> list[Any]:
        stages = plan_stages(load_recipe(TableConfig, f"synthetic_ablation_{name}"))
        return [stage.config for stage in stages if stage.seed == 0 and stage.kind == kind]

    ratios = [config.mask.inside_ratio for config in first_stages("inside_ratio", "pretrain")]
    assert ratios == [0, 0.25, 0.5, 0.75, 0.95]
    assert {config.mask.kind for config in first_stages("mask", "pretrain")} == set(MASKS)
    assert {config.model.fusion for config in first_stages("fusion", "finetune")} == set(FUSIONS)
    uses = {config.data.boxes for config in first_stages("boxes", "pretrain")}
    assert uses == {"stored", "full_frame", "random"}
    for kind in ("pretrain", "finetune"):
        trust = [(c.data.boxes, c.data.min_confidence) for c in first_stages("confidence", kind)]
        assert trust == [("stored", 0), ("stored", 0.2), ("stored", 0.4), ("full_frame", 0)]
    assert first_stages("attention", "pretrain") == []
    guides = [(c.model.fusion, c.guidance.kind, c.guidance.source) for c in first_stages("attention", "finetune")]
    areas = [("mca", "area", source) for source in ("motion", "annotated", "random", "other")]
    assert guides[::2] == [("mean", "box", "motion"), ("mca", "box", "motion"), *areas]
    starts = [(c.model.freeze_patch_embed, c.target) for c in first_stages("start", "pretrain")]
    assert starts == [(True, "pixels"), (False, "pixels"), (False, "normalised")]
    assert [c.model.head_norm for c in first_stages("start", "finetune")] == [
        "batch",
        "layer",
        "batch",
        "batch",
        "batch",
    ]


class Fakes:
    """Stands in for the three trainings; writes down what ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.inits: dict[str, str] = {}
        self.stop_before: str | None = None

    def pretrain(self, *arguments: Any, **_: Any) -> Path:
        return self._run(arguments[2])

    def finetune(self, stage: Any, *arguments: Any) -> dict[str, Any]:
        _, training, test, results, folder = arguments[:5]
        assert set(training.clip_ids).isdisjoint(test.clip_ids)
        if stage.source is not None:
            self.inits[stage.key] = results[stage.source.key]["checkpoint"]
        path = self._run(folder)
        values = {"verb_top1": 10.0 * stage.seed, "noun_top1": 50.0, "action_top1": 5.0 + (stage.row == "mofo")}
        return {
            "checkpoint": str(path),
            "values": values,
            "num_test_clips": 2,
            "num_unreadable": 0,
            "num_without_box": 0,
        }

    def _run(self, folder: Path) -> Path:
        if self.stop_before is not None and folder.name.startswith(self.stop_before):
            raise Interrupted("stopped")
        folder.mkdir(parents=True, exist_ok=True)
        self.ran.append(folder.name)
        return folder / "checkpoints" / "step-000000001"


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


def run(table: TableConfig, store_path: Path, out: Path, fakes: Fakes) -> tuple[Table, list[str]]:
    trainings = Trainings(fakes.pretrain, fakes.finetune)
    with messages("mofo_train") as lines:
        return run_table(table, out, ONE, stores={"tuned": store_path}, data_root=None, trainings=trainings), lines


def small_table(*overrides: str) -> TableConfig:
    """Return Table 1 at its smallest: the paper's rows, every row finetuned one way."""
    table = load_recipe(TableConfig, "synthetic_table1", overrides)
    rows = tuple(row for row in table.rows if row.name in PAPER_ROWS)
    return table.model_copy(update={"rows": rows, "settings": (SettingConfig(name="", title=""),)}).at("smoke")


def test_a_stopped_table_goes_on_and_done_stages_are_skipped(fakes: Fakes, store_path: Path, tmp_path: Path) -> None:
    fakes.stop_before = "row-mofo-seed-0"
    with pytest.raises(Interrupted):
        run(small_table(), store_path, tmp_path, fakes)
    before = list(fakes.ran)
    assert len(before) == 6
    fakes.stop_before, fakes.ran = None, []
    result, lines = run(small_table(), store_path, tmp_path, fakes)
    assert len(fakes.ran) == 14 - 6
    assert not set(before) & set(fakes.ran)
    assert sum("done before" in line for line in lines) == 6
    assert all(re.match(r"\[\d+/14\] ", line) for line in lines), "several processes may share a terminal"
    assert fakes.inits["row-mofo-seed-0"] != fakes.inits["row-mofo_mca-seed-0"]
    again, _ = run(small_table(), store_path, tmp_path, fakes)
    assert again.panels == result.panels
    assert len(fakes.ran) == 8
    mofo = next(row for row in result.panels[0].rows if row.name == "mofo")
    assert mofo.values == {"verb_top1": [0.0, 10.0], "noun_top1": [50.0, 50.0], "action_top1": [6.0, 6.0]}
    assert "figures mean nothing" in result.markdown().splitlines()[0]
    assert result.cited == (), "published figures are not of this data set"


def test_a_stage_in_other_hands_is_left_alone_and_waited_for(
    fakes: Fakes, store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process holds one stage and, while this one waits, ends without a result."""
    held, waits = "row-scratch-seed-0", []
    with ExitStack() as other:
        other.enter_context(table1._lock(tmp_path / "locks" / held, ONE))

        def let_go(_: float) -> None:
            waits.append(list(fakes.ran))
            other.close()

        monkeypatch.setattr(table1.time, "sleep", let_go)
        result, _ = run(small_table(), store_path, tmp_path, fakes)
    assert len(waits) == 1
    assert len(waits[0]) == 13
    assert held not in waits[0]
    assert fakes.ran == [*waits[0], held]
    assert tuple(row.name for row in result.panels[0].rows) == PAPER_ROWS


@pytest.mark.slow
def test_two_processes_make_the_table_of_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mofo_train", "table1", "--profile", "smoke", "--set", "smoke.seeds=1"]
    tables = []
    for jobs in ("1", "2"):
        out = tmp_path / jobs
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*command, "--jobs", jobs, "--out", str(out)], env=environment, check=True)
        tables.append((out / "table1.csv").read_text(encoding="utf-8"))
    assert tables[0] == tables[1]


def test_results_of_other_recipes_are_not_overwritten(fakes: Fakes, store_path: Path, tmp_path: Path) -> None:
    run(small_table(), store_path, tmp_path, fakes)
    kept = (tmp_path / "row-mofo-seed-0" / "result.json").read_bytes()
    change = 'smoke.finetune_set=["optim.epochs=7", "optim.batch_size=8"]'
    with pytest.raises(CheckpointError, match="must hold the result of the same recipe and store"):
        run(small_table(change), store_path, tmp_path, fakes)
    assert (tmp_path / "row-mofo-seed-0" / "result.json").read_bytes() == kept


def test_a_changed_pretraining_changes_what_builds_on_it() -> None:
    def prints(table: TableConfig) -> dict[str, str]:
        return {stage.row: stage.fingerprint("data") for stage in plan_stages(table) if stage.row and stage.seed == 0}

    one, other = prints(small_table()), prints(small_table('smoke.pretrain_set=["optim.epochs=2"]'))
    assert one["scratch"] == other["scratch"]
    assert one["mofo"] != other["mofo"]
    assert prints(small_table()) == one


def hundred_crops(*_: object) -> StepSpeed:
    """A device that does 100 crops a second."""
    return StepSpeed(100.0, 50.0, 200.0, 10**6)


def test_plan_says_what_is_missing(tmp_path: Path) -> None:
    table = load_recipe(TableConfig, "ssv2_table1")
    found = make_plan(
        table, tmp_path, ONE.device, stores={"paper": tmp_path / "none"}, data_root=None, measure=hundred_crops
    )
    text = "\n".join(found.lines())
    assert "missing: " in text
    assert "motionbox extract --dataset ssv2" in text
    pretraining = found.costs[0]
    assert pretraining.num_crops == 800 * 168_913
    assert pretraining.device_hours == pytest.approx(800 * 168_913 / 100 / 3600)
    assert pretraining.least_hours == pytest.approx(pretraining.device_hours / 2)
    assert pretraining.most_hours == pytest.approx(pretraining.device_hours * 2)
    assert pretraining.disk_gib == pytest.approx(4e6 * 7 / 2**30)
    assert "not counted: waiting for videos, testing, extraction and its store" in text


def test_plan_of_a_part_says_what_share_it_is_and_that_a_batch_cannot_be_filled(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plan._OFFICIAL_TRAIN_CLIPS, "synthetic", 168_913)
    table = load_recipe(TableConfig, "synthetic_table1")
    found = make_plan(table, tmp_path, ONE.device, stores={"tuned": store_path}, data_root=None, measure=hundred_crops)
    text = "\n".join(found.lines())
    assert "10 of 168,913 clips of the official training split are learned from" in text
    assert "missing: clips: a batch of row-scratch-all-seed-0 takes 16, there are 10" in text
    assert "set optim.batch_size" in text


def test_a_plan_counts_the_clips_of_each_stage_whatever_the_first_one_takes(store_path: Path, tmp_path: Path) -> None:
    few = ['finetune_set=["data.num_labelled=4", "optim.batch_size=4"]', 'pretrain_set=["optim.batch_size=8"]']
    table = load_recipe(TableConfig, "synthetic_table1", ["seeds=1", *few])
    found = make_plan(table, tmp_path, ONE.device, stores={"tuned": store_path}, data_root=None, measure=hundred_crops)
    assert found.missing == ""
    epochs = {stage.key: stage.config.optim.epochs for stage in plan_stages(table)}
    learned = {cost.key: cost.num_crops / epochs[cost.key] for cost in found.costs}
    assert learned["row-scratch-all-seed-0"] == 4
    assert {count for key, count in learned.items() if key.startswith("pretrain-")} == {10}


def test_a_recipe_given_by_its_path_makes_no_folders_of_it(tmp_path: Path) -> None:
    source = resources.files("mofo_train.recipes") / "synthetic_pretrain_mini_mofo.toml"
    (tmp_path / "mine.toml").write_text(source.read_text(encoding="utf-8"))
    row = {
        "name": "a",
        "title": "a",
        "pretrain": str(tmp_path / "mine.toml"),
        "finetune": "synthetic_finetune_mini_mca",
    }
    values = {"stage": "table", "title": "t", "dataset": "synthetic", "seeds": 1, "baseline": "a", "rows": [row]}
    keys = [stage.key for stage in plan_stages(TableConfig.model_validate(values))]
    assert keys[0].startswith("pretrain-mine-")
    assert not any("/" in key for key in keys)


def test_speed_is_measured_for_each_kind_of_stage() -> None:
    table = small_table()
    costs = estimate_costs(plan_stages(table), 10, ONE.device)
    assert all(cost.device_hours > 0 for cost in costs)
    assert len(costs) == 14


def test_misfits_are_named() -> None:
    with pytest.raises(ConfigError, match="baseline 'nobody'"):
        load_recipe(TableConfig, "synthetic_table1", ["baseline=nobody"])
    table = load_recipe(TableConfig, "ssv2_table1")
    with pytest.raises(DataError, match="profile must be full for dataset ssv2"):
        table.model_copy(update={"smoke": None}).at("smoke")
    pilot = plan_stages(table.at("smoke"))
    assert {stage.config.data.max_clips for stage in pilot} == {16}
    assert {stage.config.model.name for stage in pilot} == {"videomae_base"}


def test_few_labels_leave_the_test_split_whole(store_path: Path) -> None:
    recipe = "synthetic_finetune_mini_mean"
    data = load_recipe(FinetuneConfig, recipe, ["data.num_labelled=4"]).data
    root = store_path.parent / "synthetic"
    assert len(open_clips(data, store_path, root)) == 4
    every = load_recipe(FinetuneConfig, recipe).data
    assert len(open_clips(data, store_path, root, test_split="validation")) == len(
        open_clips(every, store_path, root, test_split="validation")
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "few", "title": "few", "rows": ["videomae", "nobody"]}, "'nobody' in 'few'"),
        ({"name": "few", "title": "few", "rows": ["mofo"]}, "must hold baseline 'videomae'"),
    ],
)
def test_settings_name_rows_and_hold_the_baseline(change: dict[str, Any], message: str) -> None:
    table = load_recipe(TableConfig, "synthetic_table1").model_dump()
    with pytest.raises(ValueError, match=message):
        TableConfig.model_validate({**table, "settings": [change]})
