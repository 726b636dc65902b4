"""Small charts as inline SVG: histograms and a heat map, readable without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT, _FOOT = 320, 150, 18
_HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))  # dark to bright


def histogram(title: str, values: NDArray[np.floating[Any]], limits: tuple[float, float], unit: str = "") -> str:
    """Draw a histogram.

    Args:
        title: Caption.
        values: Any shape; values that are not finite are left out, those beyond the limits join the last bars.
        limits: Lowest and highest value shown.
        unit: Written after the limits.

    Returns:
        A `<figure>` element.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return _figure(title, _words("nothing to show"))
    low, high = limits if limits[1] > limits[0] else (limits[0], limits[0] + 1)
    counts, _ = np.histogram(np.clip(finite, low, high), bins=32, range=(low, high))
    step, top = _WIDTH / len(counts), _HEIGHT - _FOOT
    bars = "".join(
        f'<rect x="{k * step + 0.5:.1f}" y="{top * (1 - count / counts.max()):.1f}" width="{step - 1:.1f}" '
        f'height="{top * count / counts.max():.1f}"><title>{low + (high - low) * k / len(counts):.3g} to '
        f"{low + (high - low) * (k + 1) / len(counts):.3g}: {count:,}</title></rect>"
        for k, count in enumerate(counts)
    )
    middle = float(np.median(finite))
    mark = _WIDTH * (min(max(middle, low), high) - low) / (high - low)
    line = f'<line x1="{mark:.1f}" x2="{mark:.1f}" y1="0" y2="{top}" stroke="#ffbe3c" stroke-dasharray="4 3"/>'
    ends = _label(0, "start", f"{low:.3g}{unit}") + _label(_WIDTH, "end", f"{high:.3g}{unit}")
    return _figure(f"{title} · median {middle:.3g}{unit}", f'<g fill="#00e0ff">{bars}</g>{line}{ends}')


def heat_map(title: str, shares: NDArray[np.floating[Any]]) -> str:
    """Draw a map of shares, dark to bright.

    Args:
        title: Caption.
        shares: (rows, columns), >= 0; scaled by the largest.

    Returns:
        A `<figure>` element.
    """
    peak = float(shares.max()) if shares.size else 0.0
    if peak <= 0:
        return _figure(title, _words("nothing to show"))
    rows, columns = shares.shape
    wide, tall = _WIDTH / columns, (_HEIGHT - _FOOT) / rows
    cells = "".join(
        f'<rect x="{x * wide:.1f}" y="{y * tall:.1f}" width="{wide + 0.5:.1f}" height="{tall + 0.5:.1f}" '
        f'fill="{_heat(float(shares[y, x]) / peak)}"><title>{shares[y, x]:.1%}</title></rect>'
        for y in range(rows)
        for x in range(columns)
    )
    ends = _label(0, "start", f"darkest {shares.min():.0%}") + _label(_WIDTH, "end", f"brightest {peak:.0%}")
    return _figure(title, cells + ends)


def box_coverage(boxes: NDArray[np.floating[Any]], rows: int = 18, columns: int = 32) -> NDArray[np.float64]:
    """Return the share of boxes that cover each cell of a grid over the frame.

    Args:
        boxes: (N, 4) xyxy in shares of the frame.
        rows: Cells from top to bottom.
        columns: Cells from left to right.

    Returns:
        float64 (rows, columns), 0 to 1; a cell is covered where its middle is.
    """
    if len(boxes) == 0:
        return np.zeros((rows, columns))
    # Count with corner marks and running sums: a box is +1 from its first cell on and -1 after its last one.
    sides = np.array([columns, rows, columns, rows])
    cells = np.clip(np.ceil(boxes * sides - 0.5), 0, sides).astype(int)
    marks = np.zeros((rows + 1, columns + 1))
    for x, y, sign in ((0, 1, 1), (2, 1, -1), (0, 3, -1), (2, 3, 1)):
        np.add.at(marks, (cells[:, y], cells[:, x]), sign)
    covered: NDArray[np.float64] = marks.cumsum(axis=0).cumsum(axis=1)[:rows, :columns] / len(boxes)
    return covered


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Draw a table of names and values, both escaped."""
    lines = "".join(f"<tr><td>{escape(name)}</td><td class=number>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{lines}</table>"


def _figure(title: str, inner: str) -> str:
    view = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{inner}</svg>'
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{view}</figure>'


def _label(x: int, anchor: str, words: str) -> str:
    return (
        f'<text x="{x}" y="{_HEIGHT - 3}" text-anchor="{anchor}" font-size="14" fill="#9aa0ad">{escape(words)}</text>'
    )


def _words(words: str) -> str:
    return (
        f'<text x="{_WIDTH // 2}" y="{_HEIGHT // 2}" text-anchor="middle" font-size="15" fill="#9aa0ad">'
        f"{escape(words)}</text>"
    )


def _heat(share: float) -> str:
    place = min(max(share, 0.0), 1.0) * (len(_HEAT) - 1)
    low = min(int(place), len(_HEAT) - 2)
    mixed = (round(a + (b - a) * (place - low)) for a, b in zip(_HEAT[low], _HEAT[low + 1], strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)
