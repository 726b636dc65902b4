"""Omnivore and BEVT: random weights in the published layouts against attention written from first principles.

The reference knows no window partition, no roll and no mask of regions: every token of the padded map gets the number
of its window, its place in the window and whether the shift wrapped it around, along each axis; a token attends to
those of its window that wrapped around alike; their bias is looked up by the difference of their places.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mofo_train.errors import CheckpointError
from mofo_train.guidance.tubelets import ClipShape
from mofo_train.models.systems.bevt import load_bevt
from mofo_train.models.systems.omnivore import load_omnivore
from mofo_train.models.systems.video_swin import SwinShape, VideoSwin

WINDOW = (4, 7, 7)
DEPTHS, HEADS, DIM, CLASSES = (2, 2), (2, 4), 16, 5
State = dict[str, Tensor]


def backbone() -> State:
    """Random weights of a small backbone in the original names; biases large enough to matter."""
    generator = torch.Generator().manual_seed(0)

    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.2

    state = {"patch_embed.proj.weight": values(DIM, 3, 2, 4, 4), "patch_embed.proj.bias": values(DIM)}
    norms = {"patch_embed.norm": DIM, "norm": 2 * DIM, "layers.0.downsample.norm": 4 * DIM}
    state["layers.0.downsample.reduction.weight"] = values(2 * DIM, 4 * DIM)
    for stage, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        dim = DIM * 2**stage
        for place in range(depth):
            block = f"layers.{stage}.blocks.{place}"
            shapes = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim)}
            shapes |= {"mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
            for name, (rows, columns) in shapes.items():
                state[f"{block}.{name}.weight"], state[f"{block}.{name}.bias"] = values(rows, columns), values(rows)
            state[f"{block}.attn.relative_position_bias_table"] = 5 * values(7 * 13 * 13, heads)
            state[f"{block}.attn.relative_position_index"] = position_index()
            norms |= {f"{block}.norm1": dim, f"{block}.norm2": dim}
    for name, dim in norms.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = 1 + values(dim), values(dim)
    return state


def head() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(CLASSES, 2 * DIM, generator=generator), torch.randn(CLASSES, generator=generator)


def place_of(tokens: Tensor) -> Tensor:
    """Number of a token in a whole window -> its place (..., 3)."""
    _, rows, columns = WINDOW
    return torch.stack([tokens // (rows * columns), tokens // columns % rows, tokens % columns], -1)


def bias_row(difference: Tensor) -> Tensor:
    """Difference of two places (..., 3) -> row of the bias table: all differences counted up, columns fastest."""
    time, rows, columns = (difference[..., axis] + WINDOW[axis] - 1 for axis in range(3))
    return (time * (2 * WINDOW[1] - 1) + rows) * (2 * WINDOW[2] - 1) + columns


def position_index() -> Tensor:
    places = place_of(torch.arange(math.prod(WINDOW)))
    return bias_row(places[:, None] - places[None])


def attention_plan(shape: tuple[int, int, int], shifted: bool) -> tuple[tuple[int, ...], Tensor, Tensor]:
    """Padded map, whether token i attends to token j, and their row of the bias table, tokens in map order."""
    padded, groups, inner, sides = [], [], [], []
    for size, full in zip(shape, WINDOW, strict=True):
        window = min(size, full)
        shift = full // 2 if shifted and size > full else 0
        length = math.ceil(size / window) * window
        rolled = (torch.arange(length) - shift) % length
        padded.append(length)
        groups.append(rolled // window * 2 + (rolled >= length - shift).long())
        inner.append(rolled % window)
        sides.append(window)
    group = torch.stack(torch.meshgrid(*groups, indexing="ij"), -1).flatten(0, 2)
    place = torch.stack(torch.meshgrid(*inner, indexing="ij"), -1).flatten(0, 2)
    # A window that shrank to the map looks biases up by the number of a token in it.
    number = (place[:, 0] * sides[1] + place[:, 1]) * sides[2] + place[:, 2]
    looked_up = place_of(number)
    together = (group[:, None] == group[None]).all(-1)
    return tuple(padded), together, bias_row(looked_up[:, None] - looked_up[None])


def run_block(state: State, block: str, x: Tensor, heads: int, shifted: bool) -> Tensor:
    """One block on a map (B, T, H, W, C)."""

    def linear(name: str, y: Tensor) -> Tensor:
        return F.linear(y, state[f"{block}.{name}.weight"], state[f"{block}.{name}.bias"])

    def norm(name: str, y: Tensor) -> Tensor:
        return F.layer_norm(y, y.shape[-1:], state[f"{block}.{name}.weight"], state[f"{block}.{name}.bias"], 1e-5)

    time, rows, columns, dim = x.shape[1:]
    padded, together, bias = attention_plan((time, rows, columns), shifted)
    y = x.new_zeros(len(x), *padded, dim)
    y[:, :time, :rows, :columns] = norm("norm1", x)
    q, k, v = linear("attn.qkv", y.flatten(1, 3)).unflatten(2, (3, heads, dim // heads)).permute(2, 0, 3, 1, 4)
    table = state[f"{block}.attn.relative_position_bias_table"]
    rows_of_pairs = bias.where(together, torch.zeros_like(bias))
    scores = q @ k.transpose(2, 3) / math.sqrt(dim // heads) + table[rows_of_pairs].permute(2, 0, 1)
    y = scores.masked_fill(~together, -torch.inf).softmax(-1) @ v
    y = linear("attn.proj", y.transpose(1, 2).flatten(2)).unflatten(1, padded)
    x = x + y[:, :time, :rows, :columns]
    return x + linear("mlp.fc2", F.gelu(linear("mlp.fc1", norm("norm2", x))))


def merge(state: State, x: Tensor) -> Tensor:
    """Join 2 x 2 neighbours, the left column's upper and lower first, then the right column's."""
    rows, columns = (math.ceil(size / 2) for size in x.shape[2:4])
    whole = x.new_zeros(*x.shape[:2], 2 * rows, 2 * columns, x.shape[4])
    whole[:, :, : x.shape[2], : x.shape[3]] = x
    cut = whole.unflatten(3, (columns, 2)).unflatten(2, (rows, 2))  # batch, time, row, 2, column, 2, width
    joined = cut.permute(0, 1, 2, 4, 5, 3, 6).flatten(4)
    weight, bias = state["layers.0.downsample.norm.weight"], state["layers.0.downsample.norm.bias"]
    return F.linear(F.layer_norm(joined, weight.shape, weight, bias), state["layers.0.downsample.reduction.weight"])


def by_the_paper(state: State, frames: Tensor) -> Tensor:
    x = F.conv3d(frames, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=(2, 4, 4))
    x = x.permute(0, 2, 3, 4, 1)
    x = F.layer_norm(x, (DIM,), state["patch_embed.norm.weight"], state["patch_embed.norm.bias"])
    for stage, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        if stage:
            x = merge(state, x)
        for place in range(depth):
            x = run_block(state, f"layers.{stage}.blocks.{place}", x, heads, shifted=place % 2 == 1)
    x = F.layer_norm(x, (2 * DIM,), state["norm.weight"], state["norm.bias"])
    return F.linear(x.mean((1, 2, 3)), *head())


def write_omnivore(path: Path, trunk: State) -> Path:
    weight, bias = head()
    torch.save({"trunk": trunk, "heads": {"1.weight": weight, "1.bias": bias}}, path)
    return path


def write_bevt(path: Path, trunk: State) -> Path:
    """As mmcv writes it, with the buffers of its moving average."""
    weight, bias = head()
    state = {f"backbone.{name}": value for name, value in trunk.items()}
    state |= {"cls_head.fc_cls.weight": weight, "cls_head.fc_cls.bias": bias}
    state |= {f"ema_{name.replace('.', '_')}": value + 1 for name, value in state.items()}
    torch.save({"meta": {"epoch": 60, "time": "now"}, "state_dict": state, "optimizer": {"state": {}}}, path)
    return path


# Whole windows, shifted in all axes; padding in space and time as well; an odd map to merge; then a map smaller than a
# window; and fewer tokens in time than a window has.
@pytest.mark.parametrize(("num_frames", "side"), [(16, 56), (12, 32), (8, 36), (8, 24), (4, 32)])
def test_logits_equal_the_description(tmp_path: Path, num_frames: int, side: int) -> None:
    state, clip = backbone(), ClipShape(num_frames, side, 4)
    frames = torch.randn(1, 3, num_frames, side, side, generator=torch.Generator().manual_seed(2))
    model = load_omnivore(write_omnivore(tmp_path / "omnivore.torch", state), clip, CLASSES).eval()
    with torch.no_grad():
        wanted = by_the_paper(state, frames)
        torch.testing.assert_close(model(frames), wanted, rtol=1e-4, atol=1e-4)


def test_bevt_is_the_same_network_under_other_names(tmp_path: Path) -> None:
    state, clip = backbone(), ClipShape(12, 32, 4)
    frames = torch.randn(1, 3, 12, 32, 32, generator=torch.Generator().manual_seed(2))
    omnivore = load_omnivore(write_omnivore(tmp_path / "omnivore.torch", state), clip, CLASSES).eval()
    bevt = load_bevt(write_bevt(tmp_path / "bevt.pth", state), clip, CLASSES).eval()
    with torch.no_grad():
        assert torch.equal(bevt(frames), omnivore(frames))


def test_position_indices_may_be_left_out(tmp_path: Path) -> None:
    state, clip = backbone(), ClipShape(8, 56, 4)
    short = {name: value for name, value in state.items() if not name.endswith("relative_position_index")}
    assert len(short) == len(state) - 4
    whole = load_omnivore(write_omnivore(tmp_path / "whole.torch", state), clip, CLASSES).state_dict()
    again = load_omnivore(write_omnivore(tmp_path / "short.torch", short), clip, CLASSES).state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_the_network_is_read_from_the_weights() -> None:
    tables = {
        f"layers.{stage}.blocks.{place}.attn.relative_position_bias_table": torch.empty(31 * 169, 4 * 2**stage)
        for stage, depth in enumerate((2, 2, 18, 2))
        for place in range(depth)
    }
    shape = SwinShape.of(tables | {"patch_embed.proj.weight": torch.empty(128, 3, 2, 4, 4)}, Path("swinB_epic.torch"))
    assert shape == SwinShape(128, (2, 2, 18, 2), (4, 8, 16, 32), (16, 7, 7))
    with torch.device("meta"):
        network = VideoSwin(shape, ClipShape(32, 224, 4), 174)
    # BEVT's README: 89 million parameters for this shape on SSV2.
    assert round(sum(value.numel() for value in network.parameters()) / 1e6) == 89


def test_what_is_missing_unknown_or_of_another_shape_is_named_at_once(tmp_path: Path) -> None:
    state, clip = backbone(), ClipShape(8, 56, 4)
    del state["layers.1.blocks.0.mlp.fc2.weight"]
    state["depth_patch_embed.proj.weight"] = torch.zeros(3)
    path = write_omnivore(tmp_path / "x.torch", state)
    with pytest.raises(CheckpointError) as raised:
        load_omnivore(path, clip, 7)
    for part in (
        f"heads.1.weight ({CLASSES}, 32) instead of (7, 32)",
        "trunk.layers.1.blocks.0.mlp.fc2.weight is missing",
        "trunk.depth_patch_embed.proj.weight is unknown",
        str(path),
    ):
        assert part in str(raised.value)


def test_other_layouts_are_refused(tmp_path: Path) -> None:
    clip = ClipShape(8, 56, 4)
    with pytest.raises(CheckpointError, match="must hold a Video Swin Transformer, got entries like nothing"):
        load_omnivore(write_bevt(tmp_path / "x.torch", backbone()), clip, CLASSES)
    state = backbone()
    gap = {name.replace("layers.0.", "layers.2."): value for name, value in state.items()}
    with pytest.raises(CheckpointError, match="must hold a Video Swin Transformer"):
        load_bevt(write_bevt(tmp_path / "x.pth", gap), clip, CLASSES)
    state["layers.0.blocks.0.attn.relative_position_bias_table"] = torch.zeros(7 * 15 * 15, 2)
    with pytest.raises(CheckpointError, match="windows of 7 x 7 tokens, got a table of 1575"):
        load_bevt(write_bevt(tmp_path / "x.pth", state), clip, CLASSES)


def test_clips_of_another_shape_are_refused(tmp_path: Path) -> None:
    model = load_omnivore(write_omnivore(tmp_path / "x.torch", backbone()), ClipShape(8, 56, 4), CLASSES)
    with pytest.raises(ValueError, match=r"frames must have shape \(B, 3, 8, 56, 56\), got \(1, 3, 8, 48, 48\)"):
        model(torch.zeros(1, 3, 8, 48, 48))
