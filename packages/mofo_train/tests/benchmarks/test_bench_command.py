from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from mofo_train import cli
from mofo_train.benchmarks import parts as bench
from mofo_train.benchmarks import peers as bench_peers
from mofo_train.data.reader import ClipReader
from mofo_train.data.transforms import crop_frames, dense_frames, multi_scale_crop
from mofo_train.guidance import masks
from mofo_train.models import create_pretrain_model
from mofo_train.models.mae import hidden_targets
from mofo_train.models.mca import MultiCrossAttention
from mofo_train.runtime.speed import training_flops


def test_original_schedule_predicts_and_asks_the_same() -> None:
    """The operations of the original code, on the same weights, clip and mask."""
    torch.manual_seed(0)
    model = create_pretrain_model("videomae_tiny", num_frames=4, image_px=48)
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.1)
    frames = torch.randn(2, 3, 4, 48, 48)
    mask = masks.tube_mask(2, 9, 2, mask_ratio=0.7, generator=torch.Generator().manual_seed(0))
    prediction, targets = bench_peers.OriginalSchedule(model)(frames, mask)
    ours = model(frames, mask)
    assert torch.allclose(ours, prediction, rtol=1e-4, atol=1e-5)
    assert torch.allclose(hidden_targets(frames, mask, model.clip), targets, rtol=1e-4, atol=1e-4)


def test_all_contenders_of_the_model_start_from_the_same_loss() -> None:
    torch.manual_seed(0)
    model = create_pretrain_model("videomae_tiny", num_frames=4, image_px=48)
    frames = torch.randn(2, 3, 4, 48, 48)
    mask = masks.tube_mask(2, 9, 2, generator=torch.Generator().manual_seed(0))
    theirs = bench_peers.transformers_step(model)(frames, mask)
    cpu = torch.device("cpu")
    original = bench_peers.original_step(create_copy(model))(frames, mask)
    ours = bench.training_step(model, cpu, "fp32")(frames, mask)
    assert theirs == pytest.approx(ours, rel=1e-4)
    assert original == pytest.approx(ours, rel=1e-5)


def create_copy(model: torch.nn.Module) -> torch.nn.Module:
    import copy

    return copy.deepcopy(model)


def test_batched_fusion_equals_the_loop() -> None:
    torch.manual_seed(0)
    block = MultiCrossAttention(48)
    tokens = torch.randn(5, 40, 48)
    inside = torch.rand(5, 40) < torch.tensor([0.05, 0.3, 0.5, 0.8, 0.95])[:, None]
    inside[:, 0], inside[:, 1] = True, False
    batched = bench._batched(block, tokens, inside)
    for peer in (bench_peers.loop_over_clips, bench_peers.dense_with_mask):
        assert torch.allclose(batched, peer(block, tokens, inside), rtol=1e-4, atol=1e-5)


def test_original_loader_reads_the_same_frames(store_path: Path) -> None:
    from motionbox.store import open_store

    reader = ClipReader(open_store(store_path), store_path.parent / "synthetic", split=None, short_side_px=256)
    _, path, times, _ = reader.sources()[3]
    frames = dense_frames(reader.num_frames(3), 8, 2, 0.3)
    theirs = bench_peers.original_sample(path, times[frames], 96, np.random.default_rng(1))
    pixels, _ = reader.read(3, frames)
    crop = multi_scale_crop(pixels.shape[2], pixels.shape[1], 96, (1.0, 0.875, 0.75, 0.66), np.random.default_rng(1))
    ours = crop_frames(torch.from_numpy(pixels), crop, 96).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert ((ours - mean) / std - theirs).abs().mean() < 0.01


def test_decord_reads_what_pyav_reads(store_path: Path) -> None:
    pytest.importorskip("decord")
    from motionbox.store import open_store

    reader = ClipReader(open_store(store_path), store_path.parent / "synthetic", split=None, short_side_px=256)
    _, path, times, _ = reader.sources()[3]
    frames = dense_frames(reader.num_frames(3), 8, 2, 0.3)
    positions = bench_peers.decord_positions(path, times[frames])
    assert positions.tolist() == frames.tolist()
    theirs = bench_peers.decord_sample(path, positions, 96, np.random.default_rng(1))
    ours = bench_peers.original_sample(path, times[frames], 96, np.random.default_rng(1))
    assert (ours - theirs).abs().mean() < 0.05


def test_loader_and_model_together(clips_store_path: Path, tmp_path: Path) -> None:
    arguments = ["bench", "both", "--store", str(clips_store_path), "--model", "videomae_tiny", "--precision", "fp32"]
    shape = ["--frames", "4", "--image-px", "64", "--batch-size", "4", "--rounds", "1", "--steps", "2"]
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, *shape, "--num-workers", "0", "--json", str(tmp_path / "bench.json")])
    assert stop.value.code == 0
    row = json.loads((tmp_path / "bench.json").read_text())["both"]["fp32"]
    model = create_pretrain_model("videomae_tiny", num_frames=4, image_px=64)
    mask = masks.tube_mask(1, 16, 2, generator=torch.Generator().manual_seed(0))
    assert row["gflop_per_clip"] == pytest.approx(training_flops(model, torch.empty(1, 3, 4, 64, 64), mask) / 1e9)
    assert 0 < row["data_wait_share"] < 1
    assert row["share_of_roof"] == pytest.approx(row["both_clips_per_second"] / row["roof_clips_per_second"])
    slower = min(row["loader_clips_per_second"], row["model_clips_per_second"])
    assert row["share_of_the_slower"] == pytest.approx(row["both_clips_per_second"] / slower)


def test_contenders_take_turns() -> None:
    spent: list[str] = []
    work = {"one": lambda: spent.append("one"), "two": lambda: spent.append("two")}
    timings = bench.interleaved(work, 2, torch.device("cpu"))
    assert spent == ["one", "two"] * 3
    assert timings.keys() == {"one", "two"}


def test_bench_command_writes_its_figures(clips_store_path: Path, tmp_path: Path) -> None:
    arguments = ["bench", "masks", "loader", "--store", str(clips_store_path), "--rounds", "1", "--peers"]
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--json", str(tmp_path / "bench.json")])
    assert stop.value.code == 0
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert set(figures["loader"]) == {
        f"{name}, {crops}"
        for name in ("source", "store", "store, views left to the device")
        for crops in ("1 crop", "2 crops")
    } | {"original loader", *(["original loader, decord"] if find_spec("decord") else [])}
    assert all(row["samples_per_core_second"] > 0 for row in figures["loader"].values())


@pytest.mark.parametrize(
    ("option", "message"), [(("--model", "foo"), "name: Input should be"), (("--image-px", "100"), "multiple of 16")]
)
def test_wrong_options_are_one_line(option: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", "masks", *option])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
