import json

import numpy as np
import pytest

from motionbox.errors import InputError
from motionbox.flow import create_flow_estimator
from motionbox.scoring.box_bench import ABLATION, ablation_configs, find_clips, preset_configs, run_bench
from motionbox.synthetic import SyntheticConfig, write_dataset

DIS = {"flow.method": "dis"}


@pytest.fixture(scope="module")
def square_root(tmp_path_factory):
    """A frame folder: a textured square (half of the frame's height) moves to the right over a textured background."""
    import cv2

    root = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    background = cv2.GaussianBlur(rng.integers(0, 255, (96, 160)).astype(np.uint8), (0, 0), 2)
    square = cv2.GaussianBlur(rng.integers(0, 255, (48, 48)).astype(np.uint8), (0, 0), 2)
    (root / "square").mkdir()
    frames = []
    for t in range(16):
        image = background.copy()
        image[24:72, 20 + 4 * t : 68 + 4 * t] = square
        cv2.imwrite(str(root / "square" / f"{t + 1:04d}.png"), image)
        box = {"x1": 20 + 4 * t, "y1": 24, "x2": 68 + 4 * t, "y2": 72}
        frames.append({"name": f"square/{t + 1:04d}.jpg", "labels": [{"box2d": box}]})
    (root / "boxes.json").write_text(json.dumps({"square": frames}))
    return root


def test_tuned_finds_a_moving_square_and_flow_is_computed_once(square_root):
    clips = find_clips(square_root, square_root / "boxes.json")
    assert (clips[0].truth.clip_id, clips[0].frame_fps) == ("square", 12.0)
    configs = preset_configs(["tuned"], {**DIS, "areas.close_up": 1e3})
    configs["again"] = configs["tuned"]
    estimator = create_flow_estimator(configs["tuned"].flow)
    calls = []

    def counting(frame0, frame1, *, initial=None):
        calls.append(1)
        return estimator(frame0, frame1, initial=initial)

    rows = {row.name: row for row in run_bench(clips, configs, lambda _: counting)}
    assert len(calls) == 15
    assert rows["tuned"].scores[0].frame_iou > 0.5
    assert rows["tuned"].scores == rows["again"].scores
    assert rows["tuned"].scores[0].coverage > 0.99  # cells of 8 px on 96 rows: the box is a cell larger on each side
    assert rows["full frame"].scores[0].frame_iou == pytest.approx(48 * 48 / (96 * 160))


def test_each_preset_gets_the_flow_of_its_own_config(square_root):
    clips = find_clips(square_root, square_root / "boxes.json")
    asked = []

    def make(flow):
        asked.append(flow.tvl1.variant)
        return create_flow_estimator(flow.model_copy(update={"method": "dis"}))

    run_bench(clips, preset_configs(["paper", "release", "tuned"], {}), make)
    assert sorted(asked) == ["opencv-cpu", "opencv-cuda"]


def test_every_step_of_the_ablation_changes_the_config():
    digests = {name: config.digest() for name, config in ablation_configs(DIS).items()}
    assert list(digests) == list(ABLATION)
    assert len(set(digests.values())) == len(ABLATION)


def test_generated_clips_are_annotated(tmp_path):
    write_dataset(tmp_path / "set", SyntheticConfig(2, 5, camera_motion=False))
    clips = find_clips(tmp_path / "set", tmp_path / "set" / "boxes.json")
    assert len(clips) == 2
    assert all(clip.path.is_file() and len(clip.truth.boxes) > 10 for clip in clips)


def test_missing_input_is_named(tmp_path, square_root):
    with pytest.raises(InputError, match="is not a folder"):
        find_clips(tmp_path / "nowhere", tmp_path / "boxes.json")
    (tmp_path / "boxes.json").write_text('{"gone": [{"labels": [{"box2d": {"x1": 0, "y1": 0, "x2": 1, "y2": 1}}]}]}')
    with pytest.raises(InputError, match="'gone'"):
        find_clips(square_root, tmp_path / "boxes.json")
    (tmp_path / "boxes.json").write_text('{"square": [{"labels": []}]}')
    with pytest.raises(InputError, match="at least one box"):
        find_clips(square_root, tmp_path / "boxes.json")


def test_tuned_beats_the_other_presets_on_real_clips(testdata):
    root = testdata / "ssv2" / "boxes_dev"
    configs = preset_configs(["paper", "release", "tuned"], DIS)
    rows = run_bench(find_clips(root / "frames", root / "annotations.json"), configs)
    scores = {row.name: row.summary() for row in rows}
    assert scores["tuned"]["frame_iou"].mean > scores["full frame"]["frame_iou"].mean
    assert scores["tuned"]["clip_iou"].mean > 0.7
    assert scores["tuned"]["frame_iou"].mean > 2 * scores["release"]["frame_iou"].mean
