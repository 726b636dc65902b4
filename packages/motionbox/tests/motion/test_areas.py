import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionbox.config import AreaConfig, load_config
from motionbox.motion import boxes as bx
from motionbox.motion.areas import (
    ClipAreas,
    clip_areas,
    close_up_factor,
    grow_boxes,
    membership,
    membership_boxes,
    nested_levels,
)
from motionbox.motion.evidence import Evidence
from motionbox.motion.maps import quantise_map

CONFIG = load_config("tuned")
ROWS, COLUMNS = 30, 54  # a 432 x 240 video at 1/8
WIDTH, HEIGHT = 8 * COLUMNS, 8 * ROWS
MIRROR = np.array([WIDTH, 0, WIDTH, 0])


def noise(num_frames: int, seed: int = 0) -> np.ndarray:
    """Residual motion of a camera that stands: |two normal components|, 0.2 px."""
    rng = np.random.default_rng(seed)
    return np.hypot(*rng.normal(0, 0.2, (2, num_frames, ROWS, COLUMNS))).astype(np.float32)


def run(motion, *, preset="tuned", fps=12.0, width=WIDTH, height=HEIGHT, **changes) -> ClipAreas:
    config = load_config(preset)
    config = config.model_copy(update={"areas": config.areas.model_copy(update=changes)})
    times = np.arange(len(motion)) / fps
    return clip_areas(quantise_map(motion, config.store.map_full_scale), times, width, height, config)


def moving_block(start: int = 10, stop: int = 20, num_frames: int = 40) -> np.ndarray:
    """8 px per frame step in cells x 20..30, y 8..16 for frames start..stop of a clip."""
    motion = noise(num_frames)
    motion[start:stop, 8:16, 20:30] = 8
    return motion


def random_clip(seed: int) -> np.ndarray:
    """A block of random size that moves on a random line, over noise."""
    rng = np.random.default_rng(seed)
    motion = noise(24, seed)
    height, width = rng.integers(4, 12), rng.integers(4, 16)
    start, stop = (rng.integers(0, (ROWS - height, COLUMNS - width)) for _ in range(2))
    for t, share in enumerate(np.linspace(0, 1, 16), start=4):
        y, x = np.rint(start + share * (stop - start)).astype(int)
        motion[t, y : y + height, x : x + width] = rng.uniform(3, 12)
    return motion


BLOCK_PX = np.array([160, 64, 240, 128])


def test_the_box_is_where_the_motion_is():
    found = run(moving_block())
    larger = np.add(BLOCK_PX, [-8, -8, 8, 8])  # smoothing and the low threshold add up to a cell on each side
    for box in (found.boxes[15], bx.clip_box(found.boxes)):
        np.testing.assert_array_equal(bx.union_box(np.stack([box, BLOCK_PX])), box)
        np.testing.assert_array_equal(bx.union_box(np.stack([box, larger])), larger)


def test_frames_without_motion_inherit_the_nearest_motion():
    motion = noise(100)
    motion[10:30, 8:16, 2:12] = 8
    motion[60:80, 8:16, 40:50] = 8
    found = run(motion)
    first, second = np.array([16, 64, 96, 128]), np.array([320, 64, 400, 128])
    assert bx.iou(found.boxes[[0, 5, 10, 20]], first).min() > 0.6
    assert bx.iou(found.boxes[[70, 79, 85, 99]], second).min() > 0.6
    assert (found.source[[0, 45, 99]] == bx.BoxSource.BORROWED).all()
    assert (found.source[[12, 64]] == bx.BoxSource.OWN).all()


def test_there_is_no_lag():
    """A block that moves to the right: the box's centre is as often ahead of it as behind."""
    motion = noise(40)
    for t in range(40):
        motion[t, 8:16, t : t + 10] = 8
    forward = run(motion).boxes.astype(float)
    backward = run(motion[::-1]).boxes.astype(float)[::-1]
    np.testing.assert_allclose(forward, backward, atol=1)
    centres = (forward[:, 0] + forward[:, 2]) / 2
    np.testing.assert_allclose(centres[8:-8], 8 * (np.arange(40)[8:-8] + 5), atol=6)


@pytest.mark.parametrize("motion", [noise(30) * 0, np.full((30, ROWS, COLUMNS), 0.05, np.float32)])
def test_nothing_moves_gives_the_centre_half_without_confidence(motion):
    found = run(motion)
    np.testing.assert_array_equal(found.boxes, np.tile(bx.centre_half(WIDTH, HEIGHT), (30, 1)))
    assert (found.source == bx.BoxSource.CENTRE).all()
    assert found.confidence.max() == found.clip_confidence == 0


def test_weak_and_rare_regions_are_no_evidence():
    motion = moving_block()
    motion[30:32, 0:3, 50:53] = 4  # a flicker far away
    assert bx.iou(run(motion).boxes, BLOCK_PX).min() > 0.7


def test_a_flash_is_no_evidence_however_strong_and_large():
    motion = moving_block()
    motion[[3, 27, 33], :20, 40:] = 8  # three times as large as what moves, for a frame each
    np.testing.assert_array_equal(run(motion).boxes, run(moving_block()).boxes)
    assert run(motion, persist_seconds=0.0).boxes[[3, 27, 33], 2].min() > 8 * 50
    motion[[4, 5, 28, 29], :20, 40:] = 8  # now it moves on for three frames
    assert run(motion).boxes[[4, 28], 2].min() > 8 * 50


def test_scene_cuts_are_not_smeared():
    motion = noise(40)
    motion[:20, 8:16, 2:12] = 8
    motion[21:, 8:16, 40:50] = 8
    motion[20] = 30  # flow across a cut is large everywhere
    boxes = run(motion).boxes
    assert boxes[:20, 2].max() < 8 * 15
    assert boxes[21:, 0].min() > 8 * 37


def test_confidence_tells_clear_motion_from_noise():
    clear = run(moving_block())
    assert run(noise(40)).clip_confidence < clear.clip_confidence - 0.3


def test_boxes_are_in_display_pixels():
    working = run(moving_block())
    config_width, config_height = 2 * WIDTH, 2 * HEIGHT  # 480 px: shrunk to 256, so maps would have 32 rows
    rows = np.repeat(moving_block(), 2, axis=1)[:, :32]
    assert (working.boxes <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()
    found = run(np.pad(rows, ((0, 0), (0, 0), (0, 4))), width=config_width, height=config_height)
    assert found.boxes[:, 2].max() > WIDTH / 2
    assert (found.boxes <= [config_width, config_height] * 2).all()


def test_a_long_clip_is_handled_minute_by_minute():
    fps = 4.0
    motion = noise(int(180 * fps))
    motion[100:140, 8:16, 2:12] = 8  # in the first minute
    motion[600:640, 8:16, 40:50] = 8  # in the third
    found = run(motion, fps=fps)
    assert found.boxes[:240, 2].max() < 8 * 15
    assert found.boxes[480:, 0].min() > 8 * 37


def test_one_frame_is_enough():
    found = run(moving_block()[15:16])
    assert found.boxes.shape == (1, 4)
    assert bx.has_box(found.boxes).all()


@pytest.mark.parametrize("preset", ["paper", "release", "tuned"])
def test_the_area_is_where_the_motion_is_under_every_preset(preset):
    found = run(moving_block() / (1 if preset == "tuned" else 20), preset=preset)
    assert found.areas.shape == (40, ROWS, COLUMNS)
    assert found.areas.max() == 255
    rest = found.areas[15].copy()
    rest[6:18, 18:32] = 0
    assert found.areas[15, 9:15, 21:29].min() > 120
    assert rest.max() == 0


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_frame_boxes_are_the_boxes_of_the_areas(seed):
    found = run(random_clip(seed))
    for area, box in zip(found.areas, found.boxes, strict=True):
        cells = np.r_[np.floor(box[:2] / 8), np.ceil(box[2:] / 8)].astype(int)
        rows, columns = np.nonzero(area.any(axis=1))[0], np.nonzero(area.any(axis=0))[0]
        margin = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) - cells
        assert (margin * [-1, -1, 1, 1]).min() >= -1  # the area fills its box
        assert (margin * [-1, -1, 1, 1]).max() <= 20  # and fades out around it, far where its edge is unsure
        outside = area.copy()
        outside[cells[1] : cells[3], cells[0] : cells[2]] = 0
        assert outside.max() < 0.6 * area.max()


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_an_area_has_no_holes(seed):
    """Its cells in a row stand side by side; the strongest one, rounded beyond 255, was once a 0."""
    inside = run(random_clip(seed)).areas > 0
    begins = (np.diff(inside, axis=2, prepend=False) & inside).sum(axis=2)
    assert begins.max() == 1


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_a_mirrored_clip_has_mirrored_areas(seed):
    motion = random_clip(seed)
    plain, mirrored = run(motion), run(motion[:, :, ::-1])
    np.testing.assert_allclose(mirrored.areas[:, :, ::-1].astype(int), plain.areas, atol=1)
    np.testing.assert_allclose((MIRROR - mirrored.boxes * [1, -1, 1, -1])[:, [2, 1, 0, 3]], plain.boxes, atol=1)
    np.testing.assert_allclose(mirrored.confidence, plain.confidence, atol=0.01)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_a_clip_played_backwards_has_the_same_areas_backwards(seed):
    motion = random_clip(seed)
    forward, backward = run(motion), run(motion[::-1])
    np.testing.assert_allclose(backward.areas[::-1].astype(int), forward.areas, atol=1)
    np.testing.assert_allclose(backward.boxes[::-1], forward.boxes, atol=1)


@given(st.integers(0, 10_000), st.floats(0.5, 2))
@settings(max_examples=20, deadline=None)
def test_the_unit_of_motion_does_not_count(seed, factor):
    """A faster or slower frame rate scales all motion and its noise alike."""
    motion = random_clip(seed)
    plain, scaled = run(motion), run(motion * np.float32(factor))
    assert bx.iou(scaled.boxes, plain.boxes).mean() > 0.75  # what is stored is rounded to 8 bits


@given(st.integers(0, 10_000), st.sampled_from([0.4, 2.5]))
@settings(max_examples=20, deadline=None)
def test_a_wrong_frame_rate_changes_little_but_for_growth(seed, factor):
    motion, never = random_clip(seed), 1e3
    assert bx.iou(run(motion, fps=12 * factor, close_up=never).boxes, run(motion, close_up=never).boxes).mean() > 0.5


def test_under_another_frame_rate_a_clip_may_be_taken_for_a_close_up():
    """What a wrong rate costs where it costs much: the boxes of one are those of a close-up, grown."""
    motion = random_clip(769)
    taken, plain = run(motion, fps=30.0), run(motion)
    assert bx.iou(taken.boxes, plain.boxes).mean() < 0.3
    np.testing.assert_array_equal(plain.boxes, run(motion, close_up=1e3).boxes)
    assert (bx.area(taken.boxes) > 2 * bx.area(plain.boxes)).all()


def test_no_motion_has_no_area():
    assert run(noise(30) * 0).areas.max() == 0


def test_shapes_that_disagree_are_refused():
    for maps in (np.zeros((3, 4, 4), np.uint8), np.zeros((2, 16), np.uint8)):
        with pytest.raises(ValueError, match="maps must be"):
            clip_areas(maps, np.arange(2.0), WIDTH, HEIGHT, CONFIG)


def test_membership_known_answers():
    evidence = np.zeros((1, 2, 4), np.float32)
    evidence[0] = [[0, 4, 1, 0], [0, 4, 1, 0]]
    plain = AreaConfig(level_weight=1, depth_weight=0, member_bias=0, evidence_power=1)
    levels = np.array([0, 1, 0.5, 0])  # the root of 1/4
    expected = 1 / (1 + 1 / (levels + 0.02))
    np.testing.assert_allclose(membership(evidence, 0, plain)[0], expected)
    np.testing.assert_allclose(membership(evidence, 1, plain)[0], [1.02 / 2.02] * 2)
    depths = np.array([0, 0.4, 0.1, 0])  # middles of .8 and .2 of the evidence
    deep = AreaConfig(level_weight=0, depth_weight=2, member_bias=1, evidence_power=1)
    expected = 1 / (1 + np.exp(-1) / (depths + 0.004) ** 2)
    np.testing.assert_allclose(membership(evidence, 0, deep)[0], expected)
    squared = plain.model_copy(update={"evidence_power": 2.0})
    np.testing.assert_allclose(membership(evidence, 0, squared), membership(evidence**2, 0, plain))


def test_nested_levels_fill_what_lies_between():
    np.testing.assert_array_equal(nested_levels(np.array([[0.0, 3, 0, 5, 1, 2, 0]])), [[0, 3, 3, 5, 2, 2, 0]])


def test_membership_boxes_known_answers():
    columns = np.array([[0.0, 0.4, 0.8, 0.8, 0.2], [0.9, 0.6, 0.1, 0.1, 0.1]])
    rows = np.array([[0.1, 0.2, 0.1], [0.1, 0.9, 0.9]])
    found = membership_boxes(columns, rows, (5.0, 2.5))
    # .5 lies a quarter of the way from .4 to .8, half of the way from .8 to .2, a fifth of the way from .6 to .1.
    np.testing.assert_allclose(found[0, [0, 2]], [1.75, 4.0])
    np.testing.assert_allclose(found[1, [0, 2]], [0, 1.7])
    np.testing.assert_allclose(found[0, [1, 3]], [0.5 + 0.8, 1.5 + 0.2])  # none reaches .5: nine tenths of .2
    np.testing.assert_allclose(found[1, [1, 3]], [1.0, 2.5])  # the last row is cut by the frame's border


def close_up_clip() -> Evidence:
    """A square of 16 cells with one side on the border, which acts in one frame of three and moves in all."""
    strength = np.zeros((3, 10, 20), np.float32)
    strength[1, 6:10, 4:8] = 1
    return Evidence(strength, strength, strength, np.full(3, 0.08), 10.0, np.ones(3))


def test_close_up_factor_known_answers():
    evidence, cells = close_up_clip(), (20.0, 10.0)
    boxes = np.tile([2.0, 4, 10, 8], (3, 1))  # 0.16 of the frame, twice what moves
    sensitive = AreaConfig(close_up=0.1, close_up_unit=0.25)
    assert close_up_factor(evidence, boxes, cells, sensitive) == pytest.approx((0.5 / 0.25) ** 2)
    assert close_up_factor(evidence, boxes, cells, AreaConfig(close_up=0.6)) == 1
    assert close_up_factor(evidence, boxes, cells, sensitive.model_copy(update={"close_up_acting": 0.3})) == 1
    evidence.strength[1] = np.roll(evidence.strength[1], -2, axis=0)  # whole in view
    assert close_up_factor(evidence, boxes, cells, sensitive) == 1


def test_grow_boxes_known_answers():
    boxes = np.array([[5.0, 5, 15, 15], [0, 0, 20, 18]])
    found = grow_boxes(boxes, 2.25, 0.8, (20.0, 20.0))
    np.testing.assert_allclose(found[0], [2.5, 2.5, 17.5, 17.5])
    np.testing.assert_allclose(found[1], boxes[1])  # larger than the limit already
    np.testing.assert_allclose(bx.area(grow_boxes(boxes[:1], 9.0, 0.8, (20.0, 20.0))), 0.8 * 400)


def test_areas_of_close_ups_are_stretched_with_their_boxes():
    motion = noise(40)
    motion[:, 14:, 14:40] = 2  # cut off by the lower border, always in motion
    motion[::4, 14:, 14:40] = 8  # and acting now and then
    close, plain = run(motion, persist_seconds=0.0), run(motion, persist_seconds=0.0, close_up=1e3)
    growth = bx.area(close.boxes) / bx.area(plain.boxes)
    assert growth.min() > 1.2
    assert (bx.area(bx.intersection(close.boxes, plain.boxes)) == bx.area(plain.boxes)).all()
    assert (close.areas > 0).sum() > 1.2 * (plain.areas > 0).sum()
