from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mofo_train.models.layers import linear as layer
from mofo_train.models.layers.linear import Mlp, linear

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"),
    reason="this PyTorch has no oneDNN",
)


@pytest.fixture(params=[False, True], ids=["onednn", "intel"])
def maker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways on every processor; whether it is taken for Intel's."""
    monkeypatch.setattr(layer, "_is_intel", lambda: request.param)
    return bool(request.param)


@pytest.mark.usefixtures("maker")
@pytest.mark.parametrize("shape", [(5, 24), (2, 7, 24), (1, 24), (3, 0, 24)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_values_and_gradients_are_those_of_a_sum_in_float64(shape: tuple[int, ...], with_bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).requires_grad_()
    weight = torch.randn(17, 24, generator=generator).requires_grad_()
    bias = torch.randn(17, generator=generator).requires_grad_() if with_bias else None
    wanted = [value for value in (x, weight, bias) if value is not None]
    ours = linear(x, weight, bias)
    exact = torch.einsum("...k,nk->...n", x.double(), weight.double()) + (0 if bias is None else bias.double())
    assert ours.shape == exact.shape
    assert torch.allclose(ours.double(), exact, rtol=1e-5, atol=1e-5)
    pull = torch.randn(ours.shape, generator=generator)
    ours_pulled = torch.autograd.grad(ours, wanted, pull)
    exact_pulled = torch.autograd.grad(exact, wanted, pull.double())
    for one, other in zip(ours_pulled, exact_pulled, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("maker")
def test_strided_inputs_and_weights() -> None:
    """Rows cut from a batch, columns of a wider matrix, a transposed weight and a gradient that is one number."""
    x, weight = torch.randn(2, 9, 24)[:, -4:, 3:20], torch.randn(17, 6, requires_grad=True)
    out = linear(x, weight.t())
    assert torch.allclose(out, x @ weight, rtol=1e-5, atol=1e-5)
    out.sum().backward()
    assert weight.grad is not None
    assert torch.allclose(weight.grad, x.sum((0, 1))[:, None].expand(17, 6), rtol=1e-5, atol=1e-5)


@needs_onednn
def test_onednn_is_used_for_float32_only_off_intel_and_can_be_turned_off(
    maker: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    real = layer._product

    def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        seen.append(x)
        return real(x, weight, bias)

    monkeypatch.setattr(layer, "_product", product)
    mlp, x = Mlp(8, 32), torch.randn(3, 8)
    usual = mlp(x)
    used = 0 if maker else 2
    assert len(seen) == used
    with torch.autocast("cpu", torch.bfloat16):
        assert mlp(x).dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False):  # type: ignore[no-untyped-call]
        assert torch.allclose(mlp(x), usual, rtol=1e-5, atol=1e-6)
    mlp.double()(x.double())
    assert len(seen) == used
