import itertools

import cv2
import numpy as np
import pytest

from motionbox.synthetic import NOUNS, VERBS, compose, render_clip, scene
from motionbox.synthetic.actions import action_tracks
from motionbox.synthetic.shapes import Canvas, rounded_box


@pytest.fixture(autouse=True)
def _one_thread():
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


def small_clip(verb="push right", noun="mug", seed=0, num_frames=8, **options):
    return render_clip(verb, noun, 96, 72, num_frames, np.random.default_rng(seed), **options)


def test_the_same_seed_gives_the_same_pixels():
    first, again, other = small_clip(seed=3), small_clip(seed=3), small_clip(seed=4)
    np.testing.assert_array_equal(first.frames, again.frames)
    np.testing.assert_array_equal(first.hand_boxes, again.hand_boxes)
    assert (first.frames != other.frames).any()


def test_the_area_of_the_action_grows_with_the_square_of_its_scale():
    clips = {scale: [small_clip(seed=seed, num_frames=4, scale=scale) for seed in range(6)] for scale in (0.5, 1, 1.5)}
    shares = {scale: np.mean([clip.masks.mean() for clip in clips[scale]]) for scale in clips}
    assert 0.5**2 * 0.8 < shares[0.5] / shares[1] < 0.5**2 * 1.7, "its arm is cut off by the frame, large or small"
    assert 1.5**2 * 0.6 < shares[1.5] / shares[1] < 1.5**2 * 1.2
    np.testing.assert_array_equal(small_clip(scale=1.0).frames, small_clip().frames)


@pytest.mark.parametrize("noun", NOUNS)
def test_every_noun_is_drawn_with_boxes_inside_the_frame(noun):
    for index, verb in enumerate(VERBS):
        clip = small_clip(verb, noun, seed=index, num_frames=4)
        assert clip.frames.shape == (4, 72, 96, 3)
        assert clip.frames.std() > 10
        for boxes in (clip.hand_boxes, clip.object_boxes):
            assert boxes.dtype == np.int16
            present = boxes[boxes[:, 0] >= 0]
            assert (boxes[boxes[:, 0] < 0] == -1).all()
            assert (present[:, :2] < present[:, 2:]).all()
            assert (present <= (96, 72, 96, 72)).all()
            assert (present >= 0).all()


@pytest.mark.parametrize(("verb", "axis", "sign"), [("push left", 0, -1), ("push right", 0, 1), ("lift", 1, -1)])
def test_the_object_box_follows_the_verb(verb, axis, sign):
    for seed in range(4):
        boxes = small_clip(verb, "bowl", seed=seed, num_frames=6, camera_motion=False).object_boxes.astype(float)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        assert sign * (centres[-1] - centres[0])[axis] > 4
        assert sign * (centres[-1] - centres[0])[axis] > abs(centres[-1] - centres[0])[1 - axis]


def test_all_change_lies_in_the_masks_when_the_camera_stands_still(monkeypatch):
    """Beyond sensor noise and what sways, colours (shadows have none) change only where hand or object are."""
    monkeypatch.setattr(scene, "_NUM_SWAYING", (0, 1))
    for seed, verb in enumerate(("push left", "lift", "rotate clockwise", "open")):
        clip = render_clip(verb, "box", 160, 120, 8, np.random.default_rng(seed), camera_motion=False)
        inside = cv2.dilate(clip.masks.any(axis=0).astype(np.uint8), np.ones((3, 3))) > 0
        redness = clip.frames[..., 0].astype(float) - clip.frames[..., 1]
        swing = np.ptp(cv2.GaussianBlur(redness.transpose(1, 2, 0), (0, 0), 1.5), axis=2)
        strong = swing > 40
        assert strong.any()
        assert inside[strong].mean() > 0.97


def test_a_still_camera_keeps_the_table_still_and_a_moving_one_does_not():
    still = small_clip("open", seed=2, camera_motion=False).frames[:, :8, :8].astype(float).mean(axis=3)
    moving = small_clip("open", seed=2).frames[:, :8, :8].astype(float).mean(axis=3)
    assert still.std(axis=0).mean() < 6
    assert moving.std(axis=0).mean() > 1.5 * still.std(axis=0).mean()


@pytest.mark.parametrize("verb", ["push left", "put down", "open"])
def test_boxes_are_those_of_the_masks(verb):
    for index, mask in enumerate((clip := small_clip(verb, "pan", seed=5)).masks):
        boxes = np.array([box for box in (clip.hand_boxes[index], clip.object_boxes[index]) if box[0] >= 0])
        rows, columns = np.nonzero(mask)
        union = [*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]
        assert union == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_the_action_is_a_small_part_of_a_training_crop():
    """Of a square crop of 16 frames at stride 2, the areas of the action cover about a quarter in the median."""
    rng, shares = np.random.default_rng(0), []
    for index in range(27):  # a clip of 16 frames holds the same motion as one of 32 seen at stride 2
        masks = small_clip(VERBS[index % 9], NOUNS[index % 6], seed=index, num_frames=16).masks
        for side in (72, 63, 54, 47):
            left, top = rng.integers(96 - side + 1), rng.integers(72 - side + 1)
            shares.append(masks[:, top : top + side, left : left + side].any(axis=0).mean())
    assert 0.15 <= np.median(shares) <= 0.28


def test_what_sways_moves_far_less_than_any_verb():
    """With nobody at the table yet, the picture still stirs; by a pixel or so."""
    for seed in range(5):
        shake = scene._sway(60, 200, np.random.default_rng(seed))
        assert 0.5 < np.abs(shake[:, :2]).max() < 200 * 0.013
        assert 0.02 < np.abs(shake[:, 2]).max() < 0.13
        assert np.ptp(action_tracks("push left", 60, np.random.default_rng(seed)).x) > 0.15


@pytest.mark.parametrize("turn", [0.0, 0.4, 2.0])
def test_the_box_of_a_sprite_is_that_of_its_pixels(turn):
    """Known answer: a red card on black; its box is the extent of the pixels that are at least half red."""
    card = Canvas(-1.2, -0.7, 1.2, 0.7, 20)
    card.fill(rounded_box(card.x, card.y, (-1, -0.5, 1, 0.5), 0.01), (200.0, 0.0, 0.0))
    picture = np.zeros((80, 100, 3), np.float32)
    # Poses count from the centre of the first pixel, so this card covers x 25..65 and y 20..40 of the pixel grid.
    pose = compose.translation(44.5, 29.5) @ compose.rotation(turn) @ compose.scaling(20)
    box = compose.box_of(compose.composite(picture, card.sprite(), pose))
    rows, columns = np.nonzero(picture[..., 0] >= 100)
    assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    if turn == 0:
        assert box == (25, 20, 65, 40)


def test_a_sprite_at_the_edge_is_clipped_and_one_outside_has_no_box():
    card = Canvas(-1, -1, 1, 1, 10)
    card.fill(rounded_box(card.x, card.y, (-1, -1, 1, 1), 0.01), (255.0, 255.0, 255.0))
    picture = np.zeros((50, 50, 3), np.float32)
    half_out = compose.composite(picture, card.sprite(), compose.translation(0, 25) @ compose.scaling(10))
    assert compose.box_of(half_out) == (0, 15, 10, 35)
    outside = compose.composite(picture, card.sprite(), compose.translation(-30, 25) @ compose.scaling(10))
    assert compose.box_of(outside) == (-1, -1, -1, -1)


def test_a_positive_turn_is_clockwise_on_screen():
    up = np.array([0.0, -1.0, 1.0])
    np.testing.assert_allclose(compose.rotation(np.pi / 2) @ up, [1, 0, 1], atol=1e-12)


def test_misuse_is_named():
    with pytest.raises(ValueError, match=r"noun must be one of mug.*got 'whale'"):
        small_clip(noun="whale")
    with pytest.raises(ValueError, match="width and height must be at least 64, got 32 x 72"):
        render_clip("open", "mug", 32, 72, 4, np.random.default_rng(0))


@pytest.mark.slow
def test_pixels_of_one_frame_do_not_tell_the_verb_but_the_motion_of_the_area_does():
    """A forest on a thumbnail of one random frame stays near chance; on flow within the areas it is far above."""
    from sklearn.ensemble import RandomForestClassifier

    stills, motions, verbs = [], [], np.arange(540) % len(VERBS)
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    for index, verb in enumerate(verbs):
        rng = np.random.default_rng([7, index])
        clip = render_clip(VERBS[verb], NOUNS[index % 6], 96, 72, 16, rng)
        stills.append(cv2.resize(clip.frames[rng.integers(16)], (16, 12), interpolation=cv2.INTER_AREA).ravel())
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.frames]
        flows = np.stack([estimator.calc(a, b, None) for a, b in itertools.pairwise(grey)])
        curl = np.gradient(flows[..., 1], axis=2) - np.gradient(flows[..., 0], axis=1)
        divergence = np.gradient(flows[..., 0], axis=2) + np.gradient(flows[..., 1], axis=1)
        fields = np.stack([flows[..., 0], flows[..., 1], curl, divergence])
        fields -= np.median(fields, axis=(2, 3), keepdims=True)  # about what the camera does
        area = clip.masks[:-1]
        steps = (fields * area).sum(axis=(2, 3)) / (area.sum(axis=(1, 2)) + 1)
        motions.append(np.concatenate([steps.sum(axis=1), np.abs(steps).sum(axis=1), np.ptp(steps, axis=1)]))
    scores = []
    for features in (np.stack(stills), np.stack(motions)):
        forest = RandomForestClassifier(300, min_samples_leaf=2, random_state=0, n_jobs=1)
        scores.append(forest.fit(features[:360], verbs[:360]).score(features[360:], verbs[360:]))
    assert scores[0] < 0.2
    assert scores[1] > 0.5
