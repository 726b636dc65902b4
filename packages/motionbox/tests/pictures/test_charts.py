import re

import numpy as np

from motionbox.pictures import charts


def test_coverage_is_that_of_every_cells_middle():
    """Brute force: a cell counts where its middle lies in the box."""
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(-0.1, 1.1, (50, 2, 2)), axis=1)
    boxes = np.concatenate([corners[:, 0], corners[:, 1]], axis=1)
    expected = np.zeros((9, 16))
    for y in range(9):
        for x in range(16):
            middle_x, middle_y = (x + 0.5) / 16, (y + 0.5) / 9
            inside = (boxes[:, 0] <= middle_x) & (middle_x < boxes[:, 2])
            expected[y, x] = (inside & (boxes[:, 1] <= middle_y) & (middle_y < boxes[:, 3])).mean()
    np.testing.assert_allclose(charts.box_coverage(boxes, 9, 16), expected)


def test_coverage_of_no_boxes_is_zero():
    assert not charts.box_coverage(np.zeros((0, 4))).any()


def test_a_histogram_counts_every_finite_value_once():
    values = np.array([0.1, 0.1, 0.9, np.nan, 5.0, -3.0])
    svg = charts.histogram("Shares", values, (0, 1), " %")
    counts = [int(count.replace(",", "")) for count in re.findall(r": ([\d,]+)</title>", svg)]
    assert sum(counts) == 5
    assert counts[0] == 1
    assert counts[-1] == 1
    assert counts[3] == 2
    assert "median 0.1 %" in svg


def test_nothing_to_show_is_said():
    assert "nothing to show" in charts.histogram("Empty", np.array([np.nan]), (0, 1))
    assert "nothing to show" in charts.heat_map("Empty", np.zeros((3, 3)))


def test_the_brightest_cell_has_the_last_colour():
    svg = charts.heat_map("Where", np.array([[0.0, 0.25], [0.5, 0.1]]))
    fills = re.findall(r'fill="(#\w+)"><title>', svg)
    assert fills[0] == "#000004"
    assert fills[2] == "#fcffa4"


def test_names_are_escaped():
    assert "<b>" not in charts.table([("<b>", "a & b")]) + charts.histogram("<b>", np.ones(2), (0, 1))
    assert "&lt;b&gt;" in charts.table([("<b>", "x")])
