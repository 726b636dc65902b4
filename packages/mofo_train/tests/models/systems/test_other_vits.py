"""ST-MAE and OmniMAE: random weights in the published layout against the description, operation by operation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mofo_train.errors import CheckpointError
from mofo_train.guidance.tubelets import ClipShape
from mofo_train.models.systems.omnimae import load_omnimae
from mofo_train.models.systems.st_mae import load_st_mae
from mofo_train.models.vit import VitSize

DIM, HEADS = 48, 3
SIZE = VitSize(DIM, 2, HEADS, 24, 1, 3)
CLIP = ClipShape(num_frames=4, image_px=32)
MEAN, STD = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
Values = Callable[..., Tensor]


def random_values() -> Values:
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator) * 0.2


def block_weights(values: Values, prefix: str, attention: dict[str, int]) -> dict[str, Tensor]:
    """Random weights of one block; `attention`: name of a projection -> times the width it returns."""
    state = {}
    shapes = {f"attn.{name}": (times * DIM, DIM) for name, times in attention.items()}
    for part, (rows, columns) in (shapes | {"mlp.fc1": (4 * DIM, DIM), "mlp.fc2": (DIM, 4 * DIM)}).items():
        state[f"{prefix}.{part}.weight"], state[f"{prefix}.{part}.bias"] = values(rows, columns), values(rows)
    for part in ("norm1", "norm2"):
        state[f"{prefix}.{part}.weight"], state[f"{prefix}.{part}.bias"] = 1 + values(DIM), values(DIM)
    return state


def st_mae_layout() -> dict[str, Tensor]:
    values = random_values()
    state = {
        "patch_embed.proj.weight": values(DIM, 3, 2, 16, 16) * 0.1,
        "patch_embed.proj.bias": values(DIM),
        "cls_token": values(1, 1, DIM),
        "pos_embed_spatial": values(1, 4, DIM),
        "pos_embed_temporal": values(1, 2, DIM),
        "pos_embed_class": values(1, 1, DIM),
        "norm.weight": 1 + values(DIM),
        "norm.bias": values(DIM),
        "head.weight": values(5, DIM),
        "head.bias": values(5),
    }
    for index in range(2):
        state |= block_weights(values, f"blocks.{index}", {"q": 1, "k": 1, "v": 1, "proj": 1})
    return state


def omnimae_layout(patch_px: int = 16) -> dict[str, Tensor]:
    values = random_values()
    state = {
        "trunk.pos_embed": sines(8, DIM)[None],
        "trunk.patch_embed.proj.1.weight": values(DIM, 3, 2, patch_px, patch_px) * 0.1,
        "trunk.patch_embed.proj.1.bias": values(DIM),
        "trunk.norm.weight": 1 + values(DIM),
        "trunk.norm.bias": values(DIM),
        "head.weight": values(5, DIM),
        "head.bias": values(5),
    }
    for index in range(2):
        state |= block_weights(values, f"trunk.blocks.{index}", {"qkv": 3, "proj": 1})
    return state


def sines(num_positions: int, dim: int) -> Tensor:
    """Position table of Vaswani et al. (2017), section 3.5, entry by entry."""
    table = np.zeros((num_positions, dim))
    for position in range(num_positions):
        for pair in range(dim // 2):
            angle = position / 10000 ** (2 * pair / dim)
            table[position, 2 * pair], table[position, 2 * pair + 1] = np.sin(angle), np.cos(angle)
    return torch.from_numpy(table).float()


def norm(state: dict[str, Tensor], name: str, y: Tensor) -> Tensor:
    return F.layer_norm(y, (DIM,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)


def linear(state: dict[str, Tensor], name: str, y: Tensor) -> Tensor:
    return F.linear(y, state[f"{name}.weight"], state[f"{name}.bias"])


def run_block(state: dict[str, Tensor], block: str, x: Tensor) -> Tensor:
    y = norm(state, f"{block}.norm1", x)
    if f"{block}.attn.qkv.weight" in state:
        parts = linear(state, f"{block}.attn.qkv", y).split(DIM, 2)
    else:
        parts = tuple(linear(state, f"{block}.attn.{name}", y) for name in "qkv")
    q, k, v = (part.unflatten(2, (HEADS, 16)).transpose(1, 2) for part in parts)
    y = ((q @ k.transpose(2, 3)) / 4).softmax(-1) @ v
    x = x + linear(state, f"{block}.attn.proj", y.transpose(1, 2).flatten(2))
    hidden = F.gelu(linear(state, f"{block}.mlp.fc1", norm(state, f"{block}.norm2", x)))
    return x + linear(state, f"{block}.mlp.fc2", hidden)


def st_mae_by_the_paper(state: dict[str, Tensor], colours: Tensor) -> Tensor:
    x = F.conv3d(
        (colours - 0.45) / 0.225, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=(2, 16, 16)
    )
    x = x.flatten(3).permute(0, 2, 3, 1)  # batch, time, space, width
    x = x + state["pos_embed_spatial"][:, None] + state["pos_embed_temporal"][:, :, None]
    first = (state["cls_token"] + state["pos_embed_class"]).expand(len(x), -1, -1)
    x = torch.cat([first, x.flatten(1, 2)], 1)
    for index in range(2):
        x = run_block(state, f"blocks.{index}", x)
    return linear(state, "head", norm(state, "norm", x[:, 1:].mean(1)))


def omnimae_by_the_paper(state: dict[str, Tensor], colours: Tensor) -> Tensor:
    kernel = state["trunk.patch_embed.proj.1.weight"]
    stride = tuple(kernel.shape[2:])
    x = F.conv3d((colours - MEAN) / STD, kernel, state["trunk.patch_embed.proj.1.bias"], stride=stride)
    x = x.flatten(2).transpose(1, 2) + state["trunk.pos_embed"]
    for index in range(2):
        x = run_block(state, f"trunk.blocks.{index}", x)
    return linear(state, "head", norm(state, "trunk.norm", x.mean(1)))


def colours_of(side: int) -> Tensor:
    return torch.rand(2, 3, 4, side, side, generator=torch.Generator().manual_seed(1))


def test_st_mae_equals_the_description(tmp_path: Path) -> None:
    state, colours = st_mae_layout(), colours_of(32)
    torch.save({"model_state": state}, tmp_path / "st_mae.pth")
    model = load_st_mae(tmp_path / "st_mae.pth", SIZE, CLIP, 5).eval()
    with torch.no_grad():
        wanted = st_mae_by_the_paper(state, colours)
        torch.testing.assert_close(model((colours - MEAN) / STD), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("patch_px", "side"), [(16, 32), (14, 28)])
def test_omnimae_equals_the_description(tmp_path: Path, patch_px: int, side: int) -> None:
    state, colours = omnimae_layout(patch_px), colours_of(side)
    torch.save(state, tmp_path / "vitb_ssv2_ft.torch")
    model = load_omnimae(tmp_path / "vitb_ssv2_ft.torch", SIZE, ClipShape(4, side, patch_px), 5).eval()
    with torch.no_grad():
        wanted = omnimae_by_the_paper(state, colours)
        torch.testing.assert_close(model((colours - MEAN) / STD), wanted, rtol=1e-4, atol=1e-5)


def test_st_mae_names_other_layouts_and_sizes(tmp_path: Path) -> None:
    torch.save({"model": {"head.bias": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="must hold ST-MAE's weights"):
        load_st_mae(tmp_path / "other.pth", SIZE, CLIP, 5)
    torch.save({"model": st_mae_layout()}, tmp_path / "st_mae.pth")
    with pytest.raises(CheckpointError, match=r"head.weight \(5, 48\) instead of \(7, 48\)"):
        load_st_mae(tmp_path / "st_mae.pth", SIZE, CLIP, 7)
    torch.save({"model": st_mae_layout() | {"fc_norm.bias": torch.zeros(DIM)}}, tmp_path / "st_mae.pth")
    with pytest.raises(CheckpointError, match=r"fc_norm.bias is unknown"):
        load_st_mae(tmp_path / "st_mae.pth", SIZE, CLIP, 5)


def test_omnimae_names_what_is_missing_and_what_is_unknown_at_once(tmp_path: Path) -> None:
    state = omnimae_layout()
    state["trunk.cls_token"] = torch.zeros(1, 1, DIM)
    del state["trunk.blocks.1.attn.qkv.bias"], state["trunk.norm.weight"]
    torch.save(state, tmp_path / "x.torch")
    with pytest.raises(CheckpointError) as raised:
        load_omnimae(tmp_path / "x.torch", SIZE, CLIP, 5)
    for part in ("trunk.blocks.1.attn.q_bias is missing", "trunk.norm.weight is missing", "trunk.cls_token is unknown"):
        assert part in str(raised.value)


def test_omnimae_refuses_other_positions_clips_and_layouts(tmp_path: Path) -> None:
    path = tmp_path / "x.torch"
    torch.save(omnimae_layout(), path)
    with pytest.raises(CheckpointError, match=r"of clips of 16 tokens, as the recipe's, got 8"):
        load_omnimae(path, SIZE, ClipShape(8, 32), 5)
    torch.save(omnimae_layout(14), path)
    with pytest.raises(CheckpointError, match=r"image_px must be a positive multiple of 14, got 32"):
        load_omnimae(path, SIZE, CLIP, 5)
    torch.save(omnimae_layout() | {"trunk.pos_embed": torch.rand(1, 8, DIM)}, path)
    with pytest.raises(CheckpointError, match="must use fixed sine-cosine positions"):
        load_omnimae(path, SIZE, CLIP, 5)
    torch.save(st_mae_layout(), path)
    with pytest.raises(CheckpointError, match="must hold OmniMAE's weights"):
        load_omnimae(path, SIZE, CLIP, 5)
    image = omnimae_layout() | {"trunk.patch_embed.proj.1.weight": torch.zeros(DIM, 3, 16, 16)}
    torch.save(image, path)
    with pytest.raises(CheckpointError, match=r"embedding of shape \(48, 3, 16, 16\)"):
        load_omnimae(path, SIZE, CLIP, 5)
