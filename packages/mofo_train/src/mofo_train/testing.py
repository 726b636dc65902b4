"""Test a checkpoint on the test split of its recipe: which weights, which clips, what is recorded."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from mofo_train.checkpoint import read_checkpoint
from mofo_train.classifiers import create_model
from mofo_train.config import load_recipe, override_recipe, stage_of_recipe
from mofo_train.data.dataset import ClipReader
from mofo_train.data.sources import open_clips
from mofo_train.data.views import ViewedClips
from mofo_train.distributed import Ranks
from mofo_train.errors import CheckpointError, DataError
from mofo_train.evaluate import check_report_folder, classify_clips
from mofo_train.finetune_config import FinetuneConfig
from mofo_train.labels import LabelSpace
from mofo_train.models import Classifier, load_checkpoint, load_into
from mofo_train.models.systems import OtherSystem, load_system
from mofo_train.models.vit import size_of
from mofo_train.predictions import Predictions
from mofo_train.saliency import ClipSaliency, Method, saliency_of_clips
from mofo_train.stage import DTYPES

System = Literal["videomae"] | OtherSystem
_PAPER_BLOCK = 5


def evaluate_checkpoint(
    checkpoint: Path,
    ranks: Ranks,
    out: Path,
    *,
    system: System = "videomae",
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    store: Path | None = None,
    data_root: Path | None = None,
) -> Predictions:
    """Predict the test split.

    Args:
        checkpoint: Folder of a finetuning's checkpoint, or weights of another program with `recipe`.
        ranks: This process among all.
        out: Folder where the report will be written; nothing is written here.
        system: Whose weights: `videomae` (VideoMAE, MOFO, Hugging Face, ours) or another, which needs `recipe`.
        recipe: Name or path of a finetuning recipe; None = that of the checkpoint.
        overrides: `section.key=value`.
        store: Motion boxes; None = `stores/<dataset>`.
        data_root: Folder of the videos; None = that of the store.

    Returns:
        Predictions whose `info` holds `label_space` and `source` (checkpoint, recipe, views, clips left out).

    Raises:
        CheckpointError: No such checkpoint, one of another model or other classes, or `out` holds another report.
        DataError: The store is missing or of another data set, or lacks the split.
    """
    config, space = load_identity(checkpoint, recipe, overrides)
    check_report_folder(out, _source_of(checkpoint, system, config))
    data = config.data.model_copy(update={"split": config.test.split})
    reader = open_clips(data, store, data_root)
    return predict(checkpoint, config, space, reader, ranks, system=system)


def stage_of(checkpoint: Path, recipe: str | None) -> str:
    """Return what made a checkpoint, or what a recipe is for: `pretrain` or `finetune`; empty where nothing says."""
    if recipe is not None:
        return stage_of_recipe(recipe)
    path = checkpoint / "checkpoint.json"
    return str(json.loads(path.read_text(encoding="utf-8")).get("stage", "")) if path.is_file() else ""


def load_identity(
    checkpoint: Path, recipe: str | None, overrides: Sequence[str]
) -> tuple[FinetuneConfig, LabelSpace | None]:
    """Read the recipe and the classes of a checkpoint; with `recipe`, that one and no classes."""
    if recipe is not None:
        return load_recipe(FinetuneConfig, recipe, overrides), None
    path = checkpoint / "checkpoint.json"
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {checkpoint} must be a folder of a finetuning (with checkpoint.json); name a recipe with "
            "--recipe to test weights of another program"
        )
    info = json.loads(path.read_text(encoding="utf-8"))
    if info.get("stage") != "finetune":
        raise CheckpointError(f"checkpoint {checkpoint} must be of a finetuning, got stage {info.get('stage')!r}")
    config = override_recipe(FinetuneConfig, info["config"], overrides, str(checkpoint))
    return config, LabelSpace.from_json(info["label_space"])


def saliency_of_checkpoint(
    checkpoint: Path,
    device: torch.device,
    *,
    method: Method,
    block: int | None,
    limit: int | None,
    store: Path | None,
    data_root: Path | None,
) -> Iterator[ClipSaliency]:
    """Compute a finetuned checkpoint's saliency of its test split, the middle view of each clip.

    Args:
        checkpoint: Folder of a finetuning's checkpoint.
        device: Where to compute.
        method: `gradcam` or `rollout`.
        block: Block of Grad-CAM, from 1; None = the fifth, or the last of fewer.
        limit: Only so many clips; None = all.
        store: As for `evaluate_checkpoint`.
        data_root: As for `evaluate_checkpoint`.
        clips: As for `evaluate_checkpoint`.

    Raises:
        CheckpointError: No such checkpoint, or an attentive probe, which knows no box.
        DataError: The store is missing, of another data set or other classes, or there is no such block.
    """
    config, space = load_identity(checkpoint, None, ())
    data = config.data.model_copy(update={"split": config.test.split})
    reader = open_clips(data, store, data_root)
    reader = reader.subset(np.arange(min(limit or len(reader), len(reader))))
    model, known = load_classifier(checkpoint, config, space, reader)
    if not isinstance(model, Classifier):
        raise CheckpointError(f"checkpoint {checkpoint} must be a classifier with a fusion, got an attentive probe")
    depth = len(model.encoder.blocks)
    if block is not None and block > depth:
        raise DataError(f"block must be 1 to {depth} for {config.model.name}, got {block}")
    views = config.test.model_copy(update={"segments": 1, "crops": 1})
    return saliency_of_clips(
        model,
        known,
        ViewedClips(reader, config.model, config.data, views),
        reader.clip_ids,
        method=method,
        block=block or min(_PAPER_BLOCK, depth),
        batch_clips=views.batch_clips,
        num_workers=config.data.num_workers,
        device=device,
    )


def load_classifier(
    checkpoint: Path,
    config: FinetuneConfig,
    space: LabelSpace | None,
    reader: ClipReader,
    *,
    system: System = "videomae",
) -> tuple[nn.Module, LabelSpace]:
    """Create the classifier of a checkpoint after checking that the store has its classes."""
    own = LabelSpace.of(reader.every_clip(), config.task, "the store")
    space = space or own
    if own.heads != space.heads:
        raise DataError(f"classes of the store must be those of the checkpoint {space.heads!r}, got {own.heads!r}")
    net, num_outputs = config.model, space.num_outputs
    if system != "videomae":
        size = size_of(net.name)
        clip = size.clip_shape(net.num_frames, net.image_px)
        return load_system(system, checkpoint, size, clip, num_outputs), space
    model = create_model(net.model_copy(update={"init": None}), num_outputs)
    load_into(model, _weights(checkpoint), source=str(checkpoint))
    return model, space


def predict(
    checkpoint: Path,
    config: FinetuneConfig,
    space: LabelSpace | None,
    reader: ClipReader,
    ranks: Ranks,
    *,
    system: System = "videomae",
) -> Predictions:
    """Predict the clips of a reader with the weights of a checkpoint; see `evaluate_checkpoint`."""
    model, space = load_classifier(checkpoint, config, space, reader, system=system)
    tested = classify_clips(
        model.to(ranks.device),
        space,
        reader,
        config.test,
        ranks,
        shape=config.model,
        data=config.data,
        dtype=DTYPES[config.run.precision],
    )
    source: dict[str, Any] = {
        **_source_of(checkpoint, system, config),
        "num_views": config.test.segments * config.test.crops,
        "num_without_box": tested.num_without_box,
        "num_uncertain": reader.num_uncertain(),
        "left_out": reader.left_out,
        "unreadable": tested.unreadable,
    }
    info = {"label_space": space.as_json(), "source": source}
    return dataclasses.replace(tested.predictions, info=info)


def _source_of(checkpoint: Path, system: System, config: FinetuneConfig) -> dict[str, Any]:
    return {"checkpoint": str(checkpoint), "system": system, "config": config.model_dump(mode="json")}


def _weights(checkpoint: Path) -> Any:
    if (checkpoint / "checkpoint.json").is_file():
        return read_checkpoint(checkpoint).model
    return load_checkpoint(checkpoint)
