from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from clips_support import AREA, DATA, MODEL, dataset, reader
from mofo_train.commands.inspect import command
from mofo_train.config import GuidanceConfig, MaskConfig, PretrainConfig
from mofo_train.data.sampler import SampleKey
from mofo_train.guidance.inspection import inspect_guidance, samples_of

CONFIG = PretrainConfig(stage="pretrain", model=MODEL, data=DATA, mask=MaskConfig(kind="motion"))


def test_samples_without_frames_are_those_of_training(store_path: Path) -> None:
    for guidance in (GuidanceConfig(), AREA):
        clips = dataset(store_path, guidance=guidance, reads="nothing")
        for place, quick in enumerate(samples_of(CONFIG, reader(store_path, guidance=guidance), 14)):
            whole = clips[SampleKey(0, place, place % 12)]
            assert quick.frames.numel() == 0
            assert quick.clip == whole.clip
            assert torch.equal(quick.boxes, whole.boxes)
            assert torch.equal(quick.areas, whole.areas)


def test_a_full_frame_breaks_the_rule_and_areas_keep_it(store_path: Path) -> None:
    """16 patches: 14 are hidden, so that of 16 inside 14 are hidden too, not 12; of at most 6, 75 % always are."""
    from mofo_train.data.reader import ClipReader
    from motionbox.store import open_store

    root = store_path.parent / "synthetic"
    full = ClipReader(open_store(store_path), root, split=None, short_side_px=80, boxes="full_frame")
    boxes = inspect_guidance(CONFIG, full, full.guidance, split="", num_samples=24)
    assert (boxes.samples, boxes.clips, boxes.unguided) == (48, 12, 0)
    assert (boxes.share_inside_mean, boxes.share_inside_median, boxes.rule_holds) == (1, 1, 0)
    assert boxes.hidden_inside == pytest.approx(14 / 16)
    assert boxes.hidden_outside is None
    guided = reader(store_path, guidance=AREA)
    areas = inspect_guidance(CONFIG, guided, AREA, split="", num_samples=24)
    assert areas.rule_holds == 1
    assert 0 < areas.share_inside_mean <= 6 / 16


def test_the_command_writes_a_table_and_a_sheet(store_path: Path, tmp_path: Path) -> None:
    arguments = ["--recipe", "synthetic_pretrain_tiny", "--store", str(store_path), "--samples", "20", "-o"]
    done = CliRunner().invoke(command, [*arguments, str(tmp_path)], standalone_mode=False)
    assert done.exception is None, done.output
    rows = json.loads((tmp_path / "inspect.json").read_text())["rows"]
    places = [(row["split"], row["kind"], row["source"]) for row in rows]
    assert places == [(split, kind, "motion") for split in ("train", "validation") for kind in ("box", "area")]
    with (tmp_path / "inspect.csv").open() as file:
        assert [row["rule_holds"] for row in csv.DictReader(file)] == [str(row["rule_holds"]) for row in rows]
    assert all(row["rule_holds"] == 1 for row in rows if row["kind"] == "area")
    with Image.open(tmp_path / "samples.png") as image:
        assert image.width > 700
    one = CliRunner().invoke(command, [*arguments[:-1], "--split", "train"], standalone_mode=False)
    assert one.exception is None
    assert "validation" not in one.output
    bad = CliRunner().invoke(command, [*arguments[:-1], "--split", "nosuch"], standalone_mode=False)
    assert "split must be one of" in str(bad.exception)


def test_masks_along_the_flow_are_measured(flow_store_path: Path, tmp_path: Path) -> None:
    arguments = ["--recipe", "synthetic_pretrain_mini_mgmae", "--store", str(flow_store_path), "--samples", "8"]
    options = ["--set", "model.image_px=96", "--split", "train", "-o", str(tmp_path)]
    done = CliRunner().invoke(command, [*arguments, *options], standalone_mode=False)
    assert done.exception is None, done.output
    (row,) = json.loads((tmp_path / "inspect.json").read_text())["along_flow"]
    assert (row["split"], row["samples"], row["without_flow"]) == ("train", 8, 0)
    assert row["hidden"] == pytest.approx(130 / 144), "round(0.9 * 144) in every slot"
    assert 0 < row["followed"] < 0.5
    assert "masks along the flow, train: 90.3% hidden in every slot" in done.output
    with Image.open(tmp_path / "samples.png") as image:
        assert image.width > 1100, "three panels more"


def test_a_store_without_maps_is_measured_by_its_boxes(
    store_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from motionbox.errors import StoreError
    from motionbox.store import Store

    def refuse(*_: object, **__: object) -> None:
        raise StoreError("run r of store s keeps no motion maps")

    monkeypatch.setattr(Store, "motion_areas", refuse)
    arguments = ["--recipe", "synthetic_pretrain_tiny", "--store", str(store_path), "--samples", "6"]
    done = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert done.exception is None
    assert "no areas of motion: run r of store s keeps no motion maps" in caplog.text
    assert "box motion" in done.output
