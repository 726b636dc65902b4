"""What is predicted: heads, classes and the labels of clips; which clips are for testing, which are held out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from mofo_train.config import FoldsConfig, usual_split
from mofo_train.errors import DataError
from mofo_train.finetune_config import TaskConfig

HEADS = {"label_id": "label", "label": "label", "action_id": "action", "verb_class": "verb", "noun_class": "noun"}
"""Label column of a store -> name of its head; `label` holds names, the others numbers."""
_NAME_COLUMNS = {"label_id": ("template", "label"), "verb_class": ("verb",), "noun_class": ("noun",)}
_VALIDATION_SHARE = 0.2  # of the videos, where nobody says which clips are for testing
_FLAGS = ("unseen_participant", "tail_verb", "tail_noun")


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a data set.

    Attributes:
        heads: Head -> number of classes, in the order of the classifier's outputs.
        class_names: Head -> name of each class, where the store knows names.
        pairs: int64 (A, 2) verb and noun class of each action, for head `action`.
        num_verbs: Verb classes, where the store has verbs.
        num_nouns: Noun classes, where the store has nouns.
        by_name: Head of which the store says names, no numbers (column `label`); empty = none.
    """

    heads: dict[str, int]
    class_names: dict[str, tuple[str, ...]]
    pairs: NDArray[np.int64] | None
    num_verbs: int
    num_nouns: int
    by_name: str = ""

    @classmethod
    def of(cls, table: pa.Table, task: TaskConfig, where: str) -> LabelSpace:
        """Read the classes from all clips of a store.

        Args:
            table: `Store.clips()`, every split.
            task: The columns, and the numbers of classes where the recipe fixes them.
            where: The store, for messages.

        Raises:
            DataError: A column is missing or has no labels, a label is negative, or the recipe has fewer classes.
        """
        columns, by_name = _columns_of(table, task)
        counts = {column: _num_classes(table, column) for column in HEADS if column in table.column_names}
        declared = {column: _declared_classes(table, column) for column in counts}
        heads = {}
        for place, column in enumerate(columns):
            found = counts.get(column, 0)
            if found == 0:
                known = ", ".join(name for name, count in counts.items() if count) or "none"
                raise DataError(f"task.columns must be labelled in {where}, got {column!r}; labelled columns: {known}")
            wanted = max(found, declared[column]) if task.num_classes is None else task.num_classes[place]
            if wanted < found:
                raise DataError(
                    f"task.num_classes must be at least {found} for {column} of {where}, got {wanted}; "
                    "is it the store of another data set?"
                )
            heads[HEADS[column]] = found if by_name else wanted
        names = {
            HEADS[column]: _class_names(table, column, heads.get(HEADS[column], count))
            for column, count in counts.items()
            if column != "label" and any(name in table.column_names for name in _NAME_COLUMNS.get(column, ()))
        }
        if by_name:
            names[by_name] = tuple(_names_in(table))
        pairs = _action_pairs(table, heads["action"]) if "action" in heads else None
        # EPIC-100 has 97 verbs and 300 nouns, also those that a part of the set lacks.
        num_verbs, num_nouns = (
            heads.get(head, max(counts.get(column, 0), declared.get(column, 0)))
            for head, column in (("verb", "verb_class"), ("noun", "noun_class"))
        )
        return cls(heads, names, pairs, num_verbs, num_nouns, by_name)

    def refuse_others(self, own: LabelSpace) -> None:
        """Check that the classes of a store are among these.

        Args:
            own: The classes that the store has.

        Raises:
            DataError: It has other heads, more classes, or names that these lack.
        """
        fewer = own.heads.keys() == self.heads.keys() and all(own.heads[head] <= self.heads[head] for head in own.heads)
        if not fewer or own.by_name != self.by_name:
            raise DataError(f"classes of the store must be those of the checkpoint {self.heads!r}, got {own.heads!r}")
        if self.by_name:
            known = self.class_names[self.by_name]
            other = [name for name in own.class_names[self.by_name] if name not in known]
            if other:
                raise DataError(f"classes of the store must be among {', '.join(known)}, got {other[0]!r}")

    @property
    def num_outputs(self) -> int:
        """Width of the classifier: the classes of all heads."""
        return sum(self.heads.values())

    def split(self, logits: Tensor) -> dict[str, Tensor]:
        """Cut (B, num_outputs) into (B, classes) per head."""
        return dict(zip(self.heads, torch.split(logits, list(self.heads.values()), dim=-1), strict=True))

    def labels(self, table: pa.Table) -> dict[str, NDArray[np.int64]]:
        """Return the labels of clips for every label column that the table has; -1 where unknown.

        Raises:
            DataError: A label of a head is out of range; names the clip.
        """
        result: dict[str, NDArray[np.int64]] = {}
        for column, head in HEADS.items():
            if column not in table.column_names or (column == "label") != (head == self.by_name):
                continue
            values = self._numbers(table, column)
            limit = self.heads.get(head)
            bad = (values < -1) | ((values >= limit) if limit is not None else False)
            if bad.any():
                row = int(bad.argmax())
                clip = table.column("clip_id")[row].as_py()
                raise DataError(f"{column} must be in [0, {limit}), got {values[row]} for clip {clip}")
            result[head] = values
        return result

    def _numbers(self, table: pa.Table, column: str) -> NDArray[np.int64]:
        """Return a label column as numbers, -1 where it is empty."""
        if column != "label":
            return np.array(table.column(column).fill_null(-1).to_numpy(), np.int64)
        number = {name: index for index, name in enumerate(self.class_names[self.by_name])}
        names = [_name_of(value) for value in table.column(column).to_pylist()]
        for name, clip in zip(names, table.column("clip_id").to_pylist(), strict=True):
            if name is not None and name not in number:
                raise DataError(f"label must be one of {', '.join(number)}, got {name!r} for clip {clip}")
        return np.array([-1 if name is None else number[name] for name in names], np.int64)

    def as_json(self) -> dict[str, Any]:
        """Return what a run records."""
        return {
            "heads": self.heads,
            "class_names": {head: list(names) for head, names in self.class_names.items()},
            "pairs": None if self.pairs is None else self.pairs.tolist(),
            "num_verbs": self.num_verbs,
            "num_nouns": self.num_nouns,
            "by_name": self.by_name,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> LabelSpace:
        """Read what `as_json` returned."""
        return cls(
            heads=dict(values["heads"]),
            class_names={head: tuple(names) for head, names in values["class_names"].items()},
            pairs=None if values["pairs"] is None else np.array(values["pairs"], np.int64).reshape(-1, 2),
            num_verbs=values["num_verbs"],
            num_nouns=values["num_nouns"],
            by_name=values["by_name"],
        )


def group_flags(table: pa.Table) -> dict[str, NDArray[np.bool_]]:
    """Return EPIC-100's flags of clips, bool (N,) each, those that the store has values for."""
    return {
        name: table.column(name).fill_null(False).to_numpy(zero_copy_only=False)
        for name in _FLAGS
        if name in table.column_names and table.column(name).null_count < table.num_rows
    }


def hold_out(groups: Sequence[str], share: float, seed: int) -> NDArray[np.bool_]:
    """Choose clips to hold out of training, whole groups at a time.

    Groups are taken in the order of a hash of their name and the seed until the next one would make the share larger
    than asked for; at least one group is taken, and at least one remains.

    Args:
        groups: The group of each of the N clips: its participant or video.
        share: Share of the clips wanted, in [0, 1); 0 holds nothing out.
        seed: Another seed holds others out.

    Returns:
        bool (N,), `True` = held out.

    Raises:
        DataError: All clips are of one group.
    """
    if share == 0:
        return np.zeros(len(groups), bool)
    names, places, counts = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise DataError(
            f"clips to hold out must be of at least two videos (or groups, see selection.by), got {len(names)}; "
            "set selection.share to 0, or name splits in the clip list"
        )
    keys = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in names]
    chosen = np.zeros(len(names), bool)
    num_clips = 0
    for group in sorted(range(len(names)), key=keys.__getitem__)[:-1]:
        if chosen.any() and num_clips + counts[group] > share * len(groups):
            continue
        chosen[group] = True
        num_clips += int(counts[group])
    return chosen[places]


def deal_folds(groups: Sequence[str], strata: Sequence[str | None], number: int) -> NDArray[np.int64]:
    """Deal clips to folds, whole groups at a time, so that every fold has about its share of each stratum.

    The largest groups come first, equal ones in the order of a hash of their names. Each goes where its strata are
    fewest so far, then where the fewest clips are.

    Args:
        groups: The group of each of the N clips.
        strata: Its label, or labels in one; None = it takes no part.
        number: Folds.

    Returns:
        int64 (N,), from 0; -1 for a clip that takes no part.

    Raises:
        DataError: There are fewer groups than folds.
    """
    names = sorted({name for name in strata if name is not None})
    counts: dict[str, NDArray[np.int64]] = {}
    for group, stratum in zip(groups, strata, strict=True):
        if stratum is not None:
            counts.setdefault(group, np.zeros(len(names), np.int64))[names.index(stratum)] += 1
    if len(counts) < number:
        raise DataError(
            f"folds must be at most the labelled videos (or groups, where the clip list has a column group), got "
            f"{number} folds and {len(counts)}"
        )
    totals = np.maximum(sum(counts.values(), np.zeros(len(names), np.int64)), 1)
    dealt = np.zeros((number, len(names)), np.int64)
    home = {}
    for group in sorted(counts, key=lambda name: (-counts[name].sum(), hashlib.sha256(name.encode()).digest())):
        crowding = ((2 * dealt + counts[group]) * counts[group] / totals).sum(1)  # by how much squares grow
        home[group] = min(range(number), key=lambda fold: (crowding[fold].round(9), dealt[fold].sum(), fold))
        dealt[home[group]] += counts[group]
    found = [-1 if own is None else home[group] for group, own in zip(groups, strata, strict=True)]
    return np.array(found, np.int64)


def groups_of(table: pa.Table) -> list[str]:
    """Return what each clip shares with others: the clip list's `group` where it says one, else the video.

    Folds never tear a group apart, and a table's intervals draw groups, not clips.

    Args:
        table: Rows of the store's clip table.
    """
    videos = [f"video {name}" for name in table.column("video_id").to_pylist()]
    if "group" not in table.column_names:
        return videos
    given = map(_name_of, table.column("group").to_pylist())
    return [video if own is None else f"group {own}" for own, video in zip(given, videos, strict=True)]


def _strata_of(table: pa.Table) -> list[str | None]:
    """Return all labels of each clip in one; None where one is missing, or the clip cannot be used."""
    columns = [table.column(name).to_pylist() for name in HEADS if _is_labelled(table, name)]
    if not columns:
        raise DataError(f"clips must be labelled to be dealt to folds, got no column of {', '.join(HEADS)}")
    usable = have_boxes(table)
    labels = [[_name_of(value) for value in row] for row in zip(*columns, strict=True)]
    return [None if None in own or not ok else json.dumps(own) for own, ok in zip(labels, usable, strict=True)]


def _is_labelled(table: pa.Table, column: str) -> bool:
    return column in table.column_names and any(_name_of(value) is not None for value in table[column].to_pylist())


def have_boxes(table: pa.Table) -> list[bool]:
    """Return which clips of a store's table can be used: those that did not fail and have frames."""
    return [status != "failed" and bool(count) for status, count in rows_of(table, "status", "num_frames")]


def rows_of(table: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    """Return some columns of each row of a table, as Python values."""
    return zip(*(table.column(name).to_pylist() for name in names), strict=True)


def splits_of(
    table: pa.Table, *, as_listed: bool = True, folds: FoldsConfig | None = None
) -> tuple[list[str | None], bool]:
    """Say which split each clip is of, under its usual name.

    `val`, `valid` and `dev` are `validation`, `training` is `train`, `testing` is `test`. Where the store names no
    split at all, or its names are not wanted, a fifth of the videos (whole videos, by a hash of their names) stands for
    `validation` and the others for `train`.

    Args:
        table: `Store.clips()`.
        as_listed: Take the store's names where there are any.
        folds: Deal the clips to folds instead, whatever the store says; those without a label, or that failed, are of
            no split.

    Returns:
        The split of each clip, None = of none; and whether these are the store's own.

    Raises:
        DataError: Splits have to be made, and all clips are of one video, or of fewer groups than folds.
    """
    if folds is not None:
        fold = deal_folds(groups_of(table), _strata_of(table), folds.number)
        return [None if own < 0 else "validation" if own == folds.held_out else "train" for own in fold.tolist()], False
    listed = [usual_split(name) if name else None for name in table.column("split").to_pylist()]
    if as_listed and any(listed):
        return listed, True
    held = hold_out(table.column("video_id").to_pylist(), _VALIDATION_SHARE, seed=0)
    return ["validation" if own else "train" for own in held], False


def _columns_of(table: pa.Table, task: TaskConfig) -> tuple[tuple[str, ...], str]:
    """Return the columns of a task as the store has them, and the head that the store labels by name.

    `label` are the numbers in `label_id` where these label as many clips as the names do, else the names.
    """
    if "label" not in task.columns:
        return task.columns, ""
    labelled = {
        column: len(table) - table.column(column).null_count if column in table.column_names else 0
        for column in ("label_id", "label")
    }
    if labelled["label_id"] and labelled["label_id"] >= labelled["label"]:
        return tuple("label_id" if column == "label" else column for column in task.columns), ""
    return task.columns, HEADS["label"]


def _name_of(value: object) -> str | None:
    """Return a class name of a cell: texts without blanks around them, numbers as text; None where it is empty."""
    return None if value is None else str(value).strip() or None


def _names_in(table: pa.Table) -> list[str]:
    return sorted({name for name in map(_name_of, table.column("label").to_pylist()) if name is not None})


def _num_classes(table: pa.Table, column: str) -> int:
    if column == "label":
        return len(_names_in(table))
    values = table.column(column).drop_null().to_numpy()
    if len(values) and values.min() < 0:
        raise DataError(f"{column} must not be negative, got {values.min()}")
    return int(values.max()) + 1 if len(values) else 0


def _declared_classes(table: pa.Table, column: str) -> int:
    """Return the number of classes that the data set has by its own word, 0 where the store does not know it."""
    return int((table.schema.field(column).metadata or {}).get(b"num_classes", 0))


def _class_names(table: pa.Table, column: str, count: int) -> tuple[str, ...]:
    names = [str(index) for index in range(count)]
    source = next(name for name in _NAME_COLUMNS[column] if name in table.column_names)
    texts = map(_name_of, table.column(source).to_pylist())
    for index, text in zip(table.column(column).to_pylist(), texts, strict=True):
        if index is not None and text is not None and index < count:
            names[index] = text
    return tuple(names)


def _action_pairs(table: pa.Table, count: int) -> NDArray[np.int64]:
    rows = rows_of(table, "action_id", "verb_class", "noun_class")
    pairs = {action: (verb, noun) for action, verb, noun in rows if action is not None}
    missing = [action for action in range(count) if action not in pairs]
    if missing:
        raise DataError(
            f"every action must have a clip that tells its verb and noun, got none for action {missing[0]} and "
            f"{len(missing) - 1} more; extract train and validation into the store"
        )
    return np.array([pairs[action] for action in range(count)], np.int64)
