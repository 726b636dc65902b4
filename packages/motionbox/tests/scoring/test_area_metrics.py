import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from motionbox.scoring.area_metrics import (
    AreaRow,
    Lift,
    ReliabilityBin,
    add_clip,
    area_lift,
    area_table,
    mean_lift,
    rank_correlation,
    reliability,
)
from motionbox.scoring.marks import Marks

SIZE = (224, 224)  # a patch is 16 px


def areas(num_frames: int = 20) -> np.ndarray:
    """Strongest in the left 4 of 14 columns of patches."""
    drawn = np.zeros((num_frames, 28, 28), np.uint8)
    drawn[:, :, :8] = 255
    return drawn


def boxes(*xyxy: int, num_frames: int = 20) -> np.ndarray:
    return np.tile(xyxy, (num_frames, 1)).astype(float)


def test_lift_known_answers():
    # 59 patches are chosen: the 56 on the left and the first three of the rest.
    assert area_lift(areas(), boxes(0, 0, 64, 224), *SIZE) == pytest.approx((56 / 59, 56 / 196))
    assert area_lift(areas(), boxes(0, 0, 224, 224), *SIZE) == (1.0, 1.0)
    chosen, random = area_lift(areas(), boxes(112, 112, 224, 224), *SIZE)
    assert (chosen, random) == (0, 0.25)


def test_lift_follows_the_true_box_of_each_frame_and_skips_frames_without():
    truth = boxes(0, 0, 64, 224)
    truth[::2] = (160, 0, 224, 224)
    truth[8:] = -1
    # The only sample has frames 0, 2, 4, 6 and unannotated ones: all with the box on the right.
    chosen, random = area_lift(areas(), truth, *SIZE)
    assert (chosen, random) == pytest.approx((0, 56 / 196))
    assert area_lift(areas(), np.full((20, 4), -1.0), *SIZE) is None


def test_mean_lift_is_a_ratio_of_means():
    assert mean_lift([Lift(0.9, 0.6), Lift(0.3, 0.2)]) == pytest.approx(1.5)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=4, max_size=20))
def test_rank_correlation_is_spearmans(pairs):
    first, second = np.array(pairs, float).T
    found = rank_correlation(first, second)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(spearmanr(first, second)[0])


def test_reliability_known_answers():
    found = reliability([0.0, 0.05, 0.55, 1.0], [0.2, 0.4, 0.5, 0.9], num_bins=10)
    expected = [ReliabilityBin(0.025, 0.3, 2), ReliabilityBin(0.55, 0.5, 1), ReliabilityBin(1.0, 0.9, 1)]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other)
    with pytest.raises(ValueError, match="of one length"):
        reliability([0.1], [0.1, 0.2])


def test_a_row_of_areas_and_its_table() -> None:
    """Known answer: 14 x 14 cells of 10 px, the truth the four upper rows, the area their left half and more below."""
    mask = np.zeros((14, 14), np.uint8)
    mask[:4] = 255
    boxes = np.array([[0, 0, 140, 40.0], [-1, -1, -1, -1]])
    marks = Marks(np.array([0.2, 0.3]), boxes, lambda _: mask, are_masks=True)
    areas = np.zeros((4, 14, 14), np.uint8)
    areas[:, :8, :7] = 9
    rows: dict[str, AreaRow] = {}
    clip = {"clip_id": "a", "width": 140, "height": 140}
    add_clip(rows, clip, {"motion": areas, "truth": np.tile(mask, (4, 1, 1))}, np.arange(4) / 10, marks)
    assert rows["motion"].mask_ious == [pytest.approx(28 / 84)]
    assert rows["truth"].mask_ious == [1.0]
    assert rows["truth"].lifts[0].random == pytest.approx(4 / 14)
    assert rows["truth"].lifts[0].chosen == pytest.approx(56 / 59)
    first, second = area_table(list(rows.values())).splitlines()[2:]
    assert first.startswith("| motion | 1 | 0.286 |")
    assert first.endswith("| 0.333 |")
    assert second == "| truth | 1 | 0.286 | 0.949 | 3.32 | 1.000 |"
