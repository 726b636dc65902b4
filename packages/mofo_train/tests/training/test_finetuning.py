from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from messages_support import messages
from mofo_train.data.labels import LabelSpace
from mofo_train.data.reader import ClipReader
from mofo_train.errors import CheckpointError, DataError, Interrupted
from mofo_train.finetune_config import ClassifierConfig, FinetuneConfig
from mofo_train.models import create_classifier
from mofo_train.models.from_recipe import create_model
from mofo_train.runtime.ranks import Ranks
from mofo_train.runtime.run_log import read_log
from mofo_train.training.finetuning import finetune
from mofo_train.training.selection import held_out_score
from motionbox.store import open_store
from waits_support import ONE_WAIT, watch_steps

CPU = Ranks(0, 1, torch.device("cpu"))


def recipe(**sections: Any) -> FinetuneConfig:
    values: dict[str, Any] = {
        "stage": "finetune",
        "model": {"name": "videomae_tiny", "num_frames": 4, "image_px": 32, "fusion": "mca"},
        "task": {"columns": ("verb_class", "noun_class"), "num_classes": (9, 6)},
        "augment": {},
        "data": {"dataset": "synthetic", "short_side_px": 48, "num_workers": 0},
        "optim": {"batch_size": 4, "epochs": 2, "warmup_epochs": 1, "base_lr": 0.02, "ema_decay": 0.5},
        "selection": {"share": 0.2},
        "test": {"segments": 1, "crops": 1},
        "run": {"precision": "fp32", "log_every_steps": 1, "checkpoint_every_steps": 100},
    }
    for section, change in sections.items():
        values[section] = {**values[section], **change} if isinstance(change, dict) else change
    return FinetuneConfig.model_validate(values)


def train_reader(store_path: Path, root: Path | None = None) -> ClipReader:
    return ClipReader(open_store(store_path), root or store_path.parent / "synthetic", split="train", short_side_px=48)


def only_train_media(store_path: Path, target: Path) -> Path:
    """A data root without any video of the test split."""
    (target / "videos").mkdir(parents=True)
    table = open_store(store_path).clips()
    for path, split in zip(table.column("path").to_pylist(), table.column("split").to_pylist(), strict=True):
        if split == "train":
            (target / path).symlink_to(store_path.parent / "synthetic" / path)
    return target


def train(
    config: FinetuneConfig, store_path: Path, out: Path, stop_at: str | None = None, root: Path | None = None
) -> tuple[Path, list[str]]:
    def stop(line: str) -> None:
        if stop_at is not None and line.startswith(stop_at):
            os.kill(os.getpid(), signal.SIGTERM)

    with messages("mofo_train", stop) as lines:
        return finetune(config, train_reader(store_path, root), out, CPU), lines


def train_rows(out: Path) -> list[list[float]]:
    return [
        [row["loss"], row["lr"], row["grad_norm"]] for row in read_log(out / "log.jsonl") if row["event"] == "train"
    ]


def test_resume_is_exact_and_the_test_split_is_never_opened(store_path: Path, tmp_path: Path) -> None:
    root = only_train_media(store_path, tmp_path / "data")
    whole, lines = train(recipe(), store_path, tmp_path / "whole", root=root)
    assert not any(line.startswith("skipped") for line in lines)
    with pytest.raises(Interrupted, match="interrupted after step 5 of 8"):
        train(recipe(), store_path, tmp_path / "parts", stop_at="step 5/8", root=root)
    parts, lines = train(recipe(), store_path, tmp_path / "parts", root=root)
    assert any(line.startswith("resuming after step 5") for line in lines)
    assert train_rows(tmp_path / "whole") == train_rows(tmp_path / "parts")
    assert parts.name == whole.name
    one, other = load_file(whole / "model.safetensors"), load_file(parts / "model.safetensors")
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    record = json.loads((whole / "checkpoint.json").read_text())
    assert record["selection"]["test_split_used"] is False
    assert record["selection"]["rule"] == "best mean top-1 on 2 clips held out of split 'train'"
    assert record["label_space"]["heads"] == {"verb": 9, "noun": 6}
    with pytest.raises(CheckpointError, match="out must hold a run of the same recipe"):
        train(recipe(seed=1), store_path, tmp_path / "parts", root=root)
    fewer = train_reader(store_path, root).subset(np.arange(6))
    with pytest.raises(CheckpointError, match="out must hold a run on the same store and clips"):
        finetune(recipe(), fewer, tmp_path / "parts", CPU)


def test_a_few_clips_can_be_learned_by_heart(store_path: Path, tmp_path: Path) -> None:
    quiet = {
        "crop_area": (1, 1),
        "crop_aspect": (1, 1),
        "rand_ops": 0,
        "erase_probability": 0,
        "mixup_alpha": 0,
        "cutmix_alpha": 0,
        "label_smoothing": 0,
    }
    optim = {
        "batch_size": 10,
        "epochs": 25,
        "base_lr": 0.05,
        "ema_decay": None,
        "layer_decay": 1.0,
        "clip_grad_norm": 1.0,
    }
    config = recipe(augment=quiet, optim=optim, selection={"share": 0}, data={"crops_per_clip": 1})
    best, _ = train(config, store_path, tmp_path)
    losses = [row[0] for row in train_rows(tmp_path)]
    assert losses[0] > 3.5, "chance is ln 9 + ln 6 = 4"
    assert losses[-1] < 0.5 * losses[0]
    assert best.name == "step-000000025", "nothing held out: the last weights"


@pytest.mark.parametrize("probe", ["linear", "attentive"])
def test_probes_leave_the_encoder_alone(store_path: Path, tmp_path: Path, probe: str) -> None:
    model = {"probe": probe, "fusion": "mean"}
    best, _ = train(recipe(model=model, optim={"epochs": 1, "ema_decay": None}), store_path, tmp_path)
    torch.manual_seed(0)
    config = recipe(model=model).model
    start = create_model(config, 15).state_dict()
    trained = load_file(best / "model.safetensors")
    changed = {name for name, value in trained.items() if not torch.equal(value, start[name])}
    assert not any(name.startswith("encoder.") for name in changed)
    assert "head.weight" in changed
    assert probe == "linear" or "pool_query" in changed


def test_pretrained_weights_start_the_encoder(tmp_path: Path) -> None:
    shape = {"num_frames": 4, "image_px": 32}
    donor = create_classifier("videomae_tiny", 7, "mean", **shape)
    save_file(donor.state_dict(), tmp_path / "donor.safetensors")
    config = ClassifierConfig(name="videomae_tiny", fusion="mca", init=tmp_path / "donor.safetensors", **shape)
    model = create_model(config, 15)
    for name, value in donor.encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], value)
    assert model.head.weight.shape == (15, 192)
    wrong = config.model_copy(update={"name": "videomae_small"})
    with pytest.raises(CheckpointError, match="must fit the model"):
        create_model(wrong, 15)


def test_what_does_not_fit_is_refused(store_path: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"must be labelled in the store, got 'action_id'; labelled columns: verb_class"
    ):
        train(recipe(task={"columns": ("action_id",), "num_classes": None}), store_path, tmp_path / "a")
    with pytest.raises(DataError, match="at least 9 for verb_class of the store, got 5"):
        train(recipe(task={"num_classes": (5, 6)}), store_path, tmp_path / "b")
    with pytest.raises(DataError, match=r"selection\.by must be a column of the store, got 'participant_id'"):
        train(recipe(selection={"by": "participant_id"}), store_path, tmp_path / "c")
    with pytest.raises(ValueError, match=r"test\.split must differ"):
        recipe(test={"split": "train"})
    with pytest.raises(ValueError, match="fusion must be mean with probe attentive"):
        recipe(model={"probe": "attentive"})


def test_a_hold_out_that_cannot_be_read_chooses_nothing(store_path: Path, tmp_path: Path) -> None:
    config, clips = recipe(), train_reader(store_path, tmp_path)
    space = LabelSpace.of(clips.every_clip(), config.task, "the store")
    model = create_model(config.model, space.num_outputs)
    with pytest.raises(DataError, match="held-out clips must be readable, got none of 2; the first: "):
        held_out_score(model, clips.subset(np.arange(2)), config, space, CPU)


def test_a_step_waits_for_the_device_once_and_for_the_sizes_of_a_fusion(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, augment = watch_steps(monkeypatch), {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}
    train(recipe(model={"fusion": "mean"}, augment=augment), store_path, tmp_path / "plain")
    assert len(waits.of_steps) == 8
    assert all(found == ONE_WAIT for found in waits.of_steps[1:])  # the first one may send constants
    waits.of_steps.clear()
    train(recipe(augment=augment), store_path, tmp_path / "mca")
    assert {file for found in waits.of_steps[1:] for _, file in found} == {"safeguards.py", "mca.py", "ragged.py"}
