"""Batches on their way from the workers to the device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from clips_support import dataset, same
from mofo_train.data.dataset import Sample
from mofo_train.data.loader import Batch, BatchesAhead, _Buffers, collate, create_loader, create_worker_loader, shared
from mofo_train.data.sampler import ResumableSampler, SampleKey
from mofo_train.errors import DataError
from mofo_train.training.safeguards import DivergedError, stop_if_diverged

CPU = torch.device("cpu")
T = TypeVar("T")


def batches(store_path: Path, num_workers: int) -> Iterator[Batch]:
    sampler, join = ResumableSampler(12, 3, seed=0, epochs=4), partial(collate, reuse=True)
    return iter(create_worker_loader(dataset(store_path), sampler, join, num_workers=num_workers))


def copied(batch: Batch) -> Batch:
    """What `pin_memory` makes of a batch, without a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "pin_memory", Tensor.clone)
        return batch.pin_memory()


def test_memory_that_is_used_again_holds_what_fresh_memory_holds(store_path: Path) -> None:
    here = list(batches(store_path, 0))
    there = [copied(batch) for batch in batches(store_path, 1)]
    assert len(there) == 16
    assert all(same(one, other) for one, other in zip(here, there, strict=True))


def test_batches_that_are_kept_are_not_written_over(store_path: Path) -> None:
    """Without page-locked memory nothing tells a worker that a batch is done with."""
    here, there = list(batches(store_path, 0)), list(batches(store_path, 1))
    assert all(same(one, other) for one, other in zip(here, there, strict=True))
    assert all(batch.in_use.item() for batch in there)


def in_a_worker(function: Callable[[], T]) -> T:
    """Return what a function says in the worker of a loader."""
    loader = DataLoader([0], num_workers=1, collate_fn=lambda _: function(), multiprocessing_context="fork")
    return next(iter(loader))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("pin", "is_used_again"), [(False, False), (True, True)])
def test_memory_is_held_for_batches_that_are_copied_only(store_path: Path, pin: bool, is_used_again: bool) -> None:
    clips = dataset(store_path)
    loader = create_loader(clips, ResumableSampler(12, 3, seed=0, epochs=1), num_workers=0, pin=pin)
    sample = clips[SampleKey(0, 0, 0)]

    def two_batches() -> tuple[bool, bool]:
        first = loader.collate_fn([sample])
        copied(first)
        second = loader.collate_fn([sample])
        return first.frames.is_shared(), first.frames.data_ptr() == second.frames.data_ptr()

    assert in_a_worker(two_batches) == (True, is_used_again)


def test_a_worker_uses_memory_again_once_it_is_free() -> None:
    buffers = _Buffers()
    first, first_in_use = buffers.take(100)
    second, _ = buffers.take(100)
    assert first.data_ptr() != second.data_ptr()
    assert first.is_shared()
    assert len(first) == 100
    batch = Batch(first, torch.zeros(1), torch.zeros(0), torch.zeros(1), [], [], first_in_use)
    copied(batch)
    assert buffers.take(100)[0].data_ptr() == first.data_ptr()
    assert buffers.take(100)[0].data_ptr() not in (first.data_ptr(), second.data_ptr())
    first_in_use.zero_()
    assert len(buffers.take(60)[0]) == 60, "a batch of another size"


@pytest.mark.parametrize("room", [0, 1, 5])
def test_too_little_shared_memory_is_one_clear_error(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = torch.UntypedStorage._new_shared, itertools.count()

    def full(size: int, device: str) -> torch.UntypedStorage:
        if next(calls) >= room:
            raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left (28)")
        return real(size, device=device)  # type: ignore[no-any-return, no-untyped-call]

    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", full)
    buffers = _Buffers()
    with pytest.raises(DataError, match=r"must have room .* 101 bytes more: No space left \(28\); enlarge"):
        [buffers.take(100) for _ in range(6)]
    with pytest.raises(DataError, match="8 bytes more"):
        in_a_worker(lambda: shared(torch.zeros(2)))


def test_a_worker_moves_what_it_read_to_shared_memory_itself() -> None:
    tensor = torch.arange(12.0).view(3, 4)
    assert shared(tensor) is tensor, "no worker"

    def moved() -> tuple[bool, bool, tuple[int, ...]]:
        there = shared(tensor)
        return there.is_shared(), torch.equal(there, tensor), tuple(shared(torch.empty(0, 4)).shape)

    assert in_a_worker(moved) == (True, True, (0, 4))


def test_a_batch_reads_one_sample_after_the_other(store_path: Path) -> None:
    clips, alive, most = dataset(store_path), 0, 0

    class Watched(Sample):
        def __init__(self, sample: Sample) -> None:
            nonlocal alive, most
            super().__init__(**vars(sample))
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    keys = next(iter(ResumableSampler(12, 6, seed=0, epochs=1)))
    samples = clips.__getitems__(keys)
    read = type(clips).__getitem__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(clips), "__getitem__", lambda self, key: Watched(read(self, key)))
        batch = collate(samples)
    assert most <= 2, "the next one is read before the name of the last one is given away"
    assert torch.equal(batch.frames, torch.cat([clips[key].frames for key in keys]))
    assert batch.frames.permute(0, 2, 3, 4, 1).is_contiguous()


def test_on_a_cpu_batches_pass_through(store_path: Path) -> None:
    ahead, wanted = BatchesAhead(batches(store_path, 0), CPU), list(batches(store_path, 0))
    for batch in wanted:
        assert same(ahead.take(), batch)
        ahead.fetch()
    with pytest.raises(StopIteration):
        ahead.take()


def test_waiting_is_counted_once(monkeypatch: pytest.MonkeyPatch, store_path: Path) -> None:
    clock = itertools.count(step=2.0)
    monkeypatch.setattr("mofo_train.data.loader.time.perf_counter", lambda: next(clock))
    ahead = BatchesAhead(batches(store_path, 0), CPU)
    ahead.take()
    ahead.take()
    assert ahead.waited() == 4.0
    assert ahead.waited() == 0.0


@pytest.mark.parametrize(("losses", "norm", "message"), [
    ((1.0, float("nan")), 1.0, "loss nan in step 7; clips of the batch: c, d; the weights are those before"),
    ((float("inf"), 1.0), 1.0, "loss inf in step 7; clips of the batch: a, b; "),
    ((1.0, 2.0), float("inf"), "gradient norm inf in step 7; clips of the batch: a, b, c, d; "),
])  # fmt: skip
def test_what_is_no_number_stops_and_names_its_clips(losses: tuple[float, ...], norm: float, message: str) -> None:
    values = [torch.tensor(loss) for loss in losses]
    clips = [["a", "b"], ["c", "d"]]
    off, on = (torch.amp.GradScaler("cpu", enabled=enabled) for enabled in (False, True))
    with pytest.raises(DivergedError, match=message):
        stop_if_diverged(values, torch.tensor(norm), 7, clips, off)
    if norm == float("inf"):
        assert stop_if_diverged(values, torch.tensor(norm), 7, clips, on) == norm, "the scaler leaves that step out"
    assert stop_if_diverged([torch.tensor(1.0)] * 2, torch.tensor(0.5), 7, clips, off) == 0.5
