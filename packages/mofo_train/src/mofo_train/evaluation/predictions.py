"""Predictions of a data set as one Parquet file, so that every figure can be computed again; EPIC's submission file.

One row per clip, ordered by clip id: logits of every head (mean over the views), labels (-1 = unknown) and the flags
of EPIC-100's groups of clips.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mofo_train.errors import DataError
from mofo_train.evaluation.metrics import marginals, softmax

_LOGITS, _LABEL, _FLAG = "logits_", "label_", "flag_"
_INFO_KEY = b"mofo_train"
_NUM_SUBMITTED_ACTIONS = 100
_SUBMISSION_VERSION = "0.2"


@dataclass(frozen=True)
class Predictions:
    """What a model says about the clips of a data set.

    Attributes:
        clip_ids: The N clips.
        logits: Head -> float32 (N, classes).
        labels: Label column -> int64 (N,), -1 = unknown.
        flags: Flag -> bool (N,).
        info: Where they come from (model, views, store, class names): kept in the file.
    """

    clip_ids: tuple[str, ...]
    logits: dict[str, NDArray[np.float32]]
    labels: dict[str, NDArray[np.int64]]
    flags: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.clip_ids)

    def take(self, rows: NDArray[np.int64]) -> Predictions:
        """Return the chosen rows in the given order."""
        return Predictions(
            tuple(self.clip_ids[row] for row in rows),
            {name: values[rows] for name, values in self.logits.items()},
            {name: values[rows] for name, values in self.labels.items()},
            {name: values[rows] for name, values in self.flags.items()},
            self.info,
        )


def merge_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Join the parts of several processes and sort by clip id; a clip that several parts hold counts once.

    Raises:
        ValueError: No parts, parts with different heads, or different logits for one clip.
    """
    if not parts:
        raise ValueError("parts must hold at least one part, got none")
    layout = [(sorted(part.logits), sorted(part.labels), sorted(part.flags)) for part in parts]
    if any(other != layout[0] for other in layout):
        raise ValueError(f"parts must have the same heads and labels, got {layout[0]!r} and others")

    def join(name: str, key: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name)[key] for part in parts])

    joined = Predictions(
        tuple(clip_id for part in parts for clip_id in part.clip_ids),
        {key: join("logits", key) for key in parts[0].logits},
        {key: join("labels", key) for key in parts[0].labels},
        {key: join("flags", key) for key in parts[0].flags},
        parts[0].info,
    )
    order = sorted(range(len(joined)), key=joined.clip_ids.__getitem__)
    kept: list[int] = []
    for row in order:
        if kept and joined.clip_ids[kept[-1]] == joined.clip_ids[row]:
            if any((values[kept[-1]] != values[row]).any() for values in joined.logits.values()):
                raise ValueError(f"logits of one clip must agree, got two kinds for clip {joined.clip_ids[row]}")
            continue
        kept.append(row)
    return joined.take(np.array(kept, np.int64))


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write predictions as Parquet."""
    columns: dict[str, pa.Array] = {"clip_id": pa.array(predictions.clip_ids, pa.string())}
    for name, values in predictions.logits.items():
        flat = pa.array(np.ascontiguousarray(values, np.float32).ravel())
        columns[_LOGITS + name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    columns |= {_LABEL + name: pa.array(values) for name, values in predictions.labels.items()}
    columns |= {_FLAG + name: pa.array(values) for name, values in predictions.flags.items()}
    table = pa.table(columns).replace_schema_metadata({_INFO_KEY: json.dumps(predictions.info).encode()})
    private = path.with_suffix(".writing")
    pq.write_table(table, private)
    private.replace(path)


def read_predictions(path: Path) -> Predictions:
    """Read what `write_predictions` wrote.

    Raises:
        DataError: The file is missing, unreadable or another kind of Parquet file.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).split("\n", 1)[0]
        raise DataError(f"predictions {path} must be a readable Parquet file, got: {reason}") from None
    metadata = table.schema.metadata or {}
    if _INFO_KEY not in metadata or "clip_id" not in table.column_names:
        raise DataError(f"predictions {path} must be written by `mofo-train evaluate`, got another table")
    logits, labels, flags = {}, {}, {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        if name.startswith(_LOGITS):
            width = column.type.list_size
            logits[name.removeprefix(_LOGITS)] = column.flatten().to_numpy().reshape(-1, width)
        elif name.startswith(_LABEL):
            labels[name.removeprefix(_LABEL)] = column.to_numpy()
        elif name.startswith(_FLAG):
            flags[name.removeprefix(_FLAG)] = column.to_numpy(zero_copy_only=False)
    ids = tuple(table.column("clip_id").to_pylist())
    return Predictions(ids, logits, labels, flags, json.loads(metadata[_INFO_KEY]))


@dataclass(frozen=True)
class SupervisionLevels:
    """What the challenge asks about training (https://github.com/epic-kitchens/sls), each 0 to 5.

    Attributes:
        pretraining: 4 = self-supervised on public data and EPIC-Kitchens.
        training_labels: 3 = labels with start and stop.
        training_data: 3 = the whole training split, 4 = validation too.
    """

    pretraining: int = 4
    training_labels: int = 3
    training_data: int = 3

    def __post_init__(self) -> None:
        for name in ("pretraining", "training_labels", "training_data"):
            if getattr(self, name) not in range(6):
                raise ValueError(f"{name} must be 0 to 5, got {getattr(self, name)!r}")


def write_submission(
    predictions: Predictions,
    path: Path,
    levels: SupervisionLevels = SupervisionLevels(),
    *,
    pairs: NDArray[np.int64] | None = None,
    num_verbs: int = 97,
    num_nouns: int = 300,
) -> None:
    """Write the EPIC-100 action recognition challenge's file: `test.json` in a zip.

    Every clip has its verb and noun scores and its 100 best actions. Scores are logits of the two heads, or logarithms
    of the marginals of the action head's softmax; actions are those of the action head, or sums of the two heads'.

    Args:
        predictions: With heads `verb` and `noun`, or `action`; clip ids are narration ids.
        path: The zip file.
        levels: Supervision of the model.
        pairs: (A, 2) verb and noun of each class of the `action` head.
        num_verbs: Verb classes.
        num_nouns: Noun classes.

    Raises:
        ValueError: Predictions without these heads, or an action head without `pairs`.
    """
    if "action" in predictions.logits:
        if pairs is None:
            raise ValueError("pairs must be given for an action head, got None")
        probabilities = softmax(predictions.logits["action"])
        floor = np.finfo(np.float64).tiny
        verb, noun = (np.log(part + floor) for part in marginals(probabilities, pairs, num_verbs, num_nouns))
        action, names = predictions.logits["action"], [f"{verb},{noun}" for verb, noun in pairs.tolist()]
    elif {"verb", "noun"} <= set(predictions.logits):
        verb, noun = predictions.logits["verb"], predictions.logits["noun"]
        action, names = None, [f"{v},{n}" for v in range(verb.shape[1]) for n in range(noun.shape[1])]
    else:
        raise ValueError(f"predictions must have heads verb and noun, or action, got {sorted(predictions.logits)!r}")
    results = {}
    for row, clip_id in enumerate(predictions.clip_ids):
        scores = (verb[row][:, None] + noun[row]).ravel() if action is None else action[row]
        best = np.argsort(-scores, kind="stable")[:_NUM_SUBMITTED_ACTIONS]
        results[clip_id] = {
            "verb": {str(place): float(value) for place, value in enumerate(verb[row])},
            "noun": {str(place): float(value) for place, value in enumerate(noun[row])},
            "action": {names[place]: float(scores[place]) for place in best},
        }
    content = {
        "version": _SUBMISSION_VERSION,
        "challenge": "action_recognition",
        "sls_pt": levels.pretraining,
        "sls_tl": levels.training_labels,
        "sls_td": levels.training_data,
        "results": results,
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("test.json", json.dumps(content))
