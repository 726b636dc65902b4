"""Products in 8 bits: equal to products of the rounded numbers, and near enough to those of the unrounded ones."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mofo_train.benchmarks.parts import training_step
from mofo_train.errors import ConfigError
from mofo_train.guidance import masks
from mofo_train.models import create_classifier, create_pretrain_model
from mofo_train.models.layers.float8 import float8_linear, suits_float8, to_float8
from mofo_train.models.layers.linear import linear
from mofo_train.models.vit import learn_in_float8

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
CPU = torch.device("cpu")


@given(st.integers(0, 2**31), st.integers(-30, 30), st.sampled_from([(E4M3, 448.0, 4), (E5M2, 57344.0, 3)]))
def test_cast_keeps_the_largest_value_and_half_a_step_of_the_others(
    seed: int, exponent: int, form: tuple[torch.dtype, float, int]
) -> None:
    dtype, most, bits = form
    values = torch.randn(7, 9, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    low, scale = to_float8(values, dtype)
    assert low.dtype == dtype
    assert low.float().abs().max() == most
    error = (low.double() * scale.double() - values.double()).abs()
    largest = values.abs().max()
    step = values.abs().double() * 2.0**-bits + largest * 2.0**-15  # the smallest numbers have an absolute step
    assert (error <= step).all()


def test_zeros_stay_zeros() -> None:
    low, scale = to_float8(torch.zeros(3, 5), E4M3)
    assert (low.float() == 0).all()
    assert torch.isfinite(scale)


def _rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    low, scale = to_float8(values, dtype)
    return low.double() * scale.double()


def _error(found: Tensor, right: Tensor) -> float:
    return float((found.double() - right.double()).detach().norm() / right.detach().double().norm())


@pytest.mark.parametrize("with_bias", [False, True])
def test_value_and_gradients_are_products_of_rounded_numbers(with_bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(48, 64, generator=generator).requires_grad_()
    weight = (torch.randn(32, 64, generator=generator) / 8).requires_grad_()
    bias = torch.randn(32, generator=generator).requires_grad_() if with_bias else None
    pull = torch.randn(48, 32, generator=generator).bfloat16() * 1e-4
    wanted = [value for value in (x, weight, bias) if value is not None]
    found = float8_linear(x, weight, bias)
    gradients = torch.autograd.grad(found, wanted, pull)

    values, weights, pulled = _rounded(x.detach(), E4M3), _rounded(weight.detach(), E4M3), _rounded(pull, E5M2)
    right = values @ weights.t() + (0 if bias is None else bias.detach())
    assert found.dtype == torch.bfloat16
    assert _error(found.detach(), right) < 3e-3  # rounded to bfloat16
    rights = [pulled @ weights, pulled.t() @ values] + ([pull.double().sum(0)] if with_bias else [])
    for gradient, expected, value in zip(gradients, rights, wanted, strict=True):
        assert gradient.dtype == value.dtype
        assert _error(gradient, expected) < 1e-5
    unrounded = [pull.double() @ weight.double(), pull.double().t() @ x.double()]
    assert all(_error(*pair) < 0.1 for pair in zip(gradients, unrounded, strict=False))


def test_only_products_that_fit_are_taken() -> None:
    weight = torch.randn(32, 64)
    assert not suits_float8(torch.randn(48, 64), weight)  # no autocast: float32 was asked for
    with torch.autocast("cpu", torch.bfloat16):
        assert suits_float8(torch.randn(3, 16, 64), weight)
        for x, other in (
            (torch.randn(47, 64), weight),
            (torch.randn(48, 64), weight[:30]),
            (torch.randn(0, 64), weight),
        ):
            assert not suits_float8(x, other)
            assert torch.equal(linear(x, other, float8=True), linear(x, other))


def _tiny() -> nn.Module:
    torch.manual_seed(0)
    return create_pretrain_model("videomae_tiny", num_frames=8, image_px=64)


def _predict(model: nn.Module, frames: Tensor, mask: Tensor) -> Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return model(frames, mask)  # type: ignore[no-any-return]


def test_model_learns_in_8_bits_and_is_used_in_bfloat16(generator: torch.Generator) -> None:
    usual, low = _tiny(), _tiny()
    learn_in_float8(low)
    frames = torch.randn(4, 3, 8, 64, 64, generator=generator)
    mask = masks.tube_mask(4, 16, 4, generator=generator)
    assert usual.state_dict().keys() == low.state_dict().keys()
    expected = _predict(usual, frames, mask)
    assert 1e-3 < _error(_predict(low, frames, mask), expected) < 0.1
    assert torch.equal(_predict(low.eval(), frames, mask), _predict(usual.eval(), frames, mask))


def test_loss_follows_that_of_bfloat16(generator: torch.Generator) -> None:
    """Learning one batch by heart: at every step nearer to bfloat16's curve than that is to the one before it."""
    frames = torch.rand(4, 3, 2, 64, 64, generator=generator).repeat_interleave(4, 2)
    curves = {}
    for precision in ("bf16", "fp8"):
        model = _tiny()
        step = training_step(copy.deepcopy(model), CPU, precision)  # type: ignore[arg-type]
        drawn = torch.Generator().manual_seed(1)
        curves[precision] = torch.tensor([step(frames, masks.tube_mask(4, 16, 4, generator=drawn)) for _ in range(40)])
    fall = curves["bf16"][:5].mean() - curves["bf16"][-5:].mean()
    assert fall > 0.02
    assert (curves["fp8"] - curves["bf16"]).abs().max() < 0.2 * fall


def test_classifiers_compute_one_graph(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    model = create_classifier("videomae_tiny", 5, fusion="mean", num_frames=8, image_px=64)
    learn_in_float8(model)
    whole = torch.compile(model, backend="aot_eager", fullgraph=True)
    frames = torch.randn(2, 3, 8, 64, 64, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(whole(frames).float(), model(frames).float(), atol=2e-2)


def test_widths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"fp8 needs layers whose widths are multiples of 16, got one of 72 x 216"):
        learn_in_float8(create_pretrain_model("videomae_mini", num_frames=8, image_px=48))
