from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mofo_train import cli
from mofo_train.data.transforms import normalise
from mofo_train.errors import CheckpointError
from mofo_train.guidance import masks
from mofo_train.models import create_classifier, create_pretrain_model, load_checkpoint, load_into
from mofo_train.models import weights as checkpoints
from mofo_train.models.mae import MaskedAutoencoder
from mofo_train.models.vit import SIZES, sinusoid_table
from mofo_train.models.weights import ModelCard, saving

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
    assert (
        "mofo.pth: ignored, they change nothing in MOFO's network: soft_att_local.weight, patch_yab.bias" in caplog.text
    )
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

    size = replace(SIZES["videomae_tiny"], patch_px=8)
    model = MaskedAutoencoder(size, size.clip_shape(FRAMES, SIDE))
    checkpoints.save_checkpoint(model.state_dict(), tmp_path / "hf", "huggingface", num_frames=FRAMES, image_px=SIDE)
    other = VideoMAEForPreTraining.from_pretrained(tmp_path / "hf")
    frames = torch.randn(1, 3, FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    mask = masks.tube_mask(1, 16, 2, mask_ratio=0.75, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = other.eval()(frames.transpose(1, 2), bool_masked_pos=mask).logits
        assert torch.allclose(model.eval()(frames, mask), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["videomae", "huggingface"])
def test_what_another_program_would_compute_otherwise_is_not_written_for_it(layout: Any, tmp_path: Path) -> None:
    mini = create_pretrain_model("videomae_mini", num_frames=FRAMES, image_px=SIDE).state_dict()
    with pytest.raises(CheckpointError, match=f"layout must be ours for videomae_mini, .* got {layout}"):
        checkpoints.save_checkpoint(mini, tmp_path / "mini.pth", layout)
    batch = create_classifier("videomae_tiny", 5, num_frames=FRAMES, image_px=SIDE, head_norm="batch").state_dict()
    with pytest.raises(CheckpointError, match=f"ours for model.head_norm batch, .* got {layout}"):
        checkpoints.save_checkpoint(batch, tmp_path / "batch.pth", layout)
    assert not list(tmp_path.iterdir())
    checkpoints.save_checkpoint(mini, tmp_path / "mini.safetensors", "ours")


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


def test_huggingface_folder_is_what_from_pretrained_and_the_hub_take(tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForVideoClassification

    model = classifier("mean")
    names = ("open", "close", "pour", "cut", "wash")
    recipe = {"data": {"dataset": "kitchen", "split": "train"}, "optim": {"epochs": 4}}
    card = ModelCard(names, recipe, {"label, test clips": "top-1 50.0%"}, "cc-by-nc-4.0")
    folder = tmp_path / "new" / "hub"
    checkpoints.save_checkpoint(model.state_dict(), folder, "huggingface", num_frames=FRAMES, image_px=SIDE, card=card)
    other, report = AutoModelForVideoClassification.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert [other.config.id2label[index] for index in range(5)] == list(names)
    assert other.config.label2id["pour"] == 2
    pixels = torch.randint(256, (FRAMES, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ready = AutoImageProcessor.from_pretrained(folder)(list(pixels.numpy()), return_tensors="pt")["pixel_values"]
    ours = normalise(pixels.transpose(0, 1)[None])
    assert torch.allclose(ready.transpose(1, 2), ours, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(other.eval()(ready).logits, model(ours), rtol=1e-3, atol=1e-3)
    text = (folder / "README.md").read_text()
    assert text.startswith("---\nlicense: cc-by-nc-4.0\npipeline_tag: video-classification\n")
    assert "Data set `kitchen`, split `train`." in text
    assert '"epochs": 4' in text
    assert "- label, test clips: top-1 50.0%" in text
    stored = load_file(folder / "model.safetensors")
    attention = "videomae.encoder.layer.3.attention.attention."
    for old, new in (("q_bias", "query.bias"), ("v_bias", "value.bias")):  # transformers 4 and 5
        assert torch.equal(stored[attention + old], stored[attention + new])
    assert same(load_checkpoint(folder), model.state_dict())


@pytest.mark.slow
def test_transformers_4_gives_our_logits(tmp_path: Path) -> None:
    """The last release whose VideoMAE keeps its biases under other names, installed beside the tests' own."""
    pins = ("transformers==4.50.3", "tokenizers==0.21.4", "huggingface_hub==0.36.0")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(tmp_path / "four"),
        *pins,
    ]
    done = subprocess.run(install, capture_output=True, text=True, timeout=500, check=False)
    if done.returncode:
        pytest.skip(f"transformers 4 cannot be installed here: {done.stderr.splitlines()[-1]}")
    model = classifier("mean")
    checkpoints.save_checkpoint(model.state_dict(), tmp_path / "hf", "huggingface", num_frames=FRAMES, image_px=SIDE)
    frames = torch.randn(2, 3, FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    torch.save(frames, tmp_path / "frames.pt")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path / "four")!r})
import torch, transformers
assert transformers.__version__ == "4.50.3"
model = transformers.VideoMAEForVideoClassification.from_pretrained({str(tmp_path / "hf")!r}).eval()
frames = torch.load({str(tmp_path / "frames.pt")!r})
torch.save(model(frames.transpose(1, 2)).logits.detach(), {str(tmp_path / "logits.pt")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)
    theirs = torch.load(tmp_path / "logits.pt")
    with torch.no_grad():
        assert torch.allclose(model(frames), theirs, rtol=1e-3, atol=1e-3)


def test_mmaction2_file(tmp_path: Path) -> None:
    """The names of mmaction2's `VisionTransformer` and `TimeSformerHead`, its table of positions included."""
    state = classifier("mean").state_dict()
    theirs = {"backbone.pos_embed": sinusoid_table(8, 192)[None]}
    for name, value in state.items():
        short = name.removeprefix("encoder.").replace("patch_embed.proj.", "patch_embed.projection.")
        short = short.replace("mlp.fc1.", "mlp.layers.0.0.").replace("mlp.fc2.", "mlp.layers.1.")
        short = short.replace("head.", "cls_head.fc_cls.") if short.startswith("head.") else f"backbone.{short}"
        theirs[short] = value
    assert "backbone.blocks.3.mlp.layers.0.0.weight" in theirs
    torch.save({"meta": {"epoch": 3}, "state_dict": theirs}, tmp_path / "mm.pth")
    assert same(load_checkpoint(tmp_path / "mm.pth"), state)


def test_a_file_with_averaged_weights_says_which_are_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, other = pretrained().state_dict(), pretrained().state_dict()
    other["decoder.head.bias"] = other["decoder.head.bias"] + 1
    torch.save({"model": one, "model_ema": other}, tmp_path / "both.pth")
    torch.save({"model_ema": other, "epoch": 1}, tmp_path / "alone.pth")
    torch.save({"state_dict": one}, tmp_path / "plain.pth")
    average = {f"module.{name}": value for name, value in other.items()} | {"steps": torch.tensor(3)}
    torch.save({"state_dict": one, "ema_state_dict": average}, tmp_path / "mmengine.pth")
    assert same(load_checkpoint(tmp_path / "both.pth"), one)
    assert "both.pth: holds the model's weights and their average (EMA), the model's are taken" in caplog.text
    caplog.clear()
    for kind, expected in (("model", one), ("ema", other)):
        assert same(load_checkpoint(tmp_path / "both.pth", kind), expected)  # type: ignore[arg-type]
        assert same(load_checkpoint(tmp_path / "mmengine.pth", kind), expected)  # type: ignore[arg-type]
    assert same(load_checkpoint(tmp_path / "alone.pth"), other)
    assert caplog.text == ""
    with pytest.raises(CheckpointError, match=r"plain\.pth must hold averaged weights \(EMA\), got the model's alone"):
        load_checkpoint(tmp_path / "plain.pth", "ema")


@pytest.mark.parametrize("place", ["checkpoints", "best"])
def test_the_average_of_a_training_of_ours(tmp_path: Path, place: str) -> None:
    """It stands beside the optimiser; in `best`, which is chosen from it, in place of the model's weights."""
    state = classifier("mean").state_dict()
    average = {name: value + 1 for name, value in state.items()}
    for name, decay in (("run", 0.5), ("plain", None)):
        folder = tmp_path / name / place / "step-000000003"
        folder.mkdir(parents=True)
        averaged = decay is not None
        save_file(average if averaged and place == "best" else state, folder / "model.safetensors")
        kept = {f"module.{key}": value for key, value in average.items()} | {"n_averaged": torch.tensor(3)}
        objective = {"objective": {"average": kept if averaged else None}}
        torch.save({} if place == "best" else objective, folder / "state.pt")
        (folder / "checkpoint.json").write_text(json.dumps({"config": {"optim": {"ema_decay": decay}}}))
    assert same(load_checkpoint(tmp_path / "run", "ema"), average)
    assert same(load_checkpoint(tmp_path / "run"), average if place == "best" else state)
    with pytest.raises(CheckpointError, match="must hold averaged weights"):
        load_checkpoint(tmp_path / "plain", "ema")


def test_what_training_scripts_keep_beside_weights_is_read(tmp_path: Path) -> None:
    state = pretrained().state_dict()
    arguments = argparse.Namespace(
        lr=np.float64(1e-3), epochs=np.int64(3), flag=np.bool_(True), table=np.arange(3), out=Path("a/b"),
        windows=PureWindowsPath("c:/x"), seed=np.random.default_rng(0).random(2).astype(np.float32),
    )  # fmt: skip
    torch.save({"model": state, "args": arguments}, tmp_path / "a.pth")
    assert same(load_checkpoint(tmp_path / "a.pth"), state)


def test_weights_that_are_no_numbers_are_called_that(tmp_path: Path) -> None:
    state = pretrained().state_dict()
    for name in ("mask_token", "decoder.norm.bias"):
        state[name] = torch.full_like(state[name], torch.nan)
    torch.save({"model": state}, tmp_path / "nan.pth")
    with pytest.raises(
        CheckpointError, match=r"nan\.pth must hold numbers, got NaN in mask_token and 1 more; .* diverged"
    ):
        load_checkpoint(tmp_path / "nan.pth")


class _Evil:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


def test_bad_files_are_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "none.pth")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"model": _Evil()}, protocol=2))
    with pytest.raises(CheckpointError, match=r"plain file of weights, got \S*print in it, whose code") as stop:
        load_checkpoint(tmp_path / "evil.pth")
    assert str(stop.value).isprintable(), "one line without escape codes"
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
        assert run(str(tmp_path / "a.pth"), str(tmp_path / "new" / name), "--to", layout) == 0
        assert run(str(tmp_path / "a.pth"), str(tmp_path / "a.pth" / name), "--to", layout) == 2
        assert "must be writable" in capsys.readouterr().err

    def no_space(_: Any, target: Any, **__: Any) -> None:
        Path(target).write_bytes(b"half of it")
        raise RuntimeError("no space left")

    monkeypatch.setattr(saving, "save_file", no_space)
    monkeypatch.setattr(saving.torch, "save", no_space)
    before = sorted(tmp_path.iterdir())
    for layout, name in (("ours", "y.safetensors"), ("videomae", "y.pth"), ("huggingface", "y")):
        assert run(str(tmp_path / "a.pth"), str(tmp_path / name), "--to", layout) == 2
        assert "must be writable, got: no space left; free space" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before, "nothing half written stays"


def test_bytes_of_another_kind_are_told_in_one_plain_line(tmp_path: Path) -> None:
    """A video beside the checkpoints, and a pickle with an operation that weights never need."""
    for name, data in (("video.mp4", b"\x00\x00\x00\x20ftypisom" * 20), ("odd.pth", b"\x80\x02\x95" + bytes(50))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError) as stop:
            load_checkpoint(tmp_path / name)
        assert "\n" not in str(stop.value)
        assert "weights_only" not in str(stop.value)
        assert len(str(stop.value)) < len(str(tmp_path)) + 120
