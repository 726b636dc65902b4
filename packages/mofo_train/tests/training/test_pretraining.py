from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from messages_support import messages
from mofo_train.config import GuidanceConfig, PretrainConfig
from mofo_train.data.sources import open_clips
from mofo_train.errors import CheckpointError, ConfigError, DataError, ExitCode, Interrupted
from mofo_train.models import create_pretrain_model
from mofo_train.runtime.ranks import Ranks
from mofo_train.runtime.run_log import read_log
from mofo_train.training import pretraining as loop
from mofo_train.training.pretraining import pretrain
from mofo_train.training.safeguards import DivergedError
from motionbox.errors import StoreError
from motionbox.store import Store
from waits_support import ONE_WAIT, watch_steps

CPU = Ranks(0, 1, torch.device("cpu"))
LOSSES = ("loss", "loss_inside", "loss_outside", "grad_norm", "lr")


def recipe(**sections: Any) -> PretrainConfig:
    values: dict[str, Any] = {
        "stage": "pretrain",
        "model": {"name": "videomae_tiny", "num_frames": 4, "image_px": 48, "drop_path": 0.1},
        "data": {"dataset": "synthetic", "short_side_px": 64, "num_workers": 0},
        "mask": {"kind": "motion", "mask_ratio": 0.8},
        "optim": {"batch_size": 6, "epochs": 3, "warmup_epochs": 1, "base_lr": 0.02, "clip_grad_norm": 1.0},
        "run": {"precision": "fp32", "log_every_steps": 1, "checkpoint_every_steps": 2, "picture_every_epochs": 3},
    }
    for section, change in sections.items():
        values[section] = {**values.get(section, {}), **change}
    return PretrainConfig.model_validate(values)


class Trainer:
    """Runs pretraining on the generated set; collects its messages and may do something when one comes."""

    def __init__(self, store_path: Path) -> None:
        self.store_path = store_path
        self.lines: list[str] = []
        self.stop_at: str | None = None

    def on_line(self, line: str) -> None:
        if self.stop_at is not None and line.startswith(self.stop_at):
            os.kill(os.getpid(), signal.SIGTERM)

    def __call__(self, config: PretrainConfig, out: Path, root: Path | None = None) -> Path:
        reader = open_clips(config.data, self.store_path, root, guidance=config.guidance)
        with messages("mofo_train", lambda line: self.on_line(line)) as lines:
            try:
                return pretrain(config, reader, out, CPU)
            finally:
                self.lines += lines


@pytest.fixture
def train(store_path: Path) -> Trainer:
    return Trainer(store_path)


def losses(out: Path) -> list[list[float]]:
    return [[row[name] for name in LOSSES] for row in read_log(out / "log.jsonl")]


def test_an_interrupted_run_resumes_to_the_same_bits(train: Trainer, tmp_path: Path) -> None:
    config = recipe()
    whole = train(config, tmp_path / "whole")
    assert (tmp_path / "whole" / "pictures" / "epoch-00003.png").stat().st_size > 1000
    train.stop_at = "step 3/6"
    with pytest.raises(Interrupted, match="interrupted after step 3 of 6") as stop:
        train(config, tmp_path / "parts")
    assert stop.value.exit_code == ExitCode.INTERRUPTED
    train.stop_at = None
    parts = train(config, tmp_path / "parts")
    assert any(line.startswith("resuming after step 3") for line in train.lines)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    one, other = load_file(whole / "model.safetensors"), load_file(parts / "model.safetensors")
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert train(config, tmp_path / "parts") == parts, "a finished run is finished"


def test_a_torn_checkpoint_is_skipped_and_the_run_ends_the_same(train: Trainer, tmp_path: Path) -> None:
    whole = train(recipe(), tmp_path / "run")
    expected = (whole / "model.safetensors").read_bytes()
    state = whole / "state.pt"
    state.write_bytes(state.read_bytes()[:500])
    again = train(recipe(), tmp_path / "run")
    assert any(line.startswith("skipped:") and "step-000000006" in line for line in train.lines)
    assert any(line.startswith("resuming after step 4") for line in train.lines)
    assert (again / "model.safetensors").read_bytes() == expected


def test_loss_falls_and_parts_add_up(train: Trainer, tmp_path: Path) -> None:
    config = recipe(optim={"epochs": 15, "batch_size": 12, "warmup_epochs": 2}, data={"crops_per_clip": 2})
    train(config, tmp_path)
    rows = read_log(tmp_path / "log.jsonl")
    assert rows[-1]["loss"] < 0.97 * rows[0]["loss"]
    for row in rows:
        low, high = sorted([row["loss_inside"], row["loss_outside"]])
        assert low - 1e-6 <= row["loss"] <= high + 1e-6
        assert row["clips_per_second"] > 0
        assert 0 <= row["data_wait_share"] <= 1
        assert row["mfu"] > 0


@pytest.mark.parametrize("change", [{"kind": "tube"}, {"kind": "random"}, {"kind": "motion_map"}])
def test_every_kind_of_mask_trains(train: Trainer, tmp_path: Path, change: dict[str, Any]) -> None:
    train(recipe(mask=change, optim={"epochs": 1, "batch_size": 12, "grad_accum_steps": 2}), tmp_path)
    assert len(losses(tmp_path)) == 1


def test_masks_along_the_flow_train_on_a_store_that_keeps_it(
    train: Trainer, flow_store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of the twelve clips lose their flow: counted, said once, and trained on all the same."""
    config = recipe(mask={"kind": "flow_tube"}, optim={"epochs": 1, "batch_size": 12}, data={"cache_gib": 0.1})
    with pytest.raises(StoreError, match=r"keeps no flow.*--save flow"):
        train(config, tmp_path / "none")
    real = Store.flow

    def lost(store: Store, clip_id: str, frames: Any = None) -> Any:
        return real(store, clip_id, frames) * (clip_id not in ("videos/00001", "videos/00003"))

    monkeypatch.setattr(Store, "flow", lost)
    trainer = Trainer(flow_store_path)
    trainer(config, tmp_path / "flow")
    (row,) = read_log(tmp_path / "flow" / "log.jsonl")
    assert row["without_flow"] == pytest.approx(2 / 12)
    (said,) = [line for line in trainer.lines if "no flow" in line]
    assert said.startswith("17% of the samples have no flow")


def test_a_frozen_embedding_keeps_its_first_weights_to_the_bit(train: Trainer, tmp_path: Path) -> None:
    weights = {}
    for freeze in (True, False):
        out = train(recipe(model={"freeze_patch_embed": freeze}), tmp_path / str(freeze))
        weights[freeze] = load_file(out / "model.safetensors")
    torch.manual_seed(recipe().seed)
    first = create_pretrain_model("videomae_tiny", num_frames=4, image_px=48, drop_path=0.1).state_dict()
    for name in ("encoder.patch_embed.proj.weight", "encoder.patch_embed.proj.bias"):
        assert torch.equal(weights[True][name], first[name]), name
        assert not torch.equal(weights[False][name], first[name]), name
    moved = "encoder.blocks.0.mlp.fc1.weight"
    assert not torch.equal(weights[True][moved], first[moved])


def test_areas_keep_the_rule_that_boxes_break(train: Trainer, tmp_path: Path) -> None:
    """With 9 patches 3 can be inside: the boxes of the generated set seldom are so small."""
    short = {"optim": {"epochs": 1, "batch_size": 12}, "mask": {"mask_ratio": 0.9}}
    train(recipe(**short), tmp_path / "box")
    (warning,) = [line for line in train.lines if line.startswith("warning: ")]
    assert "90% of all and 75% of the inside tubes can be hidden in" in warning
    train.lines.clear()
    train(recipe(**short, guidance={"kind": "area"}), tmp_path / "area")
    assert not any("warning" in line for line in train.lines)
    boxes, areas = (read_log(tmp_path / name / "log.jsonl") for name in ("box", "area"))
    assert boxes[0]["rule_holds"] < 0.5
    assert all(row["rule_holds"] == 1 for row in areas)
    assert all(row["share_inside"] <= 3 / 9 for row in areas)
    assert all(0 <= row["unguided"] < 0.5 for row in areas)


def test_a_reader_of_other_guidance_is_refused(train: Trainer, tmp_path: Path) -> None:
    config = recipe()
    reader = open_clips(config.data, train.store_path, None, guidance=GuidanceConfig(kind="area"))
    with pytest.raises(ValueError, match="reader must be opened with guidance"):
        pretrain(config, reader, tmp_path, CPU)


def test_masks_differ_from_step_to_step(train: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[torch.Tensor] = []
    real = loop.draw_mask

    def watching(*arguments: Any) -> torch.Tensor:
        drawn.append(real(*arguments))
        return drawn[-1]

    monkeypatch.setattr(loop, "draw_mask", watching)
    train(recipe(mask={"kind": "tube"}, optim={"epochs": 2, "grad_accum_steps": 2}), tmp_path)
    assert len(drawn) == 2 * 2 * 2
    assert len({tuple(mask.flatten().tolist()) for mask in drawn}) == len(drawn)


def test_bf16_is_close_to_fp32(train: Trainer, tmp_path: Path) -> None:
    train(recipe(), tmp_path / "fp32")
    train(recipe(run={"precision": "bf16"}), tmp_path / "bf16")
    for one, other in zip(losses(tmp_path / "fp32"), losses(tmp_path / "bf16"), strict=True):
        assert one[0] == pytest.approx(other[0], rel=2e-2)


def test_infinite_weights_stop_before_the_step_and_name_the_clips(train: Trainer, tmp_path: Path) -> None:
    state = create_pretrain_model("videomae_tiny", num_frames=4, image_px=48).state_dict()
    state["decoder.head.bias"] = torch.full_like(state["decoder.head.bias"], torch.inf)
    save_file(state, tmp_path / "bad.safetensors")
    config = recipe(model={"init": tmp_path / "bad.safetensors"})
    with pytest.raises(DivergedError, match=r"got loss inf in step 0; clips of the batch: videos/000\d\d, "):
        train(config, tmp_path / "out")
    assert not list((tmp_path / "out").glob("checkpoints/step-*"))


def test_too_many_bad_clips_stop_the_run(train: Trainer, tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "videos").mkdir(parents=True)
    for path in sorted((train.store_path.parent / "synthetic" / "videos").iterdir())[3:]:
        (root / "videos" / path.name).symlink_to(path)
    with pytest.raises(DataError, match=r"unreadable clips must be at most 1\.0%"):
        train(recipe(), tmp_path / "out", root)
    skipped = [line for line in train.lines if line.startswith("skipped clip videos/0000")]
    assert skipped
    train(recipe(data={"max_bad_share": 1.0}), tmp_path / "tolerant", root)
    assert read_log(tmp_path / "tolerant" / "log.jsonl")[-1]["bad_clips"] >= 3


def test_what_does_not_fit_is_refused(train: Trainer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a step needs 64 clips, got 12"):
        train(recipe(optim={"batch_size": 64}), tmp_path / "b")
    with pytest.raises(DataError, match=r"multiple of data\.crops_per_clip = 4"):
        train(recipe(data={"crops_per_clip": 4}), tmp_path / "c")
    for ratio in (0.999, 0.001):
        with pytest.raises(
            ConfigError, match=rf"mask\.mask_ratio must hide some and show some of 9 tubes, got {ratio}$"
        ):
            train(recipe(mask={"mask_ratio": ratio}), tmp_path / "e")
    assert not (tmp_path / "e" / "recipe.json").exists()
    train(recipe(optim={"epochs": 1}), tmp_path / "d")
    with pytest.raises(CheckpointError, match="out must hold a run of the same recipe"):
        train(recipe(), tmp_path / "d")


def test_a_second_training_in_the_same_folder_is_refused(train: Trainer, tmp_path: Path) -> None:
    """It says who holds the folder, touches nothing, and the first one ends as if alone."""
    refusals: list[str] = []

    def start_another(line: str) -> None:
        if line.startswith("step 2/"):
            command = [sys.executable, "-m", "mofo_train", "pretrain", "--recipe", str(tmp_path / "r.json.toml")]
            command += ["--store", str(train.store_path), "--out", str(tmp_path / "run")]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
            assert done.returncode == ExitCode.USAGE
            refusals.append(done.stderr)

    (tmp_path / "r.json.toml").write_text(
        'stage = "pretrain"\nmodel = {name = "videomae_tiny", num_frames = 4, image_px = 48}\n'
        'data = {dataset = "synthetic", short_side_px = 64, num_workers = 0}\noptim = {batch_size = 6}\n'
    )
    train.on_line = start_another  # type: ignore[method-assign]
    train(recipe(), tmp_path / "run")
    assert len(refusals) == 1
    assert f"out must be free, got {tmp_path / 'run'} in use by process {os.getpid()} on " in refusals[0]
    assert re.fullmatch(r"12 clips[^\n]*\nmofo-train: error: [^\n]+\n", refusals[0])
    assert len(losses(tmp_path / "run")) == 6


@pytest.mark.parametrize("sharding", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_ranks_equal_one_rank_with_two_micro_batches(train: Trainer, tmp_path: Path, sharding: str) -> None:
    """Same clips, same masks; gradients averaged over ranks instead of accumulated. The second call resumes."""
    text = """
stage = "pretrain"
model = {name = "videomae_tiny", num_frames = 4, image_px = 48}
data = {dataset = "synthetic", short_side_px = 64, num_workers = 0}
mask = {kind = "motion", mask_ratio = 0.8}
optim = {batch_size = 6, epochs = 9, warmup_epochs = 0, base_lr = 0.02}
run = {precision = "fp32", log_every_steps = 1, checkpoint_every_steps = 1, picture_every_epochs = 0}
"""
    (tmp_path / "r.toml").write_text(text)
    config = recipe(
        model={"drop_path": 0.0},
        optim={"epochs": 1, "warmup_epochs": 0, "clip_grad_norm": None, "grad_accum_steps": 2},
        run={"picture_every_epochs": 0, "checkpoint_every_steps": 1},
    )
    one = train(config, tmp_path / "one")
    _torchrun(tmp_path, train.store_path, sharding)
    two = tmp_path / "two" / "checkpoints" / one.name
    rows = list(zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True))
    assert all(first == pytest.approx(second, rel=1e-4) for first, second in rows)
    weights, others = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    assert all(torch.allclose(value, others[name], atol=1e-4) for name, value in weights.items())
    if sharding == "fsdp":
        shutil.rmtree(two)
        _torchrun(tmp_path, train.store_path, sharding)
        again = load_file(two / "model.safetensors")
        assert all(torch.equal(value, others[name]) for name, value in again.items())


def _torchrun(folder: Path, store: Path, sharding: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)),
        *("-m", "mofo_train", "pretrain", "--recipe", str(folder / "r.toml"), "--store", str(store)),
        *("--out", str(folder / "two"), "--set", "optim.epochs=1", "--set", f"run.sharding={sharding}"),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("sections", "further"),
    [
        ({}, {}),
        ({"mask": {"kind": "tube"}}, {}),
        ({"mask": {"kind": "random"}, "optim": {"grad_accum_steps": 2}}, {}),
        ({"mask": {"kind": "motion_map"}}, {("__bool__", "masks.py"): 1}),
    ],
)
def test_a_step_waits_for_the_device_once(train: Trainer, tmp_path: Path, monkeypatch, sections, further) -> None:
    waits = watch_steps(monkeypatch)
    train(recipe(**sections), tmp_path)
    _, *later = waits.of_steps  # the first one may send constants
    assert len(later) > 2
    assert all(found == {**ONE_WAIT, **further} for found in later)


@pytest.mark.slow
def test_compiled_and_eager_losses_agree(train: Trainer, tmp_path: Path) -> None:
    train(recipe(), tmp_path / "eager")
    train(recipe(run={"compile": True}), tmp_path / "compiled")
    pairs = zip(losses(tmp_path / "eager"), losses(tmp_path / "compiled"), strict=True)
    assert all(one[0] == pytest.approx(other[0], rel=1e-3) for one, other in pairs)


def test_a_cache_changes_no_loss(train: Trainer, tmp_path: Path) -> None:
    train(recipe(), tmp_path / "decoded")
    train(recipe(data={"cache_gib": 1.0}), tmp_path / "cached")
    assert losses(tmp_path / "cached") == losses(tmp_path / "decoded")


def test_what_a_prediction_of_nothing_costs(train: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets normalised over n values cost (n - 1) / n, pixels their mean square."""
    model = create_pretrain_model("videomae_tiny", num_frames=4, image_px=48)
    state = model.state_dict()
    state |= {name: torch.zeros_like(state[name]) for name in ("decoder.head.weight", "decoder.head.bias")}
    save_file(state, tmp_path / "silent.safetensors")
    squares: list[float] = []
    real = loop.hidden_pixels

    def watching(*arguments: Any, **options: Any) -> torch.Tensor:
        pixels = real(*arguments, **options)
        squares.append(float(pixels.square().mean()))
        return pixels

    monkeypatch.setattr(loop, "hidden_pixels", watching)
    config = recipe(model={"init": tmp_path / "silent.safetensors"}, optim={"epochs": 1, "batch_size": 12})
    for target in ("normalised", "pixels"):
        train(config.model_copy(update={"target": target}), tmp_path / target)
    assert losses(tmp_path / "normalised")[0][0] == pytest.approx(511 / 512, abs=2e-3)
    assert losses(tmp_path / "pixels")[0][0] == pytest.approx(squares[0], rel=1e-5)
    assert len(squares) == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model": {"name": "videomae_mini"}, "run": {"precision": "fp8"}}, "widths are multiples of 16"),
        ({"optim": {"grad_accum_steps": 2}, "run": {"compile": "reduce-overhead"}}, "a CUDA graph's memory"),
    ],
)
def test_what_cannot_be_computed_leaves_the_folder_free(
    train: Trainer, tmp_path: Path, change: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        train(recipe(**change), tmp_path / "run")
    train(recipe(optim={"epochs": 1}), tmp_path / "run")


def test_pretraining_in_8_bits_follows_bfloat16(train: Trainer, tmp_path: Path) -> None:
    curves = {}
    for precision in ("bf16", "fp8"):
        own = recipe(run={"precision": precision}, optim={"batch_size": 8, "grad_accum_steps": 1})
        train(own, tmp_path / precision)
        curves[precision] = [row[0] for row in losses(tmp_path / precision)]
    assert curves["fp8"] != curves["bf16"]
    assert curves["fp8"] == pytest.approx(curves["bf16"], rel=1e-2)
