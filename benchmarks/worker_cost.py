"""What a training sample costs a loader's worker and the process it works for, in processor time.

`python benchmarks/worker_cost.py STORE DATA_ROOT [--batch-size 64]` reads a store's clips as pretraining does (16
frames at stride 2, 224 px, one crop) with one worker: with the batch's memory used again, with fresh memory for every
batch, and with crops left to the device (`data.convert_on`), for which the store needs H.264 clips. They take turns.
The batch is copied as it would be into page-locked memory, which needs no GPU, and what each view takes of which pixel
is computed as it would be for one; what a GPU does with them is not in these figures. `--in-process` reads sample by
sample in this process instead, RGB and planes in turn, which says more on a busy machine; `--training MODEL` takes
training steps of that model with either, on a processor. Linux.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mofo_train.config import DataConfig, ModelConfig
from mofo_train.data.crops.planes import view_numbers
from mofo_train.data.crops.uncut import clips_alike
from mofo_train.data.dataset import PretrainClips
from mofo_train.data.loader import Batch, collate, create_worker_loader
from mofo_train.data.reader import ClipReader
from mofo_train.data.sampler import ResumableSampler, SampleKey
from motionbox.store import open_store

_WARM_UP = 5


def worker_seconds() -> tuple[float, float]:
    """Return user and system seconds of this process's children and theirs, the workers, so far."""
    ticks, found = os.sysconf("SC_CLK_TCK"), [0.0, 0.0]
    parents = {os.getpid()}
    rows = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            rows.append((int(path.parent.name), path.read_text().rpartition(") ")[2].split()))
        except OSError:
            continue
    for process, fields in sorted(rows):
        if int(fields[1]) in parents:
            parents.add(process)
            found[0] += int(fields[11]) / ticks
            found[1] += int(fields[12]) / ticks
    return found[0], found[1]


def cost(clips: PretrainClips, num_clips: int, batch_size: int, steps: int, *, reuse: bool) -> list[float]:
    """Return milliseconds per sample: worker's user and system time, this process's time."""
    epochs = math.ceil((steps + _WARM_UP + 4) * batch_size / num_clips) + 1
    sampler: Any = ResumableSampler(num_clips, batch_size, seed=0, epochs=epochs)
    batches = iter(create_worker_loader(clips, sampler, partial(collate, reuse=reuse), num_workers=1))
    copied = None
    for step in range(_WARM_UP + steps):
        if step == _WARM_UP:
            before, own = worker_seconds(), time.process_time()
        batch = next(batches)
        copied = torch.empty_like(batch.frames) if copied is None else copied
        copied.copy_(batch.frames)
        batch.in_use.zero_()
        for places in clips_alike(batch.uncut):
            crops = [batch.uncut[place].crops for place in places]
            view_numbers(crops, batch.uncut[0].out_px, batch.frames.device)
        del batch
    after, own = worker_seconds(), time.process_time() - own
    return [1e3 * value / steps / batch_size for value in (after[0] - before[0], after[1] - before[1], own)]


def in_turn(ours: PretrainClips, device: PretrainClips, num_clips: int, num_samples: int) -> list[float]:
    """Return milliseconds of processor time per sample, RGB and planes, and the median of their ratio."""
    seconds: dict[PretrainClips, list[float]] = {ours: [], device: []}
    for place in range(num_samples):
        for clips in (ours, device) if place % 2 else (device, ours):
            before = time.process_time()
            collate(clips.__getitems__([SampleKey(0, place, place % num_clips)]))
            seconds[clips].append(time.process_time() - before)
    ratios = [one / other for one, other in zip(seconds[ours], seconds[device], strict=True)]
    return [*(1e3 * statistics.median(values) for values in seconds.values()), statistics.median(ratios)]


def training(
    ours: PretrainClips, device: PretrainClips, num_clips: int, model: ModelConfig, batch_size: int, steps: int
) -> list[float]:
    """Return milliseconds of processor time per sample, and what of them the batch takes, RGB and planes each.

    Both train a model of their own; the last figure is the median ratio of a step with planes to one with RGB.
    """
    # Not at the top: the server of the workers imports this file, and needs nothing of these.
    from mofo_train.benchmarks.parts import training_step
    from mofo_train.benchmarks.with_loader import Inputs
    from mofo_train.models import create_pretrain_model

    cpu = torch.device("cpu")
    network = create_pretrain_model(model.name, num_frames=model.num_frames, image_px=model.image_px)
    step, inputs = training_step(network, cpu, "fp32"), Inputs(network.clip, cpu)
    seconds: dict[PretrainClips, list[tuple[float, float]]] = {ours: [], device: []}
    for turn in range(steps + 1):
        keys = [SampleKey(0, place, place % num_clips) for place in range(turn * batch_size, (turn + 1) * batch_size)]
        for clips in (ours, device) if turn % 2 else (device, ours):
            before = time.process_time()
            batch: Batch = collate(clips.__getitems__(keys)).to(cpu)
            read = time.process_time() - before
            step(*inputs.prepare(batch))
            if turn:
                seconds[clips].append((time.process_time() - before, read))
    ratios = [one[0] / other[0] for one, other in zip(seconds[device], seconds[ours], strict=True)]
    columns = [column for clips in (ours, device) for column in zip(*seconds[clips], strict=True)]
    return [*(1e3 * statistics.median(column) / batch_size for column in columns), statistics.median(ratios)]


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-process", type=int, metavar="SAMPLES")
    parser.add_argument("--training", metavar="MODEL")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    reader = ClipReader(open_store(arguments.store), arguments.data_root, split=None, short_side_px=256)
    reader = reader.subset(np.arange(max(len(reader), arguments.batch_size)) % len(reader))
    data = DataConfig(dataset="", num_workers=1)
    model = ModelConfig(name=arguments.training or "videomae_base")
    ours, device = (
        PretrainClips(reader, model, data, seed=0, patch_px=16, on_device=on_device) for on_device in (False, True)
    )
    if arguments.in_process:
        rgb, planes, ratio = in_turn(ours, device, len(reader), arguments.in_process)
        print(f"RGB {rgb:.2f} ms, planes {planes:.2f} ms of a core; {ratio:.2f} times the samples per second")
        return
    if arguments.training:
        rgb, of_rgb, planes, of_planes, ratio = training(
            ours, device, len(reader), model, arguments.batch_size, arguments.steps
        )
        print(f"a step takes {rgb:.1f} ms of a core a sample with RGB ({of_rgb:.1f} of them for the batch),")
        print(f"{planes:.1f} with planes ({of_planes:.1f}); planes / RGB {ratio:.3f}")
        return
    ways = {"RGB, used again": (ours, True), "RGB, fresh": (ours, False), "planes, used again": (device, True)}
    rows: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, (clips, reuse) in ways.items():
            rows[name].append(cost(clips, len(reader), arguments.batch_size, arguments.steps, reuse=reuse))
    print("| batch | worker, user ms | worker, system ms | main process, ms | samples/s of a worker's core |")
    print("|---|---|---|---|---|")
    for name, row in rows.items():
        middle = [statistics.median(values) for values in zip(*row, strict=True)]
        shown = " | ".join(f"{value:.2f}" for value in middle)
        print(f"| {name} | {shown} | {1e3 / (middle[0] + middle[1]):.0f} |")


if __name__ == "__main__":
    main()
