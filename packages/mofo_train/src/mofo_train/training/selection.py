"""Which weights of a finetuning are kept: those that do best on clips held out of the training split.

The test split has no say in it and is never opened.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mofo_train.data.labels import LabelSpace
from mofo_train.data.reader import ClipReader
from mofo_train.data.splits import hold_out
from mofo_train.errors import DataError
from mofo_train.evaluation.classify import classify_clips
from mofo_train.finetune_config import FinetuneConfig, ViewsConfig
from mofo_train.runtime.precision import DTYPES
from mofo_train.runtime.ranks import Ranks


def hold_out_clips(
    clips: ClipReader, config: FinetuneConfig, space: LabelSpace
) -> tuple[ClipReader, ClipReader | None]:
    """Split the training clips into those to learn from and those held out; None where nothing is.

    Raises:
        DataError: A clip has no label, or the store lacks the column `selection.by`.
    """
    selection = config.selection
    labels = space.labels(clips.labels)
    for head in space.heads:
        unknown = np.flatnonzero(labels[head] < 0)
        if len(unknown):
            clip = clips.clip_ids[unknown[0]]
            raise DataError(f"clips of split {config.data.split} must be labelled, got no {head} for clip {clip}")
    if selection.share == 0:
        return clips, None
    if selection.by not in clips.labels.column_names:
        raise DataError(f"selection.by must be a column of the store, got {selection.by!r}; try video_id")
    held = hold_out(clips.labels.column(selection.by).to_pylist(), selection.share, config.seed)
    return clips.subset(np.flatnonzero(~held)), clips.subset(np.flatnonzero(held))


def held_out_score(
    model: nn.Module, held_out: ClipReader, config: FinetuneConfig, space: LabelSpace, ranks: Ranks
) -> float:
    """Test the held-out clips, one view each.

    Returns:
        The mean top-1 of the heads, in [0, 1], the same on all ranks.

    Raises:
        DataError: None of them can be read.
    """
    views = ViewsConfig(split=config.data.split or "train", segments=1, crops=1, batch_clips=config.test.batch_clips)
    dtype = DTYPES[config.run.precision]
    found = classify_clips(model, space, held_out, views, ranks, shape=config.model, data=config.data, dtype=dtype)
    tested = found.predictions
    if len(tested) == 0:
        reason = next(iter(found.unreadable.values()))
        raise DataError(f"held-out clips must be readable, got none of {len(held_out)}; the first: {reason}")
    right = [(tested.logits[head].argmax(1) == tested.labels[head]).mean() for head in space.heads]
    return float(np.mean(right))


def selection_record(config: FinetuneConfig, held_out: ClipReader | None, score: float) -> dict[str, Any]:
    """Say how the weights were chosen, for the run's record."""
    if held_out is None:
        return {"rule": "last weights; nothing held out", "test_split_used": False}
    return {
        "rule": f"best mean top-1 on {len(held_out)} clips held out of split {config.data.split or 'train'!r}",
        "grouped_by": config.selection.by,
        "held_out_top1": score,
        "test_split_used": False,
    }


def class_weights(labels: NDArray[np.int64], num_classes: int, exponent: float) -> Tensor:
    """Return the weight of each class in the loss: (1 / its clips) ** exponent, with mean 1 over the clips.

    A class without clips weighs 0. Returns float32 (num_classes,).
    """
    counts = np.bincount(labels[labels >= 0], minlength=num_classes).astype(np.float64)
    raw = np.where(counts > 0, np.maximum(counts, 1) ** -exponent, 0.0)
    return torch.from_numpy(raw * counts.sum() / (raw * counts).sum()).to(torch.float32)
