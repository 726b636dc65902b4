"""From a labelled folder to a classifier in three commands, and what stands in for what the folder does not say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from mofo_train import cli
from mofo_train.config import load_recipe
from mofo_train.data.reader import ClipReader
from mofo_train.data.sources import open_clips
from mofo_train.errors import DataError
from mofo_train.finetune_config import FinetuneConfig
from motionbox.store import open_store

SMALL = ["model.name=videomae_tiny", "model.num_frames=4", "model.image_px=32", "data.short_side_px=48"]
SMALL += ["data.num_workers=0", "optim.epochs=1", "optim.warmup_epochs=0", "run.precision=fp32"]
NAMES = ("open", "close", "pour")


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def settings(*more: str) -> list[str]:
    return [part for text in (*SMALL, *more) for part in ("--set", text)]


def extract(root: Path, store: Path) -> Path:
    from motionbox.cli import main

    command = ["extract", "--data-root", str(root), "--store", str(store), "--flow", "dis", "--clips"]
    with pytest.raises(SystemExit) as stop:
        main([*command, "--executor", "serial", "--workers", "0"])
    assert stop.value.code == 0
    return store


@pytest.fixture(scope="module")
def folder(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten videos with names for labels, verbs and nouns and no splits; the store beside them keeps their frames."""
    root = tmp_path_factory.mktemp("folder") / "videos"
    root.mkdir()
    videos = sorted((store_path.parent / "synthetic" / "videos").iterdir())[:10]
    rows = [["path", "label", "verb", "noun"]]
    for place, video in enumerate(videos):
        (root / video.name).symlink_to(video)
        rows.append([video.name, NAMES[place % 3], NAMES[place % 2], f"Schüssel {place % 3}"])
    with (root / "annotations.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    extract(root, root.parent / "store")
    return root.parent


def test_three_commands_make_a_classifier(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, pre, mca = folder / "store", tmp_path / "pre", tmp_path / "mca"
    assert (
        run(
            "pretrain", "--recipe", "folder_pretrain", "--store", store, "--out", pre, *settings("mask.mask_ratio=0.75")
        )
        == 0
    )
    fine = ("--store", store, "--init", pre, "--out", mca)
    assert run("finetune", "--recipe", "folder_finetune_mca", *fine, *settings("selection.share=0")) == 0
    said = capsys.readouterr().err
    assert said.count("8 clips; a fifth of the videos stands for `validation`, the others for `train`") == 2
    assert run("evaluate", "--checkpoint", mca, "--store", store, "--out", tmp_path / "test") == 0
    report = json.loads((tmp_path / "test" / "report.json").read_text())
    assert report["num_clips"] == 2
    assert list(report["heads"]) == ["label"]
    (best,) = (mca / "best").iterdir()
    space = json.loads((best / "checkpoint.json").read_text())["label_space"]
    assert (space["heads"], space["class_names"]) == ({"label": 3}, {"label": sorted(NAMES)})
    assert (tmp_path / "test" / "classes-label.csv").read_text().splitlines()[1].startswith("close,")


def test_verbs_and_nouns_by_name_are_a_head_each(folder: Path, tmp_path: Path) -> None:
    out = ("--store", folder / "store", "--out", tmp_path / "mean")
    changes = settings("selection.share=0", 'task.columns=["verb", "noun"]')
    assert run("finetune", "--recipe", "folder_finetune_mean", *out, *changes) == 0
    assert run("evaluate", "--checkpoint", tmp_path / "mean", "--store", out[1], "--out", tmp_path / "test") == 0
    report = json.loads((tmp_path / "test" / "report.json").read_text())
    assert list(report["heads"]) == ["verb", "noun"]
    assert report["verb_noun"]["method"] == "two_heads"
    assert report["verb_noun"]["overall"]["action"]["num_clips"] == 2
    names = [line.split(",")[0] for line in (tmp_path / "test/classes-noun.csv").read_text("utf-8").splitlines()]
    assert names == ["name", "Schüssel 0", "Schüssel 1", "Schüssel 2"]


def test_all_clips_can_be_learned_from_and_the_recipes_of_both_fusions_fit(folder: Path, tmp_path: Path) -> None:
    out = ("--store", folder / "store", "--out", tmp_path / "all")
    changes = settings("data.split=none", "optim.batch_size=20", "mask.mask_ratio=0.75")
    assert run("pretrain", "--recipe", "folder_pretrain", *out, *changes) == 0
    config = load_recipe(FinetuneConfig, "folder_finetune_mean", ["data.split=none"])
    assert config.data.split is None
    train = open_clips(config.data, folder / "store", None)
    test = open_clips(config.data, folder / "store", None, test_split=config.test.split)
    assert (len(train), len(test)) == (8, 2)
    assert "the others for `train`" in train.remarks()
    assert "whatever the clip list names" not in train.remarks()
    assert not set(train.clip_ids) & set(test.clip_ids)


def test_splits_have_their_usual_names(folder: Path, tmp_path: Path) -> None:
    """`val` is `validation`; with splits of the store's own, `data.split=none` makes others."""
    root = tmp_path / "videos"
    root.mkdir()
    rows = [["path", "label", "split"]]
    for place, video in enumerate(sorted((folder / "videos").glob("*.mp4"))[:6]):
        (root / video.name).symlink_to(video.resolve())
        rows.append([video.name, str(place % 2), "val" if place < 2 else "Training"])
    with (root / "annotations.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    store = open_store(extract(root, tmp_path / "store"))
    assert len(ClipReader(store, root, split="validation", short_side_px=48)) == 2
    assert len(ClipReader(store, root, split="train", short_side_px=48)) == 4
    made = ClipReader(store, root, split="validation", short_side_px=48, as_listed=False)
    assert (len(made), made.clips.has_made_splits) == (1, True)
    assert "the others for `train`, whatever the clip list names (data.split=none)" in made.remarks()
    with pytest.raises(
        DataError, match=r"split must be one of train, validation, got 'test'; .*--set data\.split=NAME"
    ):
        ClipReader(store, root, split="test", short_side_px=48)
