"""Where a stage finds its motion boxes and videos, and what to say where they are missing."""

from __future__ import annotations

from pathlib import Path

from mofo_train.errors import DataError
from motionbox.errors import StoreError
from motionbox.store import Store, open_store


def open_boxes(dataset: str, store: Path | None, data_root: Path | None) -> tuple[Store, Path]:
    """Open the store of a data set and find the folder of its videos.

    Args:
        dataset: Name of the data set in the recipe.
        store: The store; None = `stores/<dataset>`.
        data_root: Folder of the videos; None = the one that the store was made from.

    Raises:
        DataError: Either is missing; says where it was looked for and how to make it.
    """
    path = store or Path("stores") / dataset
    try:
        boxes = open_store(path)
    except StoreError as error:
        raise DataError(f"{error}; {_how_to_make(dataset, path)}") from None
    root = data_root or Path(boxes.run_info()["data_root"])
    if not root.exists():
        raise DataError(f"data root {root} does not exist; name the folder of the videos with --data-root")
    return boxes, root


def _how_to_make(dataset: str, path: Path) -> str:
    extract = f"motionbox extract --dataset {dataset} --store {path}"
    if dataset == "synthetic":
        return f"make one with `motionbox synth -o data/synthetic` and `{extract}`"
    return f"make one with `{extract} --data-root <its videos>`"
