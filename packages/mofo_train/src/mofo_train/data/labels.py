"""What is predicted: heads, classes and the labels of clips; and which training clips are held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from mofo_train.errors import DataError
from mofo_train.finetune_config import TaskConfig

HEADS = {"label_id": "label", "action_id": "action", "verb_class": "verb", "noun_class": "noun"}
"""Label column of a store -> name of its head."""
_NAME_COLUMNS = {"label_id": "template", "verb_class": "verb", "noun_class": "noun"}
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
    """

    heads: dict[str, int]
    class_names: dict[str, tuple[str, ...]]
    pairs: NDArray[np.int64] | None
    num_verbs: int
    num_nouns: int

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
        counts = {column: _num_classes(table, column) for column in HEADS if column in table.column_names}
        declared = {column: _declared_classes(table, column) for column in counts}
        heads = {}
        for place, column in enumerate(task.columns):
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
            heads[HEADS[column]] = wanted
        names = {
            HEADS[column]: _class_names(table, column, heads.get(HEADS[column], count))
            for column, count in counts.items()
            if _NAME_COLUMNS.get(column) in table.column_names
        }
        pairs = _action_pairs(table, heads["action"]) if "action" in heads else None
        # EPIC-100 has 97 verbs and 300 nouns, also those that a part of the set lacks.
        num_verbs, num_nouns = (
            heads.get(head, max(counts.get(column, 0), declared.get(column, 0)))
            for head, column in (("verb", "verb_class"), ("noun", "noun_class"))
        )
        return cls(heads, names, pairs, num_verbs, num_nouns)

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
        result = {}
        for column, head in HEADS.items():
            if column not in table.column_names:
                continue
            values = table.column(column).fill_null(-1).to_numpy().astype(np.int64)
            limit = self.heads.get(head)
            bad = (values < -1) | ((values >= limit) if limit is not None else False)
            if bad.any():
                row = int(bad.argmax())
                clip = table.column("clip_id")[row].as_py()
                raise DataError(f"{column} must be in [0, {limit}), got {values[row]} for clip {clip}")
            result[head] = values
        return result

    def as_json(self) -> dict[str, Any]:
        """Return what a run records."""
        return {
            "heads": self.heads,
            "class_names": {head: list(names) for head, names in self.class_names.items()},
            "pairs": None if self.pairs is None else self.pairs.tolist(),
            "num_verbs": self.num_verbs,
            "num_nouns": self.num_nouns,
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
        )


def group_flags(table: pa.Table) -> dict[str, NDArray[np.bool_]]:
    """Return EPIC-100's flags of clips, bool (N,) each, those that the store has values for."""
    return {
        name: table.column(name).fill_null(False).to_numpy(zero_copy_only=False)
        for name in _FLAGS
        if name in table.column_names and table.column(name).null_count < table.num_rows
    }


def _num_classes(table: pa.Table, column: str) -> int:
    values = table.column(column).drop_null().to_numpy()
    if len(values) and values.min() < 0:
        raise DataError(f"{column} must not be negative, got {values.min()}")
    return int(values.max()) + 1 if len(values) else 0


def _declared_classes(table: pa.Table, column: str) -> int:
    """Return the number of classes that the data set has by its own word, 0 where the store does not know it."""
    return int((table.schema.field(column).metadata or {}).get(b"num_classes", 0))


def _class_names(table: pa.Table, column: str, count: int) -> tuple[str, ...]:
    names = [str(index) for index in range(count)]
    texts = table.column(_NAME_COLUMNS[column]).to_pylist()
    for index, text in zip(table.column(column).to_pylist(), texts, strict=True):
        if index is not None and text is not None and index < count:
            names[index] = text
    return tuple(names)


def _action_pairs(table: pa.Table, count: int) -> NDArray[np.int64]:
    rows = zip(*(table.column(name).to_pylist() for name in ("action_id", "verb_class", "noun_class")), strict=True)
    pairs = {action: (verb, noun) for action, verb, noun in rows if action is not None}
    missing = [action for action in range(count) if action not in pairs]
    if missing:
        raise DataError(
            f"every action must have a clip that tells its verb and noun, got none for action {missing[0]} and "
            f"{len(missing) - 1} more; extract train and validation into the store"
        )
    return np.array([pairs[action] for action in range(count)], np.int64)
