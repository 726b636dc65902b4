"""How fast training is here: model, loader, masks and fusion, each beside its roof or its peers.

Contenders take turns, so that a machine that slows down slows all of them; the figure is the median of the rounds.
Beside wall time stands processor time, which says more where other programs share the machine's cores.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mofo_train.benchmarks import peers as bench_peers
from mofo_train.config import CompileMode, DataConfig, ModelConfig, OptimConfig, Precision
from mofo_train.data.dataset import PretrainClips
from mofo_train.data.reader import ClipReader
from mofo_train.data.sampler import SampleKey
from mofo_train.data.transforms import dense_frames
from mofo_train.guidance import masks
from mofo_train.guidance.inside import inside_tubes
from mofo_train.guidance.tubelets import ClipShape
from mofo_train.models import MaskedAutoencoder, create_pretrain_model
from mofo_train.models.mae import hidden_targets
from mofo_train.models.mca import MultiCrossAttention
from mofo_train.runtime.compiling import compiled
from mofo_train.runtime.precision import DTYPES, set_precision
from mofo_train.runtime.speed import matrix_rate, training_flops
from mofo_train.training.optimizer import create_optimizer, set_learning_rate

_HIDDEN_SHARE = 0.9
_NUM_SAMPLES = 24  # of a round of the loader


@dataclass(frozen=True)
class Timing:
    """Medians over the rounds of one contender.

    Attributes:
        wall_seconds: Time on the clock.
        processor_seconds: Time of all threads of this process.
    """

    wall_seconds: float
    processor_seconds: float


def interleaved(contenders: dict[str, Callable[[], Any]], rounds: int, device: torch.device) -> dict[str, Timing]:
    """Run all contenders in turn, one warm-up round and `rounds` timed ones."""
    walls: dict[str, list[float]] = {name: [] for name in contenders}
    processors: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, run in contenders.items():
            wall, processor = time.perf_counter(), time.process_time()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                walls[name].append(time.perf_counter() - wall)
                processors[name].append(time.process_time() - processor)
    return {name: Timing(statistics.median(walls[name]), statistics.median(processors[name])) for name in contenders}


def training_step(
    model: MaskedAutoencoder, device: torch.device, precision: Precision, *, compile_mode: bool | CompileMode = False
) -> Callable[..., float]:
    """Return a function that takes one step on (frames, mask) exactly as `pretrain` does.

    With `fp8` the model itself learns in 8 bits from then on. The returned function calls its third argument while the
    device computes, where `pretrain` fetches the next batch.
    """
    optimizer = create_optimizer(model, OptimConfig())
    set_learning_rate(optimizer, 1e-5)
    dtype = DTYPES[precision]
    set_precision(model, precision)
    run: Any = compiled(model, compile_mode)

    def step(frames: Tensor, mask: Tensor, meanwhile: Callable[[], None] = lambda: None) -> float:
        num_hidden = _num_hidden(model)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            prediction = run(frames, mask, num_hidden=num_hidden)
        targets = hidden_targets(frames, mask, model.clip, num_hidden=num_hidden)
        loss = (prediction.float() - targets).square().mean(2).mean()
        loss.backward()
        meanwhile()
        norm = nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
        value, _ = torch.stack([loss.detach(), norm]).tolist()  # waits for the device, as the check of every step does
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(value)

    return step


def _num_hidden(model: MaskedAutoencoder) -> int:
    return round(_HIDDEN_SHARE * model.clip.num_patches) * model.clip.num_tubelets


def bench_model(
    name: str,
    batch_size: int,
    rounds: int,
    device: torch.device,
    *,
    precisions: Sequence[Precision],
    compile_mode: bool | CompileMode,
    peers: bool,
) -> dict[str, Any]:
    """Time training steps on data that is on the device already.

    Args:
        name: Size of the model.
        batch_size: Clips of a step.
        rounds: Timed rounds; the figures are medians.
        device: Where the model runs.
        precisions: Some of `fp32`, `bf16`, `fp8`.
        compile_mode: As `run.compile` of a recipe.
        peers: Time transformers and the original code's operations too, in fp32.

    Returns:
        Per contender seconds of a step and clips/s; operations per clip and the measured matrix rate.
    """
    generator = torch.Generator(device).manual_seed(0)
    torch.manual_seed(0)
    model = create_pretrain_model(name).to(device)
    clip = model.clip
    frames = torch.randn(batch_size, 3, clip.num_frames, clip.image_px, clip.image_px, device=device)

    def mask() -> Tensor:
        return masks.tube_mask(batch_size, clip.num_patches, clip.num_tubelets, generator=generator)

    steps: dict[str, Callable[[Tensor, Tensor], float]] = {
        f"ours {precision}": training_step(copy.deepcopy(model), device, precision, compile_mode=compile_mode)
        for precision in precisions
    }
    if peers:
        steps["transformers fp32"] = bench_peers.transformers_step(model)
        steps["original schedule fp32"] = bench_peers.original_step(model)
    contenders = {key: _bind(step, frames, mask) for key, step in steps.items()}
    timings = interleaved(contenders, rounds, device)
    flops = training_flops(model, frames, mask().cpu())
    rates = {key: matrix_rate(device, DTYPES[key]) for key in ("fp32", "bf16")}
    return {
        "model": name,
        "batch_size": batch_size,
        "gflop_per_clip": flops / 1e9,
        "matrix_rate_gflops": {key: rate / 1e9 for key, rate in rates.items()},
        "steps": {key: _row(timing, batch_size, flops, rates[_rate_of(key)]) for key, timing in timings.items()},
    }


def _rate_of(contender: str) -> str:
    """Return the precision whose matrix rate is a contender's roof; 8 bits are measured against bf16's."""
    return "fp32" if contender.endswith("fp32") else "bf16"


def _bind(step: Callable[[Tensor, Tensor], float], frames: Tensor, mask: Callable[[], Tensor]) -> Callable[[], float]:
    return lambda: step(frames, mask())


def _row(timing: Timing, clips: int, flops: float, rate: float) -> dict[str, float]:
    return {
        "wall_seconds": timing.wall_seconds,
        "processor_seconds": timing.processor_seconds,
        "clips_per_second": clips / timing.wall_seconds,
        "share_of_matrix_rate": clips * flops / timing.wall_seconds / rate,
    }


def bench_masks(batch_size: int, rounds: int, device: torch.device) -> dict[str, Timing]:
    """Time the masks of a batch of 16x224x224 clips, boxes or areas included."""
    generator = torch.Generator(device).manual_seed(0)
    corners = torch.rand(batch_size, 16, 2, 2, device=device).mul(224).sort(2).values
    boxes = corners.flatten(2)

    areas = (torch.rand(batch_size, 8, 14, 14, device=device) * 512 - 256).clamp(min=0).to(torch.uint8)
    clip = ClipShape()

    def motion() -> Tensor:
        return masks.motion_tube_mask(inside_tubes(clip, boxes), 8, generator=generator)

    def area() -> Tensor:
        return masks.motion_tube_mask(inside_tubes(clip, boxes, areas, generator=generator), 8, generator=generator)

    contenders = {
        "motion": motion,
        "area": area,
        "tube": lambda: masks.tube_mask(batch_size, 196, 8, generator=generator),
    }
    return interleaved(contenders, rounds, device)


def bench_loader(
    readers: dict[str, ClipReader], model: ModelConfig, rounds: int, *, peers: bool
) -> dict[str, dict[str, float]]:
    """Count samples per second of one core, read in this process with one thread.

    Samples are read as a worker reads a batch; where views are left to the device, into the batch's memory, which is
    not fresh.

    Args:
        readers: Name -> the same clips from the source media or from the store.
        model: Frames and side of a sample.
        rounds: Passes over 24 samples, of one clip after the other and of the first one again.
        peers: Time the original loader's operations too, with PyAV and, where it is installed, with decord.

    Returns:
        Per contender processor seconds of a sample and samples per second of a core.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        contenders: dict[str, Callable[[], Any]] = {}
        samples: dict[str, int] = {}
        for name, reader in readers.items():
            ways = {"": False}
            if reader.leaves_views_to("cuda", "auto"):
                ways[", views left to the device"] = True
            for (way, on_device), crops in itertools.product(ways.items(), (1, 2)):
                key = f"{name}{way}, {crops} crop{'s' if crops > 1 else ''}"
                contenders[key] = _reading(reader, model, crops, on_device=on_device)
                samples[key] = _NUM_SAMPLES * crops
        if peers:
            reader = next(iter(readers.values()))
            originals = _original_loaders(reader, model)
            contenders |= originals
            samples |= dict.fromkeys(originals, _NUM_SAMPLES)
        timings = interleaved(contenders, rounds, torch.device("cpu"))
    finally:
        torch.set_num_threads(threads)
    return {
        key: {
            "processor_seconds": timing.processor_seconds / samples[key],
            "samples_per_core_second": samples[key] / timing.processor_seconds,
        }
        for key, timing in timings.items()
    }


def _reading(reader: ClipReader, model: ModelConfig, crops: int, *, on_device: bool) -> Callable[[], None]:
    data = DataConfig(dataset="", crops_per_clip=crops, num_workers=0)
    clips = PretrainClips(reader, model, data, seed=0, patch_px=16, on_device=on_device)
    keys = [SampleKey(0, place, place % len(reader)) for place in range(_NUM_SAMPLES)]
    memory = torch.zeros(len(keys), clips.room_bytes, dtype=torch.uint8)

    def run() -> None:
        batch = clips.__getitems__(keys)
        for _ in batch.read_into(memory) if on_device else batch:
            pass

    return run


def _original_loaders(reader: ClipReader, model: ModelConfig) -> dict[str, Callable[[], None]]:
    """Return the original loader's operations: with PyAV, and where decord is installed with that, as it was written.

    They read the frames and draw the crops that `_reading` with one crop does.
    """
    drawn, sources = [], reader.sources()
    for place in range(_NUM_SAMPLES):
        index, rng = place % len(reader), np.random.default_rng((0, 0, place, 0))
        frames = dense_frames(reader.num_frames(index), model.num_frames, 2, rng.random())
        drawn.append((sources[index][1], sources[index][2][frames], rng))
    loaders = {"original loader": _each(bench_peers.original_sample, drawn, model.image_px)}
    if find_spec("decord") is not None:
        placed = [(path, bench_peers.decord_positions(path, times), rng) for path, times, rng in drawn]
        loaders["original loader, decord"] = _each(bench_peers.decord_sample, placed, model.image_px)
    return loaders


def _each(
    read: Callable[[Path, NDArray[Any], int, np.random.Generator], Tensor],
    drawn: list[tuple[Path, NDArray[Any], np.random.Generator]],
    image_px: int,
) -> Callable[[], None]:
    def run() -> None:
        for path, frames, rng in drawn:
            read(path, frames, image_px, copy.deepcopy(rng))

    return run


def bench_fusion(
    batch_size: int, rounds: int, device: torch.device, *, precision: str = "fp32"
) -> dict[str, dict[str, float]]:
    """Time multi-cross attention of ViT-B forward and backward: batched, as a loop over clips, dense with a mask.

    Returns:
        Per spread of box areas wall and processor seconds of the three; same inputs, gradients of inputs and weights.
    """
    torch.manual_seed(0)
    dim, tokens = 768, 1568
    block = MultiCrossAttention(dim).to(device)
    results = {}
    for name, low, high in (("5 to 95 %", 0.05, 0.95), ("5 %", 0.05, 0.05), ("30 %", 0.3, 0.3), ("95 %", 0.95, 0.95)):
        shares = torch.linspace(low, high, batch_size)[torch.randperm(batch_size)]
        inside = torch.stack([torch.rand(tokens) < share for share in shares]).to(device)
        x = torch.randn(batch_size, tokens, dim, device=device, requires_grad=True)
        fusions = {"batched": _batched, "loop": bench_peers.loop_over_clips, "dense": bench_peers.dense_with_mask}
        contenders = {who: _backward(fuse, block, x, inside, precision) for who, fuse in fusions.items()}
        timings = interleaved(contenders, rounds, device)
        results[name] = {f"{who}_seconds": timing.wall_seconds for who, timing in timings.items()}
        results[name] |= {f"{who}_processor_seconds": timing.processor_seconds for who, timing in timings.items()}
    return results


def _batched(block: MultiCrossAttention, tokens: Tensor, inside: Tensor) -> Tensor:
    return cast(Tensor, block(tokens, inside, ~inside))


def _backward(
    fuse: Callable[[MultiCrossAttention, Tensor, Tensor], Tensor],
    block: MultiCrossAttention,
    x: Tensor,
    inside: Tensor,
    precision: str,
) -> Callable[[], None]:
    dtype = DTYPES[precision]

    def run() -> None:
        block.zero_grad(set_to_none=True)
        x.grad = None
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            fused = fuse(block, x, inside)
        fused.float().sum().backward()  # type: ignore[no-untyped-call]

    return run
