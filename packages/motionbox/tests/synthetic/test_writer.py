import csv
import json
from collections import Counter
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from motionbox.cli import main
from motionbox.commands import synth
from motionbox.errors import InputError
from motionbox.synthetic import NOUNS, VERBS, SyntheticConfig, draw_clip, plan_clips, set_folder, write_dataset

SMALL = SyntheticConfig(num_clips=4, seed=5)


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "set"
    write_dataset(root, SMALL)
    return root


def assert_same_set(root, other):
    """The same files byte for byte; videos by pixels, because x264 now and then codes a frame a little differently."""
    names = [sorted(str(p.relative_to(each)) for p in each.rglob("*") if p.is_file()) for each in (root, other)]
    assert names[0] == names[1]
    for name in names[0]:
        if name.startswith("videos/"):
            first, second = decoded(root / name), decoded(other / name)
            assert first.shape == second.shape
            assert np.abs(first.astype(int) - second).mean() < 1
        else:
            assert (root / name).read_bytes() == (other / name).read_bytes()


def decoded(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("num_clips", [1, 20, 54, 200, 271])
def test_splits_are_balanced(num_clips):
    plans = plan_clips(SyntheticConfig(num_clips=num_clips))
    assert len({plan.clip_id for plan in plans}) == len(plans) == num_clips
    for split, count in (("train", num_clips - num_clips // 5), ("validation", num_clips // 5)):
        chosen = [plan for plan in plans if plan.split == split]
        assert len(chosen) == count
        for labels, names in (("verb", VERBS), ("noun", NOUNS)):
            numbers = Counter(getattr(plan, labels) for plan in chosen)
            assert max(numbers.values(), default=0) - min(numbers[name] for name in names) <= 1
    if num_clips >= 270:
        assert len({(plan.verb, plan.noun) for plan in plans if plan.split == "validation"}) == 54


def test_size_rate_and_container_do_not_tell_the_label():
    plans = plan_clips(SyntheticConfig(num_clips=540))
    for names, key in ((VERBS, "verb"), (NOUNS, "noun")):
        for name in names:
            chosen = [plan for plan in plans if getattr(plan, key) == name]
            assert 0.15 < sum(plan.suffix == ".webm" for plan in chosen) / len(chosen) < 0.55
            assert {plan.fps for plan in chosen} == {12, 15, 20, 24}
            assert 32 < np.mean([plan.num_frames for plan in chosen]) < 40


def test_the_files_decode_to_what_was_drawn(small_set):
    containers = Counter()
    for plan in plan_clips(SMALL):
        with av.open(str(small_set / plan.path)) as container:
            stream = container.streams.video[0]
            containers[stream.codec_context.name] += 1
            assert stream.average_rate == Fraction(plan.fps)
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        drawn = draw_clip(plan, SMALL)
        assert frames.shape == drawn.frames.shape == (plan.num_frames, plan.height, plan.width, 3)
        assert np.abs(frames.astype(int) - drawn.frames).mean() < 8
        assert (
            np.abs(frames[0].astype(int) - drawn.frames[-1]).mean()
            > np.abs(frames[0].astype(int) - drawn.frames[0]).mean()
        )
    assert set(containers) <= {"h264", "vp9", "libvpx-vp9"}
    assert len(containers) == 2


def test_annotations_and_boxes_describe_the_clips(small_set):
    plans = {plan.clip_id: plan for plan in plan_clips(SMALL)}
    with (small_set / "annotations.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["clip_id"] for row in rows] == list(plans)
    boxes = json.loads((small_set / "boxes.json").read_text())
    assert list(boxes) == list(plans)
    for row in rows:
        plan = plans[row["clip_id"]]
        assert (small_set / row["path"]).is_file()
        assert row["clip_id"] == row["path"].rsplit(".", 1)[0]
        assert VERBS[int(row["verb_class"])] == row["verb"] == plan.verb
        assert NOUNS[int(row["noun_class"])] == row["noun"] == plan.noun
        drawn = draw_clip(plan, SMALL)
        frames = boxes[plan.clip_id]
        assert [frame["name"] for frame in frames] == [f"{plan.clip_id}/{i:04d}" for i in range(1, plan.num_frames + 1)]
        for index, frame in enumerate(frames):
            found = {label["gt_annotation"]: label for label in frame["labels"]}
            assert ("object hand" in found) == (drawn.hand_boxes[index][0] >= 0)
            label = found["object 0"]
            assert label["category"] == plan.noun
            assert [label["box2d"][key] for key in ("x1", "y1", "x2", "y2")] == drawn.object_boxes[index].tolist()
        files = sorted((small_set / "masks" / plan.clip_id).iterdir())
        assert [file.name for file in files] == [f"{index:06d}.png" for index in range(plan.num_frames)]
        masks = np.stack([cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files])
        np.testing.assert_array_equal(masks, drawn.masks * np.uint8(255))


def test_workers_do_not_change_the_files(tmp_path):
    config = SyntheticConfig(num_clips=8, seed=1)
    write_dataset(tmp_path / "one", config, num_workers=1)
    write_dataset(tmp_path / "two", config, num_workers=2)
    assert_same_set(tmp_path / "one", tmp_path / "two")


def test_a_complete_set_is_reused(small_set):
    before = {path: path.stat().st_mtime_ns for path in small_set.rglob("*")}
    assert write_dataset(small_set, SMALL).num_drawn == 0
    assert {path: path.stat().st_mtime_ns for path in small_set.rglob("*")} == before


def test_a_killed_run_is_completed_by_the_next(tmp_path, small_set):
    def kill(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "set", SMALL, progress=kill)
    assert not (tmp_path / "set" / "synthetic.json").exists()
    assert write_dataset(tmp_path / "set", SMALL).num_drawn == 2
    assert_same_set(tmp_path / "set", small_set)


def test_a_run_killed_while_publishing_is_completed(tmp_path, small_set, monkeypatch):
    real = set_folder.write_atomically

    def dies(path, content):
        if path.name == set_folder.MARKER:
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(set_folder, "write_atomically", dies)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "set", SMALL)
    monkeypatch.undo()
    assert write_dataset(tmp_path / "set", SMALL).num_drawn == 0
    assert_same_set(tmp_path / "set", small_set)


def test_an_unfinished_set_of_other_parameters_is_started_over(tmp_path, small_set):
    def kill(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "set", SyntheticConfig(num_clips=3, seed=9), progress=kill)
    assert write_dataset(tmp_path / "set", SMALL).num_drawn == 4
    assert_same_set(tmp_path / "set", small_set)


def test_a_folder_with_something_else_is_refused_and_left_alone(tmp_path, small_set):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"new or empty folder, it holds 'thesis.tex'"):
        write_dataset(tmp_path, SMALL)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    with pytest.raises(InputError, match="another generated data set"):
        write_dataset(small_set, SyntheticConfig(num_clips=5, seed=5))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the generated data set"):
        write_dataset(tmp_path / "file", SMALL)


def test_a_foreign_partial_folder_is_refused(tmp_path):
    (tmp_path / "set" / ".partial").mkdir(parents=True)
    (tmp_path / "set" / ".partial" / "precious").write_text("mine")
    with pytest.raises(InputError, match="was not made by this command"):
        write_dataset(tmp_path / "set", SMALL)
    assert (tmp_path / "set" / ".partial" / "precious").exists()


def test_a_set_that_lost_a_file_says_which(tmp_path):
    config = SyntheticConfig(num_clips=1)
    write_dataset(tmp_path / "set", config)
    lost = plan_clips(config)[0].path
    (tmp_path / "set" / lost).unlink()
    with pytest.raises(InputError, match=f"lost 1 of its files, first {lost}"):
        write_dataset(tmp_path / "set", config)


def test_the_command_generates_and_reuses(tmp_path):
    runner = CliRunner()
    arguments = ["-o", str(tmp_path / "set"), "--num-clips", "2", "--no-camera-motion", "--workers", "1"]
    first = runner.invoke(synth.synth, arguments)
    assert first.exit_code == 0, first.output
    assert "2 clips, drew 2" in first.output
    assert json.loads((tmp_path / "set" / "synthetic.json").read_text())["camera_motion"] is False
    assert "already complete" in runner.invoke(synth.synth, arguments).output


def test_the_command_refuses_in_one_line_with_exit_code_2(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(SystemExit) as stop:
        main(["synth", "-o", str(tmp_path), "--num-clips", "1"])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert error[0].startswith("motionbox: error: ")


def test_misuse_is_named():
    with pytest.raises(ValueError, match="num_clips must be at least 1, got 0"):
        SyntheticConfig(num_clips=0)
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        SyntheticConfig(seed=-1)


def test_a_small_set_has_clips_of_one_size_and_a_third_to_test_with():
    plans = plan_clips(SyntheticConfig(num_clips=30, small=True))
    assert {(plan.width, plan.height, plan.num_frames, plan.suffix) for plan in plans} == {(84, 64, 16, ".mp4")}
    assert sum(plan.split == "validation" for plan in plans) == 10
