"""What a table will cost before it is run: stages, device-hours from a measured speed, disk, what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mofo_train.config import PretrainConfig
from mofo_train.data.sources import open_clips
from mofo_train.errors import DataError
from mofo_train.finetune_config import FinetuneConfig
from mofo_train.guidance.mask_kinds import num_hidden_tokens
from mofo_train.models import create_pretrain_model
from mofo_train.models.from_recipe import create_model
from mofo_train.models.vit import size_of
from mofo_train.runtime.precision import DTYPES
from mofo_train.table.recipe import TableConfig
from mofo_train.table.stages import Stage, plan_stages

# Training clips of the official splits, for data sets that are not there yet.
_OFFICIAL_TRAIN_CLIPS = {"ssv2": 168_913, "epic100": 67_217}
_OFFICIAL_OUTPUTS = {"label_id": 174, "action_id": 3806, "verb_class": 97, "noun_class": 300}
_MEASURED_TOKENS = {"cpu": 2048, "cuda": 32 * 1568}  # of a step: one clip of ViT-B on a processor, 32 on a GPU
_MEASURED_SECONDS = 1.0
_BYTES_OF_WEIGHT = 4
_WEIGHTS_OF_CHECKPOINT = 3  # the weights and AdamW's two averages


@dataclass(frozen=True)
class StageCost:
    """What one stage takes.

    Attributes:
        key: Its folder.
        num_crops: Crops trained on, all epochs.
        device_hours: On one device like this one, data already there.
        disk_gib: Its checkpoints.
    """

    key: str
    num_crops: int
    device_hours: float
    disk_gib: float


def estimate_costs(stages: list[Stage], num_train_clips: int | None, device: torch.device) -> list[StageCost]:
    """Measure each kind of step once on this device and multiply.

    Args:
        stages: The table's.
        num_train_clips: Clips of the training split; None = the official number of the data set.
        device: Where to measure.
    """
    measured: dict[str, tuple[float, int]] = {}
    costs = []
    for stage in stages:
        config = stage.config
        clips = num_train_clips or _OFFICIAL_TRAIN_CLIPS[config.data.dataset]
        kind = f"{stage.kind} {config.model.model_dump_json(exclude={'init'})} {config.run.precision}"
        if kind not in measured:
            measured[kind] = _measure(config, device)
        rate, weights = measured[kind]
        crops = config.optim.epochs * clips * config.data.crops_per_clip
        disk = weights * _BYTES_OF_WEIGHT * (_WEIGHTS_OF_CHECKPOINT * config.run.keep_checkpoints + 1) / 2**30
        costs.append(StageCost(stage.key, crops, crops / rate / 3600, disk))
    return costs


def _measure(config: PretrainConfig | FinetuneConfig, device: torch.device) -> tuple[float, int]:
    """Return crops per second of a training step on random data, and the number of weights."""
    net = config.model
    clip = size_of(net.name).clip_shape(net.num_frames, net.image_px)
    batch = max(1, _MEASURED_TOKENS[device.type] // clip.num_tokens)
    shape = (batch, 3, net.num_frames, net.image_px, net.image_px)
    frames = torch.randn(shape, device=device)
    model: nn.Module
    if isinstance(config, PretrainConfig):
        autoencoder = create_pretrain_model(
            net.name,
            num_frames=net.num_frames,
            image_px=net.image_px,
            decoder_depth=config.model.decoder_depth,
            recompute=net.recompute,
        ).to(device)
        hidden = num_hidden_tokens(config.mask, clip)
        mask = torch.zeros(batch, clip.num_tokens, dtype=torch.bool, device=device)
        mask[:, :hidden] = True
        model = autoencoder

        def forward() -> Tensor:
            return autoencoder(frames, mask, num_hidden=hidden)  # type: ignore[no-any-return]
    else:
        outputs = sum(config.task.num_classes or [_OFFICIAL_OUTPUTS[column] for column in config.task.columns])
        classifier = create_model(config.model.model_copy(update={"init": None}), outputs).to(device)
        side = net.image_px
        box = torch.tensor([side / 4, side / 4, side * 3 / 4, side * 3 / 4], device=device)
        boxes = box.expand(batch, net.num_frames, 4)
        model = classifier

        def forward() -> Tensor:
            return classifier(frames, boxes)  # type: ignore[no-any-return]

    seconds = _seconds_of_step(forward, device, DTYPES[config.run.precision])
    return batch / seconds, sum(value.numel() for value in model.parameters())


def _seconds_of_step(forward: Callable[[], Tensor], device: torch.device, dtype: torch.dtype) -> float:
    """Time steps for a second, at least one; the first one warms up and does not count."""
    started, steps = 0.0, -1
    while steps < 1 or time.perf_counter() - started < _MEASURED_SECONDS:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = forward().float().square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        _wait(device)
        steps += 1
        if steps == 0:
            started = time.perf_counter()
    return (time.perf_counter() - started) / steps


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        out: Folder of the table.
        device: Name of the device that was measured.
        costs: Of all stages.
        done: Keys of those that have a result.
        missing: What data are missing and how to get them; empty = nothing.
    """

    out: Path
    device: str
    costs: list[StageCost]
    done: set[str]
    missing: str

    def lines(self) -> list[str]:
        """Write the plan, a line each."""
        count = len(self.costs)
        lines = [f"plan: {count} stages into {self.out}; hours on one device like this ({self.device}), measured now"]
        for cost in self.costs:
            state = "done" if cost.key in self.done else "to do"
            lines.append(
                f"  {state:<6} {cost.key:<56} {cost.num_crops:>13,} crops {cost.device_hours:>10,.1f} h "
                f"{cost.disk_gib:>6.1f} GiB"
            )
        left = [cost for cost in self.costs if cost.key not in self.done]
        hours, disk = sum(cost.device_hours for cost in left), sum(cost.disk_gib for cost in left)
        lines.append(f"  left: {hours:,.1f} device-hours, {disk:,.1f} GiB of checkpoints")
        return [*lines, f"  missing: {self.missing}"] if self.missing else lines


def make_plan(
    table: TableConfig,
    out: Path,
    device: torch.device,
    *,
    stores: Mapping[str, Path],
    data_root: Path | None,
) -> Plan:
    """Find out what a table needs; arguments as of `run_table`."""
    stages = plan_stages(table)
    missing, num_clips = "", None
    try:
        num_clips = len(open_clips(stages[0].config.data, stores[stages[0].preset], data_root))
    except DataError as error:
        if table.dataset == "synthetic":
            num_clips = table.num_clips * 4 // 5  # it will be generated; every fifth clip is for validation
        else:
            missing = str(error)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    done = {stage.key for stage in stages if (out / stage.key / "result.json").exists()}
    return Plan(out, name, estimate_costs(stages, num_clips, device), done, missing)
