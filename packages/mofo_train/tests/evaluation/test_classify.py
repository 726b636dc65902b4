from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

import motionbox.cli
from mofo_train.commands.evaluate import command
from mofo_train.config import GuidanceConfig
from mofo_train.data.labels import LabelSpace
from mofo_train.data.reader import ClipReader
from mofo_train.data.views import FixedBatches, ViewedClips, view_crops, view_frames
from mofo_train.evaluation.classify import ClassifiedClips, classify_clips
from mofo_train.evaluation.predictions import Predictions, merge_predictions, read_predictions, write_predictions
from mofo_train.evaluation.report import describe, true_classes
from mofo_train.finetune_config import FinetuneConfig, ViewsConfig
from mofo_train.guidance.inside import inside_tokens
from mofo_train.guidance.tubelets import ClipShape
from mofo_train.models import create_classifier
from mofo_train.models.from_recipe import create_model
from mofo_train.models.systems import OtherSystem
from mofo_train.runtime.checkpoints import write_checkpoint
from mofo_train.runtime.ranks import Ranks
from motionbox.store import open_store

CONFIG = FinetuneConfig.model_validate(
    {
        "stage": "finetune",
        "model": {"name": "videomae_tiny", "num_frames": 4, "image_px": 32, "fusion": "mca"},
        "task": {"columns": ("verb_class", "noun_class"), "num_classes": (9, 6)},
        "data": {"dataset": "synthetic", "short_side_px": 48, "num_workers": 0},
        "test": {"segments": 2, "crops": 3, "batch_clips": 5},
        "run": {"precision": "fp32"},
    }
)


class OneOfTwo(Ranks):
    """One of two ranks whose answers the test gathers itself."""

    def gather(self, value: Any) -> list[Any]:
        return [value]


def reader(store_path: Path, root: Path | None = None) -> ClipReader:
    return ClipReader(open_store(store_path), root or store_path.parent / "synthetic", split=None, short_side_px=48)


def classify(
    store_path: Path, ranks: Ranks, views: ViewsConfig = CONFIG.test, root: Path | None = None
) -> ClassifiedClips:
    torch.manual_seed(0)
    clips = reader(store_path, root)
    space = LabelSpace.of(clips.every_clip(), CONFIG.task, "the store")
    model = create_model(CONFIG.model, space.num_outputs)
    with torch.no_grad():
        model.head.weight.mul_(1000)
    return classify_clips(model, space, clips, views, ranks, shape=CONFIG.model, data=CONFIG.data)


ONE = Ranks(0, 1, torch.device("cpu"))


def test_views_in_time_and_space() -> None:
    first, second = view_frames(16, 4, 2, None)
    assert (first.tolist(), second.tolist()) == ([0, 4, 8, 12], [2, 6, 10, 14])
    assert view_frames(16, 4, 1, None)[0].tolist() == [2, 6, 10, 14]
    assert [view.tolist() for view in view_frames(20, 4, 3, 2)] == [[0, 2, 4, 6], [7, 9, 11, 13], [13, 15, 17, 19]]
    wide = view_crops(64, 48, 3)
    assert [(crop.x, crop.y, crop.width, crop.height) for crop in wide] == [(x, 0, 48, 48) for x in (0, 8, 16)]
    assert [(crop.x, crop.y) for crop in view_crops(48, 64, 2)] == [(0, 0), (0, 16)]
    assert [crop.x for crop in view_crops(64, 48, 1)] == [8]


def test_boxes_move_along_with_the_views(store_path: Path) -> None:
    clips = reader(store_path)
    viewed = ViewedClips(clips, CONFIG.model, CONFIG.data, CONFIG.test)[3]
    assert viewed.frames.shape == (6, 3, 4, 32, 32)
    chosen = view_frames(clips.num_frames(3), 4, 2, None)
    pixels, boxes = clips.read(3, chosen[1])
    crop = view_crops(pixels.shape[2], pixels.shape[1], 3)[2]
    expected = np.clip((boxes - [crop.x, crop.y] * 2) * 32 / crop.width, 0, 32)
    there = (expected[:, 2:] > expected[:, :2]).all(1)
    np.testing.assert_allclose(viewed.boxes[5].numpy()[there], expected[there], atol=1e-4)


def test_two_ranks_give_the_same_bits_as_one(store_path: Path) -> None:
    whole = classify(store_path, ONE).predictions
    parts = [classify(store_path, OneOfTwo(rank, 2, torch.device("cpu"))).predictions for rank in range(2)]
    assert sorted(len(part) for part in parts) == [5, 7], "batches of 5, 5 and 2, dealt out whole"
    joined = merge_predictions(parts)
    assert joined.clip_ids == whole.clip_ids
    for head in ("verb", "noun"):
        np.testing.assert_array_equal(joined.logits[head], whole.logits[head])
        np.testing.assert_array_equal(joined.labels[head], whole.labels[head])


@pytest.mark.parametrize(("clips", "size", "world"), [(12, 5, 2), (3, 4, 2), (9, 3, 4)])
def test_every_clip_is_dealt_out_once(clips: int, size: int, world: int) -> None:
    batches = [batch for rank in range(world) for batch in FixedBatches(clips, size, rank=rank, world_size=world)]
    assert sorted(clip for batch in batches for clip in batch) == list(range(clips))


def test_logits_are_the_mean_over_views(store_path: Path) -> None:
    both = classify(store_path, ONE, ViewsConfig(segments=2, crops=1)).predictions
    torch.manual_seed(0)
    clips = reader(store_path)
    model = create_model(CONFIG.model, 15).eval()
    with torch.no_grad():
        model.head.weight.mul_(1000)
        from mofo_train.data.transforms import normalise

        viewed = ViewedClips(clips, CONFIG.model, CONFIG.data, ViewsConfig(segments=2, crops=1))[0]
        single = [model(normalise(viewed.frames[[view]]), viewed.boxes[[view]]) for view in range(2)]
    mean = ((single[0] + single[1]) / 2)[0]
    row = both.clip_ids.index(clips.clip_ids[0])
    np.testing.assert_allclose(both.logits["verb"][row], mean[:9], rtol=1e-4, atol=1e-5)


def checkpoint(folder: Path, store_path: Path, config: FinetuneConfig = CONFIG) -> Path:
    torch.manual_seed(0)
    space = LabelSpace.of(open_store(store_path).clips(), config.task, "the store")
    info = {"stage": "finetune", "config": config.model_dump(mode="json"), "label_space": space.as_json()}
    return write_checkpoint(folder, 1, create_model(config.model, space.num_outputs).state_dict(), {}, info, keep=1)


def test_command_writes_everything_and_recomputes_it(store_path: Path, tmp_path: Path) -> None:
    arguments = ["--checkpoint", str(checkpoint(tmp_path / "c", store_path)), "--store", str(store_path)]
    done = CliRunner().invoke(
        command, [*arguments, "--out", str(tmp_path / "out"), "--submission"], standalone_mode=False
    )
    assert done.exception is None, done.output
    assert done.return_value == 0
    assert "two_heads" in done.output
    assert "2 clips" in done.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"predictions.parquet", "report.json", "submission.zip", "classes-verb.csv", "confusion-noun.png"}
    with Image.open(tmp_path / "out" / "confusion-verb.png") as image:
        assert image.width > 300
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["source"]["num_views"] == 6
    with (tmp_path / "out" / "classes-verb.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows][:2] == ["push left", "push right"]
    assert sum(int(row["num_clips"]) for row in rows) == report["num_clips"] == 2

    again = ["--predictions", str(tmp_path / "out" / "predictions.parquet"), "--out", str(tmp_path / "again")]
    assert CliRunner().invoke(command, again, standalone_mode=False).return_value == 0
    assert json.loads((tmp_path / "again" / "report.json").read_text()) == report


_RECIPE = """
stage = "finetune"
[model]
name = "videomae_tiny"
num_frames = 4
image_px = 32
[task]
columns = ["verb_class", "noun_class"]
num_classes = [9, 6]
[data]
dataset = "synthetic"
short_side_px = 48
num_workers = 0
[run]
precision = "fp32"
"""


def as_omnimae(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of our classifier in OmniMAE's layout, with biases of the keys."""
    names = {"encoder.patch_embed.proj.": "trunk.patch_embed.proj.1.", "encoder.": "trunk.", "fc_norm.": "trunk.norm."}
    renamed = {}
    for name, value in state.items():
        prefix = next((prefix for prefix in names if name.startswith(prefix)), "")
        renamed[names.get(prefix, "") + name.removeprefix(prefix)] = value
    for name in [name for name in renamed if name.endswith("q_bias")]:
        query, value = renamed.pop(name), renamed.pop(name.replace("q_bias", "v_bias"))
        renamed[name.replace("q_bias", "qkv.bias")] = torch.cat([query, torch.rand_like(query), value])
    return renamed


def test_another_systems_weights_are_tested_on_the_same_protocol(store_path: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = create_classifier("videomae_tiny", 15, num_frames=4, image_px=32).state_dict()
    state["head.weight"] *= 1000
    (tmp_path / "recipe.toml").write_text(_RECIPE)
    torch.save({"model": state}, tmp_path / "ours.pth")
    torch.save(as_omnimae(state), tmp_path / "omnimae.torch")
    found = {}
    for system, name in (("videomae", "ours.pth"), ("omnimae", "omnimae.torch")):
        out = tmp_path / system
        arguments = ["--checkpoint", str(tmp_path / name), "--recipe", str(tmp_path / "recipe.toml")]
        arguments += ["--system", system, "--store", str(store_path), "--out", str(out)]
        done = CliRunner().invoke(command, arguments, standalone_mode=False)
        assert done.return_value == 0, done.output
        found[system] = read_predictions(out / "predictions.parquet")
        assert found[system].info["source"]["system"] == system
    assert found["omnimae"].clip_ids == found["videomae"].clip_ids
    for head, logits in found["videomae"].logits.items():
        assert np.ptp(logits) > 0.1  # the weights say something
        np.testing.assert_allclose(found["omnimae"].logits[head], logits, rtol=1e-4, atol=1e-4)


def test_every_system_can_be_asked_for() -> None:
    option = next(option for option in command.params if option.name == "system")
    assert isinstance(option.type, click.Choice)
    assert set(option.type.choices) == {"videomae", *get_args(OtherSystem)}


def test_clips_that_cannot_be_read_are_listed_and_not_counted(
    store_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data" / "videos").mkdir(parents=True)
    table = open_store(store_path).clips()
    test = [
        path
        for path, split in zip(*(table.column(c).to_pylist() for c in ("path", "split")), strict=True)
        if split == "validation"
    ]
    (tmp_path / "data" / test[0]).symlink_to(store_path.parent / "synthetic" / test[0])
    arguments = ["--checkpoint", str(checkpoint(tmp_path / "c", store_path)), "--store", str(store_path)]
    done = CliRunner().invoke(
        command,
        [*arguments, "--data-root", str(tmp_path / "data"), "--out", str(tmp_path / "out")],
        standalone_mode=False,
    )
    assert done.return_value == 3
    assert f"unreadable {Path(test[1]).with_suffix('')}" in caplog.text
    assert len(read_predictions(tmp_path / "out" / "predictions.parquet")) == 1


def test_other_classes_and_other_checkpoints_are_refused(store_path: Path, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "c", store_path)
    arguments = ["--store", str(store_path), "--out", str(tmp_path / "out")]
    change = ["--set", "task.num_classes=[12, 6]"]
    done = CliRunner().invoke(command, ["--checkpoint", str(path), *arguments, *change], standalone_mode=False)
    assert "classes of the store must be those of the checkpoint" in str(done.exception)
    done = CliRunner().invoke(command, ["--checkpoint", str(tmp_path), *arguments], standalone_mode=False)
    assert "name a recipe with --recipe" in str(done.exception)
    done = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert "one of --checkpoint and --predictions" in str(done.exception)


def test_the_report_of_another_checkpoint_is_not_overwritten(store_path: Path, tmp_path: Path) -> None:
    paths = [checkpoint(tmp_path / name, store_path) for name in ("one", "other")]
    arguments = ["--store", str(store_path), "--out", str(tmp_path / "out")]

    def evaluate(*more: str) -> Any:
        return CliRunner().invoke(command, [*more, *arguments], standalone_mode=False)

    assert evaluate("--checkpoint", str(paths[0])).return_value == 0
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    predictions = tmp_path / "out" / "predictions.parquet"
    assert evaluate("--checkpoint", str(paths[0])).return_value == 0, "the same again"
    assert evaluate("--predictions", str(predictions)).return_value == 0, "its own predictions"
    for more in (["--checkpoint", str(paths[1])], ["--checkpoint", str(paths[0]), "--set", "test.crops=1"]):
        done = evaluate(*more)
        assert "out must hold a report of the same checkpoint and recipe, got" in str(done.exception)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in kept} == kept
    (tmp_path / "out" / "report.json").write_text("{")
    assert "with one of another program or command" in str(evaluate("--checkpoint", str(paths[0])).exception)


def test_clips_without_boxes_in_the_store_are_named(
    store_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    shutil.copytree(store_path.parent / "synthetic", data)
    test = [row["clip_id"] for row in open_store(store_path).clips().to_pylist() if row["split"] == "validation"]
    (data / test[0]).with_suffix(".mp4").write_bytes(b"no video")
    extract = ["extract", "--dataset", "synthetic", "--data-root", str(data), "--store", str(tmp_path / "store")]
    with pytest.raises(SystemExit) as stop:
        motionbox.cli.main([*extract, "--flow", "dis", "--executor", "serial", "--workers", "0"])
    assert stop.value.code == 3
    store = ["--store", str(tmp_path / "store")]
    path = checkpoint(tmp_path / "c", store_path)
    arguments = ["--checkpoint", str(path), *store, "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert done.return_value == 3
    assert f"without boxes {test[0]}: " in caplog.text
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["num_clips"] == len(test) - 1
    assert list(report["source"]["left_out"]) == [test[0]]
    clips = ClipReader(open_store(tmp_path / "store"), data, split="validation", short_side_px=48)
    assert "1 more have no boxes in the store and are left out" in clips.remarks()


def test_a_submission_needs_verbs_and_nouns(tmp_path: Path) -> None:
    space = LabelSpace({"label": 3}, {}, None, 0, 0)
    source = {"checkpoint": "c", "system": "videomae", "config": {}, "num_without_box": 0, "unreadable": {}}
    info = {"label_space": space.as_json(), "source": source}
    scores = {"label": np.eye(3, dtype=np.float32)}
    write_predictions(Predictions(("a", "b", "c"), scores, {"label": np.arange(3)}, info=info), tmp_path / "p.parquet")
    arguments = ["--predictions", str(tmp_path / "p.parquet"), "--out", str(tmp_path / "out"), "--submission"]
    done = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert "--submission must be of verbs and nouns or actions, got label" in str(done.exception)
    assert (tmp_path / "out" / "report.json").exists()


def test_unlabelled_clips_count_for_nothing() -> None:
    space = LabelSpace({"label": 3}, {}, None, 0, 0)
    scores = np.eye(3, dtype=np.float32)
    report = describe(Predictions(("a", "b", "c"), {"label": scores}, {"label": np.array([0, 2, -1])}), space)
    assert (report["num_clips"], report["num_unlabelled"]) == (2, 1)
    assert report["heads"]["label"]["top1"] == 0.5
    empty = describe(Predictions(("a",), {"label": scores[:1]}, {"label": np.array([-1])}), space)
    assert empty["heads"]["label"] is None


def test_an_action_is_the_same_class_in_every_fold() -> None:
    """Chance counts the classes of all folds; the second fold tests no clip of the last noun."""
    space = LabelSpace({"verb": 2, "noun": 3}, {}, None, 2, 3)
    scores = {"verb": np.eye(2, dtype=np.float32), "noun": np.eye(2, 3, dtype=np.float32)}
    folds = [
        Predictions(("a", "b"), scores, {"verb": np.array(verbs), "noun": np.array(nouns)})
        for verbs, nouns in (([1, 0], [0, 2]), ([1, 0], [0, 1]))
    ]
    found = [true_classes(fold, space)["action_top1"].tolist() for fold in folds]
    assert found[0][0] == found[1][0]
    assert len({*found[0], *found[1]}) == 3


def test_an_action_head_reports_marginals_and_groups() -> None:
    space = LabelSpace({"action": 3}, {}, np.array([[0, 0], [0, 1], [1, 1]]), 2, 2)
    logits = {"action": np.log(np.array([[0.4, 0.35, 0.25], [0.2, 0.2, 0.6]], np.float32))}
    labels = {"action": np.array([1, 2]), "verb": np.array([0, 1]), "noun": np.array([1, 1])}
    flags = {"unseen_participant": np.array([True, False])}
    report = describe(Predictions(("a", "b"), logits, labels, flags), space)
    assert report["verb_noun"]["method"] == "marginals"
    assert report["verb_noun"]["overall"]["noun"]["top1"] == 1.0
    assert report["verb_noun"]["unseen"]["action"] == {"top1": 0.0, "top5": 1.0, "num_clips": 1}


def test_areas_say_what_is_inside_in_tests_too(store_path: Path) -> None:
    """The classifier gets the very tokens that `inside_tokens` finds in a view's areas, or in its boxes."""

    class Witness(torch.nn.Module):
        def forward(self, frames: torch.Tensor, *, inside: torch.Tensor) -> torch.Tensor:
            seen.append(inside)
            return torch.zeros(len(frames), 15)

    for guidance in (GuidanceConfig(), GuidanceConfig(kind="area", max_share=0.3)):
        seen: list[torch.Tensor] = []
        clips = ClipReader(
            open_store(store_path), store_path.parent / "synthetic", split=None, short_side_px=48, guidance=guidance
        )
        space = LabelSpace.of(clips.every_clip(), CONFIG.task, "the store")
        classify_clips(Witness(), space, clips, CONFIG.test, ONE, shape=CONFIG.model, data=CONFIG.data)
        viewed = ViewedClips(clips, CONFIG.model, CONFIG.data, CONFIG.test)[3]
        expected = inside_tokens(ClipShape(4, 32), viewed.boxes, viewed.areas, max_share=0.3)
        assert torch.equal(torch.cat(seen)[3 * 6 : 4 * 6], expected)
        assert expected.any()
