from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch
from torch import nn

from mofo_train.commands.bench import COMPILE_MODES, PRECISIONS
from mofo_train.config import CompileMode, Precision
from mofo_train.errors import ConfigError
from mofo_train.runtime.compiling import check_graphs, compiled


def test_a_network_that_is_not_compiled_is_itself() -> None:
    network = nn.Linear(3, 4)
    assert compiled(network, False) is network


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune"])
def test_graphs_do_not_add_gradients_up(mode: CompileMode) -> None:
    with pytest.raises(ConfigError, match=rf"run.compile {mode} keeps gradients .* optim.grad_accum_steps to 1, got 2"):
        check_graphs(mode, 2)
    check_graphs(mode, 1)
    check_graphs("max-autotune-no-cudagraphs", 2)


def test_the_command_offers_what_recipes_do() -> None:
    assert get_args(CompileMode) == COMPILE_MODES
    assert set(PRECISIONS) < set(get_args(Precision))


@pytest.mark.slow
@pytest.mark.parametrize("choice", [True, *COMPILE_MODES])
def test_every_mode_computes_what_the_network_does(choice: bool | CompileMode) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
    fast = compiled(copy.deepcopy(network), choice)
    for _ in range(3):
        x = torch.randn(4, 16)
        for one in (network, fast):
            one.zero_grad()
            one(x).square().sum().backward()
        assert torch.allclose(fast(x), network(x), atol=1e-5)
        for other, value in zip(fast.parameters(), network.parameters(), strict=True):
            assert other.grad is not None
            assert value.grad is not None
            assert torch.allclose(other.grad, value.grad, rtol=1e-4, atol=1e-5)
