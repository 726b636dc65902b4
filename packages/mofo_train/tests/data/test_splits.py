from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mofo_train.config import FoldsConfig
from mofo_train.data.splits import deal_folds, describe_folds, hold_out, splits_of
from mofo_train.errors import DataError


@given(st.lists(st.integers(0, 12), min_size=20, max_size=80), st.floats(0.05, 0.5), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_hold_out_takes_whole_groups(groups: list[int], share: float, seed: int) -> None:
    names = [f"P{group:02d}" for group in groups]
    if len(set(names)) < 2:
        return
    held = hold_out(names, share, seed)
    for name in set(names):
        assert len({bool(h) for h, own in zip(held, names, strict=True) if own == name}) == 1
    assert 0 < held.sum() < len(names)
    largest = max(names.count(name) for name in set(names))
    assert held.sum() <= max(share * len(names), largest)
    np.testing.assert_array_equal(held, hold_out(names, share, seed))


def test_hold_out_by_clip_meets_its_share_and_follows_the_seed() -> None:
    names = [f"v{index}" for index in range(1000)]
    assert hold_out(names, 0.1, 0).sum() == 100
    assert (hold_out(names, 0.1, 0) != hold_out(names, 0.1, 1)).any()
    assert not hold_out(names, 0, 0).any()
    with pytest.raises(DataError, match="at least two videos"):
        hold_out(["P01", "P01"], 0.5, 0)


@settings(max_examples=150, deadline=None)
@given(
    clips=st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["a", "b", "c", None])), min_size=1, max_size=60),
    number=st.integers(2, 6),
)
def test_folds_hold_whole_groups_and_all_labelled_clips(clips: list[tuple[int, str | None]], number: int) -> None:
    groups, strata = [str(group) for group, _ in clips], [label for _, label in clips]
    labelled = {group for group, label in zip(groups, strata, strict=True) if label is not None}
    if len(labelled) < number:
        with pytest.raises(DataError, match=f"got {number} folds and {len(labelled)}"):
            deal_folds(groups, strata, number)
        return
    folds = deal_folds(groups, strata, number)
    assert [fold < 0 for fold in folds] == [label is None for label in strata]
    home: dict[str, int] = {}
    for group, fold in zip(groups, folds.tolist(), strict=True):
        assert fold < 0 or home.setdefault(group, fold) == fold
    assert set(home.values()) == set(range(number)), "no fold is empty"


@settings(max_examples=100, deadline=None)
@given(counts=st.lists(st.integers(0, 30), min_size=1, max_size=8), number=st.integers(2, 7), salt=st.integers(0, 99))
def test_single_clips_are_dealt_evenly(counts: list[int], number: int, salt: int) -> None:
    strata = [str(label) for label, count in enumerate(counts) for _ in range(count)]
    if len(strata) < number:
        return
    folds = deal_folds([f"{salt}-{place}" for place in range(len(strata))], strata, number)
    for label in set(strata):
        own = np.bincount(folds[[name == label for name in strata]], minlength=number)
        assert own.max() - own.min() <= 1


def folder(**columns: list[object]) -> pa.Table:
    names = [f"take {place}" for place in range(12)]
    base = {
        "clip_id": names,
        "video_id": names,
        "path": [f"{name}.mp4" for name in names],
        **dict.fromkeys(("start_seconds", "stop_seconds", "start_frame", "stop_frame"), pa.nulls(12, pa.float64())),
        "status": ["ok"] * 12,
        "num_frames": [30] * 12,
        "split": ["train"] * 12,
    }
    return pa.table({**base, "label": ["jump", "sit", "run"] * 4, **columns})


def test_every_clip_is_tested_once_whatever_splits_the_list_has() -> None:
    tested: list[int] = []
    for fold in range(4):
        splits, are_listed = splits_of(folder(), folds=FoldsConfig(number=4, held_out=fold))
        own = [place for place, split in enumerate(splits) if split == "validation"]
        assert len(own) == len({place % 3 for place in own}) == 3, "one of each label"
        assert not are_listed
        tested += own
    assert sorted(tested) == list(range(12))


def test_takes_of_one_group_stand_on_one_side() -> None:
    """A group's name is taken as it is; a clip without one is a group of its own."""
    groups = ["ann", "ann", "ann", " bob", "bob ", "bob", "", None, "cy", "cy", "cy", "cy"]
    splits, _ = splits_of(folder(group=groups), folds=FoldsConfig(number=3, held_out=0))
    by_group = {
        name: {splits[place] for place in places} for name, places in {"ann": [0, 1, 2], "bob": [3, 4, 5]}.items()
    }
    assert all(len(sides) == 1 for sides in by_group.values())
    assert len({splits[place] for place in range(8, 12)}) == 1
    assert set(splits) == {"train", "validation"}


def test_clips_without_label_or_boxes_take_no_part() -> None:
    labels: list[object] = ["jump", "sit", None, "  "] * 3
    status = ["ok"] * 11 + ["failed"]
    status[0] = "failed"
    splits, _ = splits_of(folder(label=labels, status=status), folds=FoldsConfig(number=2, held_out=1))
    assert [split is None for split in splits] == [place == 0 or place % 4 > 1 for place in range(12)]
    with pytest.raises(DataError, match="must be labelled to be dealt to folds"):
        splits_of(folder(label=[None] * 12), folds=FoldsConfig(number=2, held_out=1))


def test_names_of_verbs_and_nouns_are_dealt_alike() -> None:
    verbs, nouns = ["cut", "put", None] * 4, ["egg", "egg", "cup"] * 4
    first = describe_folds(folder(label=[None] * 12, verb=verbs, noun=nouns), 4)[0]
    assert first == "8 clips of 2 classes (cut + egg 4, put + egg 4) in 8 videos, 4 folds of 2, 2, 2, 2 clips"
    assert "12 clips of 2 classes (egg 8, cup 4)" in describe_folds(folder(label=[""] * 12, noun=nouns), 4)[0]


def test_an_empty_fold_is_refused() -> None:
    with pytest.raises(ValueError, match="held_out must be below number = 3, got 3"):
        FoldsConfig(number=3, held_out=3)


def test_labels_that_nobody_predicts_keep_no_clip_out() -> None:
    """A list with names, and verbs of some clips: names are predicted, so they decide."""
    verbs: list[object] = [0, None, None] * 4
    splits, _ = splits_of(folder(verb_class=verbs, noun_class=verbs), folds=FoldsConfig(number=2, held_out=0))
    assert None not in splits
    numbers: list[object] = [None, 1, 0] * 4  # fewer than the names
    splits, _ = splits_of(folder(label_id=numbers), folds=FoldsConfig(number=2, held_out=0))
    assert None not in splits
    splits, _ = splits_of(folder(label=[""] * 12, label_id=numbers), folds=FoldsConfig(number=2, held_out=0))
    assert [split is None for split in splits] == [True, False, False] * 4


def listed(**columns: list[object]) -> pa.Table:
    """Return twelve clips as a clip list has them, before anything is extracted."""
    return folder(**columns).drop_columns(["status", "num_frames"])


def test_what_takes_part_is_said_before_and_after_extraction() -> None:
    labels: list[object] = ["jump", "sit", "run", " "] * 3
    groups: list[object] = ["ann", "bob", "cy"] * 4
    first, *rest = describe_folds(listed(label=labels, group=groups), 3)
    assert first == "9 clips of 3 classes (jump 3, run 3, sit 3) in 3 groups, 3 folds of 3, 3, 3 clips"
    assert rest == ["3 clips without label take no part: take 3, take 7, take 11"]
    status: list[object] = ["failed", *["ok"] * 11]
    reasons: list[object] = ["not_a_video", *[None] * 11]
    first, *rest = describe_folds(folder(label=labels, group=groups, status=status, reason=reasons), 3)
    assert first.startswith("8 clips of 3 classes (run 3, sit 3, jump 2)")
    assert rest[-1] == "1 clips that cannot be read take no part: take 0 (not_a_video)"


def test_clips_without_groups_get_a_word_of_warning() -> None:
    lines = describe_folds(listed(), 4)
    assert lines[0] == "12 clips of 3 classes (jump 4, run 4, sit 4) in 12 videos, 4 folds of 3, 3, 3, 3 clips"
    assert "no column group" in lines[1]
    assert "no column group" not in " ".join(describe_folds(listed(group=["ann"] * 6 + [None] * 6), 4))
    assert describe_folds(listed(), None) == ["12 clips of 3 classes (jump 4, run 4, sit 4) in 12 videos"], (
        "the list's own splits: nothing is dealt"
    )


def test_classes_that_cannot_be_learned_when_they_are_tested_are_named() -> None:
    """One clip of `fly`; `sit` is a single person's: all of it lies in one fold."""
    labels: list[object] = ["sit", "sit", "sit", "fly", *["jump", "run"] * 4]
    groups: list[object] = ["ann", "ann", "ann", *[f"take {place}" for place in range(9)]]
    found = [line for line in describe_folds(listed(label=labels, group=groups), 2) if "one group alone" in line]
    assert len(found) == 1
    assert found[0].startswith("classes sit, fly have clips of one group alone")
    alone: list[object] = ["fly", *["jump"] * 11]
    assert any(line.startswith("class fly has clips of one group") for line in describe_folds(listed(label=alone), 2))


def test_clips_that_are_listed_twice_are_named() -> None:
    """The first row stands there three times, once with another label; the fifth is another part of its video."""
    paths: list[object] = ["a.mp4", "a.mp4", "a.mp4", "b.mp4", "b.mp4", *[f"{place}.mp4" for place in range(7)]]
    labels: list[object] = ["sit", "sit", "run", *["sit", "run", "jump"] * 3]
    times: list[object] = [None, None, None, 0.0, 1.0, *[None] * 7]
    table = listed(path=paths, label=labels, start_seconds=times)
    (line,) = (line for line in describe_folds(table, 2) if "more than once" in line)
    assert (
        line
        == "1 clips are listed more than once, 1 of them with different labels: a.mp4; every row counts, remove some"
    )
    table = listed(path=paths, label=["sit", "sit", "sit", *["run"] * 9], start_seconds=times)
    assert "1 clips are listed more than once: a.mp4; every row counts, remove some" in describe_folds(table, 2)
    assert not any("more than once" in line for line in describe_folds(listed(), 2))


def test_many_classes_are_not_all_named() -> None:
    lines = describe_folds(listed(label=[f"act {place:02d}" for place in range(12)]), 2)
    assert "(act 00 1, act 01 1, act 02 1, act 03 1, act 04 1, act 05 1, act 06 1, act 07 1 and 4 more)" in lines[0]


@pytest.mark.parametrize(
    ("columns", "number", "message"),
    [
        ({"label": ["sit"] * 12}, 2, "must be of at least two classes to be told apart, got 'sit'"),
        ({"label": [None] * 12}, 2, "must be labelled"),
        ({"group": ["ann"] * 6 + ["bob"] * 6}, 3, "folds must be at most .*, got 3 folds and 2"),
    ],
)
def test_what_cannot_be_cross_validated_is_refused(columns: dict[str, list[object]], number: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        describe_folds(listed(**columns), number)
