import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motionbox.pictures import draw


@pytest.fixture
def black():
    return np.zeros((80, 120, 3), np.uint8)


def test_flow_colours_are_those_of_torchvision():
    """A peer that implements the same colour wheel; it scales by the longest flow of the picture."""
    torch = pytest.importorskip("torch")
    flow_to_image = pytest.importorskip("torchvision.utils").flow_to_image
    flow = np.random.default_rng(0).normal(0, 3, (40, 50, 2)).astype(np.float32)
    longest = float(np.linalg.norm(flow, axis=2).max())
    theirs = flow_to_image(torch.from_numpy(flow).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    ours = draw.flow_to_colour(flow, longest)
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_flow_colours_by_hand():
    flow = np.array([[[0, 0], [2, 0], [-2, 0], [1, 0], [8, 0]]], np.float32)
    colours = draw.flow_to_colour(flow, 2.0)[0]
    assert colours[0].tolist() == [255, 255, 255], "no motion is white"
    assert colours[1].tolist() == [255, 0, 0], "to the right is red"
    assert colours[2][2] > 200, "to the left is blue"
    assert colours[2][0] < 30
    assert colours[3].tolist() == [255, 127, 127], "half as fast is half as saturated"
    assert colours[4].tolist() == [191, 0, 0], "beyond the scale is darkened"
    with pytest.raises(ValueError, match="max_px must be positive, got 0"):
        draw.flow_to_colour(flow, 0)


@given(st.floats(1e-6, 1e6))
def test_a_nice_scale_is_not_far_above_the_value(value):
    scale = draw.nice_scale(value)
    assert value <= scale * (1 + 1e-9)
    assert scale <= 2.5 * value * (1 + 1e-9)
    assert round(scale / 10 ** np.floor(np.log10(scale) + 1e-9)) in (1, 2, 5)


def test_a_nice_scale_of_nothing_is_one():
    assert draw.nice_scale(0) == draw.nice_scale(float("nan")) == draw.nice_scale(-1) == 1


def test_a_box_is_drawn_on_its_own_first_and_last_pixels(black):
    picture = draw.overlay(black, (10, 20, 40, 60), colour=(9, 8, 7))
    rows, columns = np.nonzero((picture == (9, 8, 7)).all(axis=2))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (10, 20, 40, 60)
    assert not (picture[22:58, 12:38]).any(), "the inside stays as it was"
    assert not black.any(), "the frame given is not changed"


def test_boxes_are_scaled_and_kept_within_the_picture(black):
    picture = draw.overlay(black, (-50, 5, 30, 500), colour=(1, 2, 3), scale=2.0)
    rows, columns = np.nonzero((picture == (1, 2, 3)).all(axis=2))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (0, 10, 59, 79)


def test_the_clip_box_is_dashed_and_the_rest_can_be_dimmed():
    white = np.full((80, 120, 3), 200, np.uint8)
    picture = draw.overlay(white, (10, 10, 50, 50), (0, 0, 120, 80), truth_box=(60, 60, 70, 70), dim=0.5)
    top = (picture[0] == draw.CLIP_BOX).all(axis=1)
    assert 0.3 < top.mean() < 0.7
    assert picture[70, 90].tolist() == [100, 100, 100]
    assert picture[30, 30].tolist() == [200, 200, 200]
    assert (picture == draw.TRUTH_BOX).all(axis=2).any()


def test_brighter_means_more_motion():
    ramp = draw.map_to_colour(np.arange(256, dtype=np.uint8)[None]).astype(float).sum(axis=2)[0]
    assert (np.diff(ramp) >= -3).all()
    assert ramp[255] > ramp[128] > ramp[0]
    half = np.full((1, 1), 100, np.uint8)
    assert (draw.map_to_colour(half, peak=100) == draw.map_to_colour(np.full((1, 1), 255, np.uint8))).all()
    assert draw.map_to_colour(np.zeros((4, 5), np.uint8), (50, 40)).shape == (40, 50, 3)


@pytest.mark.parametrize("words", ["kurz", "P01/very long clip name with many words" * 4, "x" * 400])
def test_text_stays_within_its_room(words):
    picture = np.zeros((40, 600, 3), np.uint8)
    draw.text(picture, words, (10, 20), 14, max_width_px=200)
    columns = np.flatnonzero(picture.any(axis=(0, 2)))
    assert columns.size
    assert columns.min() >= 8
    assert columns.max() <= 214


def test_text_is_aligned():
    for align, low, high in (("left", 298, 400), ("centre", 240, 360), ("right", 200, 303)):
        picture = np.zeros((40, 600, 3), np.uint8)
        draw.text(picture, "words", (300, 20), 14, align=align)
        columns = np.flatnonzero(picture.any(axis=(0, 2)))
        assert low <= columns.min()
        assert columns.max() <= high


def test_fitting_keeps_the_proportions():
    page = draw.fit(np.full((50, 100, 3), 255, np.uint8), (80, 80))
    rows = np.flatnonzero((page == 255).all(axis=(1, 2)))
    assert page.shape == (80, 80, 3)
    assert (rows.min(), rows.max()) == (20, 59)


def test_a_grid_gives_every_column_its_width():
    small, wide = np.full((10, 10, 3), 1, np.uint8), np.full((20, 30, 3), 2, np.uint8)
    page = draw.grid([[small, wide], [wide, small]], gap_px=4)
    assert page.shape == (20 + 4 + 20, 30 + 4 + 30, 3)
    assert (page[0:10, 0:10] == 1).all()
    assert (page[0:20, 34:64] == 2).all()
    assert (page[24:44, 0:30] == 2).all()
    assert (page[24:34, 34:44] == 1).all()
    assert (page[15, 5] == draw.BACKGROUND).all()


def test_the_legend_of_the_wheel_shows_the_directions():
    wheel = draw.wheel_legend(64, 5.0)
    left = (wheel.shape[1] - 64) // 2
    right_end, left_end = wheel[5 + 32, left + 60].astype(int), wheel[5 + 32, left + 3].astype(int)
    assert right_end[0] > right_end[2] + 100
    assert left_end[2] > left_end[0] + 100
