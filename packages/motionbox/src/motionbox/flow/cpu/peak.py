"""The arithmetic peak of a core, for the floor that `motionbox bench` compares the iteration with."""

from __future__ import annotations

from typing import Any

from motionbox.flow.cpu.compiling import kernel
from motionbox.flow.cpu.simd import load, store

NUM_CHAINS = 10


@kernel
def multiply_add_chains(values: Any, count: int) -> None:
    """Do `count` multiply-adds in each of ten independent chains of vectors.

    `values` is 16 floats to start from and 16 for the sum, which keeps the compiler from leaving the work out.
    """
    x, y = load(values, 0), load(values, 0)
    a, b, c, d, e = x, x + y, x * y, x - y, x + x
    f, g, h, i, j = y * y, y + x * y, x - x * y, y - x * x, y + y + y
    for _ in range(count):
        a, b, c, d, e = a * x + y, b * x + y, c * x + y, d * x + y, e * x + y
        f, g, h, i, j = f * x + y, g * x + y, h * x + y, i * x + y, j * x + y
    store(values, 16, a + b + c + d + e + f + g + h + i + j)
