from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

from mofo_train.table.cited import CITED_ROWS
from mofo_train.table.layout import MAX_SEEDS, Estimate, MeasuredRow, Panel, Table
from mofo_train.table.power import Difference


@pytest.mark.parametrize("count", range(2, MAX_SEEDS + 1))
def test_intervals_equal_scipys(count: int) -> None:
    values = np.random.default_rng(count).normal(70, 2, size=count)
    ours = Estimate.of(values.tolist())
    low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
    assert ours.half_width is not None
    assert ours.mean == pytest.approx(values.mean())
    assert (ours.mean - ours.half_width, ours.mean + ours.half_width) == pytest.approx((low, high), rel=2e-4)


def test_one_seed_has_no_interval() -> None:
    assert Estimate.of([71.25]).text() == "71.2"
    assert Estimate(71.25, 0.44).text(signed=True) == "+71.2 ± 0.4"


def table() -> Table:
    rows = (
        MeasuredRow("videomae", "VideoMAE", {"label_top1": [70.0, 72.0], "label_top5": [92.0, 92.0]}),
        MeasuredRow("mofo", "MOFO & more", {"label_top1": [75.0, 77.0], "label_top5": [95.0, 94.0]}),
    )
    return Table("Title", ("label_top1", "label_top5"), (Panel("", rows),), "videomae", CITED_ROWS, ("a note",))


def test_markdown_keeps_measured_and_cited_apart() -> None:
    text = table().markdown()
    measured, rest = text.split("Difference to VideoMAE, seed by seed:")
    difference, rest = rest.split("Cited, not measured here:")
    cited, to_cited = rest.split("Measured minus cited:")
    assert "| MOFO & more | 76.0 ± 12.7 | 94.5 ± 6.4 |" in measured
    assert "| MOFO & more | +5.0 ± 0.0 | +2.5 ± 6.4 |" in difference
    assert "| BEVT, Swin-B | 70.6 | - | arXiv 2112.01529, as cited in arXiv 2308.12447, table 1 |" in cited
    assert "76.0" not in cited
    assert "| VideoMAE | +0.2 | -0.4 |" in to_cited
    assert "| MOFO & more | +0.5 | -0.8 |" in to_cited
    assert text.endswith("- a note\n")


def test_every_cited_row_has_a_source_and_the_papers_figures() -> None:
    assert all("arXiv" in row.source for row in CITED_ROWS)
    places = {row.row: row.source for row in CITED_ROWS if row.row}
    assert [name for name, place in places.items() if "README" in place] == ["mofo_masks", "mofo_mca"]
    assert "table 1" in places["mofo"]
    figures = {
        row.row: (row.label_top1, row.label_top5, row.verb_top1, row.noun_top1, row.action_top1) for row in CITED_ROWS
    }
    assert figures["mofo"] == (75.5, 95.3, 74.2, 68.1, 54.5)
    assert figures["videomae"] == (70.8, 92.4, 71.6, 66.0, 53.2)


def test_titles_of_settings_stay_beside_their_panels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A title that is longer than its panel is high would run into the one above."""
    titles = ("finetuned, a tenth of the labels", "frozen encoder, attentive probe, all labels")
    panels = tuple(Panel(title, table().panels[0].rows) for title in titles)
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **more: (drawn.append(figure), save(figure, *args, **more))
    )
    replace(table(), panels=panels).write(tmp_path, "table1")
    labels = [axis.yaxis.label for axis in drawn[0].axes if axis.get_ylabel()]
    upper, lower = (label.get_window_extent() for label in labels)
    assert [" ".join(label.get_text().split()) for label in labels] == list(titles)
    assert upper.y0 >= lower.y1


def test_files(tmp_path: Path) -> None:
    paths = table().write(tmp_path, "table1")
    assert [path.name for path in paths] == ["table1.md", "table1.tex", "table1.csv", "table1.png"]
    latex = paths[1].read_text()
    assert r"MOFO \& more & $76.0 \pm 12.7$ & $94.5 \pm 6.4$ \\" in latex
    assert latex.count("{") == latex.count("}")
    with paths[2].open() as file:
        rows = list(csv.DictReader(file))
    mine = [row["value_percent"] for row in rows if row["kind"] == "measured" and row["row"] == "mofo"]
    assert mine == ["75.0000", "77.0000", "95.0000", "94.0000"]
    assert all(row["source"] for row in rows if row["kind"] == "cited")
    with Image.open(paths[3]) as image:
        assert image.width > 400


def one_seed_of_four_classes() -> Table:
    """Ten clips: four of class 3, three of 0, two of 8, one of 5; the second row is right in two more of them."""
    right = {"base": [True] * 4 + [False] * 6, "more": [True] * 6 + [False] * 4}
    rows = tuple(
        MeasuredRow(name, name, {"label_top1": [10.0 * sum(own)]}, {"label_top1": np.array([own])})
        for name, own in right.items()
    )
    classes = {"label_top1": np.array([3, 3, 3, 3, 0, 0, 0, 8, 8, 5])}
    return Table("Title", ("label_top1",), (Panel("", rows, classes),), "base", (), ())


def test_what_chance_would_get_stands_in_every_form(tmp_path: Path) -> None:
    paths = one_seed_of_four_classes().write(tmp_path, "table1")
    assert "| chance: always the most frequent class | 40.0 |" in paths[0].read_text()
    assert r"chance: always the most frequent class & 40.0 \\" in paths[1].read_text()
    with paths[2].open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "chance"]
    assert [(row["metric"], row["value_percent"]) for row in rows] == [("label_top1", "40.0000")]
    assert "chance" not in table().markdown(), "not known where the test clips are not"


def test_chance_of_the_five_best_takes_the_five_most_frequent_classes() -> None:
    classes = np.repeat(np.arange(8), [9, 1, 1, 2, 2, 3, 1, 1])
    panel = Panel("", (), {"label_top1": classes, "label_top5": classes})
    assert panel.chance("label_top1") == pytest.approx(45)
    assert panel.chance("label_top5") == pytest.approx(85)
    assert panel.chance("verb_top1") is None


def test_a_single_seed_is_said_to_be_one() -> None:
    text = one_seed_of_four_classes().markdown()
    assert "Difference to base, 95 % interval over test clips (one seed: what another seed would change is not" in text


def test_the_csv_holds_the_intervals_of_the_differences(tmp_path: Path) -> None:
    found = one_seed_of_four_classes()
    with found.write(tmp_path, "table1")[2].open() as file:
        (row,) = (row for row in csv.DictReader(file) if row["kind"] == "difference")
    base, more = found.panels[0].rows
    expected = more.difference(base, "label_top1")
    assert isinstance(expected, Difference)
    assert row["row"] == "more"
    ends = [float(row[name]) for name in ("low_percent", "value_percent", "high_percent")]
    assert ends == pytest.approx([expected.low, 20, expected.high], abs=1e-4)


def test_the_reach_of_an_interval() -> None:
    assert Difference(3.0, 1.0, 4.5).reach == (2.0, 1.5)
    assert Estimate(3.0, 0.5).reach == (0.5, 0.5)
    assert Estimate.of([71.25]).reach is None


def test_settings_stand_apart_and_say_how_small_a_difference_they_see() -> None:
    """Two seeds on 200 clips: where clips are known, intervals are over seeds and clips together."""
    rng = np.random.default_rng(0)

    def row(name: str, accuracy: float) -> MeasuredRow:
        right = rng.uniform(size=(2, 200)) < accuracy
        return MeasuredRow(name, name.upper(), {"verb_top1": (100 * right.mean(1)).tolist()}, {"verb_top1": right})

    panels = (
        Panel("all labels", (row("base", 0.3), row("better", 0.9), row("same", 0.3))),
        Panel("few labels", (row("base", 0.3), row("better", 0.9))),
    )
    text = Table("Title", ("verb_top1",), panels, "base", (), ()).markdown()
    first, second = text.split("## few labels")
    assert "## all labels" in first
    assert "| SAME |" not in second
    for part in (first, second):
        better = next(line for line in part.splitlines() if line.startswith("| BETTER | +"))
        assert better.endswith("* |"), "its interval leaves out 0"
        seen = next(line for line in part.splitlines() if line.startswith("| smallest difference"))
        assert 3 < float(seen.split("|")[2]) < 30
        needed = next(line for line in part.splitlines() if line.startswith("| seeds for ± 3"))
        assert int(needed.split("|")[2]) > 2, "two seeds on 200 clips are told apart by six points or so"
    assert "* |" not in next(
        line for line in first.splitlines() if line.startswith("| SAME | -") or "| SAME | +" in line
    )
