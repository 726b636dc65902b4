from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mofo_train import cli
from mofo_train.config import DataConfig
from mofo_train.data.sources import open_boxes, open_clips
from mofo_train.errors import DataError
from mofo_train.finetune_config import FinetuneDataConfig
from motionbox.store import Store


def test_the_store_says_where_the_videos_are(store_path: Path, tmp_path: Path) -> None:
    boxes, root = open_boxes("synthetic", store_path, None)
    assert root == (store_path.parent / "synthetic").resolve()
    assert len(boxes) == 12
    assert len(open_clips(DataConfig(dataset="synthetic"), store_path, None)) == 12


def test_what_is_missing_is_said_with_its_remedy(store_path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a store of 'synthetic'"):
        open_boxes("ssv2", store_path, None)
    with pytest.raises(DataError, match="name the folder of the videos with --data-root"):
        open_boxes("synthetic", store_path, tmp_path / "none")
    with pytest.raises(DataError, match="motionbox synth -o data/synthetic"):
        open_boxes("synthetic", tmp_path / "none", None)


def test_a_store_that_keeps_the_frames_needs_no_videos(clips_store_path: Path, tmp_path: Path) -> None:
    assert open_boxes("synthetic", clips_store_path, tmp_path / "none")[1] == tmp_path / "none"
    reader = open_clips(DataConfig(dataset="synthetic"), clips_store_path, tmp_path / "none")
    assert reader.read(0, np.array([0, 5]))[0].shape[0] == 2


def test_a_command_without_its_data_exits_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["pretrain"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "stores/synthetic" in error
    assert "motionbox extract --dataset synthetic" in error


def test_a_pilot_takes_a_few_clips_spread_over_the_split(store_path: Path) -> None:
    data = DataConfig(dataset="synthetic", split="train", max_clips=3)
    whole = open_clips(data.model_copy(update={"max_clips": None}), store_path, None)
    few = open_clips(data, store_path, None)
    assert few.clip_ids == [whole.clip_ids[place] for place in (0, round((len(whole) - 1) / 2), len(whole) - 1)]


@pytest.mark.parametrize(("wanted", "warned"), [(4, True), (5, False)])
def test_few_labels_that_miss_a_class_by_the_order_of_the_list_are_named(
    wanted: int,
    warned: bool,
    store_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of ten clips whose every third one is `close`, four at equal distances are `close` all, five are not."""
    clips = open_boxes("synthetic", store_path, None)[0].clips()
    train = [split == "train" for split in clips.column("split").to_pylist()]
    places = np.cumsum(train) - 1
    verbs = pa.array(np.where(places % 3 == 0, 7, 8).tolist(), pa.int64())
    at = clips.column_names.index("verb_class")
    relabelled = clips.set_column(at, "verb_class", verbs).set_column(
        clips.column_names.index("noun_class"), "noun_class", pa.array([2] * len(clips), pa.int64())
    )
    unnamed = relabelled.drop_columns(["verb", "noun"])
    monkeypatch.setattr(Store, "clips", lambda _: unnamed)
    data = FinetuneDataConfig(dataset="synthetic", split="train", num_labelled=wanted)
    with caplog.at_level(logging.WARNING):
        reader = open_clips(data, store_path, None)
    assert (sum(train), len(reader)) == (10, wanted)
    assert ("4 of 10 clips show 1 of 2 classes, not 8 + 2; set another number" in caplog.text) == warned
    assert bool(caplog.records) == warned
