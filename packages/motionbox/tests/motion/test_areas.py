import numpy as np
import pytest

from motionbox.config import load_config
from motionbox.motion import boxes as bx
from motionbox.motion.areas import clip_areas
from motionbox.motion.maps import quantise_map

ROWS, COLUMNS, SCALE = 30, 54, 8
WIDTH, HEIGHT = SCALE * COLUMNS, SCALE * ROWS


def run(motion, preset="tuned", fps=12.0):
    config = load_config(preset)
    stored = quantise_map(motion, config.store.map_full_scale)
    return clip_areas(stored, np.arange(len(motion)) / fps, WIDTH, HEIGHT, config)


def noise(num_frames: int, seed: int = 0) -> np.ndarray:
    """Residual motion of a camera that stands: |two normal components|, 0.2 px."""
    rng = np.random.default_rng(seed)
    return np.hypot(*rng.normal(0, 0.2, (2, num_frames, ROWS, COLUMNS))).astype(np.float32)


def moving_block() -> np.ndarray:
    motion = noise(40)
    motion[10:30, 8:16, 20:30] = 8
    return motion


@pytest.mark.parametrize("preset", ["paper", "release", "tuned"])
def test_the_area_is_where_the_motion_is_under_every_preset(preset):
    found = run(moving_block() / (1 if preset == "tuned" else 20), preset)
    assert found.areas.shape == (40, ROWS, COLUMNS)
    assert found.areas.max() == 255
    block = found.areas[15, 8:16, 20:30]
    rest = found.areas[15].copy()
    rest[6:18, 18:32] = 0
    assert (block > 100).mean() > 0.9
    assert rest.max() == 0


def test_frame_boxes_are_the_boxes_of_the_areas():
    found = run(moving_block())
    for area, box in zip(found.areas, found.boxes, strict=True):
        rows, columns = np.nonzero(area.any(axis=1))[0], np.nonzero(area.any(axis=0))[0]
        cells = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert np.abs(box - SCALE * cells).max() < SCALE  # the box may cut its outermost cells


def test_no_motion_has_no_area_and_is_flagged():
    found = run(np.zeros((12, ROWS, COLUMNS), np.float32))
    assert found.areas.max() == 0
    assert (found.source == bx.BoxSource.CENTRE).all()
    assert found.clip_confidence == 0
    np.testing.assert_array_equal(found.boxes, np.tile(bx.centre_half(WIDTH, HEIGHT), (12, 1)))


def test_shapes_that_disagree_are_refused():
    with pytest.raises(ValueError, match="maps must be"):
        clip_areas(np.zeros((3, 4, 4), np.uint8), np.arange(2.0), WIDTH, HEIGHT, load_config("tuned"))
