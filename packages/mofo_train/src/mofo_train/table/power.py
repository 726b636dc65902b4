"""How sure a difference between two rows is, and how small a one a table can see: seeds and test clips together.

A difference is measured with some seeds on some clips, and both are drawn by chance. The interval is a bootstrap over
both at once: rows are compared seed by seed and clip by clip, then clips and seeds are drawn with replacement. Drawn
as they are, both would count the noise of a single answer again (Owen 2007, "The pigeonhole bootstrap"), so the seeds'
part is first freed of the noise of their clips, by an analysis of variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Right = NDArray[np.bool_]
"""Which answers are right: bool (seeds, clips)."""

_DRAWS = 2000
_CHUNK = 200
_LEVEL = 0.95
_SEEN_AT_80_PERCENT = (1.960 + 0.842) / 1.960  # quantiles of the normal distribution: 97.5 % and 80 %


@dataclass(frozen=True)
class Difference:
    """The difference of two rows, in points.

    Attributes:
        mean: How much better the first row is than the second.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2

    def text(self) -> str:
        """Write `+1.2 ± 0.8`, with a star where the interval leaves out 0."""
        star = " *" if self.low > 0 or self.high < 0 else ""
        return f"{self.mean:+.1f} ± {self.half_width:.1f}{star}"


def difference(own: Right, other: Right, *, draws: int = _DRAWS, seed: int = 0) -> Difference:
    """Compare two rows that were trained with the same seeds and tested on the same clips.

    With one seed the interval knows of the clips alone.

    Args:
        own: bool (S, C), which answers of a row are right.
        other: The same of the row that it is compared with.
        draws: How often the bootstrap draws.
        seed: Seed of the draws.

    Raises:
        ValueError: Other seeds or clips, or none.
    """
    if own.shape != other.shape or own.ndim != 2 or own.size == 0:
        raise ValueError(f"rows must be (seeds, clips) of one shape, got {own.shape} and {other.shape}")
    points = 100.0 * (own.astype(np.float64) - other)
    num_seeds, num_clips = points.shape
    of_clip, of_seed = points.mean(0), _effects_of_seeds(points)
    rng = np.random.default_rng(seed)
    found = []
    for first in range(0, draws, _CHUNK):
        count = min(_CHUNK, draws - first)
        weights = rng.multinomial(num_clips, np.full(num_clips, 1 / num_clips), size=count) / num_clips
        chosen = rng.integers(num_seeds, size=(count, num_seeds))
        found.append(weights @ of_clip + of_seed[chosen].mean(1))
    low, high = np.quantile(np.concatenate(found), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Difference(float(points.mean()), float(low), float(high))


def _effects_of_seeds(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each seed lies above the mean, scaled to what seeds vary beyond the noise of their clips, (S,)."""
    num_seeds, num_clips = points.shape
    above = points.mean(1) - points.mean()
    if num_seeds == 1 or num_clips == 1:
        return np.zeros(num_seeds)
    noise = ((points - points.mean(0) - above[:, None]) ** 2).sum() / ((num_seeds - 1) * (num_clips - 1))
    seen = (above**2).sum() / (num_seeds - 1)
    true = max(0.0, seen - noise / num_clips)
    few = num_seeds / (num_seeds - 1)  # what is drawn from so few varies less than they do
    scaled: NDArray[np.float64] = above * math.sqrt(few * true / seen) if seen > 0 else above
    return scaled


def smallest_seen(half_width: float) -> float:
    """Return the true difference that would be told from 0 in four of five such experiments, given their half width."""
    return _SEEN_AT_80_PERCENT * half_width
