"""Samples -> batches -> device: written once into shared memory, sent while the device computes.

A worker writes each clip straight into the shared memory of its batch, and uses that memory again once the batch has
been copied to page-locked memory: fresh pages cost more than a copy. `BatchesAhead` sends the next batch to the device
while that computes. Where the store lies in a bucket, a process has the clips of its next batches fetched while it
decodes one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from mofo_train.data.crops.uncut import Uncut, make_views
from mofo_train.data.dataset import Sample, Samples, TrainingClips
from mofo_train.data.sampler import SampleKey, Turn, Turns
from mofo_train.errors import DataError
from motionbox.errors import MotionBoxError, safe_path

_TENSORS = ("frames", "boxes", "areas", "motion")  # of a batch, needed on the device
_MOST_BUFFERS = 4  # of a worker: two batches wait, one is copied, one is written


@dataclass(frozen=True)
class Batch:
    """Samples of one micro-batch on one rank.

    Attributes:
        frames: uint8 (B, 3, T, S, S), colours innermost in memory.
        boxes: float32 (B, T, 4).
        areas: uint8 (B, slots, side, side), or empty where boxes guide.
        motion: As in `Sample`, or empty.
        clips: Index of each clip in the reader, one per B.
        bad: Clips that could not be read, and why.
        in_use: uint8 (1,), not 0 while `frames` may not be written over; it stands in the memory of `frames`.
        uncut: What each clip's views are cut from, where the device makes them; till then `frames` is uint8 (clips,
            bytes).
    """

    frames: Tensor
    boxes: Tensor
    areas: Tensor
    motion: Tensor
    clips: list[int]
    bad: list[tuple[str, str]]
    in_use: Tensor = field(default_factory=lambda: torch.ones(1, dtype=torch.uint8))
    uncut: list[Uncut] = field(default_factory=list)

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory (called by the loader); its worker may use this one's again."""
        pinned = {name: getattr(self, name).pin_memory() for name in _TENSORS}
        self.in_use.zero_()
        return Batch(**pinned, clips=self.clips, bad=self.bad, uncut=self.uncut)

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on a device; from page-locked memory without waiting for it."""
        tensors = {name: getattr(self, name).to(device, non_blocking=True) for name in _TENSORS}
        if self.uncut:
            tensors["frames"] = make_views(tensors["frames"], self.uncut)
        return replace(self, **tensors, uncut=[])


class _Buffers:
    """Shared memory of this worker's batches."""

    def __init__(self) -> None:
        self._held: list[Tensor] = []

    def take(self, num_bytes: int) -> tuple[Tensor, Tensor]:
        """Return uint8 (num_bytes,) that nobody uses, and uint8 (1,), to be set to 0 when it is free again.

        Raises:
            DataError: The machine has no room for it.
        """
        self._held = [buffer for buffer in self._held if len(buffer) == num_bytes + 1]
        free = next((buffer for buffer in self._held if not buffer[-1]), None)
        if free is None:
            free = new_shared(num_bytes + 1)
            if len(self._held) < _MOST_BUFFERS:
                self._held.append(free)
        free[-1] = 1
        return free[:-1], free[-1:]


_BUFFERS = _Buffers()


def collate(samples: Samples | Sequence[Sample], *, reuse: bool = False) -> Batch:
    """Join samples; the crops of a clip stay neighbours.

    Args:
        samples: The batch's; at most one at a time is in memory where they are read as they are asked for. Clips whose
            views are left to the device are read straight into the batch's memory.
        reuse: In a worker: hold on to the batch's memory, to write it again once `in_use` is 0.
    """
    memory = in_use = torch.empty(0)
    rows: Iterable[Sample] = samples
    if isinstance(samples, Samples) and samples.clips.room_bytes:
        memory, in_use = _memory(len(samples) * samples.clips.room_bytes, reuse=reuse)
        memory = memory.view(len(samples), -1)
        rows = samples.read_into(memory)
    boxes, areas, motion, clips, bad, uncut = [], [], [], [], [], []
    for place, sample in enumerate(rows):
        if sample.uncut:
            uncut.append(sample.uncut)
        else:
            content = sample.frames.permute(0, 2, 3, 4, 1)
            if place == 0:
                memory, in_use = _memory(len(samples) * content.numel(), reuse=reuse)
                memory = memory.view(len(samples), *content.shape)
            memory[place].copy_(content)
        boxes.append(sample.boxes)
        areas.append(sample.areas)
        motion.append(sample.motion)
        clips += [sample.clip] * len(sample.boxes)
        bad += sample.bad
    frames = memory if uncut else memory.flatten(0, 1).permute(0, 4, 1, 2, 3)
    small = [shared(torch.cat(values)) for values in (boxes, areas, motion)]
    return Batch(frames, small[0], small[1], small[2], clips, bad, in_use, uncut)


def _memory(num_bytes: int, *, reuse: bool) -> tuple[Tensor, Tensor]:
    """Return uint8 (num_bytes,) for a batch, shared if this is a worker, and `Batch.in_use`."""
    if get_worker_info() is not None and reuse:
        return _BUFFERS.take(num_bytes)
    memory = torch.empty(num_bytes, dtype=torch.uint8) if get_worker_info() is None else new_shared(num_bytes)
    return memory, torch.ones(1, dtype=torch.uint8)


class BatchesAhead:
    """Hands out batches on the device; on a GPU the next one is read and sent while the device computes."""

    def __init__(self, batches: Iterator[Any], device: torch.device) -> None:
        """Take the batches of a loader and where they are needed."""
        self._batches, self._device = batches, device
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._next: Batch | None = None
        self._begun: tuple[float, Any] | None = None
        self._wait_seconds = 0.0

    def take(self) -> Batch:
        """Return the next batch, its tensors on the device.

        Raises:
            StopIteration: There is none.
        """
        batch = self._next
        self._next = None
        if batch is None:
            before = time.perf_counter()
            batch = self._send(next(self._batches))
            self._wait_seconds += time.perf_counter() - before
        if self._stream is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._stream)
            for name in _TENSORS:
                getattr(batch, name).record_stream(
                    current
                )  # its memory is not given away before the work on it is done
            self._begun = (time.perf_counter(), current.record_event(_timed_event()))
        return batch

    def fetch(self) -> None:
        """Read the next batch, if there is one, and begin to send it; to be called when the device has its work."""
        if self._stream is None or self._begun is None or self._next is not None:
            return
        done: Any = torch.cuda.current_stream(self._device).record_event(_timed_event())
        before = time.perf_counter()
        batch = next(self._batches, None)
        after = time.perf_counter()
        if done.query():
            started, begun = self._begun
            idle_from = started + begun.elapsed_time(done) / 1e3
            self._wait_seconds += max(0.0, after - max(before, idle_from))
        self._next = None if batch is None else self._send(batch)

    def waited(self) -> float:
        """Return how many seconds the loop, or on a GPU the device, was idle for want of data since the last call."""
        seconds, self._wait_seconds = self._wait_seconds, 0.0
        return seconds

    def _send(self, batch: Batch) -> Batch:
        with torch.cuda.stream(self._stream):  # None: no GPU, no stream
            return batch.to(self._device)


def _timed_event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def create_loader(
    dataset: TrainingClips, sampler: Sampler[list[SampleKey]], *, num_workers: int, pin: bool
) -> DataLoader[Batch]:
    """Create the loader of a training; with `pin` its batches come in page-locked memory, copied from reused memory."""
    return create_worker_loader(dataset, sampler, partial(collate, reuse=pin), num_workers=num_workers, pin=pin)


class Announced(Protocol):
    """A data set that may be told what it will be asked for."""

    def read_ahead(self, batch: list[Any], *, keep: int) -> None:
        """Begin to fetch a batch, behind those told before, of which the last `keep` still hold."""

    def __getitems__(self, batch: list[Any]) -> Any:
        """Return the samples of a batch, for `collate`."""


def create_worker_loader(
    dataset: Announced,
    batches: Sampler[Any],
    collate: Callable[[Any], Any],
    *,
    num_workers: int,
    pin: bool = False,
) -> DataLoader[Any]:
    """Create a loader: workers that live as long as it, decode with one thread each and are two batches ahead."""
    return _WorkerLoader(
        _InTurn(dataset),
        batch_sampler=Turns(batches, max(1, num_workers)),
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin,
        worker_init_fn=_one_thread,
        multiprocessing_context="forkserver" if num_workers else None,
    )


def shared(tensor: Tensor) -> Tensor:
    """Return a worker's tensor in shared memory; in a process that is no worker, the tensor.

    Left to the loader, it would be moved there by a thread whose failure stops nothing and is waited for for ever.

    Raises:
        DataError: The machine has no room for it.
    """
    if get_worker_info() is None or tensor.numel() == 0:
        return tensor
    return new_shared(tensor.nbytes).view(tensor.dtype).view(tensor.shape).copy_(tensor)


def new_shared(num_bytes: int) -> Tensor:
    """Return new shared memory as uint8 (num_bytes,).

    Raises:
        DataError: The machine has no room for it.
    """
    try:  # as torch's own default_collate gets it; share_memory_() would copy
        storage = torch.UntypedStorage._new_shared(num_bytes, device="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise DataError(
            f"shared memory (/dev/shm) must have room for batches of the workers, got none for {num_bytes:,} bytes "
            f"more: {str(error).rpartition(': ')[2]}; enlarge it (docker run --shm-size 16g) or lower data.num_workers"
        ) from None
    return torch.empty(0, dtype=torch.uint8).set_(storage)


class _InTurn(Dataset[Any]):
    """Reads batches turn by turn; what a turn tells of the next ones is begun before its own batch is read."""

    def __init__(self, dataset: Announced) -> None:
        self._dataset = dataset

    def __getitems__(self, turn: Turn) -> Any:
        for batch in turn.news:
            self._dataset.read_ahead(batch, keep=turn.num_ahead)
        return self._dataset.__getitems__(turn.batch)


class _WorkerLoader(DataLoader[Any]):
    """A loader whose workers' errors are the line that a user can act on, without the worker's traceback."""

    def __iter__(self) -> Any:
        with safe_path():
            return self._readably(super().__iter__())

    @staticmethod
    def _readably(batches: Any) -> Iterator[Any]:
        try:
            yield from batches
        except (DataError, MotionBoxError) as error:
            kind, last = type(error), str(error).rstrip().rsplit("\n", 1)[-1]
            raise kind(last.removeprefix(f"{kind.__module__}.{kind.__qualname__}: ")) from None


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
