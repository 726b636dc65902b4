import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motionbox.video import read_frames
from motionbox.video.frames import (
    DUPLICATE_CONTEXT_FRAMES,
    MAX_REPEATS,
    find_duplicates,
    mean_difference,
    working_size,
)


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((1280, 720), 256, (455, 256)),
        ((720, 1280), 256, (256, 455)),
        ((320, 240), 256, (320, 240)),
        ((9, 9), 9, (9, 9)),
    ],
)
def test_working_size_shrinks_to_the_short_side_and_never_enlarges(size, short_side, expected):
    assert working_size(*size, short_side) == expected


@pytest.mark.parametrize("arguments", [(0, 5, 5), (5, -1, 5), (5, 5, 0)])
def test_working_size_refuses_sizes_under_one(arguments):
    with pytest.raises(ValueError, match="must be at least 1"):
        working_size(*arguments)


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 1_000))
def test_working_size_keeps_proportions(width, height, short_side):
    new_width, new_height = working_size(width, height, short_side)
    assert min(new_width, new_height) == min(width, height, short_side)
    scale = min(1.0, short_side / min(width, height))
    assert abs(new_width - width * scale) <= 0.5
    assert abs(new_height - height * scale) <= 0.5


def flags(*differences: float, ratio: float = 0.2) -> list[int]:
    return [int(i) for i in np.flatnonzero(find_duplicates(np.array(differences, dtype=np.float64), ratio))]


def test_every_second_frame_of_doubled_footage_repeats():
    assert flags(0.5, 10, 0.5, 9, 0.6, 11) == [3, 5]
    assert flags(10, 0.5, 9, 0.4, 11, 0.5) == [2, 4]


def test_pulldown_from_24_to_60_leaves_two_distinct_of_five():
    assert flags(8, 0, 8, 0, 0, 8, 0, 8, 0, 0, 8) == [2, 4, 5, 7, 9, 10]


def test_repeats_up_to_the_limit_are_marked_and_a_longer_pause_is_not():
    assert flags(10, *[0.1] * MAX_REPEATS, 10) == list(range(2, 2 + MAX_REPEATS))
    assert flags(10, *[0.1] * (MAX_REPEATS + 1), 10) == []


def test_footage_that_stands_still_is_no_repeat():
    assert flags(*[0.0] * 20) == []
    assert flags(*[0.3, 0.01] * 10) == []  # coding noise alone
    assert flags(0.1, 0.1, 0.1) == []


def test_scene_cut_and_single_moves_mark_nothing():
    assert flags(3, 3, 3, 60, 3, 3, 3) == []
    assert flags(*[0.0] * 10, 30, *[0.0] * 10) == []


def test_ratio_zero_turns_the_check_off():
    assert flags(10, 0, 10, 0, 10, ratio=0) == []


def test_no_difference_and_one_difference():
    assert find_duplicates(np.empty(0), 0.2).tolist() == [False]
    assert find_duplicates(np.array([0.0]), 0.2).tolist() == [False, False]
    with pytest.raises(ValueError, match="one-dimensional"):
        find_duplicates(np.zeros((2, 2)), 0.2)


def naive_duplicates(differences: list[float], ratio: float) -> list[bool]:
    """The rule of the docstring, word by word."""
    num = len(differences)
    marked = [False] * (num + 1)
    for first in range(1, num):
        for last in range(first, min(first + MAX_REPEATS, num - 1)):
            sides = [differences[first - 1], differences[last + 1]]
            if min(sides) > 0.5 and max(differences[first : last + 1]) < ratio * min(sides):
                for i in range(first, last + 1):
                    marked[i + 1] = True
    return marked


difference_lists = st.lists(st.sampled_from([0.0, 0.1, 0.4, 0.6, 1.0, 5.0, 10.0, 40.0]), max_size=30)


@given(difference_lists, st.sampled_from([0.0, 0.05, 0.2, 0.9]))
def test_find_duplicates_equals_its_definition(differences, ratio):
    found = find_duplicates(np.array(differences, dtype=np.float64), ratio)
    assert found.tolist() == naive_duplicates(differences, ratio)


@given(difference_lists, st.data())
def test_flags_depend_on_the_documented_neighbourhood_only(differences, data):
    whole = find_duplicates(np.array(differences, dtype=np.float64), 0.2)
    start = data.draw(st.integers(0, len(differences)))
    part = find_duplicates(np.array(differences[start:], dtype=np.float64), 0.2)
    known = slice(DUPLICATE_CONTEXT_FRAMES if start else 0, None)
    assert part[known].tolist() == whole[start:][known].tolist()


def test_mean_difference_is_that_of_the_grey_levels():
    dark, bright = np.full((16, 16), 3, np.uint8), np.full((16, 16), 250, np.uint8)
    assert mean_difference(dark, bright) == mean_difference(bright, dark) == 247
    bright[8:] = 3
    assert mean_difference(dark, bright) == 123.5


def repeats_of(path, ratio, **span):
    """Return the number of frames of a video and the positions of its repeats."""
    greys = [frame.grey for frame in read_frames(path, **span)]
    steps = [mean_difference(a, b) for a, b in itertools.pairwise(greys)]
    return len(greys), np.flatnonzero(find_duplicates(np.array(steps), ratio)).tolist()


def test_epic_clip_of_doubled_footage(testdata):
    num_frames, repeats = repeats_of(testdata / "clips/epic_P01_06_90_456x256_60_h264.mp4", 0.25)
    assert num_frames == 50
    # every second frame; the phase shifts once, where a frame was shown three times
    assert repeats == [*range(2, 39, 2), *range(39, 48, 2)]


def test_native_30_fps_footage_has_no_repeats(testdata):
    for name in ("handobj_pour_coffee_720p30_h264.mp4", "pool_net_camera_340x256_30_h264.mp4"):
        num_frames, repeats = repeats_of(testdata / "clips" / name, 0.2, stop_seconds=4.0)
        assert num_frames > 100
        assert repeats == []
