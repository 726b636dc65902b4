from __future__ import annotations

import numpy as np
import pytest

from mofo_train.table.power import Difference, Right, difference, seeds_needed, smallest_seen


def rows(rng: np.random.Generator, seeds: int, clips: int, gain: float, spread: float) -> tuple[Right, Right]:
    """Draw two rows whose expected accuracies differ by `gain`: clips differ in difficulty, seeds in how much helps."""
    difficulty = rng.uniform(0.2, 0.8, clips)
    helped = gain + spread * rng.standard_normal((seeds, 1))
    other = rng.uniform(size=(seeds, clips)) < difficulty
    own = rng.uniform(size=(seeds, clips)) < difficulty + helped
    return own, other


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.0), (4, 0.02), (6, 0.03)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(seeds: int, spread: float) -> None:
    rng, held, num_trials = np.random.default_rng(seeds), 0, 300
    for _ in range(num_trials):
        own, other = rows(rng, seeds, 400, 0.05, spread)
        found = difference(own, other, draws=400)
        held += found.low <= 5.0 <= found.high
    assert 0.9 <= held / num_trials <= 0.995


def test_a_difference_that_every_clip_and_seed_shows_has_no_width() -> None:
    right = np.ones((3, 50), bool)
    found = difference(right, ~right)
    assert (found.mean, found.low, found.high) == (100.0, 100.0, 100.0)
    assert found.text() == "+100.0 ± 0.0 *"
    assert difference(right, right).text() == "+0.0 ± 0.0"


def test_groups_that_answer_as_one_count_as_one() -> None:
    """Each of 60 answers ten times over, as a group: the interval is that of the 60, not of 600."""
    own, other = rows(np.random.default_rng(2), 3, 60, 0.1, 0.0)
    single = difference(own, other, draws=20_000)
    names = [f"video {clip}" for clip in range(60) for _ in range(10)]
    tenfold = [np.repeat(right, 10, axis=1) for right in (own, other)]
    grouped = difference(*tenfold, groups=names, draws=20_000)
    assert (grouped.mean, grouped.low, grouped.high) == pytest.approx((single.mean, single.low, single.high), abs=0.6)
    assert difference(*tenfold, draws=20_000).half_width < 0.5 * grouped.half_width
    order = np.random.default_rng(3).permutation(600)
    shuffled = difference(*(right[:, order] for right in tenfold), groups=[names[clip] for clip in order], draws=20_000)
    assert shuffled == grouped


def test_intervals_over_groups_of_unequal_size_hold_the_truth() -> None:
    rng, held, num_trials = np.random.default_rng(5), 0, 300
    for _ in range(num_trials):
        sizes = rng.integers(1, 12, 80)
        place = np.repeat(np.arange(80), sizes)
        gain = rng.normal(0.05, 0.15, 80)[place]  # what helps differs from video to video
        other = rng.uniform(size=(3, len(place))) < 0.4
        own = rng.uniform(size=(3, len(place))) < 0.4 + gain
        found = difference(own, other, groups=[str(group) for group in place], draws=400)
        held += found.low <= 5.0 <= found.high
    assert 0.9 <= held / num_trials <= 0.985


def test_more_clips_and_more_seeds_see_more() -> None:
    def width(seeds: int, clips: int) -> float:
        own, other = rows(np.random.default_rng(0), seeds, clips, 0.0, 0.01)
        return difference(own, other).half_width

    assert width(4, 1600) < 0.7 * width(4, 200)
    assert width(8, 400) < width(2, 400)


def test_as_many_seeds_as_are_needed_give_the_width_that_is_wanted() -> None:
    """Told from sixty seeds what others would bring: intervals of so many seeds are about as wide as was asked for."""
    wanted, clips = 3.0, 600
    many = rows(np.random.default_rng(0), 60, clips, 0.05, 0.04)
    needed = seeds_needed(*many, wanted)
    widths = [difference(*rows(np.random.default_rng(s), int(needed), clips, 0.05, 0.04)).half_width for s in range(60)]
    # Which are drawn from a few seeds, so they are a little narrower in the mean of their roots than of their squares.
    assert np.sqrt(np.mean(np.square(widths))) == pytest.approx(wanted, rel=0.12)
    assert seeds_needed(*many, 2 * wanted) < needed < seeds_needed(*many, wanted / 1.5)


def test_too_few_clips_are_not_mended_by_seeds() -> None:
    rng = np.random.default_rng(4)
    helped = rng.uniform(size=40) < 0.5  # half of the clips are always right in one row and never in the other
    own, other = np.tile(helped, (5, 1)), np.tile(~helped, (5, 1))
    assert np.isinf(seeds_needed(own, other, 3.0))
    assert seeds_needed(np.ones((3, 40), bool), np.zeros((3, 40), bool), 3.0) == 1
    assert np.isinf(seeds_needed(own, other, 99.0, groups=["all"] * 40))
    with pytest.raises(ValueError, match="at least two seeds, got 1"):
        seeds_needed(own[:1], other[:1], 3.0)


def test_groups_need_as_many_seeds_as_the_clips_that_they_stand_for() -> None:
    own, other = rows(np.random.default_rng(6), 4, 300, 0.1, 0.0)
    names = [f"video {clip}" for clip in range(300) for _ in range(10)]
    assert seeds_needed(*tenfold(own, other), 3.0, groups=names) == seeds_needed(own, other, 3.0)
    helped = np.arange(300) % 2 == 0  # always right in one row and never in the other, or the other way round
    always = tenfold(np.tile(helped, (4, 1)), np.tile(~helped, (4, 1)))
    assert seeds_needed(*always, 6.0) == 1
    assert np.isinf(seeds_needed(*always, 6.0, groups=names))


def tenfold(*rights: Right) -> list[Right]:
    """Repeat each clip ten times."""
    return [np.repeat(right, 10, axis=1) for right in rights]


def test_the_same_draws_give_the_same_digits() -> None:
    own, other = rows(np.random.default_rng(1), 3, 100, 0.1, 0.02)
    assert difference(own, other) == difference(own, other) != difference(own, other, seed=1)


def test_rows_of_other_clips_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape, got \(2, 5\) and \(2, 6\)"):
        difference(np.ones((2, 5), bool), np.ones((2, 6), bool))
    with pytest.raises(ValueError, match="groups must name one of each of 5 clips, got 4"):
        difference(np.ones((2, 5), bool), np.ones((2, 5), bool), groups=["a"] * 4)


def test_four_of_five_experiments_see_the_smallest_difference() -> None:
    """A true difference of that size, measured with normal noise, leaves the interval above 0 in 80 %."""
    half_width = 1.96
    measured = np.random.default_rng(0).normal(smallest_seen(half_width), 1.0, 20_000)
    assert (measured - half_width > 0).mean() == pytest.approx(0.8, abs=0.01)
    assert Difference(3.0, 1.0, 5.0).half_width == 2.0
