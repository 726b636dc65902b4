from __future__ import annotations

import math

import pytest
import torch

from mofo_train.config import OptimConfig
from mofo_train.models import create_classifier, create_pretrain_model
from mofo_train.training.optimizer import (
    create_optimizer,
    layer_decay_groups,
    learning_rate,
    parameter_groups,
    set_learning_rate,
)

CONFIG = OptimConfig(batch_size=512, epochs=10, warmup_epochs=2, base_lr=1e-3, warmup_lr=1e-6, min_lr=1e-5)


def test_schedule_equals_videomae() -> None:
    """VideoMAE builds a list: a linear ramp that reaches the peak in its last step, then a cosine."""
    steps, warmup = 50, 10
    ramp = torch.linspace(2e-6, 2e-3, warmup, dtype=torch.float64).tolist()
    left = steps - warmup
    cosine = [2e-5 + (2e-3 - 2e-5) / 2 * (1 + math.cos(math.pi * step / left)) for step in range(left)]
    ours = [learning_rate(step, 5, CONFIG) for step in range(steps)]
    assert ours == pytest.approx(ramp + cosine, rel=1e-12)


def test_a_schedule_without_warmup_starts_at_the_peak() -> None:
    config = CONFIG.model_copy(update={"warmup_epochs": 0})
    assert learning_rate(0, 5, config) == pytest.approx(2e-3)


def test_only_matrices_decay() -> None:
    model = create_pretrain_model("videomae_tiny", num_frames=2, image_px=16)
    names = {id(value): name for name, value in model.named_parameters()}
    decayed, plain = ([names[id(value)] for value in group["params"]] for group in parameter_groups(model, 0.05))
    assert len(decayed) + len(plain) == len(names)
    assert all(name.endswith("weight") and "norm" not in name for name in decayed)
    assert "encoder.blocks.0.attn.q_bias" in plain
    assert "encoder.blocks.0.norm1.weight" in plain
    assert "mask_token" in plain
    assert "encoder.patch_embed.proj.weight" in decayed


def test_fused_step_equals_the_formula() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = create_optimizer(model, CONFIG)
    set_learning_rate(optimizer, 0.1)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    # First step of Adam: the update is the sign of the gradient; weights also shrink by lr * decay.
    assert torch.allclose(model.weight, weight * (1 - 0.1 * 0.05) - 0.1, atol=1e-6)
    assert torch.allclose(model.bias, bias - 0.1, atol=1e-6)


def test_groups_may_scale_the_rate() -> None:
    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))], "lr_scale": 0.5}], lr=0.0)
    set_learning_rate(optimizer, 0.2)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_layers_further_from_the_head_learn_more_slowly() -> None:
    model = create_classifier("videomae_tiny", 5, "mca", num_frames=4, image_px=32)
    groups = layer_decay_groups(model, weight_decay=0.05, layer_decay=0.5)
    scale = {id(value): group["lr_scale"] for group in groups for value in group["params"]}
    assert len(scale) == len(list(model.parameters())) == sum(len(group["params"]) for group in groups)
    expected = {"encoder.patch_embed.": 0.5**5, "encoder.blocks.0.": 0.5**4, "encoder.blocks.3.": 0.5}
    decay = {id(value): group["weight_decay"] for group in groups for value in group["params"]}
    for name, value in model.named_parameters():
        known = [factor for prefix, factor in expected.items() if name.startswith(prefix)]
        if known or not name.startswith("encoder."):
            assert scale[id(value)] == (known[0] if known else 1.0), name
        assert decay[id(value)] == (0.05 if value.ndim > 1 else 0.0), name
