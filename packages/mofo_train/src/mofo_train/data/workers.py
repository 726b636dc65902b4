"""Processes that read clips, and the shared memory in which what they read reaches the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from mofo_train.errors import DataError
from motionbox.errors import MotionBoxError


def create_worker_loader(
    dataset: Dataset[Any],
    batches: Sampler[Any],
    collate: Callable[[Any], Any],
    *,
    num_workers: int,
    pin: bool = False,
) -> DataLoader[Any]:
    """Create a loader: workers that live as long as it, decode with one thread each and are two batches ahead."""
    return _WorkerLoader(
        dataset,
        batch_sampler=batches,
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


class _WorkerLoader(DataLoader[Any]):
    """A loader whose workers' errors are the line that a user can act on, without the worker's traceback."""

    def __iter__(self) -> Any:
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
