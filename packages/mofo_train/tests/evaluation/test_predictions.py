from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mofo_train.errors import CheckpointError, DataError
from mofo_train.evaluation.predictions import (
    Predictions,
    SupervisionLevels,
    merge_predictions,
    read_predictions,
    write_predictions,
    write_submission,
)
from mofo_train.evaluation.run import load_identity


def some_predictions(num_clips: int = 7) -> Predictions:
    rng = np.random.default_rng(0)
    return Predictions(
        tuple(f"clip{index:02d}" for index in range(num_clips)),
        {
            "verb": rng.normal(size=(num_clips, 4)).astype(np.float32),
            "noun": rng.normal(size=(num_clips, 30)).astype("f4"),
        },
        {"verb": rng.integers(4, size=num_clips), "noun": np.full(num_clips, -1)},
        {"tail_verb": rng.random(num_clips) < 0.5},
        {"model": "videomae_tiny"},
    )


def assert_same(one: Predictions, other: Predictions) -> None:
    assert one.clip_ids == other.clip_ids
    assert one.info == other.info
    for name in ("logits", "labels", "flags"):
        left, right = getattr(one, name), getattr(other, name)
        assert left.keys() == right.keys()
        for key in left:
            np.testing.assert_array_equal(left[key], right[key])
            assert left[key].dtype == right[key].dtype


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    predictions = some_predictions()
    write_predictions(predictions, tmp_path / "p.parquet")
    assert_same(read_predictions(tmp_path / "p.parquet"), predictions)
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


@pytest.mark.parametrize("cuts", [[[0, 1, 2, 3, 4, 5, 6]], [[6, 0, 3], [1, 5], [2, 4]], [[0, 2, 4, 6], [1, 3, 5, 0]]])
def test_parts_of_any_sharding_join_to_the_same(cuts: list[list[int]]) -> None:
    whole = some_predictions()
    parts = [whole.take(np.array(rows)) for rows in cuts]
    assert_same(merge_predictions(parts), whole)


def test_two_answers_for_one_clip_are_refused() -> None:
    whole = some_predictions()
    other = some_predictions()
    other.logits["verb"][3] += 1
    with pytest.raises(ValueError, match="clip03"):
        merge_predictions([whole, other])


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"readable.*none\.parquet|none\.parquet.*readable"):
        read_predictions(tmp_path / "none.parquet")
    pq.write_table(pa.table({"clip_id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="another table"):
        read_predictions(tmp_path / "other.parquet")


def read_submission(path: Path) -> dict:
    with zipfile.ZipFile(path) as file:
        assert file.namelist() == ["test.json"]
        return json.loads(file.read("test.json"))


def test_submission_of_two_heads(tmp_path: Path) -> None:
    predictions = some_predictions()
    write_submission(predictions, tmp_path / "s.zip", SupervisionLevels(4, 3, 4))
    content = read_submission(tmp_path / "s.zip")
    assert (content["version"], content["challenge"]) == ("0.2", "action_recognition")
    assert (content["sls_pt"], content["sls_tl"], content["sls_td"]) == (4, 3, 4)
    assert list(content["results"]) == list(predictions.clip_ids)
    clip = content["results"]["clip02"]
    assert (len(clip["verb"]), len(clip["noun"]), len(clip["action"])) == (4, 30, 100)
    verb, noun = predictions.logits["verb"][2], predictions.logits["noun"][2]
    assert next(iter(clip["action"])) == f"{verb.argmax()},{noun.argmax()}"
    assert clip["verb"]["1"] == pytest.approx(float(verb[1]))


def test_submission_of_an_action_head_holds_log_marginals(tmp_path: Path) -> None:
    pairs = np.array([[0, 0], [0, 1], [1, 1]])
    logits = np.log(np.array([[0.5, 0.2, 0.3]])).astype(np.float32)
    predictions = Predictions(("P01_1",), {"action": logits}, {})
    write_submission(predictions, tmp_path / "s.zip", pairs=pairs, num_verbs=2, num_nouns=2)
    clip = read_submission(tmp_path / "s.zip")["results"]["P01_1"]
    assert np.exp(clip["verb"]["0"]) == pytest.approx(0.7, abs=1e-6)
    assert np.exp(clip["noun"]["1"]) == pytest.approx(0.5, abs=1e-6)
    assert list(clip["action"]) == ["0,0", "1,1", "0,1"]
    with pytest.raises(ValueError, match="pairs"):
        write_submission(predictions, tmp_path / "t.zip")


def test_supervision_levels_have_a_range() -> None:
    with pytest.raises(ValueError, match="training_data must be 0 to 5, got 6"):
        SupervisionLevels(training_data=6)


def test_a_checkpoint_that_is_not_there_is_told_from_one_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere must be a folder of a finetuning, it does not exist$"):
        load_identity(tmp_path / "nowhere", None, [])
    with pytest.raises(
        CheckpointError, match=r"must be a folder of a finetuning \(with checkpoint.json\); name a recipe"
    ):
        load_identity(tmp_path, None, [])
