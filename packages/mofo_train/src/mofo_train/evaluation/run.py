"""Test a checkpoint on the test split of its recipe: which weights, which clips, what is recorded."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from mofo_train.config import load_recipe, override_recipe, stage_of_recipe
from mofo_train.data.labels import LabelSpace
from mofo_train.data.reader import ClipReader
from mofo_train.data.sources import open_clips
from mofo_train.errors import CheckpointError
from mofo_train.evaluation.classify import classify_clips
from mofo_train.evaluation.predictions import Predictions
from mofo_train.evaluation.report import check_report_folder
from mofo_train.finetune_config import FinetuneConfig
from mofo_train.models import load_checkpoint, load_into
from mofo_train.models.from_recipe import create_model
from mofo_train.models.systems import OtherSystem, load_system
from mofo_train.models.vit import size_of
from mofo_train.models.weights import WeightsKind
from mofo_train.runtime.checkpoints import read_checkpoint
from mofo_train.runtime.precision import DTYPES
from mofo_train.runtime.ranks import Ranks
from motionbox.storage import StorePath

System = Literal["videomae"] | OtherSystem


def evaluate_checkpoint(
    checkpoint: Path,
    ranks: Ranks,
    out: Path,
    *,
    system: System = "videomae",
    kind: WeightsKind | None = None,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    store: StorePath | None = None,
    data_root: Path | None = None,
) -> Predictions:
    """Predict the test split.

    Args:
        checkpoint: Folder of a finetuning's checkpoint, or weights of another program with `recipe`.
        ranks: This process among all.
        out: Folder where the report will be written; nothing is written here.
        system: Whose weights: `videomae` (VideoMAE, MOFO, Hugging Face, ours) or another, which needs `recipe`.
        kind: The model's weights or their average, of a file that holds both; None = the model's.
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
    check_report_folder(out, _source_of(checkpoint, system, kind, config))
    reader = open_clips(config.data, store, data_root, guidance=config.guidance, test_split=config.test.split)
    return predict(checkpoint, config, space, reader, ranks, system=system, kind=kind)


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
        if not checkpoint.exists():
            raise CheckpointError(f"checkpoint {checkpoint} must be a folder of a finetuning, it does not exist")
        raise CheckpointError(
            f"checkpoint {checkpoint} must be a folder of a finetuning (with checkpoint.json); name a recipe with "
            "--recipe to test weights of another program"
        )
    info = json.loads(path.read_text(encoding="utf-8"))
    if info.get("stage") != "finetune":
        raise CheckpointError(f"checkpoint {checkpoint} must be of a finetuning, got stage {info.get('stage')!r}")
    config = override_recipe(FinetuneConfig, info["config"], overrides, str(checkpoint))
    return config, LabelSpace.from_json(info["label_space"])


def load_classifier(
    checkpoint: Path,
    config: FinetuneConfig,
    space: LabelSpace | None,
    reader: ClipReader,
    *,
    system: System = "videomae",
    kind: WeightsKind | None = None,
) -> tuple[nn.Module, LabelSpace]:
    """Create the classifier of a checkpoint after checking that the store has its classes."""
    own = LabelSpace.of(reader.every_clip(), config.task, "the store")
    space = space or own
    space.refuse_others(own)
    net, num_outputs = config.model, space.num_outputs
    if system != "videomae":
        size = size_of(net.name)
        clip = size.clip_shape(net.num_frames, net.image_px)
        return load_system(system, checkpoint, size, clip, num_outputs), space
    model = create_model(net.model_copy(update={"init": None}), num_outputs)
    load_into(model, _weights(checkpoint, kind), source=str(checkpoint))
    return model, space


def predict(
    checkpoint: Path,
    config: FinetuneConfig,
    space: LabelSpace | None,
    reader: ClipReader,
    ranks: Ranks,
    *,
    system: System = "videomae",
    kind: WeightsKind | None = None,
) -> Predictions:
    """Predict the clips of a reader with the weights of a checkpoint; see `evaluate_checkpoint`."""
    model, space = load_classifier(checkpoint, config, space, reader, system=system, kind=kind)
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
        **_source_of(checkpoint, system, kind, config),
        "num_views": config.test.segments * config.test.crops,
        "num_without_box": tested.num_without_box,
        "num_uncertain": reader.num_uncertain(),
        "left_out": reader.clips.left_out,
        "unreadable": tested.unreadable,
    }
    info = {"label_space": space.as_json(), "source": source}
    return dataclasses.replace(tested.predictions, info=info)


def _source_of(checkpoint: Path, system: System, kind: WeightsKind | None, config: FinetuneConfig) -> dict[str, Any]:
    return {
        "checkpoint": str(checkpoint),
        "weights": kind or "model",
        "system": system,
        "config": config.model_dump(mode="json"),
    }


def _weights(checkpoint: Path, kind: WeightsKind | None) -> Any:
    if kind != "ema" and (checkpoint / "checkpoint.json").is_file():
        return read_checkpoint(checkpoint).model
    return load_checkpoint(checkpoint, kind)
