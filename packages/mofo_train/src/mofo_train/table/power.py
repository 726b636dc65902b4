"""How sure a difference between two rows is, and how small a one a table can see: seeds and test clips together.

A difference is measured with some seeds on some clips, and both are drawn by chance. The interval is a bootstrap over
both at once: rows are compared seed by seed and clip by clip, then clips and seeds are drawn with replacement. Clips of
one group (a video, takes of one recording) resemble each other, so whole groups are drawn. Drawn as they are, both
would count the noise of a single answer again (Owen 2007, "The pigeonhole bootstrap"), so the seeds' part is first
freed of the noise of their clips, by an analysis of variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Right = NDArray[np.bool_]
"""Which answers are right: bool (seeds, clips)."""

_DRAWS = 2000
_CHUNK = 200
_LEVEL = 0.95
_NORMAL_97_5, _NORMAL_80 = 1.960, 0.842  # quantiles of the normal distribution


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

    @property
    def reach(self) -> tuple[float, float]:
        """How far the interval reaches to the left and to the right of the mean."""
        return self.mean - self.low, self.high - self.mean

    @property
    def ends(self) -> tuple[float, float]:
        """Lower and upper end of the interval."""
        return self.low, self.high

    def text(self) -> str:
        """Write `+1.2 ± 0.8`, with a star where the interval leaves out 0."""
        star = " *" if self.low > 0 or self.high < 0 else ""
        return f"{self.mean:+.1f} ± {self.half_width:.1f}{star}"


def difference(
    own: Right, other: Right, *, groups: Sequence[str] | None = None, draws: int = _DRAWS, seed: int = 0
) -> Difference:
    """Compare two rows that were trained with the same seeds and tested on the same clips.

    With one seed the interval knows of the clips alone.

    Args:
        own: bool (S, C), which answers of a row are right.
        other: The same of the row that it is compared with.
        groups: The group of each of the C clips; None = every clip is one.
        draws: How often the bootstrap draws.
        seed: Seed of the draws.

    Raises:
        ValueError: Other seeds or clips, or none; groups of another number of clips.
    """
    points, place = _points(own, other, groups)
    num_seeds = len(points)
    sizes = np.bincount(place).astype(np.float64)
    of_group, of_seed = np.bincount(place, points.mean(0)), _effects_of_seeds(points, place)
    rng = np.random.default_rng(seed)
    found = []
    for first in range(0, draws, _CHUNK):
        count = min(_CHUNK, draws - first)
        times = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=count)
        chosen = rng.integers(num_seeds, size=(count, num_seeds))
        found.append(times @ of_group / (times @ sizes) + of_seed[chosen].mean(1))
    low, high = np.quantile(np.concatenate(found), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Difference(float(points.mean()), float(low), float(high))


def _points(own: Right, other: Right, groups: Sequence[str] | None) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the differences of single answers in points, float64 (S, C), and the number of each clip's group, (C,)."""
    if own.shape != other.shape or own.ndim != 2 or own.size == 0:
        raise ValueError(f"rows must be (seeds, clips) of one shape, got {own.shape} and {other.shape}")
    if groups is not None and len(groups) != own.shape[1]:
        raise ValueError(f"groups must name one of each of {own.shape[1]} clips, got {len(groups)}")
    place = np.arange(own.shape[1]) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    return 100.0 * (own.astype(np.float64) - other), place


def _effects_of_seeds(points: NDArray[np.float64], place: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how far each seed lies above the mean, scaled to what seeds vary beyond the noise of their clips, (S,)."""
    variances = _variances(points, place)
    if variances is None:
        return np.zeros(len(points))
    num_seeds, above = len(points), points.mean(1) - points.mean()
    few = num_seeds / (num_seeds - 1)  # what is drawn from so few varies less than they do
    seen = variances.seen
    scaled: NDArray[np.float64] = above * math.sqrt(few * variances.of_seeds / seen) if seen > 0 else above
    return scaled


class _Variances(NamedTuple):
    """Of the mean of one seed, in square points.

    Attributes:
        noise: By what a group of clips as a whole does in one seed and not in the others.
        seen: Of the seeds' means, noise and all.
    """

    noise: float
    seen: float

    @property
    def of_seeds(self) -> float:
        """What seeds vary beyond the noise of their clips."""
        return max(0.0, self.seen - self.noise)


def _variances(points: NDArray[np.float64], place: NDArray[np.int64]) -> _Variances | None:
    """Analyse the variance of (S, C) points, `place` numbering the groups of clips; None with one seed or one group."""
    num_seeds, num_clips = points.shape
    num_groups = int(place.max()) + 1
    if num_seeds == 1 or num_groups == 1:
        return None
    above = points.mean(1) - points.mean()
    rest = points - points.mean(0) - above[:, None]
    of_groups = np.stack([np.bincount(place, own) for own in rest])
    noise = (of_groups**2).sum() / ((num_seeds - 1) * (num_groups - 1)) * num_groups / num_clips**2
    return _Variances(float(noise), float((above**2).sum() / (num_seeds - 1)))


def seeds_needed(own: Right, other: Right, half_width: float, *, groups: Sequence[str] | None = None) -> float:
    """Estimate how many seeds an interval of a given half width would take on the same clips.

    It holds as far as the seeds at hand vary as others will: three know that within a factor of two or so.

    Args:
        own: As in `difference`, at least two seeds.
        other: Likewise.
        half_width: What is wanted, in points.
        groups: As in `difference`.

    Returns:
        A whole number, at least 1; infinity where the clips alone are too few, as one group of them is.

    Raises:
        ValueError: As `difference`, or one seed, which tells nothing of others.
    """
    points, place = _points(own, other, groups)
    num_seeds, num_clips = points.shape
    if num_seeds == 1:
        raise ValueError("rows must have at least two seeds, got 1")
    variances = _variances(points, place)
    if variances is None:
        return math.inf
    sizes = np.bincount(place)
    above = np.bincount(place, points.mean(0)) - sizes * points.mean()
    by_clips = len(sizes) / (len(sizes) - 1) * float((above**2).sum()) / num_clips**2
    lasting = max(0.0, by_clips - variances.noise / num_seeds)  # what a clip does in every seed
    left = (half_width / _NORMAL_97_5) ** 2 - lasting
    return math.inf if left <= 0 else max(1, math.ceil((variances.noise + variances.of_seeds) / left))


def smallest_seen(half_width: float) -> float:
    """Return the true difference that would be told from 0 in four of five such experiments, given their half width."""
    return (_NORMAL_97_5 + _NORMAL_80) / _NORMAL_97_5 * half_width
