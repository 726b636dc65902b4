from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mofo_train.models.layers import attention
from mofo_train.models.layers.attention import attend

needs_bf16 = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="this processor or PyTorch has no bfloat16 products",
)


def parts(queries: int, tokens: int, *, spread: float = 2.0) -> tuple[list[Tensor], Tensor]:
    """Query, key and value by head, strided as a joint projection leaves them, and a gradient from above."""
    generator = torch.Generator().manual_seed(0)
    joint = torch.randn(2, tokens, 3, 4, 16, generator=generator) * torch.tensor([spread, spread, 1.0])[:, None, None]
    query, key, value = joint.permute(2, 0, 3, 1, 4)
    return [query[:, :, -queries:], key, value], torch.randn(2, 4, queries, 16, generator=generator)


def results(attend_to: object, values: list[Tensor], pull: Tensor, dtype: torch.dtype) -> list[Tensor]:
    inputs = [value.to(dtype).requires_grad_() for value in values]
    out = attend_to(*inputs)  # type: ignore[operator]
    return [out, *torch.autograd.grad(out, inputs, pull.to(dtype))]


@pytest.mark.parametrize(("queries", "tokens"), [(37, 37), (5, 37), (1, 1)])
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_is_as_near_to_float64_as_pytorch_is(queries: int, tokens: int, autocast: bool) -> None:
    values, pull = parts(queries, tokens)
    exact = results(F.scaled_dot_product_attention, values, pull, torch.float64)
    theirs = results(F.scaled_dot_product_attention, values, pull, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours = results(attend, values, pull, torch.bfloat16)
    for own, peer, truth in zip(ours, theirs, exact, strict=True):
        assert own.shape == truth.shape
        error = (own.double() - truth).norm()
        assert error < 1.2 * (peer.double() - truth).norm() + 1e-3 * pull.double().norm()


@needs_bf16
def test_heads_are_computed_apart_in_bfloat16_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    real = attention._weigh
    monkeypatch.setattr(attention, "_weigh", lambda query, key, out: seen.append(query) or real(query, key, out))
    values, pull = parts(6, 9)
    for dtype in (torch.float32, torch.float64):
        ours, theirs = (results(way, values, pull, dtype) for way in (attend, F.scaled_dot_product_attention))
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert not seen
    kept = results(attend, values, pull, torch.bfloat16)
    assert len(seen) == 2 * 4  # two clips, four heads
    monkeypatch.setattr(attention, "_KEPT_BYTES", 0)
    again = results(attend, values, pull, torch.bfloat16)
    assert len(seen) == 2 * 4 + 2 * 2 * 4  # the backward pass computes them again
    assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))
