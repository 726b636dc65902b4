"""A table of measured rows over seeds, beside cited ones: means with intervals; Markdown, LaTeX, CSV and a picture."""

from __future__ import annotations

import csv
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mofo_train.table.cited import CitedRow
from mofo_train.table.power import Difference, Right, difference, seeds_needed, smallest_seen

METRIC_NAMES = {
    "label_top1": "top-1",
    "label_top5": "top-5",
    "verb_top1": "verb",
    "verb_top5": "verb top-5",
    "noun_top1": "noun",
    "noun_top5": "noun top-5",
    "action_top1": "action",
}
"""Metric -> heading; all in per cent."""

# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom (any table of the distribution).
_T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
MAX_SEEDS = len(_T_QUANTILES) + 1


Classes = NDArray[np.int64]
"""The class of each test clip that has one, int64 (clips,)."""
_CHANCE = "chance: always the most frequent class"
_BOTH = "seeds and test clips together"
_WANTED_POINTS = 3  # half the width of an interval that tells rows of a table like these apart
_FIGURES = ("value_percent", "low_percent", "high_percent")


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: The mean.
        half_width: Half the width of the 95 % interval by Student's t; None with a single seed.
    """

    mean: float
    half_width: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Summarise one value per seed."""
        count = len(values)
        mean = math.fsum(values) / count
        if count == 1:
            return cls(mean, None)
        variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
        return cls(mean, _T_QUANTILES[count - 2] * math.sqrt(variance / count))

    @property
    def reach(self) -> tuple[float, float] | None:
        """How far the interval reaches to the left and to the right of the mean; None where there is none."""
        return None if self.half_width is None else (self.half_width, self.half_width)

    @property
    def ends(self) -> tuple[float, float] | None:
        """Lower and upper end of the interval; None where there is none."""
        return None if self.half_width is None else (self.mean - self.half_width, self.mean + self.half_width)

    def text(self, plus_minus: str = "±", *, signed: bool = False) -> str:
        """Write `71.2 ± 0.4`."""
        mean = f"{self.mean:+.1f}" if signed else f"{self.mean:.1f}"
        return mean if self.half_width is None else f"{mean} {plus_minus} {self.half_width:.1f}"


@dataclass(frozen=True)
class MeasuredRow:
    """One row.

    Attributes:
        name: As in the recipe.
        title: For the reader.
        values: Metric -> one value per seed, per cent, seeds in the same order in all rows.
        right: Metric -> which test clips are right, bool (seeds, clips); empty where predictions are not at hand.
        groups: The group of each of these clips; empty where every clip is one.
    """

    name: str
    title: str
    values: dict[str, list[float]]
    right: dict[str, Right] = field(default_factory=dict, compare=False)
    groups: tuple[str, ...] = field(default=(), compare=False)

    def estimate(self, metric: str) -> Estimate:
        """Summarise a metric over seeds; with a single one over clips, where these are known."""
        own = self.right.get(metric)
        if own is None or len(own) > 1:
            return Estimate.of(self.values[metric])
        return Estimate(
            self.values[metric][0], difference(own, np.zeros_like(own), groups=self.groups or None).half_width
        )

    def seeds_needed(self, other: MeasuredRow, metric: str, half_width: float) -> float:
        """Return how many seeds would tell it from another row that well, see `power.seeds_needed`."""
        return seeds_needed(self.right[metric], other.right[metric], half_width, groups=self.groups or None)

    def difference(self, other: MeasuredRow, metric: str) -> Estimate | Difference:
        """Summarise the difference to another row by seeds and clips, or by seeds alone where no clips are known."""
        if metric in self.right and metric in other.right:
            return difference(self.right[metric], other.right[metric], groups=self.groups or None)
        pairs = zip(self.values[metric], other.values[metric], strict=True)
        return Estimate.of([mine - theirs for mine, theirs in pairs])


@dataclass(frozen=True)
class Panel:
    """The rows of one setting.

    Attributes:
        title: Title of the setting; empty where there is but one.
        rows: Measured with it.
        classes: Metric -> the classes of the test clips; empty where they are not known.
    """

    title: str
    rows: tuple[MeasuredRow, ...]
    classes: dict[str, Classes] = field(default_factory=dict, compare=False)

    def chance(self, metric: str) -> float | None:
        """Return what who always answers the most frequent class gets, per cent; the five most frequent for top-5."""
        own = self.classes.get(metric, np.zeros(0, np.int64))
        if len(own) == 0:
            return None
        best = 5 if metric.endswith("top5") else 1
        counts = np.unique(own, return_counts=True)[1]
        return 100 * float(np.sort(counts)[-best:].sum()) / len(own)

    def base(self, name: str) -> MeasuredRow:
        """Return the row that the others are compared with."""
        return next(row for row in self.rows if row.name == name)

    def half_widths(self, baseline: str, metric: str) -> list[float]:
        """Return the half widths of all rows' differences to the baseline, where they can be known."""
        base = self.base(baseline)
        found = [row.difference(base, metric).half_width for row in self.rows if row is not base]
        return [width for width in found if width is not None]


@dataclass(frozen=True)
class Table:
    """Measured rows, a baseline among them, and cited rows.

    Attributes:
        title: Heading.
        metrics: Columns, keys of `METRIC_NAMES`.
        panels: Measured here, one a setting.
        baseline: Name of the row that the others are compared with.
        cited: Published; empty where the data set has none.
        notes: Lines below the table: seeds, clips, machine, wall time.
    """

    title: str
    metrics: tuple[str, ...]
    panels: tuple[Panel, ...]
    baseline: str
    cited: tuple[CitedRow, ...]
    notes: tuple[str, ...]

    def write(self, out: Path, stem: str) -> list[Path]:
        """Write `<stem>.md`, `.tex`, `.csv` and `.png` into a folder; returns their paths."""
        paths = [out / f"{stem}{suffix}" for suffix in (".md", ".tex", ".csv", ".png")]
        paths[0].write_text(self.markdown(), encoding="utf-8")
        paths[1].write_text(self.latex(), encoding="utf-8")
        self._write_csv(paths[2])
        self._draw(paths[3])
        return paths

    def markdown(self) -> str:
        """Return the table in Markdown."""
        heads = [METRIC_NAMES[metric] for metric in self.metrics]
        lines = [f"# {self.title}"]
        for panel in self.panels:
            lines += ["", *([f"## {panel.title}", ""] if panel.title else []), *self._measured(panel, heads)]
        if self.cited:
            lines += ["", "Cited, not measured here:", ""]
            cells = [[row.title, *(_figure(row.figure(m)) for m in self.metrics), row.source] for row in self.cited]
            lines += _markdown_grid(["row", *heads, "source"], cells)
            lines += ["", "Measured minus cited:", ""]
            lines += _markdown_grid(["row", *heads], self._to_cited())
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes), ""])

    def _measured(self, panel: Panel, heads: list[str]) -> list[str]:
        one = all(len(values) == 1 for row in panel.rows for values in row.values.values())
        over = "test clips" if one else "seeds"
        lines = [f"Measured here (mean ± 95 % interval over {over}, per cent):", ""]
        grid = [[row.title, *(row.estimate(m).text() for m in self.metrics)] for row in panel.rows]
        lines += _markdown_grid(["row", *heads], [*grid, *self._chance(panel, _CHANCE)])
        base = panel.base(self.baseline)
        others = [row for row in panel.rows if row is not base]
        if not others:
            return lines
        by_clips = all(metric in row.right for row in panel.rows for metric in self.metrics)
        how = "seed by seed"
        if by_clips:
            over = "test clips (one seed: what another seed would change is not in it)" if one else _BOTH
            how = f"95 % interval over {over}; * leaves out 0"
        lines += ["", f"Difference to {base.title}, {how}:", ""]
        grid = [[row.title, *(signed(row.difference(base, m)) for m in self.metrics)] for row in others]
        if by_clips:
            widths = [max(panel.half_widths(self.baseline, metric)) for metric in self.metrics]
            grid.append(["smallest difference that this design can see", *(f"{smallest_seen(w):.1f}" for w in widths)])
            if not one:
                needed = [max(row.seeds_needed(base, m, _WANTED_POINTS) for row in others) for m in self.metrics]
                grid.append([f"seeds for ± {_WANTED_POINTS} or less in every row, about", *map(_seeds, needed)])
        return lines + _markdown_grid(["row", *heads], grid)

    def _chance(self, panel: Panel, title: str) -> list[list[str]]:
        """Return a row of what needs no model; none where the test clips are not known."""
        found = [panel.chance(metric) for metric in self.metrics]
        return [] if all(value is None for value in found) else [[title, *map(_figure, found)]]

    def _to_cited(self) -> list[list[str]]:
        published = {row.row: row for row in self.cited if row.row}
        grid = []
        for row in self.panels[0].rows:
            if row.name in published:
                figures = [(row.estimate(m).mean, published[row.name].figure(m)) for m in self.metrics]
                cells = ["-" if cited is None else f"{mine - cited:+.1f}" for mine, cited in figures]
                grid.append([row.title, *cells])
        return grid

    def latex(self) -> str:
        """Return a `tabular` with booktabs rules."""
        heads = " & ".join(["", *(METRIC_NAMES[metric] for metric in self.metrics)])
        lines = [f"% {self.title}", rf"\begin{{tabular}}{{l{'c' * len(self.metrics)}}}", r"\toprule", rf"{heads} \\"]
        for panel in self.panels:
            title = ", ".join(filter(None, ["measured here", panel.title]))
            lines += [r"\midrule", self._latex_heading(_escape(title))]
            for row in panel.rows:
                cells = [f"${row.estimate(metric).text(chr(92) + 'pm')}$" for metric in self.metrics]
                lines.append(" & ".join([_escape(row.title), *cells]) + r" \\")
            lines += [" & ".join(cells) + r" \\" for cells in self._chance(panel, _CHANCE)]
        if self.cited:
            lines += [r"\midrule", self._latex_heading("cited")]
            for published in self.cited:
                cells = [_figure(published.figure(metric)) for metric in self.metrics]
                lines.append(" & ".join([_escape(published.title), *cells]) + rf" \\ % {published.source}")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])

    def _latex_heading(self, text: str) -> str:
        return rf"\multicolumn{{{len(self.metrics) + 1}}}{{l}}{{\emph{{{text}}}}} \\"

    def _write_csv(self, path: Path) -> None:
        heads = (
            "kind",
            "setting",
            "row",
            "metric",
            "seed_index",
            *_FIGURES,
            "source",
        )
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, heads, restval="")
            writer.writeheader()
            for panel in self.panels:
                for metric in self.metrics:
                    own = {"setting": panel.title, "metric": metric}
                    writer.writerows(own | cells for cells in self._csv_rows(panel, metric))
            for published in self.cited:
                own = {"kind": "cited", "row": published.title, "source": published.source}
                found = {metric: published.figure(metric) for metric in self.metrics}
                writer.writerows(
                    own | {"metric": metric, "value_percent": value}
                    for metric, value in found.items()
                    if value is not None
                )

    def _csv_rows(self, panel: Panel, metric: str) -> Iterator[dict[str, object]]:
        """Yield each row's seeds, its difference to the baseline with its interval, then chance."""
        base = panel.base(self.baseline)
        for row in panel.rows:
            for seed, value in enumerate(row.values[metric]):
                yield {"kind": "measured", "row": row.name, "seed_index": seed, "value_percent": f"{value:.4f}"}
            found = row.difference(base, metric)
            if row is not base and found.ends is not None:
                figures = dict(zip(_FIGURES, (found.mean, *found.ends), strict=True))
                texts = {name: f"{value:.4f}" for name, value in figures.items()}
                yield {"kind": "difference", "row": row.name, **texts}
        if (chance := panel.chance(metric)) is not None:
            yield {"kind": "chance", "value_percent": f"{chance:.4f}"}

    def _draw(self, path: Path) -> None:
        """Draw each metric's means, the intervals of their differences to the baseline and the single seeds.

        One row of panels a setting; a bar that crosses the dotted line is not told from the baseline.
        """
        from matplotlib.figure import Figure

        heights = [0.9 + 0.3 * len(panel.rows) for panel in self.panels]
        figure = Figure(figsize=(3.2 + 2.4 * len(self.metrics), sum(heights) + 0.3), layout="constrained")
        axes = figure.subplots(len(self.panels), len(self.metrics), squeeze=False, sharey="row", height_ratios=heights)
        for line, panel in zip(axes, self.panels, strict=True):
            places = list(range(len(panel.rows)))[::-1]
            base = panel.base(self.baseline)
            for axis, metric in zip(line, self.metrics, strict=True):
                for place, row in zip(places, panel.rows, strict=True):
                    reach = None if row is base else row.difference(base, metric).reach
                    colour = "black" if row is base else "tab:blue"
                    axis.errorbar(
                        row.estimate(metric).mean,
                        place,
                        xerr=reach and [[reach[0]], [reach[1]]],
                        fmt="o",
                        color=colour,
                        capsize=3,
                    )
                    axis.plot(row.values[metric], [place - 0.25] * len(row.values[metric]), "|", color="grey")
                axis.axvline(base.estimate(metric).mean, color="black", lw=0.6, ls=":")
                if (chance := panel.chance(metric)) is not None:
                    axis.axvline(chance, color="tab:red", lw=0.8, ls="--")
                axis.set_title(f"{METRIC_NAMES[metric]} (%)", fontsize="medium")
                axis.grid(axis="x", alpha=0.3)
            line[0].set_yticks(places, [row.title for row in panel.rows])
            line[0].set_ylabel(textwrap.fill(panel.title, max(12, 5 * len(panel.rows))))  # within the panel's height
        known = any(panel.classes for panel in self.panels)
        figure.supxlabel(
            f"dotted: {self.panels[0].base(self.baseline).title}; bar: 95 % interval of the difference to it\n"
            f"tick: a single seed{'; dashed: chance' if known else ''}",
            fontsize="small",
        )
        figure.savefig(path, dpi=110)


def signed(found: Estimate | Difference) -> str:
    """Write a difference with its sign and interval."""
    return found.text() if isinstance(found, Difference) else found.text(signed=True)


def _markdown_grid(heads: list[str], rows: list[list[str]]) -> list[str]:
    aligned = [":---", *["---:"] * (len(heads) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (heads, aligned, *rows)]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _seeds(needed: float) -> str:
    return "more clips" if math.isinf(needed) else f"{needed:.0f}"


def _escape(text: str) -> str:
    return text.replace("&", r"\&").replace("%", r"\%").replace("_", r"\_")
