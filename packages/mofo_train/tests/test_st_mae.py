from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mofo_train.errors import CheckpointError
from mofo_train.models.st_mae import load_st_mae
from mofo_train.models.vit import ClipShape, VitSize

SIZE = VitSize(48, 2, 3, 24, 1, 3)
CLIP = ClipShape(num_frames=4, image_px=32)
MEAN, STD = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def published_layout() -> dict[str, Tensor]:
    """Random weights, biases of the keys too, under the names of the released model."""
    generator = torch.Generator().manual_seed(0)

    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.2

    state = {
        "patch_embed.proj.weight": values(48, 3, 2, 16, 16) * 0.1,
        "patch_embed.proj.bias": values(48),
        "cls_token": values(1, 1, 48),
        "pos_embed_spatial": values(1, 4, 48),
        "pos_embed_temporal": values(1, 2, 48),
        "pos_embed_class": values(1, 1, 48),
        "norm.weight": 1 + values(48),
        "norm.bias": values(48),
        "head.weight": values(5, 48),
        "head.bias": values(5),
    }
    for index in range(2):
        for part in ("attn.q", "attn.k", "attn.v", "attn.proj"):
            state[f"blocks.{index}.{part}.weight"], state[f"blocks.{index}.{part}.bias"] = values(48, 48), values(48)
        for part in ("norm1", "norm2"):
            state[f"blocks.{index}.{part}.weight"], state[f"blocks.{index}.{part}.bias"] = 1 + values(48), values(48)
        state |= {
            f"blocks.{index}.mlp.fc1.weight": values(192, 48),
            f"blocks.{index}.mlp.fc1.bias": values(192),
            f"blocks.{index}.mlp.fc2.weight": values(48, 192),
            f"blocks.{index}.mlp.fc2.bias": values(48),
        }
    return state


def by_the_paper(state: dict[str, Tensor], colours: Tensor) -> Tensor:
    """ST-MAE's forward pass written from its description, operation by operation; colours in [0, 1]."""
    x = F.conv3d(
        (colours - 0.45) / 0.225, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=(2, 16, 16)
    )
    x = x.flatten(3).permute(0, 2, 3, 1)  # batch, time, space, width
    x = x + state["pos_embed_spatial"][:, None] + state["pos_embed_temporal"][:, :, None]
    first = (state["cls_token"] + state["pos_embed_class"]).expand(len(x), -1, -1)
    x = torch.cat([first, x.flatten(1, 2)], 1)

    def linear(name: str, y: Tensor) -> Tensor:
        return F.linear(y, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, y: Tensor) -> Tensor:
        return F.layer_norm(y, (48,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    for index in range(2):
        block = f"blocks.{index}"
        y = norm(f"{block}.norm1", x)
        q, k, v = (linear(f"{block}.attn.{part}", y).unflatten(2, (3, 16)).transpose(1, 2) for part in "qkv")
        y = ((q @ k.transpose(2, 3)) / 4).softmax(-1) @ v
        x = x + linear(f"{block}.attn.proj", y.transpose(1, 2).flatten(2))
        x = x + linear(f"{block}.mlp.fc2", F.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x))))
    return linear("head", norm("norm", x[:, 1:].mean(1)))


def test_logits_equal_the_description(tmp_path: Path) -> None:
    state = published_layout()
    torch.save({"model_state": state}, tmp_path / "st_mae.pth")
    model = load_st_mae(tmp_path / "st_mae.pth", SIZE, CLIP, 5).eval()
    colours = torch.rand(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model((colours - MEAN) / STD), by_the_paper(state, colours), rtol=1e-4, atol=1e-5)


def test_other_layouts_and_sizes_are_named(tmp_path: Path) -> None:
    torch.save({"model": {"head.bias": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="must hold ST-MAE's weights"):
        load_st_mae(tmp_path / "other.pth", SIZE, CLIP, 5)
    torch.save({"model": published_layout()}, tmp_path / "st_mae.pth")
    with pytest.raises(CheckpointError, match=r"head.weight \(5, 48\) instead of \(7, 48\)"):
        load_st_mae(tmp_path / "st_mae.pth", SIZE, CLIP, 7)
