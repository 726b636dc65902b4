import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motionbox.config import BoxConfig
from motionbox.motion import boxes as bx

W, H = 456, 256
CONFIG = BoxConfig()


@st.composite
def box_in_frame(draw, width: int = W, height: int = H):
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return np.array([x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))], np.int16)


def as_mask(box: np.ndarray) -> np.ndarray:
    mask = np.zeros((H, W), bool)
    x1, y1, x2, y2 = box
    mask[y1:y2, x1:x2] = True
    return mask


@given(box_in_frame(), box_in_frame())
def test_algebra_agrees_with_pixel_masks(a, b):
    mask_a, mask_b = as_mask(a), as_mask(b)
    assert bx.area(a) == mask_a.sum()
    expected = (mask_a & mask_b).sum() / (mask_a | mask_b).sum()
    assert bx.iou(a, b) == pytest.approx(expected)
    assert bx.area(bx.intersection(a, b)) == (mask_a & mask_b).sum()


@given(st.lists(box_in_frame(), min_size=1, max_size=5))
def test_union_is_the_smallest_box_around_all(boxes):
    stack = np.stack(boxes)
    rows, columns = np.nonzero(np.any([as_mask(box) for box in boxes], axis=0))
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_array_equal(bx.clip_box(stack), expected)


def test_union_leaves_missing_boxes_out():
    stack = np.array([[5, 6, 9, 9], bx.NO_BOX, [1, 7, 6, 20]], np.int16)
    np.testing.assert_array_equal(bx.union_box(stack), [1, 6, 9, 20])
    np.testing.assert_array_equal(bx.union_box(stack[1:2]), bx.NO_BOX)


def test_union_leaves_empty_boxes_out():
    no_width, no_height, box = (1, 2, 1, 90), (0, 95, 99, 95), (5, 6, 9, 9)
    np.testing.assert_array_equal(bx.union_box(np.array([no_width, box, no_height], np.int16)), box)
    np.testing.assert_array_equal(bx.union_box(np.array([no_width, no_height], np.int16)), bx.NO_BOX)


def test_iou_of_empty_boxes_is_zero():
    assert bx.iou(np.array(bx.NO_BOX), np.array(bx.NO_BOX)) == 0


def test_areas_do_not_overflow_int16():
    assert bx.area(np.array([0, 0, 4000, 4000], np.int16)) == 16_000_000
    assert bx.iou(np.array([0, 0, 4000, 4000], np.int16), np.array([0, 0, 4000, 2000], np.int16)) == 0.5


@given(box_in_frame(), st.integers(1, 4000), st.integers(1, 4000))
def test_scaling_covers_the_box_and_stays_inside(box, width, height):
    scaled = bx.scale_boxes(box, (W, H), (width, height))
    exact = box * np.array([width / W, height / H] * 2)
    assert bx.has_box(scaled)
    assert (scaled[:2] <= exact[:2] + 1e-9).all()
    assert (scaled[2:] >= exact[2:] - 1e-9).all()
    assert (np.abs(scaled - exact) < 1).all()
    assert (scaled >= 0).all()
    assert (scaled <= [width, height, width, height]).all()


def test_scaling_keeps_missing_boxes_and_identity():
    stack = np.array([[3, 4, 50, 60], bx.NO_BOX], np.int16)
    np.testing.assert_array_equal(bx.scale_boxes(stack, (W, H), (W, H)), stack)
    np.testing.assert_array_equal(bx.scale_boxes(stack, (W, H), (2 * W, 3 * H)), [[6, 12, 100, 180], bx.NO_BOX])


@given(box_in_frame(), st.floats(0, 1))
def test_padding_grows_by_half_the_share_on_each_side_and_is_cut(box, share):
    padded = bx.pad_box(box, share, W, H)
    width, height = box[2] - box[0], box[3] - box[1]
    wanted = box + np.array([-width, -height, width, height]) * share / 2
    cut = np.clip(wanted, 0, [W, H, W, H])
    assert (padded[:2] <= cut[:2]).all()
    assert (padded[2:] >= cut[2:]).all()
    assert (np.abs(padded - cut) < 1).all()


def test_padding_known_answer():
    stack = np.array([[100, 100, 140, 120], [0, 0, 100, 100], bx.NO_BOX], np.int16)
    np.testing.assert_array_equal(bx.pad_box(stack, 0.1, W, H), [[98, 99, 142, 121], [0, 0, 105, 105], bx.NO_BOX])


def test_clipping_cuts_at_the_border():
    stack = np.array([[-5, -6, 500, 300], [3, 4, 5, 6], bx.NO_BOX])
    np.testing.assert_array_equal(bx.clip_to_frame(stack, W, H), [[0, 0, W, H], [3, 4, 5, 6], bx.NO_BOX])


@pytest.mark.parametrize(
    ("box", "degenerate"),
    [
        ((0, 0, 319, 50), False),  # .7 * 456 = 319.2
        ((0, 0, 320, 50), True),
        ((0, 0, 50, 179), False),  # .7 * 256 = 179.2
        ((0, 0, 50, 180), True),
        ((0, 0, 40, 30), False),  # 1200 of 116736 px: 1.03 %
        ((0, 0, 40, 29), True),
        (bx.NO_BOX, True),
    ],
)
def test_limits_of_a_valid_box(box, degenerate):
    assert bx.is_degenerate(np.array(box, np.int16), W, H, CONFIG) == degenerate


BOX_A, BOX_B, WIDE = (100, 60, 200, 140), (220, 80, 320, 160), (0, 0, 456, 100)


def stabilise(raw, times=None, **changes):
    times = np.arange(len(raw)) / 12 if times is None else np.asarray(times, float)
    config = CONFIG.model_copy(update={"pad_share": 0.0, **changes})
    return bx.stabilise(np.array(raw, np.int16), times, W, H, config)


def test_degenerate_boxes_borrow_from_the_nearest_valid_in_time():
    found = stabilise([WIDE, BOX_A, bx.NO_BOX, bx.NO_BOX, WIDE, BOX_B], times=[0, 1, 1.5, 2.9, 3.1, 4])
    np.testing.assert_array_equal(found.boxes, [BOX_A, BOX_A, BOX_A, BOX_B, BOX_B, BOX_B])
    np.testing.assert_array_equal(found.source, [1, 0, 1, 1, 1, 0])


def test_on_a_tie_the_earlier_box_wins():
    found = stabilise([BOX_A, bx.NO_BOX, BOX_B])
    np.testing.assert_array_equal(found.boxes[1], BOX_A)


def test_none_valid_gives_the_centre_half_flagged():
    found = stabilise([bx.NO_BOX, WIDE])
    np.testing.assert_array_equal(found.boxes, [[114, 64, 342, 192]] * 2)
    assert (found.source == bx.BoxSource.CENTRE).all()


def test_without_stabilising_wide_boxes_stay_and_missing_ones_borrow():
    found = stabilise([WIDE, bx.NO_BOX, BOX_A], times=[0, 1, 9], stabilise="none")
    np.testing.assert_array_equal(found.boxes, [WIDE, WIDE, BOX_A])
    np.testing.assert_array_equal(found.source, [0, 1, 0])


def test_boxes_are_padded_after_borrowing():
    found = stabilise([BOX_A, bx.NO_BOX], pad_share=0.1)
    np.testing.assert_array_equal(found.boxes, [(95, 56, 205, 144)] * 2)
    assert found.boxes.dtype == np.int16
    assert found.source.dtype == np.uint8


@given(st.lists(st.one_of(box_in_frame(), st.just(np.array(bx.NO_BOX, np.int16))), min_size=1, max_size=12))
def test_every_frame_gets_a_box_inside_the_frame(raw):
    found = stabilise(raw, pad_share=0.05)
    assert bx.has_box(found.boxes).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [W, H, W, H]).all()
    valid = ~bx.is_degenerate(np.stack(raw), W, H, CONFIG)
    np.testing.assert_array_equal(found.source == bx.BoxSource.OWN, valid)


@pytest.mark.parametrize(("raw", "times"), [([], []), ([BOX_A], [0, 1]), (BOX_A, [0])])
def test_rows_that_disagree_are_refused(raw, times):
    with pytest.raises(ValueError, match="raw must be"):
        bx.stabilise(np.array(raw, np.int16), np.array(times, float), W, H, CONFIG)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 3), (5, 7)])
def test_the_centre_half_of_a_tiny_frame_is_a_box(width, height):
    box = bx.centre_half(width, height)
    assert bx.has_box(box)
    assert (box <= [width, height] * 2).all()


def test_importing_boxes_loads_numpy_only():
    heavy = ("cv2", "pydantic", "ray", "numba", "scipy")
    code = f"import sys, motionbox.motion.boxes; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
