from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from motionbox.flow.cpu.compiling import kernel
from motionbox.flow.cpu.median import CHOOSE_MIDDLE, MIDDLE, SORT5, median_filter


@kernel
def run_filter(state, stride, row_size, width, height, size, lines):  # type: ignore[no-untyped-def]
    median_filter(state, stride, row_size, 0, 1, width, height, size, lines)


def test_network_finds_the_median_of_every_block_of_bits() -> None:
    # A comparator network that is right for all zeros and ones is right for all numbers.
    for column in itertools.product((0, 1), repeat=5):
        wires = list(column)
        for a, b in SORT5:
            wires[a], wires[b] = min(wires[a], wires[b]), max(wires[a], wires[b])
        assert wires == sorted(column)
    ones = np.array(list(itertools.product(range(6), repeat=5)))  # number of ones in each sorted column
    block = {(row, column): ones[:, column] >= 5 - row for row in range(5) for column in range(5)}
    for a, b in CHOOSE_MIDDLE:
        block[a], block[b] = block[a] & block[b], block[a] | block[b]
    np.testing.assert_array_equal(block[MIDDLE], ones.sum(axis=1) >= 13)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(("width", "height"), [(16, 16), (17, 9), (45, 20)])
def test_filter_is_that_of_opencv(size: int, width: int, height: int) -> None:
    image = np.random.default_rng(width).normal(size=(height, width)).astype(np.float32)
    stride = 16 * (width // 16 + 3)
    state = np.full((height + 2, 2, stride), 7, np.float32)
    state[1:-1, 0, 16 : 16 + width] = image
    run_filter(state.reshape(-1), stride, 2 * stride, width, height, size, np.zeros(5 * stride, np.float32))
    np.testing.assert_array_equal(state[1:-1, 1, 16 : 16 + width], cv2.medianBlur(image, size))
    np.testing.assert_array_equal(state[1:-1, 1, 16 + width : 16 + -(-width // 16) * 16], 0)
