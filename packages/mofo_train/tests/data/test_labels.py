from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from mofo_train.data.labels import LabelSpace, group_flags
from mofo_train.errors import DataError
from mofo_train.finetune_config import TaskConfig
from mofo_train.training.selection import class_weights


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
    known = r"labelled columns: action_id, verb_class, verb, noun_class \(--set 'task.columns=\[\"verb_class\", .*\]'\)"
    with pytest.raises(DataError, match=rf"'label_id'; {known}"):
        LabelSpace.of(table(), TaskConfig(columns=("label_id",)), "store s")
    with pytest.raises(DataError, match=r"at least 3 for verb_class of s, got 2"):
        LabelSpace.of(table(), TaskConfig(columns=("verb_class",), num_classes=(2,)), "s")
    space = LabelSpace.of(table(), TaskConfig(columns=("verb_class",)), "s")
    with pytest.raises(DataError, match=r"verb_class must be in \[0, 3\), got 7 for clip c"):
        space.labels(table(verb_class=[0, 1, 7, None]))
    for twice in (("verb_class", "verb_class"), ("verb", "verb_class"), ("label", "label_id")):
        with pytest.raises(ValueError, match="must differ in what they label"):
            TaskConfig(columns=twice)


@pytest.mark.parametrize("parts", [{}, {"verb_class": [None, 1], "noun_class": pa.nulls(2, pa.int64())}])
def test_actions_without_verbs_and_nouns_are_refused(parts: dict[str, object]) -> None:
    clips = pa.table({"clip_id": ["a", "b"], "action_id": [0, 1], **parts})
    with pytest.raises(DataError, match="with its verb_class and noun_class, got none for action 0 and 1 more"):
        LabelSpace.of(clips, TaskConfig(columns=("action_id",)), "s")


def test_a_column_of_numbers_may_be_empty() -> None:
    """A clip list with a heading and nothing below: the store has texts there, all empty."""
    clips = pa.table({"clip_id": ["a", "b"], "label": ["pour", "open"], "label_id": ["", ""], "verb_class": ["", " "]})
    space = LabelSpace.of(clips, TaskConfig(columns=("label",)), "s")
    assert {head: found.tolist() for head, found in space.labels(clips).items()} == {"label": [1, 0], "verb": [-1, -1]}
    with pytest.raises(DataError, match="'label_id'; labelled columns: label"):
        LabelSpace.of(clips, TaskConfig(columns=("label_id",)), "s")
    with pytest.raises(DataError, match="verb_class must hold whole numbers, got string"):
        space.labels(clips.set_column(3, "verb_class", pa.array(["cut", ""])))


def test_flags_are_those_with_values() -> None:
    flags = group_flags(table(tail_verb=[True, None, False, None], tail_noun=pa.nulls(4, pa.bool_())))
    assert {name: values.tolist() for name, values in flags.items()} == {"tail_verb": [True, False, False, False]}


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
    assert (space.heads, space.class_names["label"], space.by_name) == ({"label": 2}, ("open", "pour"), ("label",))
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
    assert (space.heads, space.class_names["label"], space.by_name) == ({"label": 3}, ("pour", "1", "open"), ())
    with pytest.raises(DataError, match=r"classes of the store must be those of the checkpoint \{'label': 3\}"):
        space.refuse_others(LabelSpace.of(named("open"), task, "s"))


def acts(verbs: list[str | None], nouns: list[str | None], **more: list[object]) -> pa.Table:
    return pa.table({"clip_id": [f"c{place}" for place in range(len(verbs))], "verb": verbs, "noun": nouns, **more})


def test_verbs_and_nouns_may_be_names() -> None:
    task = TaskConfig(columns=("verb", "noun"))
    store = acts(["take", " cut", None, "take"], ["cup", "egg", "cup", ""])
    space = LabelSpace.of(store, task, "s")
    assert (space.heads, space.by_name) == ({"verb": 2, "noun": 2}, ("verb", "noun"))
    assert (space.class_names, space.num_verbs) == ({"verb": ("cut", "take"), "noun": ("cup", "egg")}, 2)
    assert {head: found.tolist() for head, found in space.labels(store).items()} == {
        "verb": [1, 0, -1, 1],
        "noun": [0, 1, 0, -1],
    }
    assert LabelSpace.from_json(space.as_json()) == space
    space.refuse_others(LabelSpace.of(acts(["cut"], ["cup"]), task, "s"))
    with pytest.raises(DataError, match="classes of the store must be among cup, egg, got 'pan'"):
        space.refuse_others(LabelSpace.of(acts(["cut"], ["pan"]), task, "s"))
    numbered = acts(["cut"], ["cup"], verb_class=[0], noun_class=[0])
    with pytest.raises(DataError, match=r"checkpoint .*\(verb and noun by name\), got \{'verb': 1, 'noun': 1\}$"):
        space.refuse_others(LabelSpace.of(numbered, task, "s"))
    with pytest.raises(DataError, match="noun must be one of cup, egg, got 'pan' for clip c0"):
        space.labels(acts(["cut"], ["pan"]))


def test_each_of_verb_and_noun_is_numbers_or_names() -> None:
    store = acts(["take", "cut"], ["cup", "egg"], verb_class=[4, 0], noun_class=[None, 7])
    space = LabelSpace.of(store, TaskConfig(columns=("verb", "noun")), "s")
    assert (space.heads, space.by_name) == ({"verb": 5, "noun": 2}, ("noun",)), "fewer numbers than names of nouns"
    assert space.class_names["verb"] == ("cut", "1", "2", "3", "take")
    assert {head: found.tolist() for head, found in space.labels(store).items()} == {"verb": [4, 0], "noun": [0, 1]}


@pytest.mark.parametrize(("recorded", "meant"), [("", ()), ("label", ("label",)), (["verb", "noun"], ("verb", "noun"))])
def test_older_checkpoints_are_read(recorded: object, meant: tuple[str, ...]) -> None:
    """They recorded the one head that could have names, or nothing, as a text."""
    space = LabelSpace.of(named("pour", "open"), TaskConfig(columns=("label",)), "s")
    assert LabelSpace.from_json({**space.as_json(), "by_name": recorded}).by_name == meant
