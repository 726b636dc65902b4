"""What a GPU computes is what the CPU computes; `make test-gpu`."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch

from mofo_train.benchmarks.parts import training_step
from mofo_train.config import CompileMode
from mofo_train.data.loader import Batch, BatchesAhead
from mofo_train.data.transforms import normalise
from mofo_train.guidance import masks
from mofo_train.guidance.inside import patches_inside_box
from mofo_train.models import create_pretrain_model
from mofo_train.models.layers.float8 import float8_linear
from mofo_train.models.mca import MultiCrossAttention
from mofo_train.runtime.ranks import Ranks

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
CUDA = torch.device("cuda")


def _sets(num_clips: int, num_tokens: int) -> torch.Tensor:
    """Membership of clips of all kinds: none inside, all but one, and shares between."""
    generator = torch.Generator().manual_seed(1)
    shares = torch.linspace(0.05, 0.95, num_clips)[:, None]
    inside = torch.rand(num_clips, num_tokens, generator=generator) < shares
    inside[0] = False
    inside[1] = True
    inside[1, 0] = False
    return inside


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
def test_multi_cross_attention_equals_the_cpus(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    block, inside = MultiCrossAttention(192), _sets(6, 98)
    tokens = torch.randn(6, 98, 192, requires_grad=True)
    expected = block(tokens, inside, ~inside)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum(), [tokens, *block.parameters()])

    on_gpu = copy.deepcopy(block).to(CUDA)
    moved = tokens.detach().to(CUDA).requires_grad_()
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        fused = on_gpu(moved, inside.to(CUDA), ~inside.to(CUDA))
    gradients = torch.autograd.grad((fused.float() * weights.to(CUDA)).sum(), [moved, *on_gpu.parameters()])
    for result, right in zip([fused, *gradients], [expected, *wanted], strict=True):
        error = (result.float().cpu() - right).norm() / right.norm().clamp(min=1e-6)
        assert error < tolerance


def test_reconstruction_equals_the_cpus() -> None:
    torch.manual_seed(0)
    model = create_pretrain_model("videomae_tiny").eval()
    frames = torch.randn(2, 3, 16, 224, 224)
    mask = masks.tube_mask(2, 196, 8, generator=torch.Generator().manual_seed(0))
    expected = model(frames, mask)
    result = model.to(CUDA)(frames.to(CUDA), mask.to(CUDA)).cpu()
    assert (result - expected).norm() / expected.norm() < 1e-4


def _losses(precision: str, compile_mode: bool | CompileMode = False) -> list[float]:
    """Return the losses of six steps of the tiny model."""
    torch.manual_seed(0)
    model = create_pretrain_model("videomae_tiny").to(CUDA)
    step = training_step(model, CUDA, precision, compile_mode=compile_mode)
    generator = torch.Generator(CUDA).manual_seed(0)
    frames = torch.randn(4, 3, 16, 224, 224, device=CUDA, generator=generator)
    return [step(frames, masks.tube_mask(4, 196, 8, generator=generator)) for _ in range(6)]


@pytest.mark.parametrize("mode", [True, *get_args(CompileMode)])
def test_compiled_training_follows_eager_training(mode: bool | CompileMode) -> None:
    eager = _losses("fp32")
    assert _losses("fp32", mode) == pytest.approx(eager, rel=1e-3)
    assert eager[-1] < eager[0]


needs_float8 = pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 9), reason="no products in 8 bits"
)


@needs_float8
def test_products_in_8_bits_equal_the_cpus() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(48, 64), torch.randn(32, 64) / 8, torch.randn(32)
    pull = torch.randn(48, 32).bfloat16()
    results = []
    for device in ("cpu", CUDA):
        own = [value.to(device).requires_grad_() for value in (x, weight, bias)]
        out = float8_linear(*own)
        results.append([out, *torch.autograd.grad(out, own, pull.to(device))])
    for expected, result in zip(*results, strict=True):
        assert (result.float().cpu() - expected.float()).norm() / expected.float().norm() < 5e-3


@needs_float8
@pytest.mark.parametrize("mode", [False, True, *get_args(CompileMode)])
def test_training_in_8_bits_follows_bfloat16(mode: bool | CompileMode) -> None:
    assert _losses("fp8", mode) == pytest.approx(_losses("bf16"), rel=5e-3)


def test_batches_ahead_are_the_loaders() -> None:
    """Every batch arrives whole and in order, though it travels while the device works on the one before."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        Batch(
            torch.randint(256, (4, 3, 8, 64, 64), dtype=torch.uint8, generator=generator),
            torch.rand(4, 8, 4, generator=generator),
            torch.randint(256, (4, 4, 4, 4), dtype=torch.uint8, generator=generator),
            torch.empty(0),
            [place],
            [],
        )
        for place in range(6)
    ]
    ahead = BatchesAhead((batch.pin_memory() for batch in batches), CUDA)
    load, sums = torch.randn(4096, 4096, device=CUDA), []
    for place in range(6):
        batch = ahead.take()
        assert batch.clips == [place]
        assert batch.frames.is_cuda
        for _ in range(20):
            load = load @ load / 64
        ahead.fetch()
        sums.append(batch.frames.sum(dtype=torch.int64) + batch.boxes.mul(1000).sum().long())
        del batch  # its memory goes back before the device is done with it
    expected = [int(batch.frames.sum(dtype=torch.int64) + batch.boxes.mul(1000).sum().long()) for batch in batches]
    assert [int(value) for value in sums] == pytest.approx(expected, abs=2)
    with pytest.raises(StopIteration):
        ahead.take()


def test_motion_masks_hide_exact_shares_on_the_device() -> None:
    generator = torch.Generator(CUDA).manual_seed(0)
    boxes = torch.tensor([[0, 0, 224, 224], [0, 0, 0, 0], [10, 20, 60, 90], [100, 0, 224, 224]], device=CUDA)
    inside = patches_inside_box(boxes.float(), (224, 224), 16)
    mask = masks.motion_tube_mask(inside, 8, generator=generator).view(4, 8, 196)
    assert (mask == mask[:, :1]).all()
    assert mask[:, 0].sum(1).tolist() == [round(0.9 * 196)] * 4
    counts = inside.sum(1).tolist()
    spilled = [max(round(0.75 * count), round(0.9 * 196) - (196 - count)) for count in counts]  # outside may run out
    assert (mask[:, 0] & inside).sum(1).tolist() == spilled


def test_labels_and_colours_reach_the_device_without_waiting_for_it() -> None:
    frames = torch.zeros(1, 3, 2, 4, 4, dtype=torch.uint8, device=CUDA)
    normalise(frames)  # sends its constants
    torch.cuda.set_sync_debug_mode("error")
    try:
        sent = Ranks(0, 1, CUDA).send(torch.arange(5))
        normalise(frames)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sent.tolist() == [0, 1, 2, 3, 4]
