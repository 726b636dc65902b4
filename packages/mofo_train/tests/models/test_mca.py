from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from mofo_train.models import Classifier, create_classifier
from mofo_train.models.mca import CrossAttention, MultiCrossAttention
from mofo_train.models.ragged import Ragged

FRAMES, SIDE, TOKENS = 4, 64, 32


def build(fusion: str, num_classes: int = 5) -> Classifier:
    torch.manual_seed(0)
    model = create_classifier("videomae_tiny", num_classes, fusion, num_frames=FRAMES, image_px=SIDE)  # type: ignore[arg-type]
    for value in model.parameters():
        with torch.no_grad():
            value.normal_(std=0.1)
    return model.eval()


def boxes() -> Tensor:
    """Five clips: a small box, a wide one, none, the whole frame, one that moves."""
    return torch.tensor(
        [
            [[20, 20, 30, 30]] * FRAMES,
            [[0, 5, 40, 62]] * FRAMES,
            [[0, 0, 0, 0]] * FRAMES,
            [[-5, -5, 99, 99]] * FRAMES,
            [[0, 0, 17, 17], [10, 0, 20, 12], [30, 30, 33, 33], [40, 40, 64, 50]],
        ]
    )


def plain_mca(block: MultiCrossAttention, inner: Tensor, outer: Tensor) -> Tensor:
    """Re-derive the block for one clip with explicit sums; (n, d) and (m, d) -> (n, d)."""

    def norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        return centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt() * layer.weight + layer.bias

    if len(outer) == 0:
        outer = inner
    heads, attn = 3, block.attn
    x, y = norm(block.norm1, inner), norm(block.norm1, outer)
    width = attn.q.weight.shape[0]
    query = x @ attn.q.weight.T + attn.q_bias
    key = y @ attn.kv.weight[:width].T
    value = y @ attn.kv.weight[width:].T + attn.v_bias
    each = width // heads
    parts = []
    for head in range(heads):
        columns = slice(head * each, (head + 1) * each)
        scores = query[:, columns] @ key[:, columns].T / math.sqrt(each)
        weights = scores.exp() / scores.exp().sum(1, keepdim=True)
        parts.append(weights @ value[:, columns])
    inner = inner + torch.cat(parts, 1) @ attn.proj.weight.T + attn.proj.bias
    hidden = norm(block.norm2, inner) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return inner + hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias


def membership() -> Tensor:
    """Re-derive which tubelets the boxes touch by painting them."""
    inside = torch.zeros(5, FRAMES // 2, 4, 4, dtype=torch.bool)
    for clip, per_frame in enumerate(boxes().clamp(0, SIDE)):
        for time, (x1, y1, x2, y2) in enumerate(per_frame.tolist()):
            for y in range(y1, y2):
                for x in range(x1, x2):
                    inside[clip, time // 2, y // 16, x // 16] = True
    return inside.flatten(1)


def plain_fusion(model: Classifier, tokens: Tensor, inside: Tensor) -> Tensor:
    rows = []
    for row, chosen in zip(tokens, inside, strict=True):
        inner, outer = row[chosen], row[~chosen]
        if len(inner) == 0:
            rows.append(row.mean(0))
        elif model.pooling.kind == "weighted_mean":
            rows.append((inner.mean(0) + 0.5 * outer.mean(0)) / 2 if len(outer) else inner.mean(0))
        else:
            fused = plain_mca(model.pooling.inside_mca, inner, outer).mean(0)
            if model.pooling.kind == "mca_two_way" and len(outer):
                fused = fused + plain_mca(model.pooling.outside_mca, outer, inner).mean(0)
            rows.append(fused)
    return torch.stack(rows)


@pytest.mark.parametrize("fusion", ["weighted_mean", "mca", "mca_two_way"])
def test_fusion_equals_a_plain_loop_over_clips(fusion: str) -> None:
    model = build(fusion)
    tokens = torch.randn(5, TOKENS, 192, generator=torch.Generator().manual_seed(1), requires_grad=True)
    inside = membership()
    assert inside.sum(1).tolist() == [2, 2 * 12, 0, 32, 4 + 7], "the cases are those meant"
    fused, plain = model.pooling(tokens, inside), plain_fusion(model, tokens, inside)
    assert torch.allclose(fused, plain, rtol=1e-5, atol=1e-5)
    weights = torch.randn(fused.shape, generator=torch.Generator().manual_seed(2))
    wanted = [tokens, *(value for name, value in model.named_parameters() if "mca" in name)]
    ours = torch.autograd.grad((fused * weights).sum(), wanted)
    theirs = torch.autograd.grad((plain * weights).sum(), wanted)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=float(1e-5 * other.abs().max()))


@pytest.mark.parametrize("projected", [False, True])
def test_groups_of_ragged_clips_equal_a_plain_loop(projected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty clips make eight groups of two or three of unequal size, through either way of attending."""
    monkeypatch.setattr(CrossAttention, "_has_few_queries", lambda *_: not projected)
    torch.manual_seed(0)
    block = MultiCrossAttention(24)
    for value in block.parameters():
        torch.nn.init.normal_(value, std=0.3)
    tokens = torch.randn(20, 20, 24, requires_grad=True)
    counts = torch.tensor([7, 19, 1, 0, 12, 12, 3, 18, 9, 0, 5, 6, 8, 10, 14, 16, 17, 2, 4, 13])
    inside = torch.rand(20, 20).argsort(1) < counts[:, None]
    means = block(tokens, inside, ~inside)
    plain = [
        plain_mca(block, row[chosen], row[~chosen]).mean(0) if chosen.any() else torch.zeros(24)
        for row, chosen in zip(tokens, inside, strict=True)
    ]
    assert torch.allclose(means, torch.stack(plain), rtol=1e-5, atol=1e-5)
    weights = torch.randn(means.shape, generator=torch.Generator().manual_seed(2))
    wanted = [tokens, *block.parameters()]
    ours = torch.autograd.grad((means * weights).sum(), wanted)
    theirs = torch.autograd.grad((torch.stack(plain) * weights).sum(), wanted)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=float(1e-5 * other.abs().max()))


def test_has_few_queries_leave_keys_unprojected() -> None:
    """Where the count of operations says so: 78 of 1,568 tokens of ViT-B ask, but not 784."""
    block = CrossAttention(768, 3)
    tokens = torch.empty(1, 768)
    few, many = (Ragged(torch.tensor([size]), (size,)) for size in (78, 784))
    assert block._has_few_queries(tokens, few, Ragged(torch.tensor([1490]), (1490,)))
    assert not block._has_few_queries(tokens, many, many)


@pytest.mark.parametrize("fusion", ["mean", "weighted_mean", "mca", "mca_two_way"])
def test_a_clip_does_not_depend_on_the_others(fusion: str) -> None:
    model = build(fusion)
    frames = torch.randn(5, 3, FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    together = model(frames, boxes())
    for clip in range(5):
        alone = model(frames[clip : clip + 1], boxes()[clip : clip + 1])
        assert torch.allclose(together[clip], alone[0], rtol=1e-4, atol=1e-4)


def test_boxes_and_membership_agree_and_matter() -> None:
    model = build("mca")
    frames = torch.randn(5, 3, FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    from_boxes = model(frames, boxes())
    assert torch.allclose(from_boxes, model(frames, inside=membership()))
    assert not torch.allclose(from_boxes[0], model(frames, boxes().roll(1, 0))[0])


@pytest.mark.parametrize("fusion", ["mca", "mca_two_way"])
def test_a_batch_without_any_box_still_trains(fusion: str) -> None:
    model = build(fusion)
    frames = torch.randn(2, 3, FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    model(frames, torch.zeros(2, FRAMES, 4)).sum().backward()
    for name, value in model.named_parameters():
        assert value.grad is not None, name
        assert value.grad.isfinite().all(), name


def test_mean_fusion_equals_transformers_classifier() -> None:
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    model = build("mean")
    config = VideoMAEConfig(
        image_size=SIDE, num_frames=FRAMES, hidden_size=192, num_hidden_layers=4, num_attention_heads=3,
        intermediate_size=768, layer_norm_eps=1e-6, num_labels=5,
    )  # fmt: skip
    other = VideoMAEForVideoClassification(config).eval()
    other.fc_norm.eps = 1e-6
    with torch.no_grad():
        other.fc_norm.load_state_dict(model.fc_norm.state_dict())
        other.classifier.load_state_dict(model.head.state_dict())
        other.videomae.embeddings.patch_embeddings.projection.load_state_dict(
            model.encoder.patch_embed.proj.state_dict()
        )
        for theirs, ours in zip(other.videomae.encoder.layer, model.encoder.blocks, strict=True):
            query, key, value = ours.attn.qkv.weight.chunk(3)
            attention = theirs.attention.attention
            for layer, weight in ((attention.query, query), (attention.key, key), (attention.value, value)):
                layer.weight.copy_(weight)
            attention.query.bias.copy_(ours.attn.q_bias)
            attention.value.bias.copy_(ours.attn.v_bias)
            theirs.attention.output.dense.load_state_dict(ours.attn.proj.state_dict())
            theirs.intermediate.dense.load_state_dict(ours.mlp.fc1.state_dict())
            theirs.output.dense.load_state_dict(ours.mlp.fc2.state_dict())
            theirs.layernorm_before.load_state_dict(ours.norm1.state_dict())
            theirs.layernorm_after.load_state_dict(ours.norm2.state_dict())
    frames = torch.randn(2, 3, FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(model(frames), other(frames.transpose(1, 2)).logits, rtol=1e-5, atol=1e-5)


def test_new_head_is_small_and_even() -> None:
    model = create_classifier("videomae_tiny", 7, "mca", num_frames=FRAMES, image_px=SIDE)
    assert model.head.weight.abs().max() < 1e-3
    assert not model.head.bias.any()


def test_heads_that_do_not_divide_the_width() -> None:
    with torch.device("meta"):
        model = create_classifier("videomae_large", 7, "mca")
    assert model.pooling.inside_mca.attn.q.weight.shape == (1023, 1024)
    assert model.pooling.inside_mca.attn.proj.weight.shape == (1024, 1023)


def test_misuse_is_named() -> None:
    model = build("mca")
    frames = torch.zeros(2, 3, FRAMES, SIDE, SIDE)
    with pytest.raises(ValueError, match="boxes or inside must be given"):
        model(frames)
    with pytest.raises(ValueError, match=r"boxes must have shape \(B, 4, 4\)"):
        model(frames, torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="inside must be bool"):
        model(frames, inside=torch.zeros(2, TOKENS))
    with pytest.raises(ValueError, match="fusion must be one of"):
        build("mac")
    with pytest.raises(ValueError, match="num_classes must be at least 1"):
        build("mca", 0)


def test_other_boxes_do_not_compile_the_classifier_again(generator: torch.Generator) -> None:
    from torch._dynamo.testing import CompileCounter

    model = create_classifier("videomae_mini", 5, fusion="mca", num_frames=4, image_px=32)
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter)
    graphs = []
    for _ in range(4):
        frames = torch.randn(3, 3, 4, 32, 32, generator=generator)
        corners = torch.rand(3, 4, 2, 2, generator=generator).mul(32).sort(2).values
        boxes = corners.flatten(2)
        torch.testing.assert_close(compiled(frames, boxes), model(frames, boxes))
        graphs.append(counter.frame_count)
    assert graphs[0] > 0
    assert graphs == [graphs[0]] * 4
