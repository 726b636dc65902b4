import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionbox.errors import InputError
from motionbox.motion import boxes as bx
from motionbox.scoring.box_metrics import (
    best_constant_box,
    bootstrap,
    boxes_at,
    read_boxes,
    score_clip,
    summarise,
    trivial_boxes,
)

W, H = 100, 50
TRUTH = np.array([[10, 10, 30, 30], [20, 10, 40, 30], bx.NO_BOX, [30, 10, 50, 30]], float)


def test_perfect_boxes_score_perfectly():
    score = score_clip(TRUTH, TRUTH, W, H)
    assert (score.frame_iou, score.iou_over_half, score.coverage, score.clip_iou, score.jitter) == (1, 1, 1, 1, 0)
    assert score.area_share == pytest.approx(400 / 5000)


def test_known_answers():
    predicted = np.array([[10, 10, 30, 20], [0, 0, 100, 50], [0, 0, 1, 1], [30, 20, 50, 40]], float)
    score = score_clip(predicted, TRUTH, W, H)
    assert score.frame_iou == pytest.approx(np.mean([0.5, 400 / 5000, 200 / 600]))
    assert score.iou_over_half == 0
    assert score.coverage == pytest.approx(np.mean([0.5, 1, 0.5]))
    assert score.area_share == pytest.approx(np.mean([200, 5000, 400]) / 5000)
    assert score.clip_iou == pytest.approx(800 / 5000)
    # Only frames 0 and 1 are neighbours with both boxes; centres move by (30, 10), the truth by (10, 0).
    assert score.jitter == pytest.approx(np.hypot(20, 10) / np.hypot(W, H))


def test_a_missing_box_scores_zero():
    predicted = TRUTH.copy()
    predicted[0] = bx.NO_BOX
    assert score_clip(predicted, TRUTH, W, H).frame_iou == pytest.approx(2 / 3)


def test_full_frame_scores_the_truths_share_of_the_frame():
    full = trivial_boxes(TRUTH, W, H)["full frame"]
    score = score_clip(full, TRUTH, W, H)
    assert score.frame_iou == pytest.approx(400 / 5000)
    assert (score.coverage, score.area_share) == (1, 1)


def test_boxes_that_know_the_truth():
    boxes = trivial_boxes(TRUTH, W, H)
    np.testing.assert_array_equal(boxes["true clip box"][0], [10, 10, 50, 30])
    assert score_clip(boxes["true clip box"], TRUTH, W, H).clip_iou == 1
    np.testing.assert_array_equal(boxes["best constant box"][2], [20, 10, 40, 30])


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_best_constant_box_beats_every_other_constant(seed):
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 60, (12, 2))
    truth = np.concatenate([corner, corner + rng.integers(5, 40, (12, 2))], axis=1).astype(float)
    best = bx.iou(best_constant_box(truth), truth).mean()
    others = np.concatenate([truth, bx.union_box(truth)[None], np.median(truth, axis=0)[None]])
    assert best >= bx.iou(others[:, None], truth[None]).mean(axis=1).max() - 1e-12


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [(TRUTH[:2], TRUTH, "must both be"), (TRUTH[2:3], TRUTH[2:3], "at least one frame")],
)
def test_unusable_rows_are_refused(predicted, truth, message):
    with pytest.raises(ValueError, match=message):
        score_clip(predicted, truth, W, H)


def test_bootstrap_interval_covers_the_mean_and_shrinks():
    rng = np.random.default_rng(1)
    few, many = bootstrap(rng.normal(5, 1, 10)), bootstrap(rng.normal(5, 1, 1000))
    assert few.low < few.mean < few.high
    assert many.high - many.low < (few.high - few.low) / 4
    assert many.high - many.low == pytest.approx(2 * 1.96 / np.sqrt(1000), rel=0.15)
    with pytest.raises(ValueError, match="at least one clip"):
        bootstrap([])


def test_summary_is_over_clips():
    scores = [score_clip(TRUTH, TRUTH, W, H), score_clip(trivial_boxes(TRUTH, W, H)["full frame"], TRUTH, W, H)]
    assert summarise(scores)["frame_iou"].mean == pytest.approx((1 + 0.08) / 2)


def something_else_frame(number: int, *boxes: tuple[float, float, float, float]) -> dict:
    labels = [{"box2d": dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)), "category": "hand"} for box in boxes]
    return {"name": f"7/{number:04d}.jpg", "labels": labels}


def test_reads_something_else(tmp_path):
    frames = [
        something_else_frame(3, (1, 2, 3, 4.5), (0, 3, 2, 6)),
        something_else_frame(1),
        something_else_frame(2, (5, 5, 9, 9)),
    ]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"7": frames, "empty": []}))
    clip = read_boxes(path)["7"]
    np.testing.assert_array_equal(clip.numbers, [1, 2, 3])
    np.testing.assert_array_equal(clip.boxes, [bx.NO_BOX, (5, 5, 9, 9), (0, 2, 3, 6)])
    assert read_boxes(path)["empty"].boxes.shape == (0, 4)


def test_reads_the_authors_form(tmp_path):
    label = {"box2d": {"x1": 1, "y1": 2, "x2": 30, "y2": 40}, "gt_annotation": "union", "standard_category": "hand"}
    path = tmp_path / "mofo.json"
    path.write_text(json.dumps({"P01_06_90": [{"labels": [label]}, {"labels": []}]}))
    clip = read_boxes(path)["P01_06_90"]
    np.testing.assert_array_equal(clip.numbers, [1, 2])
    np.testing.assert_array_equal(clip.boxes, [(1, 2, 30, 40), bx.NO_BOX])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("{", "readable JSON"),
        ("[]", "object of clip id"),
        ('{"a": [{"name": "1.jpg"}]}', "clip 'a', frame 1 must hold labels"),
        ('{"a": [{"name": "x.jpg", "labels": []}]}', "clip 'a', frame 1"),
        ('{"a": 3}', "clip 'a'"),
        ('{"video_annotations": []}', "VISOR's videos"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, content, message):
    path = tmp_path / "boxes.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_boxes(path)


def test_boxes_are_looked_up_by_nearest_time():
    boxes = np.arange(12).reshape(3, 4)
    found = boxes_at(np.array([0.0, 1.0, 2.0]), boxes, np.array([-1, 0.5, 0.51, 1.9, 7]))
    np.testing.assert_array_equal(found, boxes[[0, 0, 1, 2, 2]])
    np.testing.assert_array_equal(boxes_at(np.array([0.5]), boxes[:1], np.array([0.0, 3.0])), boxes[[0, 0]])
