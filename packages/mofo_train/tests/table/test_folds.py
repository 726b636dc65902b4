from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from mofo_train.config import FoldsConfig, load_recipe
from mofo_train.data.splits import classes_left_out, splits_of
from mofo_train.errors import CheckpointError, ConfigError, DataError, Interrupted
from mofo_train.table.generated import data_of, describe_folder, generate_data, with_labels
from mofo_train.table.layout import MeasuredRow, Panel, Table
from mofo_train.table.plan import StepSpeed, make_plan
from mofo_train.table.recipe import TableConfig
from mofo_train.table.run import join_folds
from mofo_train.table.stages import all_stages, fold_tables, plan_stages
from motionbox.synthetic.metaworld.plan import NUM_FRAMES, MetaWorldConfig, plan_metaworld
from motionbox.synthetic.metaworld.scenes import NOUNS, VERBS


def folder_table(*overrides: str) -> TableConfig:
    return load_recipe(TableConfig, "folder_table1", overrides)


def test_every_fold_has_all_stages_and_trains_apart_from_its_own_clips() -> None:
    table = folder_table("folds=3")
    stages = all_stages(table)
    assert len({stage.key for stage in stages}) == len(stages) == 3 * len(plan_stages(table))
    for stage in stages:
        folds = stage.config.data.folds
        assert folds is not None
        assert (folds.number, f"fold-{folds.held_out}") == (3, stage.key.split("/")[0])
        assert stage.source is None or stage.source.config.data.folds == folds, "pretraining sees no more than the rest"
    prints = {stage.fingerprint("data") for stage in stages if stage.row == "area"}
    assert len(prints) == 3


META_WORLD = ("metaworld_table1", "metaworld_ablation_attention")


@pytest.mark.parametrize("name", META_WORLD)
@pytest.mark.parametrize("profile", ["full", "smoke"])
def test_tables_of_meta_world_have_clips_to_test_with(name: str, profile: str) -> None:
    """Every fifth run of a verb is for validation: two of each, as a pilot has, are none."""
    table = load_recipe(TableConfig, name).at(profile)
    splits = {clip.split for clip in plan_metaworld(MetaWorldConfig(table.num_clips))}
    assert table.folds or "validation" in splits
    assert ("validation" in splits) == (profile == "full")


@pytest.mark.parametrize("name", META_WORLD)
def test_folds_show_few_labels_of_meta_world_every_verb_of_every_noun(name: str) -> None:
    """Clips of two opposite verbs take turns in its list: every fourth one would be of one verb alone."""
    table = load_recipe(TableConfig, name)
    few = next(stage.config for stage in plan_stages(table) if stage.setting == "few")
    clips = plan_metaworld(MetaWorldConfig(table.num_clips))
    rows = {
        "clip_id": [clip.clip_id for clip in clips],
        "video_id": [clip.path for clip in clips],
        "verb": [clip.verb for clip in clips],
        "noun": [clip.noun for clip in clips],
        "verb_class": [VERBS.index(clip.verb) for clip in clips],
        "noun_class": [NOUNS.index(clip.noun) for clip in clips],
        "split": [clip.split for clip in clips],
        "status": ["ok"] * len(clips),
        "num_frames": [NUM_FRAMES] * len(clips),
    }
    whole = pa.table(rows)

    def left_out(folds: FoldsConfig | None) -> str:
        own = whole.filter([split == "train" for split in splits_of(whole, folds=folds)[0]])
        places = np.linspace(0, len(own) - 1, few.data.num_labelled).round().astype(np.int64)
        return classes_left_out(own.take(places), own)

    assert "show 24 of 48 classes, not close + drawer, close + door" in left_out(None), "by name, not as 0 + 0"
    assert table.folds == 3
    assert [left_out(FoldsConfig(number=3, held_out=fold)) for fold in range(3)] == [""] * 3


def test_without_folds_a_table_is_itself() -> None:
    table = load_recipe(TableConfig, "synthetic_table1")
    assert fold_tables(table) == [("", table)]
    assert all_stages(table) == plan_stages(table)


def test_the_rows_of_a_folder_are_pretrained_alike_but_for_their_masks() -> None:
    stages = {stage.row: stage for stage in plan_stages(folder_table()) if stage.row}
    assert stages["scratch"].source is None
    base = stages["videomae"].source
    assert base is stages["mofo_mca"].source is stages["area_mca"].source
    for row, kind, guided in (
        ("mgmae", "flow_tube", ("box", "motion")),
        ("mofo_masks", "motion", ("box", "motion")),
        ("area_masks", "motion", ("area", "motion")),
        ("random_areas", "motion", ("area", "random")),
        ("other_areas", "motion", ("area", "other")),
    ):
        source, tuned = stages[row].source, stages[row].config
        assert source is not None
        assert source.config.mask.kind == kind
        assert (source.config.guidance.kind, source.config.guidance.source) == guided
        changed = {"mask": base.config.mask, "guidance": base.config.guidance}
        assert source.config.model_copy(update=changed) == base.config
        if row.endswith("_areas"):
            assert tuned.model_copy(update={"guidance": stages["area"].config.guidance}) == stages["area"].config
        else:
            assert tuned == stages["videomae"].config, "the same finetuning"


def test_rows_of_another_table_can_be_taken_and_left_out(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'stage = "table"\ntitle = "t"\ndataset = "folder"\nbaseline = "videomae"\nrows_of = "folder_table1"\n'
        'without = ["mofo", "other_areas"]\n'
    )
    names = [row.name for row in folder_table().rows]
    taken = [row.name for row in load_recipe(TableConfig, recipe).rows]
    assert taken == [name for name in names if name not in ("mofo", "other_areas")]
    assert load_recipe(TableConfig, recipe).smoke == folder_table().smoke
    own = load_recipe(TableConfig, "metaworld_table1")
    assert [setting.title for setting in own.settings][1] == "finetuned, 192 labels", "its own count"
    with pytest.raises(ConfigError, match="without must name rows of folder_table1, got 'nosuch'"):
        load_recipe(TableConfig, recipe, ['without=["nosuch"]'])


@pytest.mark.parametrize("name", ["synthetic_table1", "synthetic_long"])
def test_rows_can_be_left_out_of_a_table_and_of_what_its_settings_name(name: str) -> None:
    whole, less = (load_recipe(TableConfig, name, given) for given in ([], ['without=["mgmae", "random_areas"]']))
    assert {row.name for row in whole.rows} - {row.name for row in less.rows} == {"mgmae", "random_areas"}
    named = [[None if own.rows is None else set(own.rows) for own in table.settings] for table in (whole, less)]
    assert all(rows is None for table in named for rows in table[:-1])
    assert named[0][-1] - named[1][-1] == {"mgmae"}
    with pytest.raises(ConfigError, match=r"without must name rows of .*, got 'nosuch'"):
        load_recipe(TableConfig, name, ['without=["nosuch"]'])
    with pytest.raises(ConfigError, match="baseline 'videomae' among them"):
        load_recipe(TableConfig, name, ['without=["videomae"]'])


def part(fold: int, right: dict[str, list[list[bool]]]) -> Table:
    rows = []
    for name, answers in right.items():
        own = np.array(answers)
        rows.append(MeasuredRow(name, name, {"label_top1": (100 * own.mean(1)).tolist()}, {"label_top1": own}))
    num_clips = len(next(iter(right.values()))[0])
    classes = {"label_top1": np.full(num_clips, fold)}
    notes = (f"{num_clips} clips", "the last weights", f"wall time of {fold}")
    return Table("t", ("label_top1",), (Panel("", tuple(rows), classes),), "videomae", (), notes)


def test_folds_are_joined_clip_by_clip() -> None:
    """Folds of unequal size: 2 of 3 and 0 of 1 clips are right, 50 % of four; not the mean of 67 and 0."""
    table = folder_table("folds=2", "seeds=2")
    first = part(0, {"videomae": [[True, True, False], [True, False, False]], "area": [[True] * 3, [True] * 3]})
    second = part(1, {"videomae": [[False], [True]], "area": [[False], [False]]})
    joined = join_folds(table, [first, second], ["4 clips of 2 classes"])
    base, area = joined.panels[0].rows
    assert base.values == {"label_top1": [50.0, 50.0]}
    assert area.values == {"label_top1": [75.0, 75.0]}
    found = area.difference(base, "label_top1")
    assert found.mean == pytest.approx(25)
    assert "each of 4 clips is tested once a seed" in joined.notes[0]
    assert joined.notes[1:] == (
        "4 clips of 2 classes",
        "the last weights",
        "fold 0: 3 clips; wall time of 0",
        "fold 1: 1 clips; wall time of 1",
    )
    assert joined.panels[0].chance("label_top1") == 75, "of the clips of all folds"
    with pytest.raises(ValueError, match="none for row 'videomae'"):
        join_folds(
            table, [first, Table("t", (), (Panel("", (MeasuredRow("videomae", "", {}),)),), "videomae", (), ("",))]
        )


def test_a_single_seed_has_an_interval_over_clips() -> None:
    """Half of 100 clips right: the binomial's 95 % interval is 50 +- 9.8."""
    own = [[True] * 50 + [False] * 50]
    joined = join_folds(folder_table("folds=2"), [part(0, {"videomae": own}), part(1, {"videomae": own})])
    found = joined.panels[0].rows[0].estimate("label_top1")
    assert found.mean == 50
    assert found.half_width == pytest.approx(9.8 / 2**0.5, abs=0.5), "200 clips in both folds"
    assert "interval over test clips, per cent" in joined.markdown()


class Commands:
    """Runs no command; writes down what would run and ends as it is told to."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []
        self.code = 0

    def __call__(self, command: list[str]) -> int:
        self.ran.append(command[4:])
        return self.code


@pytest.fixture
def commands() -> Commands:
    return Commands()


def test_a_folder_is_extracted_with_its_flow_and_compared_with_areas_that_say_nothing(
    commands: Commands, tmp_path: Path
) -> None:
    table, store = folder_table(), str(tmp_path / "store-tuned")
    commands.code = 3  # some clips cannot be read: listed, and left out
    generate_data(table, tmp_path, Path("my videos"), commands)
    extract, *controls = commands.ran
    assert extract[:5] == ["extract", "--dataset", "folder", "--data-root", "my videos"]
    assert "store.flow=uint8" in extract
    assert controls == [
        ["import-boxes", store, "--name", "random", "--like", "motion"],
        ["import-boxes", store, "--name", "other", "--like", "motion", "--shuffle"],
    ]
    generate_data(table, tmp_path, Path("my videos"), commands)
    assert len(commands.ran) == 3, "done before"
    with pytest.raises(CheckpointError, match="choose another --out"):
        generate_data(table, tmp_path, Path("other videos"), commands)


def test_a_changed_clip_list_is_another_table(commands: Commands, tmp_path: Path) -> None:
    data = tmp_path / "videos"
    data.mkdir()
    (data / "annotations.csv").write_text("path,label\na.mp4,sit\n")
    generate_data(folder_table(), tmp_path, data, commands)
    (data / "annotations.csv").write_text("path,label\na.mp4,jump\n")
    with pytest.raises(CheckpointError, match="choose another --out"):
        generate_data(folder_table(), tmp_path, data, commands)
    assert len(commands.ran) == 3


def test_what_fails_or_is_interrupted_is_done_again(commands: Commands, tmp_path: Path) -> None:
    for code, error in ((2, DataError), (75, Interrupted)):
        commands.code = code
        with pytest.raises(error, match="motionbox extract --dataset folder"):
            generate_data(folder_table(), tmp_path, Path("videos"), commands)
    commands.code = 0
    generate_data(folder_table(), tmp_path, Path("videos"), commands)
    assert [command[0] for command in commands.ran] == ["extract"] * 3 + ["import-boxes"] * 2


def test_where_videos_are_looked_for(tmp_path: Path) -> None:
    assert data_of(folder_table(), tmp_path, None) == Path("data/folder")
    assert data_of(folder_table(), tmp_path, Path("d")) == Path("d")
    assert data_of(load_recipe(TableConfig, "synthetic_table1"), tmp_path, None) == tmp_path / "data"


@pytest.mark.parametrize(
    ("columns", "predicted"),
    [
        ({"label": ["sit", None]}, ["label"]),
        ({"label_id": [1, 0], "verb_class": [0, 1], "noun_class": [0, 1]}, ["label"]),
        ({"verb_class": [0, 1], "noun_class": [0, 1], "label": [None, ""]}, ["verb_class", "noun_class"]),
        ({"verb": ["cut", "put"], "noun": ["egg", "cup"]}, ["verb", "noun"]),
        ({"verb": ["cut", "put"], "noun": ["egg", "cup"], "verb_class": [0, 1]}, ["verb_class", "noun"]),
        ({"verb": ["cut", "put"], "noun": ["", None]}, ["verb"]),
    ],
)
def test_what_is_predicted_follows_from_the_columns(columns: dict[str, list[object]], predicted: list[str]) -> None:
    table = with_labels(folder_table(), Path("store"), pa.table(columns))
    tasks = {stage.config.task for stage in plan_stages(table) if stage.kind == "finetune"}
    assert {(*task.columns,) for task in tasks} == {tuple(predicted)}
    assert {task.num_classes for task in tasks} == {None}


def test_a_folder_without_labels_is_refused() -> None:
    clips = pa.table({"verb": ["", " "], "split": ["train", "train"]})
    with pytest.raises(DataError, match=r"a column label \(names or numbers\), .* got columns verb, split"):
        with_labels(folder_table(), Path("store"), clips)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A folder whose list names six clips of two classes; one is missing, one has a name with a blank and an umlaut."""
    names = ["a.mp4", "b.mp4", "c.mp4", "take ü.mp4", "e.mp4", "gone.mp4"]
    for name in (*names[:-1], "extra.mp4"):
        (tmp_path / name).write_bytes(b"")
    with (tmp_path / "annotations.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [[name, "sit" if place < 3 else "jump up"] for place, name in enumerate(names)]
        csv.writer(file).writerows([["File", "Action"], *rows])
    return tmp_path


def test_a_folder_is_described_before_anything_is_extracted(listed: Path) -> None:
    lines = describe_folder(folder_table("folds=2"), listed)
    assert lines[0] == "6 clips of 2 classes (jump up 3, sit 3) in 6 videos, 2 folds of 3, 3 clips"
    assert lines[-2] == "1 of 6 videos (1 clips) are missing: gone.mp4; they take no part"
    assert lines[-1] == f"1 videos below {listed} are not listed and take no part: extra.mp4"


def test_a_plan_needs_no_video(listed: Path, tmp_path: Path) -> None:
    speed = StepSpeed(100.0, 50.0, 200.0, 10**6)
    found = make_plan(
        folder_table("folds=2"),
        tmp_path / "out",
        torch.device("cpu"),
        stores={"tuned": tmp_path / "none"},
        data_root=listed,
        measure=lambda *_: speed,
    )
    pretraining = next(cost for cost in found.costs if "pretrain" in cost.key)
    assert pretraining.num_crops == 3 * 50 * 4, "half of six clips, fifty epochs, four crops"
    assert "a batch of fold-0/" in found.missing
    minutes = 600 / 100 / 3600
    assert any(f"{minutes:.3f} h ({minutes / 2:.3f} to {minutes * 2:.3f})" in line for line in found.lines())


def test_a_plan_counts_the_labels_that_are_learned_from_of_clips_yet_to_be_rendered(tmp_path: Path) -> None:
    speed = StepSpeed(100.0, 50.0, 200.0, 10**6)
    table = load_recipe(TableConfig, "metaworld_ablation_attention", ["seeds=1"])
    stores = {"tuned": tmp_path / "none"}
    found = make_plan(table, tmp_path, torch.device("cpu"), stores=stores, data_root=None, measure=lambda *_: speed)
    assert found.missing == ""
    crops = {cost.key: cost.num_crops for cost in found.costs}
    settings = {stage.setting: stage.config.optim.epochs for stage in plan_stages(table)}
    assert crops["fold-0/row-scratch-all-seed-0"] == settings["all"] * 960 * 2 // 3
    assert crops["fold-0/row-scratch-few-seed-0"] == settings["few"] * 192


@pytest.mark.parametrize(
    ("text", "folds", "message"),
    [
        ("path\na.mp4\nb.mp4\n", 2, r"must have a column label .*, got columns clip_id"),
        ("path,label\na.mp4,\nb.mp4, \n", 2, "with something in it"),
        ("path,narration\na.mp4,cut\nb.mp4,take\n", 2, "got columns .*, narration"),
        ("path,verb,noun\na.mp4,cut,egg\nb.mp4,cut,egg\n", 2, "two classes to be told apart, got 'cut \\+ egg'"),
        ("path,label\na.mp4,sit\nb.mp4,sit\n", 2, "at least two classes to be told apart, got 'sit'"),
        ("path,label\na.mp4,sit\nb.mp4,jump\n", 3, "got 3 folds and 2"),
    ],
)
def test_a_folder_that_makes_no_table_is_refused_before_anything_is_extracted(
    listed: Path, text: str, folds: int, message: str
) -> None:
    (listed / "annotations.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        describe_folder(folder_table(f"folds={folds}"), listed)


def test_a_folder_without_a_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"must hold a list annotations\.csv with a column path .*, got none"):
        describe_folder(folder_table(), tmp_path)


@pytest.mark.slow
def test_a_labelled_folder_becomes_a_table(store_path: Path, tmp_path: Path) -> None:
    """Odd names, a clip without label and one that cannot be read; the same command again does nothing anew."""
    data = tmp_path / "my videos"
    data.mkdir()
    with (store_path.parent / "synthetic" / "annotations.csv").open() as file:
        rows = list(csv.DictReader(file))
    listed = []
    for place, row in enumerate(rows):
        name = f"take {place} #ä.mp4"
        (data / name).symlink_to(store_path.parent / "synthetic" / row["path"])
        listed.append([name, ["jump up", "sit"][place % 2] if place else ""])
    (data / "broken.mp4").write_bytes(b"no video")
    listed.append(["broken.mp4", "sit"])
    with (data / "annotations.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["File", "Label"], *listed])
    command = [sys.executable, "-m", "mofo_train", "table1", "--dataset", "folder", "--data-root", str(data)]
    options = ["--folds", "2", "--profile", "smoke", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *options], env=environment, check=True, capture_output=True, text=True)
    assert "each of 11 clips is tested once a seed" in done.stdout
    assert "control: areas of another clip, both" in done.stdout
    assert "| chance: always the most frequent class | 54.5 |" in done.stdout
    assert "- 1 clips without label take no part: take 0 #ä" in done.stdout
    assert "- 1 clips that cannot be read take no part: broken (not_a_video" in done.stdout
    assert "12 clips of 2 classes (sit 7, jump up 5) in 12 videos, 2 folds of 6, 6 clips" in done.stderr
    assert "ignored" not in done.stderr, "weights of the autoencoder that a classifier has no place for are no news"
    kept = (tmp_path / "out" / "table1.csv").read_text()
    for fold in range(2):
        result = json.loads((tmp_path / "out" / f"fold-{fold}" / "row-area-seed-0" / "result.json").read_text())
        assert result["num_test_clips"] in (5, 6)
    again = subprocess.run([*command, *options], env=environment, check=True, capture_output=True, text=True)
    assert "row-area-seed-0: done before" in again.stderr
    assert (tmp_path / "out" / "table1.csv").read_text() == kept
