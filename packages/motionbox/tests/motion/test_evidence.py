import numpy as np

from motionbox.config import AreaConfig
from motionbox.motion.evidence import accumulate, lasting_motion, sustained


def test_lasting_motion_known_answers():
    motion = np.zeros((5, 5, 12), np.float32)
    motion[:, 2, [2, 4, 6, 8, 10]] = np.diag([5.0, 4, 3, 2, 1])  # two cells further with every frame
    motion[2, 0, 0] = 9  # a flash
    times, no_cut = np.arange(5) / 12, np.zeros(5, bool)

    found = lasting_motion(motion, times, no_cut, 0.05, 2)
    assert found[2, 0, 0] == 0
    np.testing.assert_array_equal(found[range(5), 2, [2, 4, 6, 8, 10]], [4, 3, 2, 1, 1])
    assert not lasting_motion(motion, times, no_cut, 0.05, 1)[1:4].any()  # out of reach
    assert not lasting_motion(motion, times, no_cut, 0.1, 2)[2:3].any()  # two frames further it is out of reach, too
    np.testing.assert_array_equal(lasting_motion(motion, times, no_cut, 0.0, 2), motion)


def test_lasting_motion_looks_at_distinct_moments_of_one_scene():
    motion = np.zeros((6, 1, 1), np.float32)
    motion[2:4] = 7  # the same frame twice, as in 30 fps footage stored at 60
    no_cut = np.zeros(6, bool)
    assert not lasting_motion(motion, np.arange(6) / 60, no_cut, 0.05, 1).any()
    # Nothing in sight on one side: at the ends of the clip, at a cut, and where frames are sparse.
    motion[:] = np.array([3, 2, 9, 4, 5, 1], np.float32)[:, None, None]
    times = np.arange(6) / 12
    np.testing.assert_array_equal(lasting_motion(motion, times, no_cut, 0.05, 0)[:, 0, 0], [2, 2, 2, 4, 1, 1])
    cut = np.arange(6) == 2
    found = lasting_motion(motion, times, cut, 0.05, 0)[:, 0, 0]
    np.testing.assert_array_equal(found[[0, 1, 3, 4, 5]], [2, 2, 4, 1, 1])
    np.testing.assert_array_equal(lasting_motion(motion, np.arange(6) / 2, no_cut, 0.05, 0), motion)


def test_accumulate_is_a_kernel_on_the_clock_of_motion():
    strength = np.zeros((6, 1, 2), np.float32)
    strength[1, 0, 0] = strength[4, 0, 1] = 1
    weights = np.full(6, 0.1)
    settings_ = AreaConfig(memory_seconds=0.1, sustained_seconds=0.1)
    found = accumulate(strength, weights, np.zeros(6, bool), settings_)[:, 0] / 0.1
    # Rest does not age the evidence; half of the motion of a frame lies before its middle and half behind it.
    half, full = np.exp(-0.5), np.exp(-1)
    np.testing.assert_allclose(found[:, 0], [half, 1, half, half, full, full * half], rtol=1e-5)
    np.testing.assert_allclose(found[:, 1], found[::-1, 0], rtol=1e-5)
    cut = np.arange(6) == 2
    behind = accumulate(strength, weights, cut, settings_)[:, 0] / 0.1
    np.testing.assert_allclose(behind[3:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(behind[:3, 0], found[:3, 0], rtol=1e-5)


def test_sustained_is_the_level_reached_for_long_enough():
    values = np.array([1.0, 9, 5, 7, 3])
    settings_ = AreaConfig(sustained_seconds=0.25)
    assert sustained(values, np.full(5, 0.1), settings_) == 5
    assert sustained(values, np.full(5, 0.25), settings_) == 9
    assert sustained(values, np.full(5, 0.01), settings_) == 1
