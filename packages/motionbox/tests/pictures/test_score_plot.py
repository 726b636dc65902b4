import numpy as np
import pytest

from motionbox.pictures.score_plot import score_plot
from motionbox.scoring.box_metrics import ClipScore
from motionbox.scoring.score_tables import ScoreRow


def row(name: str, *clips: tuple[float, ...]) -> ScoreRow:
    scores = [ClipScore(float(np.mean(ious)), 0.5, 0.5, 0.5, 0.5, 0.0) for ious in clips]
    return ScoreRow(name, [str(k) for k in range(len(clips))], scores, [], [], [np.array(ious) for ious in clips])


ROWS = [row("full frame", (0.1, 0.1), (0.3,)), row("centre half", (0.5, 0.5), (0.5,)), row("store", (0.9, 0.3), (0.2,))]


def test_every_method_is_where_its_scores_are():
    figure = score_plot(ROWS)
    distribution, clips = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "store, mean over clips 0.40", "full frame, mean over clips 0.20", "centre half, mean over clips 0.50",
    ]  # fmt: skip
    assert distribution.get_title() == "IoU of 3 annotated frames"
    tallest = {patch.get_label().split(",")[0]: patch.get_xy()[:, 1].max() for patch in distribution.patches}
    assert tallest == {"store": pytest.approx(1 / 3), "full frame": pytest.approx(2 / 3), "centre half": 1}
    store, full, half = (line.get_ydata() for line in clips.lines)  # by the store's IoU: the second clip comes first
    assert np.allclose([store, full, half], [[0.2, 0.6], [0.3, 0.1], [0.5, 0.5]])


def test_rows_without_frame_scores_are_refused():
    with pytest.raises(ValueError, match="must hold frame IoUs"):
        score_plot([row("true clip box", (0.5,))])
    with pytest.raises(ValueError, match="must hold frame IoUs"):
        score_plot([ScoreRow("store", ["a"], row("store", (0.5,)).scores)])


def test_confidence_stands_beside_what_it_promises():
    scored = row("store", (0.1,), (0.9,))
    assert len(score_plot([scored]).axes) == 2
    scored.confidences = [0.2, 0.8]
    panel = score_plot([scored]).axes[2]
    _, clips, means = panel.lines
    assert np.allclose(clips.get_xydata(), [[0.2, 0.1], [0.8, 0.9]])
    assert np.allclose(means.get_xydata(), [[0.2, 0.1], [0.8, 0.9]])
    assert panel.get_title().endswith("rank correlation 1.00")
