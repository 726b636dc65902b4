"""Which clips of a store there are to learn from, or to test with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mofo_train.config import FoldsConfig, usual_split
from mofo_train.data.labels import have_boxes, rows_of
from mofo_train.data.splits import splits_of
from mofo_train.errors import DataError
from motionbox.store import Store


@dataclass(frozen=True)
class ChosenClips:
    """Clips that have boxes; a clip is told by its place among them.

    Attributes:
        labels: The store's table of these clips, label columns included.
        left_out: Clip id -> why, of the split's clips that the store has no boxes for.
        has_made_splits: A share of the videos stands for `validation`, the store does not say which.
    """

    labels: pa.Table
    left_out: dict[str, str]
    has_made_splits: bool

    def __len__(self) -> int:
        return int(self.labels.num_rows)

    @cached_property
    def ids(self) -> list[str]:
        """Return the clips' ids, in the store's order."""
        ids: list[str] = self.labels.column("clip_id").to_pylist()
        return ids

    @cached_property
    def paths(self) -> list[str]:
        """Return the paths of the videos below the data root."""
        paths: list[str] = self.labels.column("path").to_pylist()
        return paths

    @cached_property
    def num_frames(self) -> list[int]:
        """Return how many frames the store knows of each."""
        numbers: list[int] = self.labels.column("num_frames").to_pylist()
        return numbers

    @cached_property
    def sizes_wh(self) -> list[tuple[int, int]]:
        """Return width and height in display pixels."""
        return list(rows_of(self.labels, "width", "height"))

    @cached_property
    def rates(self) -> list[float | None]:
        """Return the rate of numbered frame files; None for videos."""
        known = "frame_fps" in self.labels.column_names
        return self.labels.column("frame_fps").to_pylist() if known else [None] * len(self)

    @cached_property
    def confidences(self) -> list[float]:
        """Return how clearly each clip's motion lies inside its boxes, 0 to 1."""
        confidences: list[float] = self.labels.column("confidence").to_pylist()
        return confidences

    def digest(self) -> str:
        """Return what tells these clips from others."""
        return hashlib.sha256("\n".join(self.ids).encode()).hexdigest()

    def subset(self, places: NDArray[np.int64]) -> ChosenClips:
        """Return some of the clips only, in the given order."""
        return replace(self, labels=self.labels.take(places))


def choose_clips(store: Store, split: str | None, *, as_listed: bool, folds: FoldsConfig | None) -> ChosenClips:
    """Return the clips of a split that have boxes.

    Args:
        store: The store.
        split: Only clips of this split, under whatever of its usual names the store has it; None = all.
        as_listed: False: make splits although the store names some, see `splits.splits_of`.
        folds: Deal the clips to these folds, see `splits.splits_of`.

    Raises:
        DataError: The store has no clip of that split with boxes.
    """
    table, has_made_splits = store.clips(), False
    if split is not None:
        splits, are_listed = splits_of(table, as_listed=as_listed, folds=folds)
        has_made_splits = not are_listed and folds is None
        if usual_split(split) not in splits:
            known = ", ".join(sorted({name for name in splits if name is not None}))
            raise DataError(
                f"split must be one of {known}, got {split!r}; store {store.path}; choose with "
                "--set data.split=NAME and test.split=NAME"
            )
        table = table.filter([own == usual_split(split) for own in splits])
    usable = have_boxes(table)
    if not any(usable):
        raise DataError(
            f"store {store.path} must have clips with boxes, got none of {len(usable)}; see `motionbox status`"
        )
    rows = zip(rows_of(table, "clip_id", "reason"), usable, strict=True)
    left_out = {clip_id: reason for (clip_id, reason), ok in rows if not ok}
    return ChosenClips(table.filter(usable), left_out, has_made_splits)
