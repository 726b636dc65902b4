from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mofo_train import cli
from mofo_train.config import DataConfig
from mofo_train.data.sources import open_boxes, open_clips
from mofo_train.errors import DataError


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
