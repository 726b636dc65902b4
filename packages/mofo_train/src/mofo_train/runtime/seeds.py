"""Seeds of everything random in a step."""

from __future__ import annotations

_SEED_STRIDE = 1_000_003


def step_seed(seed: int, place: int) -> int:
    """Return the seed of everything random in one micro-batch of one rank, `place` counting these from the start."""
    return (seed * _SEED_STRIDE + place) % 2**63
