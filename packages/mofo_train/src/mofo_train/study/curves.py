"""The curves of a study: gains over the baseline with bands, as Markdown, CSV and a picture."""

from __future__ import annotations

import csv
import textwrap
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Literal

from mofo_train.table.layout import METRIC_NAMES, Estimate, MeasuredRow, signed
from mofo_train.table.power import Difference

_LABEL_LETTERS = 48  # of a line below a curve
_AXES = {"share": "share of the picture that true areas cover", "overlap": "overlap of areas with true ones (IoU)"}


@dataclass(frozen=True)
class Point:
    """One point of one row.

    Attributes:
        at: What is varied, as the recipe says.
        share: Share of the picture that true areas cover, median over frames that have one.
        overlap: Intersection over union of the guidance's areas with the true ones, mean over the frames where either
            has any.
        base: The baseline there.
        row: The row there.
    """

    at: float
    share: float
    overlap: float
    base: MeasuredRow
    row: MeasuredRow

    def gain(self, metric: str) -> Estimate | Difference:
        """Return the difference to the baseline, over seeds and test clips together where these are known."""
        return self.row.difference(self.base, metric)

    def band(self, metric: str) -> tuple[float, float]:
        """Return the ends of the gain's 95 % interval; the gain itself twice where a single seed tells no interval."""
        gain = self.gain(metric)
        return gain.ends or (gain.mean, gain.mean)


@dataclass(frozen=True)
class Curve:
    """What is varied, and what came of it.

    Attributes:
        title: What is varied.
        axis: Attribute of a point that the picture is drawn against.
        rows: Title of a row -> its points.
    """

    title: str
    axis: Literal["at", "share", "overlap"]
    rows: dict[str, tuple[Point, ...]]

    @property
    def label(self) -> str:
        """Name of the axis."""
        return self.title if self.axis == "at" else _AXES[self.axis]


@dataclass(frozen=True)
class Study:
    """All curves.

    Attributes:
        title: Heading.
        baseline: Title of the row that all are compared with.
        metrics: Keys of `METRIC_NAMES`.
        curves: The curves.
        notes: Lines below: seeds, clips, time.
    """

    title: str
    baseline: str
    metrics: tuple[str, ...]
    curves: tuple[Curve, ...]
    notes: tuple[str, ...]

    def write(self, out: Path) -> list[Path]:
        """Write `study.md`, `study.csv` and `study.png` into a folder; returns their paths."""
        paths = [out / f"study{suffix}" for suffix in (".md", ".csv", ".png")]
        paths[0].write_text(self.markdown(), encoding="utf-8")
        self._write_csv(paths[1])
        self._draw(paths[2])
        return paths

    def markdown(self) -> str:
        """Return the curves as tables in Markdown."""
        heads = ["at", "row", "true areas cover", "overlap with them", *(METRIC_NAMES[m] for m in self.metrics)]
        lines = [
            f"# {self.title}",
            "",
            f"Points gained over {self.baseline}, with the 95 % interval over seeds and",
            "",
        ]
        lines[-2] += " test clips together; * leaves out 0."
        for curve in self.curves:
            lines += [f"## {curve.title}", "", "| " + " | ".join(heads) + " |"]
            lines.append("| ---: | :--- " + "| ---: " * (len(heads) - 2) + "|")
            for title, points in curve.rows.items():
                for point in points:
                    gains = [signed(point.gain(metric)) for metric in self.metrics]
                    cells = [f"{point.at:g}", title, f"{point.share:.0%}", f"{point.overlap:.2f}", *gains]
                    lines.append("| " + " | ".join(cells) + " |")
            lines.append("")
        return "\n".join([*lines, *(f"- {note}" for note in self.notes), ""])

    def _write_csv(self, path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["curve", "at", "row", "share", "overlap", "metric", "gain_points", "low", "high"])
            for curve in self.curves:
                for title, points in curve.rows.items():
                    for point in points:
                        for metric in self.metrics:
                            values = (point.gain(metric).mean, *point.band(metric))
                            figures = (f"{value:.4f}" for value in values)
                            where = (f"{point.share:.4f}", f"{point.overlap:.4f}")
                            writer.writerow([curve.title, f"{point.at:g}", title, *where, metric, *figures])

    def _draw(self, path: Path) -> None:
        """Draw one column of panels a curve and one row of them a metric; the dotted line is the baseline."""
        from matplotlib.figure import Figure

        size = (1 + 3.4 * len(self.curves), 0.8 + 2.2 * len(self.metrics))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(self.metrics), len(self.curves), squeeze=False, sharex="col", sharey="row")
        for line, metric in zip(axes, self.metrics, strict=True):
            for axis, curve in zip(line, self.curves, strict=True):
                for title, unsorted in curve.rows.items():
                    points = sorted(unsorted, key=attrgetter(curve.axis))
                    at, gains = [getattr(p, curve.axis) for p in points], [p.gain(metric) for p in points]
                    (drawn,) = axis.plot(at, [gain.mean for gain in gains], "o-", ms=4, label=title)
                    low, high = zip(*(point.band(metric) for point in points), strict=True)
                    axis.fill_between(at, low, high, color=drawn.get_color(), alpha=0.2, lw=0)
                axis.axhline(0, color="black", lw=0.8, ls=":")
                axis.grid(alpha=0.3)
            line[0].set_ylabel(f"{METRIC_NAMES[metric]}: points over\n{self.baseline}", fontsize="small")
        for axis, curve in zip(axes[-1], self.curves, strict=True):
            axis.set_xlabel(textwrap.fill(curve.label, _LABEL_LETTERS), fontsize="small")
            axis.legend(fontsize="x-small")
        figure.savefig(path, dpi=110)
