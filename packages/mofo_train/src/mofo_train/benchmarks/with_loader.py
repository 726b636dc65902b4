"""Loader and model together: does the loop get what the slower of the two can give?

The loader alone, the loop with the loader, and the model alone on one batch that stays on the device take turns in
every round. What the loader has read ahead is thrown away before each of its turns, and a turn is several times longer
than what it can read ahead: else a turn would show how long a batch takes, or be served from what lies ready.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from mofo_train.benchmarks.parts import training_step
from mofo_train.config import CompileMode, DataConfig, MaskConfig, ModelConfig, Precision
from mofo_train.data.dataset import PretrainClips
from mofo_train.data.loader import Batch, BatchesAhead, create_loader
from mofo_train.data.reader import ClipReader
from mofo_train.data.sampler import ResumableSampler
from mofo_train.data.transforms import normalise
from mofo_train.guidance.inside import inside_tubes
from mofo_train.guidance.mask_kinds import draw_mask
from mofo_train.guidance.tubelets import ClipShape
from mofo_train.models import create_pretrain_model
from mofo_train.runtime.precision import DTYPES
from mofo_train.runtime.speed import matrix_rate, training_flops

_READ_AHEAD = 2  # batches per worker, torch's default
_LEAST_TURN = 4  # of what is read ahead
_MASK = MaskConfig(kind="motion")


def bench_both(
    reader: ClipReader,
    model: ModelConfig,
    batch_size: int,
    rounds: int,
    device: torch.device,
    *,
    num_workers: int,
    precision: Precision,
    compile_mode: bool | CompileMode,
    steps: int,
) -> dict[str, Any]:
    """Time training steps on the reader's clips, one crop per clip, motion masks.

    Args:
        reader: At least `batch_size` clips.
        model: Size of model and clips.
        batch_size: Clips of a step.
        rounds: Timed rounds; the figures are medians.
        device: Where the model runs.
        num_workers: Decoding processes; 0 = the loop decodes itself.
        precision: `fp32`, `bf16` or `fp8`.
        compile_mode: As `run.compile` of a recipe.
        steps: Steps of a turn, at least; it has no fewer than four times the batches that are read ahead.

    Returns:
        Clips/s of loader, model and both, the share of time that the loop waited for data, what both reach of the
        slower of the two, and the roof: clips/s at the measured matrix rate for the counted operations of a clip.

    Raises:
        DataError: Fewer clips than `batch_size`, or clips that cannot be read.
    """
    torch.manual_seed(0)
    network = create_pretrain_model(model.name, num_frames=model.num_frames, image_px=model.image_px).to(device)
    read_ahead = _READ_AHEAD * num_workers
    steps = max(steps, _LEAST_TURN * read_ahead)
    data = DataConfig(dataset="", num_workers=num_workers)
    on_device = reader.leaves_views_to(device.type, data.convert_on)
    clips = PretrainClips(reader, model, data, seed=0, patch_px=network.clip.patch_px, on_device=on_device)
    epochs = math.ceil((1 + 2 * rounds * (read_ahead + steps)) / max(1, len(reader) // batch_size))
    sampler = ResumableSampler(len(reader), batch_size, seed=0, epochs=epochs)
    batches = iter(create_loader(clips, sampler, num_workers=num_workers, pin=device.type == "cuda"))
    ahead, inputs = BatchesAhead(batches, device), Inputs(network.clip, device)
    run = training_step(network, device, precision, compile_mode=compile_mode)
    kept = inputs.prepare(ahead.take())
    run(*kept)
    turns = []
    for _ in range(rounds):
        _discard(batches, read_ahead)
        turn = {"loader": _seconds(lambda: next(batches), steps, device)}
        _discard(batches, read_ahead)
        ahead.waited()
        turn["both"] = _seconds(lambda: run(*inputs.prepare(ahead.take()), ahead.fetch), steps, device)
        turns.append(turn | {"waited": ahead.waited(), "model": _seconds(lambda: run(*kept), steps, device)})
    middle = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    rates = {name: steps * batch_size / middle[name] for name in ("loader", "model", "both")}
    flops = training_flops(network, kept[0], kept[1].cpu())
    peak = matrix_rate(device, DTYPES[precision])
    return {
        "model": model.name,
        "batch_size": batch_size,
        "precision": precision,
        "num_workers": num_workers,
        "steps": steps,
        **{f"{name}_clips_per_second": rate for name, rate in rates.items()},
        "data_wait_share": middle["waited"] / middle["both"],
        "share_of_the_slower": rates["both"] / min(rates["loader"], rates["model"]),
        "gflop_per_clip": flops / 1e9,
        "roof_clips_per_second": peak / flops,
        "share_of_roof": rates["both"] * flops / peak,
    }


class Inputs:
    """Makes a batch the model's input as `pretrain` does: colours normalised, motion masks drawn."""

    def __init__(self, clip: ClipShape, device: torch.device) -> None:
        self._clip = clip
        self._generator = torch.Generator(device).manual_seed(0)

    def prepare(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return float32 frames (B, 3, T, S, S) and bool mask (B, num_tokens), both on the device."""
        inside = inside_tubes(self._clip, batch.boxes, batch.areas, generator=self._generator)
        mask = draw_mask(_MASK, self._clip, inside, batch.motion, self._generator)
        return normalise(batch.frames), mask


def _discard(batches: Iterator[Any], count: int) -> None:
    for _ in range(count):
        next(batches)


def _seconds(work: Callable[[], Any], steps: int, device: torch.device) -> float:
    """Return the time on the clock of some steps, the device's queue included."""
    begin = time.perf_counter()
    for _ in range(steps):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin
