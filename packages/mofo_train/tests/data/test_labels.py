from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mofo_train.config import FoldsConfig
from mofo_train.data.labels import LabelSpace, deal_folds, group_flags, splits_of
from mofo_train.errors import DataError
from mofo_train.finetune_config import TaskConfig
from mofo_train.training.selection import class_weights, hold_out


def table(**columns: list[object]) -> pa.Table:
    base = {
        "clip_id": ["a", "b", "c", "d"],
        "verb_class": [0, 2, 1, None],
        "verb": ["take", "cut", "put", None],
        "noun_class": [1, 0, 1, None],
        "action_id": [0, 2, 1, None],
    }
    return pa.table({**base, **columns})


def test_two_heads_split_the_outputs() -> None:
    space = LabelSpace.of(table(), TaskConfig(columns=("verb_class", "noun_class"), num_classes=(3, 5)), "store")
    assert (space.heads, space.num_outputs, space.num_verbs, space.num_nouns) == ({"verb": 3, "noun": 5}, 8, 3, 5)
    assert space.class_names["verb"] == ("take", "put", "cut")
    parts = space.split(torch.arange(8.0)[None])
    assert parts["noun"].tolist() == [[3, 4, 5, 6, 7]]
    assert {name: values.tolist() for name, values in space.labels(table()).items()} == {
        "verb": [0, 2, 1, -1],
        "noun": [1, 0, 1, -1],
        "action": [0, 2, 1, -1],
    }


def test_actions_know_their_verbs_and_nouns() -> None:
    space = LabelSpace.of(table(), TaskConfig(columns=("action_id",)), "store")
    assert space.heads == {"action": 3}
    assert space.pairs is not None
    assert space.pairs.tolist() == [[0, 1], [1, 1], [2, 0]]
    again = LabelSpace.from_json(space.as_json())
    assert again.pairs is not None
    np.testing.assert_array_equal(again.pairs, space.pairs)
    assert (again.heads, again.num_nouns) == (space.heads, 2)
    with pytest.raises(DataError, match="got none for action 3"):
        LabelSpace.of(table(), TaskConfig(columns=("action_id",), num_classes=(4,)), "store")


def test_misfits_are_named() -> None:
    with pytest.raises(DataError, match=r"'label_id'; labelled columns: action_id, verb_class, noun_class"):
        LabelSpace.of(table(), TaskConfig(columns=("label_id",)), "store s")
    with pytest.raises(DataError, match=r"at least 3 for verb_class of s, got 2"):
        LabelSpace.of(table(), TaskConfig(columns=("verb_class",), num_classes=(2,)), "s")
    space = LabelSpace.of(table(), TaskConfig(columns=("verb_class",)), "s")
    with pytest.raises(DataError, match=r"verb_class must be in \[0, 3\), got 7 for clip c"):
        space.labels(table(verb_class=[0, 1, 7, None]))
    with pytest.raises(ValueError, match="must differ"):
        TaskConfig(columns=("verb_class", "verb_class"))


def test_flags_are_those_with_values() -> None:
    flags = group_flags(table(tail_verb=[True, None, False, None], tail_noun=pa.nulls(4, pa.bool_())))
    assert {name: values.tolist() for name, values in flags.items()} == {"tail_verb": [True, False, False, False]}


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


def test_class_weights_balance_the_classes() -> None:
    labels = np.array([0, 0, 0, 1, -1])
    assert class_weights(labels, 3, 1.0).tolist() == pytest.approx([2 / 3, 2, 0])
    assert class_weights(labels, 3, 0.0).tolist() == pytest.approx([1, 1, 0])
    counts = torch.tensor([3.0, 1, 0])
    assert (class_weights(labels, 3, 0.5) * counts).sum() == pytest.approx(4)


def test_the_data_set_says_how_many_classes_it_has() -> None:
    """A store of a part of EPIC-KITCHENS shows few of its 97 verbs; its predictions are about all of them."""
    whole = table()
    place = whole.column_names.index("verb_class")
    field = whole.schema.field("verb_class").with_metadata({"num_classes": "97"})
    part = whole.set_column(place, field, whole["verb_class"]).filter(pa.array([True] + [False] * (len(whole) - 1)))
    space = LabelSpace.of(part, TaskConfig(columns=("verb_class",)), "s")
    assert (space.heads, space.num_verbs) == ({"verb": 97}, 97)
    assert LabelSpace.of(part, TaskConfig(columns=("verb_class",), num_classes=(5,)), "s").heads == {"verb": 5}


def named(*names: str | None, numbers: list[int | None] | None = None) -> pa.Table:
    columns = {"clip_id": [f"c{place}" for place in range(len(names))], "label": pa.array(names, pa.string())}
    return pa.table(columns | ({} if numbers is None else {"label_id": pa.array(numbers, pa.int64())}))


def test_names_are_classes_where_there_are_no_numbers() -> None:
    task = TaskConfig(columns=("label",))
    store = named("pour", " open", None, "open", "")
    space = LabelSpace.of(store, task, "s")
    assert (space.heads, space.class_names["label"], space.by_name) == ({"label": 2}, ("open", "pour"), "label")
    assert space.labels(store)["label"].tolist() == [1, 0, -1, 0, -1]
    assert LabelSpace.from_json(space.as_json()) == space
    part = named("pour")
    assert space.labels(part)["label"].tolist() == [1], "a part of the classes keeps its numbers"
    space.refuse_others(LabelSpace.of(part, task, "s"))
    other = named("pour", "cut")
    with pytest.raises(DataError, match="label must be one of open, pour, got 'cut' for clip c1"):
        space.labels(other)
    with pytest.raises(DataError, match="classes of the store must be among open, pour, got 'cut'"):
        space.refuse_others(LabelSpace.of(other, task, "s"))


def test_numbers_come_before_names_and_take_their_names() -> None:
    task = TaskConfig(columns=("label",))
    space = LabelSpace.of(named("pour", "open", "open", numbers=[0, 2, 2]), task, "s")
    assert (space.heads, space.class_names["label"], space.by_name) == ({"label": 3}, ("pour", "1", "open"), "")
    with pytest.raises(DataError, match=r"classes of the store must be those of the checkpoint \{'label': 3\}"):
        space.refuse_others(LabelSpace.of(named("open"), task, "s"))


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


def test_an_empty_fold_is_refused() -> None:
    with pytest.raises(ValueError, match="held_out must be below number = 3, got 3"):
        FoldsConfig(number=3, held_out=3)
