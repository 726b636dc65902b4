from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from mofo_train.commands.saliency import command
from mofo_train.data.labels import LabelSpace
from mofo_train.finetune_config import FinetuneConfig
from mofo_train.guidance.inside import inside_tokens
from mofo_train.guidance.tubelets import ClipShape, patchify
from mofo_train.models import Classifier, create_classifier
from mofo_train.models.from_recipe import create_model
from mofo_train.pictures.saliency import attention_of, attention_rollout, grad_cam, share_inside
from mofo_train.runtime.checkpoints import write_checkpoint
from motionbox.store import open_store

SPACE = LabelSpace({"label": 5}, {}, None, 0, 0)


def classifier(fusion: str = "mean") -> Classifier:
    torch.manual_seed(0)
    model = create_classifier("videomae_tiny", 5, fusion, num_frames=4, image_px=48).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        model.head.weight.mul_(1000)
    return model


def clips() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    boxes = torch.tensor([[4.0, 4, 20, 20], [0, 0, 48, 48], [0, 0, 0, 0]])[:, None].repeat(1, 4, 1)
    return torch.randn(3, 3, 4, 48, 48, generator=generator), inside_tokens(ClipShape(4, 48), boxes)


def test_grad_cam_of_the_last_block_is_the_gradient_of_the_mean_token() -> None:
    """Behind the last block all tokens are averaged, so each has the same gradient: that of the average over N."""
    model, (frames, inside) = classifier(), clips()
    tokens = model.encoder(patchify(frames, model.clip)).detach()
    mean = tokens.mean(1).requires_grad_()
    (gradient,) = torch.autograd.grad(model.head(model.fc_norm(mean)).amax(1).sum(), mean)
    expected = (tokens * gradient[:, None] / tokens.shape[1]).sum(2).relu()
    torch.testing.assert_close(grad_cam(model, frames, inside, 4, SPACE), expected, rtol=1e-3, atol=1e-7)


def test_grad_cam_passes_through_the_fusion() -> None:
    """With the weighted mean an inside token weighs more, and the map follows the box."""
    model, (frames, inside) = classifier("mca"), clips()
    one = grad_cam(model, frames, inside, 2, SPACE)
    assert one.shape == (3, 18)
    assert bool((one >= 0).all())
    moved = inside.clone()
    moved[0] = moved[0].flip(0)
    other = grad_cam(model, frames, moved, 2, SPACE)
    assert not torch.allclose(one[0], other[0])
    torch.testing.assert_close(one[1:], other[1:])
    with pytest.raises(ValueError, match="block must be 1 to 4, got 5"):
        grad_cam(model, frames, inside, 5, SPACE)
    assert not any(block._forward_hooks for block in model.encoder.blocks)


def test_recomputed_attention_is_the_models() -> None:
    model = classifier()
    layer = model.encoder.blocks[1].attn
    layer.num_heads = 1  # the mean over heads is then the attention itself
    with torch.no_grad():
        layer.q_bias.normal_()
        layer.v_bias.normal_()
        x = torch.randn(2, 18, 192)
        value = torch.nn.functional.linear(x, layer.qkv.weight[384:], layer.v_bias)
        torch.testing.assert_close(layer.proj(attention_of(layer, x) @ value), layer(x), rtol=1e-4, atol=1e-5)


def test_rollout_is_the_product_of_the_blocks() -> None:
    model, (frames, inside) = classifier("mca"), clips()
    x = patchify(frames, model.clip)
    x = model.encoder.patch_embed(x) + model.encoder.positions
    total = torch.eye(18).expand(3, -1, -1)
    with torch.no_grad():
        for block in model.encoder.blocks:
            total = (torch.eye(18) + attention_of(block.attn, block.norm1(x))) / 2 @ total
            x = block(x)
    expected = torch.stack([total[0][inside[0]].mean(0), total[1].mean(0), total[2].mean(0)])
    result = attention_rollout(model, frames, inside)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(result.sum(1), torch.ones(3))


def test_share_inside() -> None:
    saliency = torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0]])
    shares = share_inside(saliency, torch.tensor([[True, False, False, True], [True, True, True, True]]))
    assert shares[0].item() == pytest.approx(0.5)
    assert shares[1].isnan()


def test_command_compares_two_models(store_path: Path, tmp_path: Path) -> None:
    paths = []
    for fusion in ("mean", "mca"):
        config = FinetuneConfig.model_validate(
            {
                "stage": "finetune",
                "model": {"name": "videomae_tiny", "num_frames": 4, "image_px": 32, "fusion": fusion},
                "task": {"columns": ("verb_class", "noun_class"), "num_classes": (9, 6)},
                "data": {"dataset": "synthetic", "short_side_px": 48, "num_workers": 0},
                "run": {"precision": "fp32"},
            }
        )
        torch.manual_seed(0)
        space = LabelSpace.of(open_store(store_path).clips(), config.task, "the store")
        info = {"stage": "finetune", "config": config.model_dump(mode="json"), "label_space": space.as_json()}
        state = create_model(config.model, 15).state_dict()
        paths.append(write_checkpoint(tmp_path / fusion / "best", 1, state, {}, info, keep=1))
    arguments = [part for path in paths for part in ("--checkpoint", str(path))]
    for method in ("gradcam", "rollout"):
        out = tmp_path / method
        done = CliRunner().invoke(
            command,
            [*arguments, "--store", str(store_path), "--method", method, "--out", str(out)],
            standalone_mode=False,
        )
        assert done.exception is None, done.output
        models = json.loads((out / "saliency.json").read_text())["models"]
        assert set(models) == {"mean", "mca"}
        assert models["mean"]["area_share"] == models["mca"]["area_share"]
        assert len((out / "saliency.csv").read_text().splitlines()) == 1 + 2 * 2
        with Image.open(out / "saliency.png") as image:
            assert image.width > 500
    done = CliRunner().invoke(
        command,
        [*arguments, "--store", str(store_path), "--clip", "nobody", "--out", str(tmp_path / "x")],
        standalone_mode=False,
    )
    assert "clip must be a readable clip" in str(done.exception)
    again = [*arguments, "--store", str(store_path), "--out", str(tmp_path / "rollout")]
    done = CliRunner().invoke(command, [*again, "--method", "rollout"], standalone_mode=False)
    assert done.exception is None, "the same comparison may be drawn again"
    done = CliRunner().invoke(command, [*again, "--method", "gradcam"], standalone_mode=False)
    assert "--out must hold figures of the same method and checkpoints" in str(done.exception)


def test_clips_with_an_empty_map_are_counted_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        SimpleNamespace(clip_id=name, share=share, area_share=0.25)
        for name, share in (("a", 0.5), ("b", float("nan")), ("c", 0.7))
    ]
    monkeypatch.setattr("mofo_train.pictures.saliency.saliency_of_checkpoint", lambda *_, **__: found)
    monkeypatch.setattr("mofo_train.pictures.saliency.draw_saliency", lambda *_, **__: Image.new("RGB", (9, 9)))
    arguments = ["--checkpoint", str(tmp_path), "--title", "M", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert done.exception is None
    wanted = "M: 60.0% of the saliency inside, 25.0% of the tokens, lift 2.40 (2 clips, 1 more have an empty map)"
    assert wanted in done.output
