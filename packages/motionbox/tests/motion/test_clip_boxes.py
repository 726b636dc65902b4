import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionbox.config import EvidenceConfig, load_config
from motionbox.motion import boxes as bx
from motionbox.motion.clip_boxes import accumulate, clip_boxes, closeness, evidence_boxes, lasting_motion, sustained
from motionbox.motion.maps import quantise_map

CONFIG = load_config("tuned")
SETTINGS = CONFIG.boxes.evidence
FULL_SCALE = CONFIG.store.map_full_scale
ROWS, COLUMNS = 30, 54  # a 432 x 240 video at 1/8
WIDTH, HEIGHT = 8 * COLUMNS, 8 * ROWS


def noise(num_frames: int, seed: int = 0) -> np.ndarray:
    """Residual motion of a camera that stands: |two normal components|, 0.2 px."""
    rng = np.random.default_rng(seed)
    return np.hypot(*rng.normal(0, 0.2, (2, num_frames, ROWS, COLUMNS))).astype(np.float32)


def run(motion, *, fps=12.0, width=WIDTH, height=HEIGHT, **changes) -> bx.StabilisedBoxes:
    evidence = SETTINGS.model_copy(update=changes)
    config = CONFIG.model_copy(update={"boxes": CONFIG.boxes.model_copy(update={"evidence": evidence})})
    raw = np.full((len(motion), 4), -1, np.int16)
    times = np.arange(len(motion)) / fps
    return clip_boxes(raw, quantise_map(motion, FULL_SCALE), times, width, height, config)


def moving_block(start: int = 10, stop: int = 20, num_frames: int = 40) -> np.ndarray:
    """8 px per frame step in cells x 20..30, y 8..16 for frames start..stop of a clip."""
    motion = noise(num_frames)
    motion[start:stop, 8:16, 20:30] = 8
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


def test_lasting_motion_known_answers():
    motion = np.zeros((5, 5, 12), np.float32)
    motion[:, 2, [2, 4, 6, 8, 10]] = np.diag([5.0, 4, 3, 2, 1])  # two cells further with every frame
    motion[2, 0, 0] = 9  # a flash
    times, no_cut = np.arange(5) / 12, np.zeros(5, bool)

    found = lasting_motion(motion, times, no_cut, 0.05, 2)
    assert found[2, 0, 0] == 0
    np.testing.assert_array_equal(found[range(5), 2, [2, 4, 6, 8, 10]], [4, 3, 2, 1, 1])
    assert not lasting_motion(motion, times, no_cut, 0.05, 1)[1:4].any()  # out of reach
    assert not lasting_motion(motion, times, no_cut, 0.1, 2)[2:3].any()  # two frames further it is out of reach, too
    np.testing.assert_array_equal(lasting_motion(motion, times, no_cut, 0.0, 2), motion)


def test_lasting_motion_looks_at_distinct_moments_of_one_scene():
    motion = np.zeros((6, 1, 1), np.float32)
    motion[2:4] = 7  # the same frame twice, as in 30 fps footage stored at 60
    no_cut = np.zeros(6, bool)
    assert not lasting_motion(motion, np.arange(6) / 60, no_cut, 0.05, 1).any()
    # Nothing in sight on one side: at the ends of the clip, at a cut, and where frames are sparse.
    motion[:] = np.array([3, 2, 9, 4, 5, 1], np.float32)[:, None, None]
    times = np.arange(6) / 12
    np.testing.assert_array_equal(lasting_motion(motion, times, no_cut, 0.05, 0)[:, 0, 0], [2, 2, 2, 4, 1, 1])
    cut = np.arange(6) == 2
    found = lasting_motion(motion, times, cut, 0.05, 0)[:, 0, 0]
    np.testing.assert_array_equal(found[[0, 1, 3, 4, 5]], [2, 2, 4, 1, 1])
    np.testing.assert_array_equal(lasting_motion(motion, np.arange(6) / 2, no_cut, 0.05, 0), motion)


def test_a_flash_is_no_evidence_however_strong_and_large():
    motion = moving_block()
    motion[[3, 27, 33], :20, 40:] = 8  # three times as large as what moves, for a frame each
    np.testing.assert_array_equal(run(motion).boxes, run(moving_block()).boxes)
    assert run(motion, persist_seconds=0.0).boxes[[3, 27, 33], 2].min() > 8 * 50
    motion[[4, 5, 28, 29], :20, 40:] = 8  # now it moves on for three frames
    assert run(motion).boxes[[4, 28], 2].min() > 8 * 50


def test_closeness_known_answers():
    strength = np.zeros((2, 10, 20), np.float32)
    strength[:, 6:10, 4:8] = 1  # a square of 16 cells with one side on the lower border: 4 / sqrt(16)
    coverage, area, weights = np.full(2, 0.08), np.full(2, 0.16), np.ones(2)
    assert closeness(strength, coverage, area, weights) == pytest.approx(0.5 * 1)
    strength[:, 6:10, 4:8], strength[:, 6:10, 16:20] = 0, 1  # the corner: two sides
    assert closeness(strength, coverage, area, weights) == pytest.approx(0.5 * 2)
    resting = np.array([0.08, 0.0])
    strength[1] = 0  # half of the coverage, for half of the time
    assert closeness(strength, resting, area, weights) == pytest.approx(0.5 * 2 / 4)
    strength[:] = 0
    strength[:, 3:7, 8:12] = 1
    assert closeness(strength, coverage, area, weights) == 0


def test_boxes_of_close_ups_grow_and_others_do_not():
    motion = noise(40)
    motion[:, 12:, 14:40] = 8  # large, constant, cut off by the lower border
    close, plain = run(motion).boxes, run(motion, close_up=1e3).boxes
    growth = bx.area(close) / bx.area(plain)
    assert growth.min() > 1.2
    assert bx.area(close).max() <= 0.81 * WIDTH * HEIGHT
    assert bx.area(run(motion, close_up_area=1.0, close_up=0.1).boxes).min() > 0.95 * WIDTH * HEIGHT
    assert (bx.area(bx.intersection(close, plain)) == bx.area(plain)).all()
    inside = moving_block(0, 40)  # as constant, but whole in view
    np.testing.assert_array_equal(run(inside).boxes, run(inside, close_up=1e3).boxes)


def test_scene_cuts_are_not_smeared():
    motion = noise(40)
    motion[:20, 8:16, 2:12] = 8
    motion[21:, 8:16, 40:50] = 8
    motion[20] = 30  # flow across a cut is large everywhere
    boxes = run(motion).boxes
    assert boxes[:20, 2].max() < 8 * 15
    assert boxes[21:, 0].min() > 8 * 37


def test_confidence_tells_clear_motion_from_noise_and_from_motion_everywhere():
    clear = run(moving_block())
    assert clear.clip_confidence > 0.6
    assert clear.confidence[15] > 0.7
    assert run(noise(40)).clip_confidence < 0.2
    everywhere = noise(40)
    everywhere[:, :, 4:50] = 8
    everywhere[:, ::2] = 0
    assert run(everywhere).clip_confidence < 0.3


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


@pytest.mark.parametrize("maps", [None, np.zeros((3, 4, 4), np.uint8), np.zeros((2, 16), np.uint8)])
def test_maps_that_disagree_are_refused(maps):
    with pytest.raises(ValueError, match="maps must be"):
        clip_boxes(np.full((2, 4), -1), maps, np.arange(2.0), WIDTH, HEIGHT, CONFIG)


def test_other_presets_stabilise_raw_boxes():
    config = load_config("paper")
    raw = np.array([[10, 10, 90, 90], bx.NO_BOX], np.int16)
    times = np.array([0.0, 1.0])
    confidence = np.array([0.8, 0.0], np.float32)
    found = clip_boxes(raw, None, times, WIDTH, HEIGHT, config, confidence)
    np.testing.assert_array_equal(found.boxes, bx.stabilise(raw, times, WIDTH, HEIGHT, config.boxes).boxes)
    np.testing.assert_allclose(found.confidence, [0.8, 0.4])


def test_evidence_boxes_known_answers():
    evidence = np.zeros((2, 6, 10), np.float32)
    evidence[0, 2:4, 3:8] = 1
    evidence[1, 0, 0] = 3
    cells = (10.0, 6.0)
    np.testing.assert_allclose(evidence_boxes(evidence, 0.0, cells), [[3, 2, 8, 4], [0, 0, 1, 1]], atol=1e-6)
    np.testing.assert_allclose(evidence_boxes(evidence, 0.1, cells), [[3.5, 2.2, 7.5, 3.8], [0.1, 0.1, 0.9, 0.9]])


@given(st.integers(0, 1000), st.floats(0, 0.4))
@settings(max_examples=30)
def test_evidence_boxes_leave_out_the_share_on_each_side(seed, trim):
    evidence = np.random.default_rng(seed).exponential(size=(1, 7, 9)).astype(np.float32)
    x1, _, x2, _ = evidence_boxes(evidence, trim, (9.0, 7.0))[0]
    mass = np.append(0, np.cumsum(evidence[0].sum(axis=0, dtype=float)))
    shares = np.interp([x1, x2], np.arange(10), mass / mass[-1])
    np.testing.assert_allclose(shares, [trim, 1 - trim], atol=1e-6)


def test_accumulate_is_a_kernel_on_the_clock_of_motion():
    strength = np.zeros((6, 1, 2), np.float32)
    strength[1, 0, 0] = strength[4, 0, 1] = 1
    weights = np.full(6, 0.1)
    settings_ = EvidenceConfig(memory_seconds=0.1, sustained_seconds=0.1)
    found = accumulate(strength, weights, np.zeros(6, bool), settings_)[:, 0] / 0.1
    # Rest does not age the evidence; half of the motion of a frame lies before its middle and half behind it.
    half, full = np.exp(-0.5), np.exp(-1)
    np.testing.assert_allclose(found[:, 0], [half, 1, half, half, full, full * half], rtol=1e-5)
    np.testing.assert_allclose(found[:, 1], found[::-1, 0], rtol=1e-5)
    cut = np.arange(6) == 2
    behind = accumulate(strength, weights, cut, settings_)[:, 0] / 0.1
    np.testing.assert_allclose(behind[3:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(behind[:3, 0], found[:3, 0], rtol=1e-5)


def test_sustained_is_the_level_reached_for_long_enough():
    values = np.array([1.0, 9, 5, 7, 3])
    settings_ = EvidenceConfig(sustained_seconds=0.25)
    assert sustained(values, np.full(5, 0.1), settings_) == 5
    assert sustained(values, np.full(5, 0.25), settings_) == 9
    assert sustained(values, np.full(5, 0.01), settings_) == 1
