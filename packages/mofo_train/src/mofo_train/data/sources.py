"""Where a stage finds its motion boxes and videos, and what to say where they are missing."""

from __future__ import annotations

import logging
from functools import cache as once
from pathlib import Path

import numpy as np

from mofo_train.config import ClipsConfig, GuidanceConfig
from mofo_train.data.reader import ClipCache, ClipReader
from mofo_train.data.splits import classes_left_out
from mofo_train.errors import DataError
from mofo_train.finetune_config import FinetuneDataConfig
from motionbox.errors import StoreError
from motionbox.storage import StorePath
from motionbox.store import Store, open_store

_LOG = logging.getLogger(__name__)


def open_clips(
    data: ClipsConfig,
    store: StorePath | None,
    data_root: Path | None,
    *,
    guidance: GuidanceConfig | None = None,
    test_split: str | None = None,
    cache: ClipCache | None = None,
) -> ClipReader:
    """Open the clips that a recipe asks for.

    Args:
        data: The recipe's section.
        store: The store; None = `stores/<dataset>`.
        data_root: Folder of the videos; None = the one that the store was made from.
        guidance: The recipe's section; None = the motion boxes.
        test_split: The clips of this split instead, to test what learned from the others.
        cache: Decoded clips of another reader of the same videos at the same size, to share them.

    Raises:
        DataError: Something is missing, or the store is of another data set.
        StoreError: Areas guide, and the store holds none.
    """
    boxes, root = open_boxes(data.dataset, store, data_root)
    # A finetuning has to leave clips to be tested with: without the store's splits it makes its own.
    makes_splits = isinstance(data, FinetuneDataConfig) and data.split is None
    split = test_split or ("train" if makes_splits else data.split)
    reader = ClipReader(
        boxes,
        root,
        split=split,
        as_listed=not makes_splits,
        folds=data.folds,
        short_side_px=data.short_side_px,
        boxes=data.boxes,
        min_confidence=data.min_confidence,
        guidance=guidance,
        cache_gib=data.cache_gib,
        cache=cache,
    )
    reader = _spread(reader, data.max_clips)
    if not isinstance(data, FinetuneDataConfig) or test_split is not None:
        return reader
    labelled = _spread(reader, data.num_labelled)
    lost = classes_left_out(labelled.labels, reader.labels) if data.num_labelled else ""
    if lost:
        _warn_once(
            f"data.num_labelled={data.num_labelled} takes clips at equal distances in the list, where classes "
            f"take turns: {lost}; set another number, or shuffle the list"
        )
    return labelled


@once
def _warn_once(what: str) -> None:
    """Say something that all stages of a table would say."""
    _LOG.warning(what)


def _spread(reader: ClipReader, limit: int | None) -> ClipReader:
    """Return a reader of at most so many clips, at equal distances in the store's order."""
    if limit is None or len(reader) <= limit:
        return reader
    return reader.subset(np.linspace(0, len(reader) - 1, limit).round().astype(np.int64))


def open_boxes(dataset: str, store: StorePath | None, data_root: Path | None) -> tuple[Store, Path]:
    """Open the store of a data set and find the folder of its videos; a store that keeps all frames can do without.

    Args:
        dataset: Name of the data set in the recipe.
        store: The store; None = `stores/<dataset>`.
        data_root: Folder of the videos; None = the one that the store was made from.

    Raises:
        DataError: Either is missing (says where it was looked for and how to make it), or the store is of another
            data set.
    """
    path = store or Path("stores") / dataset
    try:
        boxes = open_store(path)
    except StoreError as error:
        raise DataError(f"{error}; {_how_to_make(dataset, path)}") from None
    actual = boxes.run_info()["dataset"]
    if actual != dataset:
        raise DataError(
            f"dataset must be that of store {path}, got {dataset!r} and a store of {actual!r}; "
            f"set data.dataset={actual}"
        )
    return boxes, find_media(boxes, data_root)


def find_media(boxes: Store, data_root: Path | None) -> Path:
    """Return the folder of a store's videos; a store that keeps all frames can do without.

    Args:
        boxes: The store.
        data_root: The folder; None = the one that the store was made from.

    Raises:
        DataError: It does not exist.
    """
    made_from = boxes.run_info()["data_root"]
    root = data_root or Path(made_from)
    if not root.exists() and not _keeps_all_frames(boxes):
        raise DataError(
            f"data root {data_root or made_from} is no folder of this machine; name the folder of the videos with "
            "--data-root, or make a store that needs none with `motionbox extract --clips`"
        )
    return root


def _keeps_all_frames(store: Store) -> bool:
    table = store.clips()
    names, counts = (table.column(name).to_pylist() for name in ("clip_id", "num_frames"))
    return all(store.has_clip(name) for name, count in zip(names, counts, strict=True) if count)


_GENERATED = {"synthetic": "motionbox synth", "metaworld": "motionbox synth --metaworld"}


def _how_to_make(dataset: str, path: StorePath) -> str:
    extract = f"motionbox extract --dataset {dataset} --store {path}"
    if dataset in _GENERATED:
        return f"make one with `{_GENERATED[dataset]} -o data/{dataset}` and `{extract}`"
    return f"make one with `{extract} --data-root <its videos>`"
