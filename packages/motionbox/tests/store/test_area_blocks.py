import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from motionbox.store.areas.blocks import (
    BLOCK_FRAMES,
    NUM_LEVELS,
    Areas,
    decode_block,
    encode_blocks,
    frame_cells_wh,
    stored_areas,
)

SMALL = hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 7)))


def there_and_back(areas: Areas) -> Areas:
    return np.concatenate([decode_block(block, areas.shape[1:]) for block in encode_blocks(areas)])


@given(SMALL)
def test_areas_come_back_as_their_levels(areas: Areas) -> None:
    stored = stored_areas(areas)
    np.testing.assert_array_equal(there_and_back(areas), stored)
    np.testing.assert_array_equal(there_and_back(stored), stored)


def test_the_levels_are_even_and_keep_zero_and_the_strongest() -> None:
    every = np.arange(256, dtype=np.uint8)
    stored = stored_areas(every)
    assert len(np.unique(stored)) == NUM_LEVELS + 1
    assert (stored[0], stored[1], stored[255]) == (0, 24, 255)
    assert (np.diff(stored.astype(int)) >= 0).all()
    # half a step at most, but for what would become 0
    assert abs(stored[14:].astype(int) - every[14:]).max() <= 10


def test_a_block_stands_by_itself() -> None:
    rng = np.random.default_rng(3)
    areas = rng.integers(0, 256, (2 * BLOCK_FRAMES + 5, 3, 4), np.uint8)
    blocks = list(encode_blocks(areas))
    assert len(blocks) == 3
    expected = stored_areas(areas[BLOCK_FRAMES : 2 * BLOCK_FRAMES])
    np.testing.assert_array_equal(decode_block(blocks[1], (3, 4)), expected)
    assert list(encode_blocks(areas[BLOCK_FRAMES:])) == blocks[1:]
    some = np.array([200, 3, 3, 255])
    np.testing.assert_array_equal(decode_block(blocks[1], (3, 4), some), expected[some])
    with pytest.raises(ValueError, match="must hold frame 5, got 5 frames"):
        decode_block(blocks[2], (3, 4), np.array([5]))


def test_what_is_still_or_empty_takes_next_to_nothing() -> None:
    spot = np.zeros((BLOCK_FRAMES, 32, 57), np.uint8)
    assert len(next(encode_blocks(spot))) < 40
    spot[:, 10:20, 30:44] = np.random.default_rng(0).integers(1, 256, (10, 14), np.uint8)
    assert len(next(encode_blocks(spot))) < 300
    np.testing.assert_array_equal(there_and_back(spot), stored_areas(spot))


@pytest.mark.parametrize("keep", [0, 3, 9, 12, -1])
def test_a_torn_block_is_an_error(keep: int) -> None:
    areas = np.random.default_rng(0).integers(0, 256, (5, 8, 9), np.uint8)
    data = next(encode_blocks(areas))
    with pytest.raises(ValueError, match=r"\w+"):
        decode_block(data[:keep], (8, 9))


def test_a_block_of_another_grid_is_an_error() -> None:
    data = next(encode_blocks(np.full((5, 8, 9), 7, np.uint8)))
    with pytest.raises(ValueError, match=r"must lie in the grid \(8, 8\)"):
        decode_block(data, (8, 8))


def test_frames_in_cells() -> None:
    assert frame_cells_wh(1920, 1080, 256, 8) == (455 / 8, 32.0)
    assert frame_cells_wh(100, 60, 256, 8) == (12.5, 7.5)
