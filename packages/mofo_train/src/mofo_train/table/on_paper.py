"""What a table costs on a machine that is not here, computed from rates that were measured once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mofo_train.config import NetworkConfig, PretrainConfig
from mofo_train.errors import DataError
from mofo_train.finetune_config import FinetuneConfig
from mofo_train.guidance.mask_kinds import num_hidden_tokens
from mofo_train.guidance.tubelets import ClipShape
from mofo_train.models import create_pretrain_model
from mofo_train.models.from_recipe import create_model
from mofo_train.models.vit import size_of
from mofo_train.runtime.speed import training_flops
from mofo_train.table.plan import checkpoint_bytes, num_outputs
from mofo_train.table.rates import DATA_SETS, MACHINES, DataSetSize, Machine
from mofo_train.table.recipe import TableConfig
from mofo_train.table.stages import Stage, plan_stages

_FORWARD_AND_BACKWARD = 3
_NUM_DEVICES = {"core": (1, 64), "H100": (1, 8, 64), "H200": (1, 8, 64)}


@dataclass(frozen=True)
class PaperCost:
    """What one piece of work takes.

    Attributes:
        name: Name of the stage, or `extract`.
        work: How much there is to do, in words.
        device_hours: On one device.
        disk_gib: What it leaves.
    """

    name: str
    work: str
    device_hours: float
    disk_gib: float


@dataclass(frozen=True)
class PaperPlan:
    """A table on paper.

    Attributes:
        title: Title of the table.
        machine: What it runs on.
        costs: The extraction, then every stage.
        cores_to_decode: Cores that feed one device in pretraining; 0 where the device is a core.
    """

    title: str
    machine: Machine
    costs: tuple[PaperCost, ...]
    cores_to_decode: int

    @property
    def device_hours(self) -> float:
        """Device-hours of the whole table."""
        return sum(cost.device_hours for cost in self.costs)

    @property
    def disk_gib(self) -> float:
        """Store and checkpoints."""
        return sum(cost.disk_gib for cost in self.costs)

    def lines(self) -> list[str]:
        """Write the plan, a line each."""
        unit = self.machine.unit
        lines = [f"plan on paper: {self.title}; {unit}-hours from rates measured before, nothing is measured now"]
        lines += [
            f"  {cost.name:<58} {cost.work:>38} {cost.device_hours:>9,.0f} h {cost.disk_gib:>6.1f} GiB"
            for cost in self.costs
        ]
        lines.append(f"  in all {self.device_hours:,.0f} {unit}-hours, {self.disk_gib:,.0f} GiB; {self._by_count()}")
        if self.cores_to_decode:
            lines.append(
                f"  beside each {unit} {self.cores_to_decode} cores that decode for pretraining, one crop a clip"
            )
        lines += [f"  rate: {where}" for where in self.machine.where]
        lines.append("  finetuning and tests: their operations at the rate that pretraining's have; not measured")
        lines.append("  not counted: reading videos over a network; N devices are taken to be N times as fast")
        return lines

    def row(self) -> str:
        """Write the plan as a row of a Markdown table."""
        kinds = {"pretrain": 0.0, "row": 0.0}
        for cost in self.costs:
            kind = cost.name.split("-")[0]
            kinds[kind] = max(kinds.get(kind, 0.0), cost.device_hours)
        extract = self.costs[0].device_hours
        cores = str(self.cores_to_decode) if self.cores_to_decode else ""
        parts = (f"{value:,.0f}" for value in (extract, kinds["pretrain"], kinds["row"], self.device_hours))
        return f"| {' | '.join(parts)} | {self._by_count()} | {cores} | {self.disk_gib:,.0f} |"

    def _by_count(self) -> str:
        counts = _NUM_DEVICES[self.machine.unit]
        return ", ".join(f"{count}: {_days(self.device_hours / count)}" for count in counts)


def plan_on_paper(table: TableConfig, machine: str, *, num_train_clips: int | None = None) -> PaperPlan:
    """Compute what a table costs, from the extraction to the last test.

    Args:
        table: The table.
        machine: One of `rates.MACHINES`.
        num_train_clips: Clips of the training split; None = the official number of the data set.

    Raises:
        DataError: The data set has no official size.
    """
    if table.dataset not in DATA_SETS:
        raise DataError(f"--assume needs a data set of known size ({', '.join(DATA_SETS)}), got {table.dataset!r}")
    device, size, stages = MACHINES[machine], DATA_SETS[table.dataset], plan_stages(table)
    clips = num_train_clips or size.train_clips
    rate = device.crops_per_second * _reference_flops()  # operations per second
    costs = [_extraction(device, size), *(_cost_of(stage, clips, size, rate) for stage in stages)]
    feeding = 0 if device.unit == "core" else math.ceil(device.crops_per_second / device.samples_per_core_second)
    return PaperPlan(table.title, device, tuple(costs), feeding)


def _extraction(device: Machine, size: DataSetSize) -> PaperCost:
    width, height = size.frame_wh
    hours = size.frames * width * height / device.pixels_per_second / 3600
    disk = size.frames * (size.store_bytes_per_frame + size.clip_bytes_per_frame) / 2**30
    return PaperCost("extract, with clips", f"{size.frames:,} frames", hours, disk)


def _cost_of(stage: Stage, clips: int, size: DataSetSize, rate: float) -> PaperCost:
    """Count a stage's operations: all its epochs, and for a row the test."""
    config = stage.config
    clips = min(clips, config.data.max_clips or clips)
    crops = config.optim.epochs * clips * config.data.crops_per_clip
    training, testing, weights = _flops(stage)
    flops, work = crops * training, f"{crops:,} crops"
    if isinstance(config, FinetuneConfig):
        views = size.test_clips * config.test.segments * config.test.crops
        flops += views * testing
        work += f", {views:,} test views"
    disk = checkpoint_bytes(weights, config) / 2**30
    return PaperCost(stage.key, work, flops / rate / 3600, disk)


def _flops(stage: Stage) -> tuple[float, float, int]:
    """Return operations of a training step and of a test view, per crop, and the number of weights."""
    config = stage.config
    if isinstance(config, FinetuneConfig):
        return _finetuning_flops(config)
    return _pretraining_flops(config)


def _finetuning_flops(config: FinetuneConfig) -> tuple[float, float, int]:
    clip = _clip_of(config.model)
    counter = FlopCounterMode(display=False)
    with torch.device("meta"):
        classifier = create_model(config.model.model_copy(update={"init": None}), num_outputs(config))
        with counter, torch.no_grad():
            classifier.encoder(torch.empty(1, clip.num_tokens, _frames_of(config.model).numel() // clip.num_tokens))
    # A fusion is a block at most, one more beside the encoder's.
    depth = size_of(config.model.name).depth
    forward = counter.get_total_flops() * (depth + (config.model.fusion != "mean")) / depth
    return _FORWARD_AND_BACKWARD * forward, float(forward), _num_weights(classifier)


def _pretraining_flops(config: PretrainConfig) -> tuple[float, float, int]:
    net, clip = config.model, _clip_of(config.model)
    with torch.device("meta"):
        model = create_pretrain_model(
            net.name, num_frames=net.num_frames, image_px=net.image_px, decoder_depth=net.decoder_depth
        )
    mask = torch.arange(clip.num_tokens)[None] < num_hidden_tokens(config.mask, clip)
    return training_flops(model, _frames_of(net), mask), 0.0, _num_weights(model)


def _clip_of(net: NetworkConfig) -> ClipShape:
    return size_of(net.name).clip_shape(net.num_frames, net.image_px)


def _frames_of(net: NetworkConfig) -> torch.Tensor:
    return torch.empty(1, 3, net.num_frames, net.image_px, net.image_px, device="meta")


def _num_weights(model: nn.Module) -> int:
    return sum(value.numel() for value in model.parameters())


def _reference_flops() -> float:
    """Return the operations of a crop of the pretraining that the rates are of."""
    with torch.device("meta"):
        model = create_pretrain_model("videomae_base")
    mask = torch.arange(1568)[None] < 1408
    return training_flops(model, torch.empty(1, 3, 16, 224, 224, device="meta"), mask)


def _days(hours: float) -> str:
    return f"{hours:,.0f} h" if hours < 100 else f"{hours / 24:,.0f} days"
