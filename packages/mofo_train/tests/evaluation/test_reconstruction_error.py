from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from mofo_train.commands.evaluate import command
from mofo_train.config import PretrainConfig
from mofo_train.data.sources import open_clips
from mofo_train.errors import CheckpointError
from mofo_train.evaluation.reconstruction_error import (
    ReconstructionErrors,
    error_lines,
    load_pretraining,
    measure_errors,
    simple_predictions,
)
from mofo_train.guidance.tubelets import ClipShape
from mofo_train.models import MaskedAutoencoder, create_pretrain_model
from mofo_train.models.mae import hidden_pixels, hidden_targets
from mofo_train.runtime.ranks import Ranks
from mofo_train.training.pretraining import pretrain
from motionbox.store import open_store

ONE = Ranks(0, 1, torch.device("cpu"))


class OneOfTwo(Ranks):
    """One of two ranks whose answers the test gathers itself."""

    def gather(self, value: Any) -> list[Any]:
        return [value]


def recipe(**sections: Any) -> PretrainConfig:
    values: dict[str, Any] = {
        "stage": "pretrain",
        "model": {"name": "videomae_tiny", "num_frames": 4, "image_px": 48},
        "data": {"dataset": "synthetic", "short_side_px": 64, "num_workers": 0, "crops_per_clip": 2},
        "mask": {"kind": "motion", "mask_ratio": 0.8},
        "optim": {"batch_size": 4, "epochs": 1, "warmup_epochs": 0},
        "run": {"precision": "fp32", "picture_every_epochs": 0},
    }
    for section, change in sections.items():
        values[section] = {**values[section], **change} if isinstance(change, dict) else change
    return PretrainConfig.model_validate(values)


def silent_model() -> MaskedAutoencoder:
    """A model that predicts zero everywhere."""
    model = create_pretrain_model("videomae_tiny", num_frames=4, image_px=48)
    with torch.no_grad():
        model.decoder.head.weight.zero_()
        model.decoder.head.bias.zero_()
    return model


def measured(config: PretrainConfig, store_path: Path, ranks: Ranks = ONE) -> ReconstructionErrors:
    return measure_errors(silent_model(), config, open_clips(config.data, store_path, None), ranks)


def test_predictions_without_a_model_by_hand() -> None:
    clip = ClipShape(4, 32)
    frames = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, False, True, True] * 2, [True, True, False, True] * 2])
    found = simple_predictions(hidden_pixels(frames, mask, clip), frames, mask, clip, normalised=False)
    for row in range(2):
        tubelets = {
            token: frames[row, :, 2 * (token // 4) : 2 * (token // 4) + 2]
            .unfold(2, 16, 16)
            .unfold(3, 16, 16)[:, :, token % 4 // 2, token % 2]
            for token in range(8)
        }
        visible = torch.stack([tubelet for token, tubelet in tubelets.items() if not mask[row, token]])
        colour = visible.mean((0, 2, 3, 4))
        hidden = [tubelet for token, tubelet in tubelets.items() if mask[row, token]]
        for place, tubelet in enumerate(hidden):
            own = found["own_mean"][row, place].reshape(-1, 3)
            assert torch.allclose(own, tubelet.mean((1, 2, 3)).expand(512, 3), atol=1e-5)
        every = found["visible_colour"].expand(2, len(hidden), -1)[row].reshape(-1, 3)
        assert torch.allclose(every, colour.expand_as(every), atol=1e-5)


def test_a_tubelets_own_mean_is_zero_where_targets_are_normalised(store_path: Path) -> None:
    """A model that says nothing predicts just that, so it is neither better nor worse."""
    clip = ClipShape(4, 48)
    frames = torch.randn(1, 3, 4, 48, 48)
    mask = torch.zeros(1, 18, dtype=torch.bool)
    mask[0, ::2] = True
    found = simple_predictions(hidden_targets(frames, mask, clip), frames, mask, clip, normalised=True)
    assert list(found) == ["own_mean"], "a colour says nothing in units of a tubelet's own contrast"
    assert found["own_mean"].abs().max() < 1e-5
    report = measured(recipe(), store_path).as_json()
    assert report["num_clips"] == 12
    assert report["num_crops"] == 24
    tubelets = report["inside"]["num_tubelets"], report["outside"]["num_tubelets"]
    assert sum(tubelets) == 24 * 2 * round(0.8 * 9)
    assert min(tubelets) > 0
    for place in ("inside", "outside"):
        assert report[place]["errors"]["model"] == pytest.approx(511 / 512, abs=5e-3)
        assert report[place]["model_below"]["own_mean"] == pytest.approx(0, abs=1e-5)


def test_a_colour_of_what_is_seen_beats_grey_and_knowing_the_answer_beats_both(store_path: Path) -> None:
    report = measured(recipe(target="pixels"), store_path).as_json()
    for place in ("inside", "outside"):
        errors = report[place]["errors"]
        assert errors["own_mean"] < errors["visible_colour"] < errors["model"]
        expected = 1 - errors["model"] / errors["visible_colour"]
        assert report[place]["model_below"]["visible_colour"] == pytest.approx(expected)


def test_two_ranks_measure_what_one_measures(store_path: Path) -> None:
    whole = measured(recipe(target="pixels"), store_path)
    parts = [measured(recipe(target="pixels"), store_path, OneOfTwo(rank, 2, ONE.device)) for rank in range(2)]
    assert [part.num_clips for part in parts] == [8, 4], "batches of 8 and 4, dealt out whole"

    class Gathered(Ranks):
        def gather(self, value: Any) -> list[Any]:  # noqa: ARG002
            return [(part.num_tokens, part.num_clips, part.num_crops, part.sums, part.unreadable) for part in parts]

    joined = parts[0].join(Gathered(0, 2, ONE.device))
    assert joined.as_json() == whole.as_json()


def test_nothing_hidden_outside_is_no_figure(store_path: Path) -> None:
    report = measured(recipe(data={"boxes": "full_frame"}), store_path).as_json()
    assert report["outside"] is None
    lines = error_lines(report | {"source": {"config": recipe().model_dump(mode="json")}})
    assert [line.split()[0] for line in lines] == ["target", "inside"]


def trained(store_path: Path, out: Path, **sections: Any) -> Path:
    config = recipe(data={"split": "train"}, **sections)
    return pretrain(config, open_clips(config.data, store_path, None), out, ONE)


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(command, [*map(str, arguments)], standalone_mode=False)


def test_command_reports_on_the_test_split(store_path: Path, tmp_path: Path) -> None:
    path = trained(store_path, tmp_path / "run")
    arguments = ("--checkpoint", str(path), "--store", str(store_path))
    done = invoke(*arguments, "--out", str(tmp_path / "out"))
    assert done.return_value == 0, done.output
    assert done.output.startswith("target normalised, split validation: 2 clips, 4 crops\ninside   model ")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["source"]["config"]["data"]["split"] == "validation"
    with Image.open(tmp_path / "out" / "reconstruction.png") as image:
        assert image.height == 3 * (48 + 4)
    done = invoke(*arguments, "--out", str(tmp_path / "train"), "--set", "data.split=train")
    assert "split train: 10 clips" in done.output
    done = invoke(*arguments, "--out", str(tmp_path / "out"), "--set", "data.split=train")
    assert "out must hold a report of the same checkpoint and recipe" in str(done.exception)
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    done = invoke(*arguments, "--out", str(tmp_path / "x"), "--submission")
    assert "--submission and --system are for classifiers" in str(done.exception)


def test_other_programs_weights_are_measured_by_a_recipe(store_path: Path, tmp_path: Path) -> None:
    path = trained(store_path, tmp_path / "run")
    shutil.copy(path / "model.safetensors", tmp_path / "plain.safetensors")
    text = f'stage = "pretrain"\n[model]\nname = "videomae_tiny"\nnum_frames = 4\nimage_px = 48\n[data]\n{_DATA}'
    (tmp_path / "recipe.toml").write_text(text)
    files = {"run": (path, ()), "plain": (tmp_path / "plain.safetensors", ("--recipe", str(tmp_path / "recipe.toml")))}
    reports = {}
    for name, (weights, more) in files.items():
        done = invoke("--checkpoint", str(weights), "--store", str(store_path), "--out", str(tmp_path / name), *more)
        assert done.return_value == 0, done.output
        reports[name] = json.loads((tmp_path / name / "report.json").read_text())
    assert reports["plain"]["inside"] == reports["run"]["inside"]


_DATA = """dataset = "synthetic"
split = "train"
short_side_px = 64
crops_per_clip = 2
num_workers = 0
[mask]
kind = "motion"
mask_ratio = 0.8
[run]
precision = "fp32"
"""


def test_unreadable_clips_are_listed_and_not_counted(
    store_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = trained(store_path, tmp_path / "run")
    root = tmp_path / "data"
    (root / "videos").mkdir(parents=True)
    gone, *_ = (clip["clip_id"] for clip in open_store(store_path).clips().to_pylist() if clip["split"] == "validation")
    for video in (store_path.parent / "synthetic" / "videos").iterdir():
        if video.stem != Path(gone).name:
            (root / "videos" / video.name).symlink_to(video)
    arguments = ("--checkpoint", str(path), "--store", str(store_path), "--data-root", str(root))
    done = invoke(*arguments, "--out", str(tmp_path / "out"))
    assert done.return_value == 3
    assert "1 clips, 2 crops" in done.output
    assert f"unreadable {gone}: " in caplog.text


def test_a_run_that_does_not_say_its_recipe_is_refused(store_path: Path, tmp_path: Path) -> None:
    path = trained(store_path, tmp_path / "run")
    claim = tmp_path / "run" / "recipe.json"
    claim.write_text("{}")
    with pytest.raises(CheckpointError, match=r"recipe\.json must say how .* was made.*name --recipe"):
        load_pretraining(path, None, ())
    claim.unlink()
    with pytest.raises(CheckpointError, match=r"recipe\.json must say how .* was made.*name --recipe"):
        load_pretraining(path, None, ())


def test_tensors_are_booked_where_they_lie() -> None:
    found = ReconstructionErrors(torch.zeros(2, dtype=torch.float64))
    inside = torch.tensor([[True, False, False]])
    errors: dict[str, Tensor] = {"model": torch.tensor([[1.0, 2.0, 4.0]]), "own_mean": torch.tensor([[2.0, 4.0, 8.0]])}
    found.book(errors, inside)
    found.book(errors, inside)
    report = found.as_json()
    assert report["inside"] == {
        "num_tubelets": 2,
        "errors": {"model": 1.0, "own_mean": 2.0},
        "model_below": {"own_mean": 0.5},
    }
    assert report["outside"]["errors"]["model"] == 3.0
