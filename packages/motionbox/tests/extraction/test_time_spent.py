"""Where the time goes: each second belongs to one step, whatever is inside what."""

import time

import pytest

from motionbox.extraction import time_spent
from motionbox.extraction.time_spent import TimeSpent, shares


def test_time_is_counted_once_and_for_the_innermost_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 1, 4, 10, 20, 21, 22, 25])  # on(a) 0..; over(b): 1..4, 10..20, 21..22; off(a) 25
    monkeypatch.setattr(time_spent.time, "perf_counter", lambda: float(next(clock)))
    spent = TimeSpent()
    with spent.on("a"):
        assert list(spent.over("b", "xy")) == ["x", "y"]
    assert spent.seconds == {"b": 3 + 10 + 1, "a": 25 - 14}


def test_an_error_ends_a_step() -> None:
    spent = TimeSpent()
    with pytest.raises(ValueError, match="planted"), spent.on("a"), spent.on("b"):
        raise ValueError("planted")
    begun = time.perf_counter()
    with spent.on("c"):
        pass
    assert set(spent.seconds) == {"a", "b", "c"}
    assert spent.seconds["c"] <= time.perf_counter() - begun


def test_shares_are_ranked_and_small_ones_left_out() -> None:
    assert shares({"store": 9.0, "flow": 71.0, "decoding": 19.9, "other": 0.1}) == "flow 71 %, decoding 20 %, store 9 %"
