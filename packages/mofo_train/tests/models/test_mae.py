from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mofo_train.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from mofo_train.guidance import masks
from mofo_train.guidance.tubelets import ClipShape, patchify, unpatchify
from mofo_train.models import create_pretrain_model
from mofo_train.models.mae import MaskedAutoencoder, hidden_pixels, hidden_targets
from mofo_train.models.vit import SIZES, axes_table, position_code, sinusoid_table

FRAMES, SIDE = 4, 48


@pytest.fixture
def model() -> MaskedAutoencoder:
    torch.manual_seed(0)
    model = create_pretrain_model("videomae_tiny", num_frames=FRAMES, image_px=SIDE)
    randomise(model)
    return model.eval()


def randomise(model: nn.Module) -> None:
    """Give every parameter, biases and norms too, a random value that is not zero."""
    for name, value in model.named_parameters():
        with torch.no_grad():
            value.normal_(std=0.1)
            if "norm" in name and name.endswith("weight"):
                value.add_(1)


def clips(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def mask(batch: int = 2) -> Tensor:
    inside = torch.zeros(batch, 9, dtype=torch.bool)
    inside[:, 3:6] = True
    return masks.motion_tube_mask(inside, 2, mask_ratio=0.7, generator=torch.Generator().manual_seed(2))


def peer(model: MaskedAutoencoder) -> nn.Module:
    """Build transformers' VideoMAE with the same weights."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    config = VideoMAEConfig(
        image_size=SIDE, num_frames=FRAMES, hidden_size=192, num_hidden_layers=4, num_attention_heads=3,
        intermediate_size=768, layer_norm_eps=1e-6, use_mean_pooling=False, decoder_hidden_size=96,
        decoder_num_hidden_layers=2, decoder_num_attention_heads=3, decoder_intermediate_size=384,
    )  # fmt: skip
    other = VideoMAEForPreTraining(config)
    other.decoder.norm.eps = 1e-6
    weights = dict(model.named_parameters())
    assert isinstance(other, nn.Module)
    for name, value in other.named_parameters():
        with torch.no_grad():
            value.copy_(named_like_transformers(weights, name))
    return other.eval()


def named_like_transformers(weights: dict[str, Tensor], name: str) -> Tensor:
    """Find our weight (or its gradient) for a name of transformers' model: written out, apart from the converter."""
    if not name.startswith(("videomae.", "decoder.")):
        return weights[name]
    if name == "videomae.embeddings.patch_embeddings.projection.weight":
        return weights["encoder.patch_embed.proj.weight"]
    if name == "videomae.embeddings.patch_embeddings.projection.bias":
        return weights["encoder.patch_embed.proj.bias"]
    if name.startswith("videomae.layernorm."):
        return weights["encoder.norm." + name.rsplit(".", 1)[1]]
    if not any(part.isdigit() for part in name.split(".")):
        return weights[name]
    side = "encoder" if name.startswith("videomae.") else "decoder"
    parts = name.split(".")
    block = f"{side}.blocks.{next(part for part in parts if part.isdigit())}."
    rest = ".".join(parts[[part.isdigit() for part in parts].index(True) + 1 :])
    dim = 192 if side == "encoder" else 96
    kinds = {"query": 0, "key": 1, "value": 2}
    for kind, place in kinds.items():
        if rest == f"attention.attention.{kind}.weight":
            return weights[block + "attn.qkv.weight"][place * dim : (place + 1) * dim]
    leaf = rest.rsplit(".", 1)[1]
    names = {
        "attention.attention.query.bias": "attn.q_bias",
        "attention.attention.value.bias": "attn.v_bias",
        f"attention.output.dense.{leaf}": f"attn.proj.{leaf}",
        f"intermediate.dense.{leaf}": f"mlp.fc1.{leaf}",
        f"output.dense.{leaf}": f"mlp.fc2.{leaf}",
        f"layernorm_before.{leaf}": f"norm1.{leaf}",
        f"layernorm_after.{leaf}": f"norm2.{leaf}",
    }
    return weights[block + names[rest]]


@pytest.mark.parametrize("grad_checkpointing", [False, True])
def test_loss_and_gradients_equal_transformers(model: MaskedAutoencoder, grad_checkpointing: bool) -> None:
    model.enable_grad_checkpointing(grad_checkpointing)
    other = peer(model)
    frames, hidden = clips(), mask()
    theirs = other(frames.transpose(1, 2), bool_masked_pos=hidden)
    prediction = model(frames, hidden)
    loss = nn.functional.mse_loss(prediction, hidden_targets(frames, hidden, model.clip))
    assert torch.allclose(prediction, theirs.logits, rtol=1e-5, atol=1e-5)
    assert loss.item() == pytest.approx(theirs.loss.item(), rel=1e-5)
    loss.backward()
    theirs.loss.backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert gradients.keys() == dict(model.named_parameters()).keys()
    for name, value in other.named_parameters():
        assert value.grad is not None
        scale = value.grad.abs().max()
        ours = named_like_transformers(gradients, name)
        assert torch.allclose(ours, value.grad, rtol=1e-5, atol=float(1e-5 * scale)), name


def test_known_number_of_hidden_tokens_changes_nothing(model: MaskedAutoencoder) -> None:
    frames, hidden = clips(), mask()
    count = int(hidden[0].sum())
    assert torch.equal(model(frames, hidden), model(frames, hidden, num_hidden=count))


def test_hidden_pixels_never_reach_the_model(model: MaskedAutoencoder) -> None:
    frames, hidden = clips(), mask()
    tubelets = patchify(frames, model.clip)
    tubelets[hidden] = 1e3
    assert torch.equal(model(frames, hidden), model(unpatchify(tubelets, model.clip), hidden))


def test_position_table_from_the_formula() -> None:
    table = sinusoid_table(1568, 384).double().numpy()
    for position, entry in [(0, 0), (0, 1), (1, 0), (7, 13), (1567, 382), (1567, 383)]:
        angle = position / 10000 ** (2 * (entry // 2) / 384)
        expected = math.sin(angle) if entry % 2 == 0 else math.cos(angle)
        assert table[position, entry] == pytest.approx(expected, abs=1e-6)


def test_position_code_of_small_models_has_a_part_for_each_axis() -> None:
    clip = ClipShape(num_frames=8, image_px=40, patch_px=8)
    table = axes_table(clip, 72).reshape(4, 5, 5, 3, 24)
    for axis, position in ((0, 3), (1, 2), (2, 4)):
        own = table.select(axis, position)[..., axis, :].reshape(-1, 24)
        assert (own == own[0]).all(), "it depends on its axis alone"
        for rate in (0, 5, 11):
            angle = position / 100 ** (rate / 12)
            assert own[0, rate] == pytest.approx(math.sin(angle), abs=1e-6)
            assert own[0, 12 + rate] == pytest.approx(math.cos(angle), abs=1e-6)
    flat = table.reshape(100, 72)
    assert torch.cdist(flat, flat).fill_diagonal_(9).min() > 0.1, "no two tokens have one code"
    assert torch.equal(position_code(SIZES["videomae_mini"], clip, 72), flat)
    with pytest.raises(ValueError, match="multiple of 6, got 64"):
        axes_table(clip, 64)
    tiny = position_code(SIZES["videomae_tiny"], ClipShape(num_frames=4, image_px=48), 192)
    assert torch.equal(tiny, sinusoid_table(18, 192))


def test_first_weights_of_small_models_follow_their_inputs() -> None:
    torch.manual_seed(0)
    state = create_pretrain_model("videomae_mini", num_frames=8, image_px=40).state_dict()
    for name, inputs in (
        ("encoder.patch_embed.proj.weight", 384), ("encoder.blocks.0.attn.qkv.weight", 72),
        ("encoder.blocks.2.mlp.fc2.weight", 288), ("decoder.head.weight", 48),
    ):  # fmt: skip
        assert state[name].std() * inputs**0.5 == pytest.approx(1, abs=0.03), name
    assert not state["encoder.patch_embed.proj.bias"].any()


def test_tubelets_are_cut_where_they_should_be() -> None:
    clip = ClipShape(4, 32)
    frames = torch.arange(3 * 4 * 32 * 32).reshape(1, 3, 4, 32, 32)
    tubelets = patchify(frames, clip)
    expected = frames[0, :, 2:4, 16:32, 0:16].permute(1, 2, 3, 0).flatten()
    assert torch.equal(tubelets[0, 1 * 4 + 2], expected)
    assert torch.equal(unpatchify(tubelets, clip), frames)


def test_targets_are_normalised_per_tubelet_and_channel() -> None:
    clip, frames, hidden = ClipShape(FRAMES, SIDE), clips(), mask()
    targets = hidden_targets(frames, hidden, clip).numpy()
    pixels = frames.double().numpy() * np.reshape(IMAGENET_STD, (3, 1, 1, 1)) + np.reshape(IMAGENET_MEAN, (3, 1, 1, 1))
    for row in range(2):
        for place, token in enumerate(np.flatnonzero(hidden[row].numpy())):
            t, y, x = token // 9, token % 9 // 3, token % 3
            box = pixels[row, :, 2 * t : 2 * t + 2, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16].reshape(3, -1)
            expected = (box - box.mean(1, keepdims=True)) / (box.std(1, ddof=1, keepdims=True) + 1e-6)
            np.testing.assert_allclose(targets[row, place].reshape(-1, 3), expected.T, atol=2e-5)


def test_targets_in_pixels_are_the_hidden_tubelets() -> None:
    clip, frames, hidden = ClipShape(FRAMES, SIDE), clips(), mask()
    expected = torch.stack([one[row] for one, row in zip(patchify(frames, clip), hidden, strict=True)])
    assert torch.equal(hidden_pixels(frames, hidden, clip), expected)


def test_a_size_of_small_patches_cuts_small_tubelets() -> None:
    model = create_pretrain_model("videomae_mini", num_frames=4, image_px=32)
    assert (model.clip.num_patches, model.clip.tubelet_values) == (16, 2 * 8 * 8 * 3)
    hidden = mask(1).new_zeros(1, 32)
    hidden[0, ::2] = True
    assert model(torch.randn(1, 3, 4, 32, 32), hidden).shape == (1, 16, 384)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_compiles_the_model_in_one_piece(model: MaskedAutoencoder, dtype: torch.dtype) -> None:
    """Between two pieces a GPU would wait for Python, and nothing is merged across them."""
    hidden = mask()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        found = torch._dynamo.explain(model.train())(clips(), hidden, num_hidden=int(hidden[0].sum()))
    torch._dynamo.reset()
    assert (found.graph_count, found.break_reasons) == (1, [])


def test_a_flat_tubelet_has_finite_targets() -> None:
    targets = hidden_targets(torch.zeros(1, 3, FRAMES, SIDE, SIDE), mask(1), ClipShape(FRAMES, SIDE))
    assert targets.abs().max() < 1


def test_base_model_has_the_published_size() -> None:
    with torch.device("meta"):
        model = create_pretrain_model("videomae_base")
    # VideoMAE ViT-B encoder (86,227,200 with its final norm) and its 4 x 384 decoder.
    assert sum(value.numel() for value in model.encoder.parameters()) == 86_227_200
    assert sum(value.numel() for value in model.parameters()) == 94_210_944


def test_misuse_is_named(model: MaskedAutoencoder) -> None:
    uneven = mask()
    uneven[0] = True
    with pytest.raises(ValueError, match="same number of tokens"):
        model(clips(), uneven)
    with pytest.raises(ValueError, match="some and show some"):
        model(clips(), torch.ones_like(uneven))
    with pytest.raises(ValueError, match=r"frames must have shape \(B, 3, 4, 48, 48\)"):
        model(clips()[:, :, :2], mask())
    with pytest.raises(ValueError, match="model must be one of"):
        create_pretrain_model("videomae_bass")
    with pytest.raises(ValueError, match="image_px must be"):
        create_pretrain_model("videomae_tiny", image_px=100)
