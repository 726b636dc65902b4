"""What is predicted: heads, classes and the labels of clips."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from mofo_train.errors import DataError
from mofo_train.finetune_config import TaskConfig

HEADS = {
    "label_id": "label",
    "label": "label",
    "action_id": "action",
    "verb_class": "verb",
    "verb": "verb",
    "noun_class": "noun",
    "noun": "noun",
}
"""Label column of a store -> name of its head; those of `NUMBERED` hold names, the others numbers."""
NUMBERED = {"label": "label_id", "verb": "verb_class", "noun": "noun_class"}
"""Column of class names -> column of the same classes' numbers."""
_NAME_COLUMNS = {"label_id": ("template", "label"), "verb_class": ("verb",), "noun_class": ("noun",)}
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
        by_name: Heads of which the store says names, no numbers (columns `label`, `verb`, `noun`).
    """

    heads: dict[str, int]
    class_names: dict[str, tuple[str, ...]]
    pairs: NDArray[np.int64] | None
    num_verbs: int
    num_nouns: int
    by_name: tuple[str, ...] = ()

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
        table = _with_numbers(table)
        columns = tuple(labelled_column(table, column) for column in task.columns)
        counts = {column: _num_classes(table, column) for column in HEADS if column in table.column_names}
        declared = {column: _declared_classes(table, column) for column in counts}
        heads = {}
        for place, column in enumerate(columns):
            found = counts.get(column, 0)
            if found == 0:
                known = ", ".join(name for name, count in counts.items() if count) or "none"
                own = predicted_columns(table)
                remedy = f"--set 'task.columns={json.dumps(own)}'" if own else "label the clip list and extract it"
                raise DataError(
                    f"task.columns must be labelled in {where}, got {column!r}; labelled columns: {known} ({remedy})"
                )
            wanted = max(found, declared[column]) if task.num_classes is None else task.num_classes[place]
            if wanted < found:
                raise DataError(
                    f"task.num_classes must be at least {found} for {column} of {where}, got {wanted}; "
                    "is it the store of another data set?"
                )
            heads[HEADS[column]] = found if column in NUMBERED else wanted
        names = {
            HEADS[column]: _class_names(table, column, heads.get(HEADS[column], count))
            for column, count in counts.items()
            if any(name in table.column_names for name in _NAME_COLUMNS.get(column, ()))
        }
        by_name = tuple(HEADS[column] for column in columns if column in NUMBERED)
        names |= {head: tuple(_names_in(table, head)) for head in by_name}
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
            raise DataError(
                f"classes of the store must be those of the checkpoint {self._described()}, got {own._described()}"
            )
        for head in self.by_name:
            known = self.class_names[head]
            other = [name for name in own.class_names[head] if name not in known]
            if other:
                raise DataError(f"classes of the store must be among {', '.join(known)}, got {other[0]!r}")

    def _described(self) -> str:
        return f"{self.heads!r}" + (f" ({' and '.join(self.by_name)} by name)" if self.by_name else "")

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
            DataError: A label of a head is out of range, names the clip; or is no number where numbers belong.
        """
        result: dict[str, NDArray[np.int64]] = {}
        table = _with_numbers(table)
        for column, head in HEADS.items():
            if column not in table.column_names or (column in NUMBERED) != (head in self.by_name):
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
        if column not in NUMBERED:
            return np.array(table.column(column).fill_null(-1).to_numpy(), np.int64)
        number = {name: index for index, name in enumerate(self.class_names[HEADS[column]])}
        names = [name_of(value) for value in table.column(column).to_pylist()]
        for name, clip in zip(names, table.column("clip_id").to_pylist(), strict=True):
            if name is not None and name not in number:
                raise DataError(f"{column} must be one of {', '.join(number)}, got {name!r} for clip {clip}")
        return np.array([-1 if name is None else number[name] for name in names], np.int64)

    def as_json(self) -> dict[str, Any]:
        """Return what a run records."""
        return {
            "heads": self.heads,
            "class_names": {head: list(names) for head, names in self.class_names.items()},
            "pairs": None if self.pairs is None else self.pairs.tolist(),
            "num_verbs": self.num_verbs,
            "num_nouns": self.num_nouns,
            "by_name": list(self.by_name),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> LabelSpace:
        """Read what `as_json` returned, now or when a single head could have names."""
        by_name = values["by_name"]
        return cls(
            heads=dict(values["heads"]),
            class_names={head: tuple(names) for head, names in values["class_names"].items()},
            pairs=None if values["pairs"] is None else np.array(values["pairs"], np.int64).reshape(-1, 2),
            num_verbs=values["num_verbs"],
            num_nouns=values["num_nouns"],
            by_name=tuple(filter(None, [by_name])) if isinstance(by_name, str) else tuple(by_name),
        )


def group_flags(table: pa.Table) -> dict[str, NDArray[np.bool_]]:
    """Return EPIC-100's flags of clips, bool (N,) each, those that the store has values for."""
    return {
        name: table.column(name).fill_null(False).to_numpy(zero_copy_only=False)
        for name in _FLAGS
        if name in table.column_names and table.column(name).null_count < table.num_rows
    }


def have_boxes(table: pa.Table) -> list[bool]:
    """Return which clips of a store's table can be used: those that did not fail and have frames."""
    return [status != "failed" and bool(count) for status, count in rows_of(table, "status", "num_frames")]


def rows_of(table: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    """Return some columns of each row of a table, as Python values."""
    return zip(*(table.column(name).to_pylist() for name in names), strict=True)


def predicted_columns(table: pa.Table) -> tuple[str, ...]:
    """Return what a clip list that nobody wrote a recipe for asks to predict; empty where it has no such labels.

    Returns:
        `label` where clips have a name or a number, else of verbs and nouns what there is, each as the column of its
        numbers or of its names.
    """
    if any(num_labelled(table, name) for name in ("label", "label_id")):
        return ("label",)
    columns = (labelled_column(table, name) for name in ("verb", "noun"))
    return tuple(name for name in columns if num_labelled(table, name))


def labelled_column(table: pa.Table, column: str) -> str:
    """Return which column says the classes that a recipe asks for.

    Args:
        table: `Store.clips()`, or a clip list.
        column: One of `HEADS`; a name of `NUMBERED` stands for its numbers where they label as many clips.
    """
    numbers = NUMBERED.get(column, "")
    count = num_labelled(table, numbers)
    return numbers if count and count >= num_labelled(table, column) else column


def name_column(table: pa.Table, column: str) -> str:
    """Return which column names the classes of a column; itself where none does."""
    return next((name for name in _NAME_COLUMNS.get(column, ()) if num_labelled(table, name)), column)


def num_labelled(table: pa.Table, column: str) -> int:
    """Return how many clips a column labels; blanks are no label."""
    cells = table.column(column).to_pylist() if column in table.column_names else []
    return sum(name_of(value) is not None for value in cells)


def _with_numbers(table: pa.Table) -> pa.Table:
    """Return the table with columns of class numbers as such: one in which a clip list had nothing holds texts.

    Raises:
        DataError: There is something else in one.
    """
    for place, column in enumerate(table.column_names):
        if column not in HEADS or column in NUMBERED or pa.types.is_integer(table.field(column).type):
            continue
        if num_labelled(table, column):
            raise DataError(f"{column} must hold whole numbers, got {table.field(column).type}")
        table = table.set_column(place, column, pa.nulls(len(table), pa.int64()))
    return table


def name_of(value: object) -> str | None:
    """Return a class name of a cell: texts without blanks around them, numbers as text; None where it is empty."""
    return None if value is None else str(value).strip() or None


def _names_in(table: pa.Table, column: str) -> list[str]:
    return sorted({name for name in map(name_of, table.column(column).to_pylist()) if name is not None})


def _num_classes(table: pa.Table, column: str) -> int:
    if column in NUMBERED:
        return len(_names_in(table, column))
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
    texts = map(name_of, table.column(source).to_pylist())
    for index, text in zip(table.column(column).to_pylist(), texts, strict=True):
        if index is not None and text is not None and index < count:
            names[index] = text
    return tuple(names)


def _action_pairs(table: pa.Table, count: int) -> NDArray[np.int64]:
    parts = ("action_id", "verb_class", "noun_class")
    rows = rows_of(table, *parts) if set(parts) <= set(table.column_names) else ()
    pairs = {action: (verb, noun) for action, verb, noun in rows if None not in (action, verb, noun)}
    missing = [action for action in range(count) if action not in pairs]
    if missing:
        raise DataError(
            f"every action must have a clip with its verb_class and noun_class, got none for action {missing[0]} and "
            f"{len(missing) - 1} more; extract train and validation into the store"
        )
    return np.array([pairs[action] for action in range(count)], np.int64)
