from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofo_train.data.transforms import dense_frames, segment_frames


@given(st.integers(1, 500), st.integers(1, 32), st.integers(1, 6), st.floats(0, 1, exclude_max=True))
def test_dense_frames_stay_inside_and_keep_their_stride(frames: int, wanted: int, stride: int, place: float) -> None:
    chosen = dense_frames(frames, wanted, stride, place)
    assert chosen.shape == (wanted,)
    assert chosen.min() >= 0
    assert chosen.max() < frames
    if frames >= (wanted - 1) * stride + 1:
        assert (np.diff(chosen) == stride).all()
    else:
        assert (np.diff(chosen) >= 0).all()
        assert chosen[-1] == frames - 1 or wanted == 1


def test_dense_window_reaches_both_ends() -> None:
    assert dense_frames(40, 16, 2, 0.0).tolist() == list(range(0, 32, 2))
    assert dense_frames(40, 16, 2, 0.999).tolist() == list(range(9, 40, 2))


@given(st.integers(1, 300), st.integers(1, 32), st.integers(0, 9))
def test_one_frame_of_each_segment(frames: int, wanted: int, seed: int) -> None:
    chosen = segment_frames(frames, wanted, np.random.default_rng(seed).random(wanted))
    assert (np.diff(chosen) >= 0).all()
    for place, frame in enumerate(chosen.tolist()):
        assert int(place * frames / wanted) <= frame <= (place + 1) * frames / wanted


def test_middle_of_the_segments() -> None:
    assert segment_frames(8, 4).tolist() == [1, 3, 5, 7]
    assert segment_frames(2, 4).tolist() == [0, 0, 1, 1]


def test_misuse() -> None:
    with pytest.raises(ValueError, match="num_frames must be at least 1"):
        dense_frames(0, 4, 1, 0.0)
    with pytest.raises(ValueError, match="position must be in"):
        dense_frames(9, 4, 1, 1.0)
