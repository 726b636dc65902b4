"""What a table will cost before it is run: stages, device-hours from a measured speed, disk, what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mofo_train.config import ClipsConfig, PretrainConfig
from mofo_train.data.sources import open_clips
from mofo_train.errors import DataError
from mofo_train.finetune_config import FinetuneConfig, FinetuneDataConfig
from mofo_train.guidance.mask_kinds import num_hidden_tokens
from mofo_train.models import create_pretrain_model
from mofo_train.models.from_recipe import create_model
from mofo_train.models.vit import size_of
from mofo_train.runtime.compiling import compiled
from mofo_train.runtime.precision import DTYPES, set_precision
from mofo_train.runtime.speed import wait_for
from mofo_train.table.rates import DATA_SETS
from mofo_train.table.recipe import TableConfig
from mofo_train.table.stages import Stage, all_stages
from motionbox.inputs.manifest import load_manifest
from motionbox.storage import StorePath

# Training clips of the official splits, for data sets that are not there yet.
_OFFICIAL_TRAIN_CLIPS = {name: size.train_clips for name, size in DATA_SETS.items()}
_OFFICIAL_OUTPUTS = {"label_id": 174, "action_id": 3806, "verb_class": 97, "noun_class": 300}
_USUAL_OUTPUTS = 100  # where the classes of a folder have not been counted; a step takes the same time
_MEASURED_TOKENS = {"cpu": 2048, "cuda": 32 * 1568}  # of a step: one clip of ViT-B on a processor, 32 on a GPU
_MEASURED_SECONDS = 3.0
_WARM_UP_STEPS, _MIN_STEPS = 2, 5
_BYTES_OF_WEIGHT = 4
_VERBS_OF_NOUNS = 48  # of Meta-World: two verbs for each of 24 nouns, each of which has `num_clips` clips
_NOT_COUNTED = (
    "not counted: waiting for videos, testing, extraction and its store; a pilot (--profile smoke) shows the share of "
    "waiting"
)
_WEIGHTS_OF_CHECKPOINT = 3  # the weights and AdamW's two averages


@dataclass(frozen=True)
class StepSpeed:
    """How fast training steps are, measured one by one.

    Attributes:
        crops_per_second: Speed of the middle step.
        slowest: Speed of the slowest step.
        fastest: Speed of the fastest step.
        num_weights: Number of weights of the network.
    """

    crops_per_second: float
    slowest: float
    fastest: float
    num_weights: int


Measure = Callable[[PretrainConfig | FinetuneConfig, torch.device], StepSpeed]
"""What measures the training step of a recipe on a device."""


@dataclass(frozen=True)
class StageCost:
    """What one stage takes.

    Attributes:
        key: Its folder.
        num_crops: Crops trained on, all epochs.
        device_hours: On one device like this one, data already there, by the middle step.
        least_hours: By the fastest step.
        most_hours: By the slowest.
        disk_gib: Its checkpoints.
    """

    key: str
    num_crops: int
    device_hours: float
    least_hours: float
    most_hours: float
    disk_gib: float


def estimate_costs(
    stages: list[Stage], num_train_clips: int | None, device: torch.device, measure: Measure | None = None
) -> list[StageCost]:
    """Measure each kind of step once on this device and multiply.

    Args:
        stages: The table's.
        num_train_clips: Clips of the training split; None = the official number of the data set.
        device: Where to measure.
        measure: Measures a kind of step; None = `measure_step`.
    """
    measured: dict[str, StepSpeed] = {}
    costs = []
    for stage in stages:
        config = stage.config
        clips = num_train_clips or _OFFICIAL_TRAIN_CLIPS[config.data.dataset]
        shape = config.model.model_dump_json(exclude={"init", "init_weights"})
        kind = f"{stage.kind} {shape} {config.run.precision} {config.run.compile}"
        if kind not in measured:
            measured[kind] = (measure or measure_step)(config, device)
        speed = measured[kind]
        crops = config.optim.epochs * _num_learned(config, clips) * config.data.crops_per_clip
        middle, least, most = (crops / rate / 3600 for rate in (speed.crops_per_second, speed.fastest, speed.slowest))
        disk = checkpoint_bytes(speed.num_weights, config) / 2**30
        costs.append(StageCost(stage.key, crops, middle, least, most, disk))
    return costs


def _num_learned(config: PretrainConfig | FinetuneConfig, num_clips: int) -> int:
    """Return how many clips of the training split a stage learns from."""
    few = config.data.num_labelled if isinstance(config, FinetuneConfig) else None
    return min(limit for limit in (num_clips, config.data.max_clips, few) if limit is not None)


def checkpoint_bytes(num_weights: int, config: PretrainConfig | FinetuneConfig) -> int:
    """Return what a stage's checkpoints take, the last weights among them."""
    copies = _WEIGHTS_OF_CHECKPOINT * config.run.keep_checkpoints + 1
    return num_weights * _BYTES_OF_WEIGHT * copies


def num_outputs(config: FinetuneConfig) -> int:
    """Return the outputs of a recipe's classifier; of an official data set where the recipe does not say."""
    return sum(config.task.num_classes or [_OFFICIAL_OUTPUTS.get(name, _USUAL_OUTPUTS) for name in config.task.columns])


def measure_step(config: PretrainConfig | FinetuneConfig, device: torch.device) -> StepSpeed:
    """Measure whole training steps on random data, compiled where the recipe says so."""
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
            grad_checkpointing=net.grad_checkpointing,
        ).to(device)
        hidden = num_hidden_tokens(config.mask, clip)
        mask = torch.zeros(batch, clip.num_tokens, dtype=torch.bool, device=device)
        mask[:, :hidden] = True
        model = autoencoder
        network = _as_run(model, config)

        def forward() -> Tensor:
            return network(frames, mask, num_hidden=hidden)  # type: ignore[no-any-return]
    else:
        classifier = create_model(config.model.model_copy(update={"init": None}), num_outputs(config)).to(device)
        side = net.image_px
        box = torch.tensor([side / 4, side / 4, side * 3 / 4, side * 3 / 4], device=device)
        boxes = box.expand(batch, net.num_frames, 4)
        model = classifier
        network = _as_run(model, config)

        def forward() -> Tensor:
            return network(frames, boxes)  # type: ignore[no-any-return]

    seconds = _seconds_of_steps(model, forward, device, DTYPES[config.run.precision])
    rates = sorted(batch / value for value in seconds)
    weights = sum(value.numel() for value in model.parameters())
    return StepSpeed(rates[len(rates) // 2], rates[0], rates[-1], weights)


def _seconds_of_steps(
    model: nn.Module, forward: Callable[[], Tensor], device: torch.device, dtype: torch.dtype
) -> list[float]:
    """Time whole steps one by one, for some seconds and a few at least; the first two warm up and do not count."""
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)
    seconds: list[float] = []
    while len(seconds) < _WARM_UP_STEPS + _MIN_STEPS or sum(seconds[_WARM_UP_STEPS:]) < _MEASURED_SECONDS:
        started = time.perf_counter()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = forward().float().square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        wait_for(device)
        seconds.append(time.perf_counter() - started)
    return seconds[_WARM_UP_STEPS:]


def _as_run(model: nn.Module, config: PretrainConfig | FinetuneConfig) -> nn.Module:
    set_precision(model, config.run.precision)
    return compiled(model, config.run.compile)


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        out: Folder of the table.
        device: Name of the device that was measured.
        costs: Costs of all stages.
        done: Keys of those that have a result.
        missing: What data are missing and how to get them; empty = nothing.
        remarks: What else to know, a line each.
    """

    out: Path
    device: str
    costs: list[StageCost]
    done: set[str]
    missing: str
    remarks: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Write the plan, a line each."""
        count = len(self.costs)
        lines = [f"plan: {count} stages into {self.out}; hours on one device like this ({self.device}), measured now"]
        shown = [cost for cost in self.costs if not cost.key.startswith("fold-") or cost.key.startswith("fold-0/")]
        digits = 1 if any(cost.device_hours >= 1 for cost in self.costs) else 3  # minutes are a few hundredths
        for cost in shown:
            state = "done" if cost.key in self.done else "to do"
            lines.append(
                f"  {state:<6} {cost.key:<56} {cost.num_crops:>13,} crops {cost.device_hours:>10,.{digits}f} h "
                f"({cost.least_hours:,.{digits}f} to {cost.most_hours:,.{digits}f}) {cost.disk_gib:>6.1f} GiB"
            )
        if len(shown) < count:
            lines.append(f"  and the same for each other fold, {count - len(shown)} stages")
        left = [cost for cost in self.costs if cost.key not in self.done]
        hours, disk = sum(cost.device_hours for cost in left), sum(cost.disk_gib for cost in left)
        least, most = sum(cost.least_hours for cost in left), sum(cost.most_hours for cost in left)
        lines.append(
            f"  left: {hours:,.1f} device-hours ({least:,.1f} to {most:,.1f} by the fastest and the slowest step), "
            f"{disk:,.1f} GiB of checkpoints"
        )
        lines += [f"  {remark}" for remark in self.remarks]
        return [*lines, f"  missing: {self.missing}"] if self.missing else lines


def make_plan(
    table: TableConfig,
    out: Path,
    device: torch.device,
    *,
    stores: Mapping[str, StorePath],
    data_root: Path | None,
    measure: Measure | None = None,
) -> Plan:
    """Find out what a table needs; arguments as in `run_table` and `estimate_costs`."""
    stages = all_stages(table)
    missing, num_clips = "", None
    try:
        num_clips = len(open_clips(_whole(stages[0].config.data), stores[stages[0].preset], data_root))
    except DataError as error:
        num_clips = _clips_to_come(table, data_root)
        missing = "" if num_clips else str(error)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    done = {stage.key for stage in stages if (out / stage.key / "result.json").exists()}
    official, remarks = _OFFICIAL_TRAIN_CLIPS.get(table.dataset), [_NOT_COUNTED]
    if official is not None and num_clips is not None and num_clips < official:
        remarks.insert(0, f"{num_clips:,} of {official:,} clips of the official training split are learned from")
    if num_clips is not None and not missing:
        missing = _too_large_batch(stages, num_clips)
    return Plan(out, name, estimate_costs(stages, num_clips, device, measure), done, missing, tuple(remarks))


def _whole(data: ClipsConfig) -> ClipsConfig:
    """Return a recipe's section without its limits, which other stages do not share."""
    few = {"num_labelled": None} if isinstance(data, FinetuneDataConfig) else {}
    return data.model_copy(update={"max_clips": None, **few})


def _clips_to_come(table: TableConfig, data_root: Path | None) -> int | None:
    """Return how many training clips a set will have whose store the table makes; None: it does not."""
    if table.dataset == "synthetic":
        clips = table.num_clips
    elif table.dataset == "metaworld":
        clips = table.num_clips * _VERBS_OF_NOUNS
    elif table.dataset == "folder" and data_root is not None and data_root.is_dir():
        clips = len(load_manifest("folder", data_root, require_media=False))
    else:
        return None
    usual = 3 if table.small_clips else 5  # without folds a third of small clips is held out, a fifth of others
    parts = table.folds or usual
    return clips * (parts - 1) // parts


def _too_large_batch(stages: list[Stage], num_clips: int) -> str:
    """Say which stage has a batch that the training clips cannot fill; empty where all can."""
    for stage in stages:
        config = stage.config
        wanted = config.optim.batch_size // config.data.crops_per_clip
        own = _num_learned(config, num_clips)
        if wanted > own:
            return (
                f"clips: a batch of {stage.key} takes {wanted:,}, there are {own:,}; set optim.batch_size in the "
                "rows' pretrain_set and finetune_set, or try --profile smoke"
            )
    return ""
