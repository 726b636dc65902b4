import numpy as np
import pytest

from motionbox.pictures import draw
from motionbox.pictures.score_plot import score_plot
from motionbox.scoring.box_metrics import ClipScore
from motionbox.scoring.score_tables import ScoreRow


def row(name: str, *clips: tuple[float, ...]) -> ScoreRow:
    scores = [ClipScore(float(np.mean(ious)), 0.5, 0.5, 0.5, 0.5, 0.0) for ious in clips]
    return ScoreRow(name, [str(k) for k in range(len(clips))], scores, [], [], [np.array(ious) for ious in clips])


def places(picture, colour) -> np.ndarray:
    """Return x and y of the pixels of a colour, above the legend."""
    ys, xs = np.nonzero((picture[:370] == colour).all(axis=2))
    return np.column_stack([xs, ys])


def test_every_method_is_where_its_scores_are():
    picture = score_plot([row("full frame", (0.1, 0.1)), row("centre half", (0.5, 0.5)), row("store", (0.9, 0.9))])
    half = picture.shape[1] // 2
    means = {}
    for name, colour in (("store", draw.FRAME_BOX), ("full frame", draw.CLIP_BOX), ("centre half", draw.CENTRE_BOX)):
        found = places(picture, colour)
        dots = found[found[:, 0] > half]
        means[name] = (np.median(found[found[:, 0] <= half][:, 0]), np.median(dots[:, 1]))
    assert means["full frame"][0] < means["centre half"][0] < means["store"][0]  # IoU grows to the right ...
    assert means["full frame"][1] > means["centre half"][1] > means["store"][1]  # ... and upwards
    assert (means["full frame"][1] - means["centre half"][1]) == pytest.approx(
        means["centre half"][1] - means["store"][1], abs=1
    )


def test_clips_are_ordered_by_the_store():
    picture = score_plot([row("full frame", (0.1,), (0.9,)), row("store", (0.8,), (0.2,))])
    dots = places(picture, draw.CLIP_BOX)
    dots = dots[dots[:, 0] > picture.shape[1] // 2]
    middle = (dots[:, 0].min() + dots[:, 0].max()) / 2
    assert dots[dots[:, 0] < middle][:, 1].mean() < dots[dots[:, 0] > middle][:, 1].mean()


def test_rows_without_frame_scores_are_refused():
    with pytest.raises(ValueError, match="must hold frame IoUs"):
        score_plot([row("true clip box", (0.5,))])
    with pytest.raises(ValueError, match="must hold frame IoUs"):
        score_plot([ScoreRow("store", ["a"], row("store", (0.5,)).scores)])


def test_confidence_stands_beside_what_it_promises():
    scored = row("store", (0.1,), (0.9,))
    plain = score_plot([scored])
    scored.confidences = [0.2, 0.8]
    picture = score_plot([scored])
    assert picture.shape[1] > 1.4 * plain.shape[1]
    dots = places(picture, draw.CENTRE_BOX)  # the clips, behind the means of their bins
    assert len(dots) or len(places(picture, draw.FRAME_BOX)) > len(places(plain, draw.FRAME_BOX))
