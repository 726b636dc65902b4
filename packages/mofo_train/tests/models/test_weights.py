from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mofo_train import cli
from mofo_train.errors import CheckpointError
from mofo_train.guidance import masks
from mofo_train.models import create_classifier, create_pretrain_model, load_checkpoint, load_into
from mofo_train.models import weights as checkpoints
from mofo_train.models.vit import sinusoid_table

FRAMES, SIDE = 4, 32


def pretrained() -> Any:
    torch.manual_seed(0)
    model = create_pretrain_model("videomae_tiny", num_frames=FRAMES, image_px=SIDE)
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(std=0.1)
    return model.eval()


def classifier(fusion: Any = "mca") -> Any:
    torch.manual_seed(1)
    model = create_classifier("videomae_tiny", 5, fusion, num_frames=FRAMES, image_px=SIDE)
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(std=0.1)
    return model.eval()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("container", ["model", "module", "state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_original_pretraining_file(tmp_path: Path, container: str | None, prefix: str) -> None:
    state = pretrained().state_dict()
    named = {prefix + name: value for name, value in state.items()}
    content = named if container is None else {container: named, "epoch": 3, "args": argparse.Namespace(lr=1e-3)}
    torch.save(content, tmp_path / "a.pth")
    assert same(load_checkpoint(tmp_path / "a.pth"), state)


def test_mofo_classifier_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The names of the released `VisionTransformer_BB_focused`, unused parameters included."""
    state = classifier("mca_two_way").state_dict()
    theirs = {
        name.replace("encoder.", "", 1)
        .replace("pooling.inside_mca.", "local_MCA.0.")
        .replace("pooling.outside_mca.", "global_MCA.0."): value
        for name, value in state.items()
    }
    assert "local_MCA.0.attn.kv.weight" in theirs
    assert "blocks.0.attn.q_bias" in theirs
    unused = {"soft_att_local.weight": torch.ones(192, 1), "patch_yab.bias": torch.ones(192)}
    torch.save({"module": theirs | unused}, tmp_path / "mofo.pth")
    loaded = load_checkpoint(tmp_path / "mofo.pth")
    assert same(loaded, state)
    assert "mofo.pth: ignored, MOFO's network never uses soft_att_local.weight, patch_yab.bias" in caplog.text
    report = load_into(classifier("mca"), loaded, source="mofo.pth")
    assert "mofo.pth: ignored, the model has no place for pooling.outside_mca (14)" in caplog.text
    assert report.missing == ()
    assert {name.split(".")[1] for name in report.unused} == {"outside_mca"}
    checkpoints.save_checkpoint(loaded, tmp_path / "back.pth", "videomae")
    assert same(torch.load(tmp_path / "back.pth", weights_only=True)["model"], theirs)


@pytest.mark.parametrize("old_names", [False, True])
def test_huggingface_round_trip_gives_the_same_predictions(tmp_path: Path, old_names: bool) -> None:
    from transformers import VideoMAEForPreTraining

    model = pretrained()
    checkpoints.save_checkpoint(model.state_dict(), tmp_path / "hf", "huggingface", num_frames=FRAMES, image_px=SIDE)
    other, report = VideoMAEForPreTraining.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    other.decoder.norm.eps = 1e-6
    frames = torch.randn(2, 3, FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    mask = masks.tube_mask(2, 4, 2, mask_ratio=0.75, generator=torch.Generator().manual_seed(0))
    theirs = other.eval()(frames.transpose(1, 2), bool_masked_pos=mask).logits
    assert torch.allclose(model(frames, mask), theirs, rtol=1e-5, atol=1e-5)
    written = other.state_dict()
    if old_names:  # Files written by transformers before version 5.
        written = {
            name.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): value
            for name, value in written.items()
        }
    save_file({name: value.contiguous() for name, value in written.items()}, tmp_path / "theirs.safetensors")
    assert same(load_checkpoint(tmp_path / "theirs.safetensors"), model.state_dict())


def test_huggingface_reads_the_size_of_patches(tmp_path: Path) -> None:
    from transformers import VideoMAEForPreTraining

    model = create_pretrain_model("videomae_mini", num_frames=FRAMES, image_px=SIDE)
    checkpoints.save_checkpoint(model.state_dict(), tmp_path / "hf", "huggingface", num_frames=FRAMES, image_px=SIDE)
    other = VideoMAEForPreTraining.from_pretrained(tmp_path / "hf")
    frames = torch.randn(1, 3, FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    mask = masks.tube_mask(1, 16, 2, mask_ratio=0.75, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = other.eval()(frames.transpose(1, 2), bool_masked_pos=mask).logits
        assert torch.allclose(model.eval()(frames, mask), theirs, rtol=1e-4, atol=1e-4)


def test_classifier_from_pretraining_keeps_the_encoder_only() -> None:
    source, target = pretrained(), classifier()
    head = target.head.weight.clone()
    report = load_into(target, source.state_dict(), optional=checkpoints.CLASSIFIER_PARTS)
    assert torch.equal(target.encoder.blocks[3].attn.q_bias, source.encoder.blocks[3].attn.q_bias)
    assert torch.equal(target.head.weight, head)
    assert {name.split(".")[0] for name in report.missing} == {"pooling", "fc_norm", "head"}
    assert {name for name in report.unused if name.startswith("encoder.")} == {
        "encoder.norm.weight",
        "encoder.norm.bias",
    }


def test_another_model_is_refused_by_name_and_shape() -> None:
    small = create_pretrain_model("videomae_small", num_frames=FRAMES, image_px=SIDE)
    with pytest.raises(CheckpointError, match=r"mask_token \(1, 1, 96\) instead of \(1, 1, 192\).* more; check"):
        load_into(small, pretrained().state_dict(), source="x.pth")
    state = pretrained().state_dict()
    del state["encoder.blocks.2.mlp.fc1.bias"]
    with pytest.raises(CheckpointError, match=r"encoder\.blocks\.2\.mlp\.fc1\.bias is missing"):
        load_into(pretrained(), state)


class _Evil:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


def test_bad_files_are_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "none.pth")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"model": _Evil()}, protocol=2))
    with pytest.raises(CheckpointError, match="plain file of weights"):
        load_checkpoint(tmp_path / "evil.pth")
    assert "executed" not in capsys.readouterr().out
    torch.save(pretrained().state_dict(), tmp_path / "whole.pth")
    torn = (tmp_path / "whole.pth").read_bytes()[:100_000]
    (tmp_path / "torn.pth").write_bytes(torn)
    (tmp_path / "torn.safetensors").write_bytes(torn)
    for name in ("torn.pth", "torn.safetensors"):
        with pytest.raises(CheckpointError, match="must be"):
            load_checkpoint(tmp_path / name)
    (tmp_path / "text.pth").write_text("stage = 'pretrain'")
    with pytest.raises(CheckpointError, match=r"text\.pth must be"):
        load_checkpoint(tmp_path / "text.pth")
    torch.save({"model": {"conv1.weight": torch.ones(3)}}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match=r"entries like conv1\.weight"):
        load_checkpoint(tmp_path / "resnet.pth")


def test_learned_positions_are_refused_and_fixed_ones_dropped(tmp_path: Path) -> None:
    state = pretrained().state_dict()
    torch.save(state | {"encoder.pos_embed": sinusoid_table(8, 192)[None]}, tmp_path / "fixed.pth")
    assert same(load_checkpoint(tmp_path / "fixed.pth"), state)
    torch.save(state | {"encoder.pos_embed": torch.ones(1, 8, 192)}, tmp_path / "learned.pth")
    with pytest.raises(CheckpointError, match="fixed sine-cosine positions"):
        load_checkpoint(tmp_path / "learned.pth")


def test_convert_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    state = pretrained().state_dict()
    torch.save({"model": state}, tmp_path / "a.pth")

    def run(*arguments: str) -> Any:
        with pytest.raises(SystemExit) as stop:
            cli.main(["convert", *map(str, arguments)])
        return stop.value.code

    assert run(str(tmp_path / "a.pth"), str(tmp_path / "b.safetensors")) == 0
    assert run(str(tmp_path / "b.safetensors"), str(tmp_path / "c"), "--to", "huggingface") == 0
    assert same(load_checkpoint(tmp_path / "c"), state)
    assert run(str(tmp_path / "a.pth"), str(tmp_path / "b.safetensors")) == 2
    assert "TARGET must not exist" in capsys.readouterr().err
    for layout, name in (("ours", "x.safetensors"), ("videomae", "x.pth")):
        assert run(str(tmp_path / "a.pth"), str(tmp_path / "none" / name), "--to", layout) == 2
        assert "must be writable" in capsys.readouterr().err

    def no_space(_: Any, target: Any, **__: Any) -> None:
        Path(target).write_bytes(b"half of it")
        raise RuntimeError("no space left")

    monkeypatch.setattr(checkpoints, "save_file", no_space)
    monkeypatch.setattr(checkpoints.torch, "save", no_space)
    before = sorted(tmp_path.iterdir())
    for layout, name in (("ours", "y.safetensors"), ("videomae", "y.pth"), ("huggingface", "y")):
        assert run(str(tmp_path / "a.pth"), str(tmp_path / name), "--to", layout) == 2
        assert "must be writable, got: no space left; free space" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before, "nothing half written stays"
