"""Processes of one training run: `torchrun` starts them, one per device, or there is only this one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from mofo_train.errors import ConfigError

Sharding = Literal["ddp", "fsdp"]
_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Ranks:
    """This process among all.

    Attributes:
        rank: Its number.
        world_size: All processes.
        device: Where it computes.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def wrap(self, model: nn.Module, sharding: Sharding = "ddp") -> nn.Module:
        """Let the processes average their gradients; with `fsdp` also share out parameters, block by block.

        The optimiser must be created after this: sharding replaces the parameters.
        """
        if self.world_size == 1:
            return model
        if sharding == "ddp":
            devices = [self.device] if self.device.type == "cuda" else None
            return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
        mesh = init_device_mesh(self.device.type, (self.world_size,))
        for name, module in model.named_modules():
            if name.rsplit(".", 1)[0].endswith("blocks"):
                fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model

    @contextmanager
    def gradients(self, wrapped: nn.Module, *, last: bool) -> Iterator[None]:
        """Average gradients over the processes only in the last micro-batch of a step."""
        if isinstance(wrapped, FSDPModule):
            wrapped.set_requires_gradient_sync(last)
            yield
        elif self.world_size > 1 and not last:
            with wrapped.no_sync():  # type: ignore[operator]
                yield
        else:
            yield

    def full_state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return weights and optimiser state, whole in the first process; call it in all."""
        if not isinstance(model, FSDPModule):
            return model.state_dict(), optimizer.state_dict()
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = get_model_state_dict(model, options=options)
        return weights, dict(get_optimizer_state_dict(model, optimizer, options=options))

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, weights: dict[str, Any], state: dict[str, Any]
    ) -> None:
        """Give back what `full_state` returned; every process has read the same checkpoint."""
        if not isinstance(model, FSDPModule):
            model.load_state_dict(weights)
            optimizer.load_state_dict(state)
            return
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(model, weights, options=options)
        set_optimizer_state_dict(model, optimizer, state, options=options)

    def send(self, values: Tensor) -> Tensor:
        """Return a small tensor of the processor's on the device, which need not have done its work before."""
        held = values.pin_memory() if self.device.type == "cuda" else values
        return held.to(self.device, non_blocking=True)

    def sum(self, values: Tensor) -> Tensor:
        """Add a tensor over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set in any process."""
        if self.world_size == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=self.device)) > 0)

    def gather(self, value: Any) -> list[Any]:
        """Collect one picklable value from each process."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values


@contextmanager
def ranks_of_this_run() -> Iterator[Ranks]:
    """Join the processes that `torchrun` started (NCCL on GPUs, Gloo on CPUs); leave them at the end.

    Raises:
        ConfigError: The environment is not one that `torchrun` leaves.
    """
    rank, world = _place_among_processes()
    if rank:
        for package in ("motionbox", "mofo_train"):  # the first process speaks for all
            logging.getLogger(package).setLevel(logging.ERROR)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if world == 1:
        yield Ranks(0, 1, device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield Ranks(rank, world, device)
    finally:
        dist.destroy_process_group()


def _place_among_processes() -> tuple[int, int]:
    """Return rank and number of processes from the environment: all of what `torchrun` sets, or nothing of it."""
    world = _whole_number("WORLD_SIZE", 1)
    if world == 1:
        return 0, 1
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {world} in the environment but {', '.join(missing)} not set: start with torchrun, which "
            "sets them all, or unset WORLD_SIZE"
        )
    rank = _whole_number("RANK", 0)
    if not 0 <= rank < world:
        raise ConfigError(
            f"RANK must be in 0..{world - 1} where WORLD_SIZE is {world}, got {rank}; start with torchrun"
        )
    return rank, world


def _whole_number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise ConfigError(f"{name} must be a whole number in the environment, got {text!r}; unset it or use torchrun")
    return int(text)
