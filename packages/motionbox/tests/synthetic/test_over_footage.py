"""Things over real footage: the footage is a still picture seen by a camera whose path is known."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from motionbox.cli import main
from motionbox.commands import synth
from motionbox.errors import InputError
from motionbox.scoring.box_metrics import load_json, parse_clips
from motionbox.synthetic.over_footage import backdrops as footage_module
from motionbox.synthetic.over_footage.backdrops import (
    Look,
    camera_path,
    camera_step,
    find_backdrops,
    measure_look,
    read_backdrop,
    to_and_fro,
)
from motionbox.synthetic.over_footage.cutouts import draw_thing
from motionbox.synthetic.over_footage.overlay import overlay
from motionbox.synthetic.over_footage.writer import FootageConfig, plan_footage, write_footage_set
from motionbox.video.encode import encode_video

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def still(seed=0, side=420):
    """A textured picture: noise of many sizes, (side, side, 3) uint8."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.uniform(0, 1, (side // cell, side // cell, 3)).astype(np.float32), (side, side), interpolation=2)
        for cell in (4, 12, 40)
    ]
    return np.clip(sum(layers) / 3 * 255, 0, 255).astype(np.uint8)


def pan(picture, num_frames=30, step=(1.5, 0.5), size=(200, 160)):
    """Move a window of (width, height) over the picture: the camera takes pixels by minus `step` per frame."""
    frames = []
    for index in range(num_frames):
        matrix = np.array([[1, 0, -20 - step[0] * index], [0, 1, -20 - step[1] * index]], np.float64)
        frames.append(cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_CUBIC))
    return np.stack(frames)


def mover(frames, side=60, speed=4):
    """Let a square of other texture run through the left of the frames."""
    frames, square = frames.copy(), still(9)[:side, :side]
    for index, frame in enumerate(frames):
        top = (speed * index) % (frame.shape[0] - side)
        frame[top : top + side, 5 : 5 + side] = square
    return frames


@pytest.fixture(scope="module")
def footage(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("footage")
    options = {"crf": "16", "preset": "veryfast"}
    encode_video(str(root / "pan.mp4"), pan(still(1)), 25, options=options)
    encode_video(str(root / "still.mp4"), pan(still(2), step=(0, 0)), 25, options=options)
    encode_video(str(root / "short.mp4"), pan(still(3), num_frames=6), 25, options=options)
    (root / "broken.mp4").write_bytes(b"no video")
    return root


def test_the_camera_of_a_pan_is_found():
    path = camera_path(pan(still(), num_frames=20, step=(1.5, -0.75)))
    expected = np.stack([-1.5 * np.arange(20), 0.75 * np.arange(20)], axis=1)
    np.testing.assert_allclose(path[:, :2, 2] + path[:, :2, :2] @ [100, 80] - [100, 80], expected, atol=0.4)


def test_a_still_camera_is_exactly_still_and_a_cut_is_no_motion():
    one, two = (cv2.cvtColor(pan(still(seed), 1)[0], cv2.COLOR_RGB2GRAY) for seed in (1, 2))
    noise = np.random.default_rng(0).normal(0, 1.5, one.shape)
    noisy = np.clip(one + noise, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(camera_step(one, noisy), np.eye(3))
    assert camera_step(one, two) is None


@pytest.mark.parametrize("blur", [0.6, 1.0, 1.6])
def test_sharpness_of_a_blurred_edge_is_measured(blur):
    step = np.full((120, 160), 60, np.float32)
    step[:, 70:] = 190
    soft = cv2.GaussianBlur(step, (0, 0), blur)
    assert measure_look(np.repeat(np.uint8(np.rint(soft))[..., None], 3, axis=2)).blur_px == pytest.approx(
        blur, abs=0.35
    )


@pytest.mark.parametrize("sigma", [1.0, 4.0])
def test_noise_is_measured(sigma):
    flat = 120 + np.random.default_rng(0).normal(0, sigma, (160, 200))
    look = measure_look(np.repeat(np.uint8(np.clip(np.rint(flat), 0, 255))[..., None], 3, axis=2))
    assert look.noise == pytest.approx(sigma, rel=0.15)
    assert look.brightness == pytest.approx(120, abs=1)


def test_to_and_fro_never_jumps_and_repeats_no_turning_frame():
    indices = to_and_fro(5, 14, first=3)
    assert indices.tolist() == [3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1, 0]


def test_backdrops_keep_clear_of_what_moves_by_itself(tmp_path):
    encode_video(str(tmp_path / "a.mp4"), mover(pan(still(), 30, (1, 0), (320, 240))), 25, options={"crf": "16"})
    backdrops = find_backdrops(tmp_path, "a.mp4")
    assert backdrops
    for backdrop in backdrops:
        assert backdrop.window[0] * 320 >= 55, "the mover is in the picture"
        assert backdrop.own_motion < 0.05
        assert backdrop.camera_px == pytest.approx(1 * 192 / 240, abs=0.25)


def test_no_backdrop_in_black_in_motion_everywhere_or_across_a_cut(tmp_path):
    videos = {
        "black.mp4": np.zeros((30, 160, 200, 3), np.uint8),
        "wild.mp4": np.stack([still(seed)[:160, :200] for seed in range(30)]),
        "cut.mp4": np.concatenate([pan(still(1), 8), pan(still(2), 26)]),
    }
    for name, frames in videos.items():
        encode_video(str(tmp_path / name), frames, 25, options={"crf": "16"})
    assert find_backdrops(tmp_path, "black.mp4") == []
    assert find_backdrops(tmp_path, "wild.mp4") == []
    assert {backdrop.start for backdrop in find_backdrops(tmp_path, "cut.mp4")} == {8}


def test_a_backdrop_is_read_as_it_was_found(footage):
    backdrop = replace(find_backdrops(footage, "pan.mp4")[0], start=4, num_frames=9, window=(0.25, 0.0, 0.75, 1.0))
    frames = read_backdrop(footage, backdrop)
    assert frames.shape == (9, 160, 100, 3)
    expected = pan(still(1))[4:13, :, 50:150]
    assert np.abs(frames.astype(int) - expected).mean() < 6
    with pytest.raises(InputError, match="has become shorter"):
        read_backdrop(footage, replace(backdrop, num_frames=900))


def draw(seed, num_frames=40, step=(1.0, 0.5)):
    frames = pan(still(4), num_frames, step, (240, 180))
    camera = np.tile(np.eye(3), (num_frames, 1, 1))
    camera[:, 0, 2], camera[:, 1, 2] = -step[0] * np.arange(num_frames), -step[1] * np.arange(num_frames)
    return frames, camera, overlay(frames, camera, Look(0.6, 1.5, 120.0), 25, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(4))
def test_what_is_masked_is_what_was_drawn(seed):
    frames, _, clip = draw(seed)
    assert clip.frames.shape == frames.shape
    assert clip.masks.any(axis=(1, 2)).mean() > 0.6
    changed = np.abs(clip.frames.astype(int) - frames).max(axis=3) > 0
    assert changed[clip.masks].mean() > 0.95
    untouched = ~changed
    assert untouched.mean() > 0.3, "most of the footage is left alone"
    assert not (clip.masks & untouched).sum() > 0.05 * clip.masks.sum()


@pytest.mark.parametrize("seed", range(4))
def test_boxes_hold_the_masks_and_no_more(seed):
    _, _, clip = draw(seed)
    for index, mask in enumerate(clip.masks):
        boxes = np.array([boxes[index] for boxes in clip.boxes if boxes[index][0] >= 0])
        assert mask.any() == bool(len(boxes))
        if len(boxes):
            rows, columns = np.nonzero(mask)
            union = [*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]
            assert union == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_things_at_rest_follow_the_camera_and_others_do_not():
    """While nothing acts, each mask is the one before, moved by the camera; while something acts, mostly it is not."""
    resting, acting = [], []
    for seed in range(8):
        _, _, clip = draw(seed, step=(2.0, 0.0))
        if clip.action == "carry":
            continue
        for index in range(1, 40):
            before, after = clip.masks[index - 1], clip.masks[index]
            inside = before[:, 2:].any() and not before[:, :6].any() and not before[:, -6:].any()
            if not inside:
                continue
            moved = np.roll(before, -2, axis=1)
            iou = (moved & after).sum() / (moved | after).sum()
            (acting if clip.moves[index] and clip.moves[index - 1] else resting).append(iou)
    assert np.median(resting) > 0.995
    assert np.median(acting) < 0.97


def test_a_set_is_written_read_and_the_same_again(tmp_path, footage):
    config = FootageConfig(footage, num_clips=3, seed=5)
    made = write_footage_set(tmp_path / "a", config)
    assert (made.num_clips, made.num_drawn, made.num_videos) == (3, 3, 2)
    assert [line.split(":")[0] for line in made.passed_over] == ["broken.mp4", "short.mp4"]
    rows = list(csv.DictReader((tmp_path / "a" / "annotations.csv").open()))
    clips = parse_clips(load_json(tmp_path / "a" / "boxes.json"), Path("boxes.json"))
    for row in rows:
        files = sorted((tmp_path / "a" / "masks" / row["clip_id"]).iterdir())
        assert len(files) == int(row["num_frames"])
        assert files[0].name == "000000.png"
        masks = np.stack([cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files])
        assert set(np.unique(masks)) <= {0, 255}
        assert masks.shape[1:] == (int(row["height"]), int(row["width"]))
        assert (masks > 0).mean() == pytest.approx(float(row["mask_share"]), abs=1e-4)
        true = clips[row["clip_id"]]
        seen = true.boxes[:, 0] >= 0
        np.testing.assert_array_equal(seen, masks.any(axis=(1, 2)))
    assert write_footage_set(tmp_path / "a", config).num_drawn == 0
    killed = 0

    def kill(doing, done, total):
        nonlocal killed
        killed += doing == "Drawing clips"
        if killed == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_footage_set(tmp_path / "b", config, progress=kill)
    assert write_footage_set(tmp_path / "b", config).num_drawn == 1
    for name in ("annotations.csv", "boxes.json", "synthetic.json", "masks/00001/000010.png", "masks/00002/000030.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_splits_are_by_video():
    backdrop = footage_module.Backdrop("x", 0, 30, 25.0, 1, (0.0, 0.0, 1.0, 1.0), 0.0, 0.0)
    backdrops = [[replace(backdrop, path=name)] for name in "abcdefg"]
    plans = plan_footage(FootageConfig(Path(), 40), backdrops)
    by_video = {
        plan.backdrop.path: {other.split for other in plans if other.backdrop.path == plan.backdrop.path}
        for plan in plans
    }
    assert all(len(splits) == 1 for splits in by_video.values())
    assert {split for splits in by_video.values() for split in splits} == {"train", "validation"}


def test_things_are_one_unit_long():
    for seed in range(12):
        thing = draw_thing(60, np.random.default_rng(seed))
        height, width = thing.sprite.rgba.shape[:2]
        assert max(height, width) == thing.sprite.px_per_unit
        assert thing.sprite.rgba[..., 3].max() > 0.9
        assert (thing.sprite.rgba[..., :3] <= 255.5 * np.maximum(thing.sprite.rgba[..., 3:], 1e-3)).all(), thing.name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "footage must be a folder of videos"),
        (lambda root: root.mkdir(), "holds no video"),
        (lambda root: (root.mkdir(), (root / "a.mp4").write_bytes(b"x")), "no video to lay things over: a.mp4"),
        (
            lambda root: (root.mkdir(), encode_video(str(root / "tiny.mp4"), pan(still(), 30, (1, 0), (80, 64)), 25)),
            "no video to lay things over: tiny.mp4: too short, smaller than 120 px or full of things that move",
        ),
    ],
)
def test_bad_footage_is_one_line(tmp_path, capsys, make, message):
    make(tmp_path / "footage")
    with pytest.raises(SystemExit) as stopped:
        main(["synth", "--footage", str(tmp_path / "footage"), "-o", str(tmp_path / "out"), "--workers", "1"])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_the_command_says_what_it_did(tmp_path, footage):
    arguments = ["--footage", str(footage), "-o", str(tmp_path / "out"), "--num-clips", "1", "--workers", "1"]
    result = CliRunner().invoke(synth.synth, arguments)
    assert result.exit_code == 0, result.output
    assert "1 clips, drew 1" in result.output
    assert "short.mp4: too short" in result.output
    assert json.loads((tmp_path / "out" / "synthetic.json").read_text())["num_videos"] == 2
    refused = CliRunner().invoke(synth.synth, [*arguments, "--no-camera-motion"])
    assert refused.exit_code == 2
    assert "whose camera moves as it does" in refused.output
