import numpy as np
import pytest

from motionbox.config import load_config
from motionbox.motion import boxes as bx
from motionbox.motion.areas import clip_areas
from motionbox.motion.clip_boxes import clip_boxes


def test_tuned_takes_the_boxes_of_the_areas():
    config = load_config("tuned")
    maps = np.zeros((6, 30, 54), np.uint8)
    maps[:, 8:16, 20:30] = 90
    times = np.arange(6) / 12
    found = clip_boxes(np.full((6, 4), -1), maps, times, 432, 240, config)
    np.testing.assert_array_equal(found.boxes, clip_areas(maps, times, 432, 240, config).boxes)
    with pytest.raises(ValueError, match="maps must be"):
        clip_boxes(np.full((6, 4), -1), None, times, 432, 240, config)


def test_other_presets_stabilise_raw_boxes():
    config = load_config("paper")
    raw = np.array([[10, 10, 90, 90], bx.NO_BOX], np.int16)
    times = np.array([0.0, 1.0])
    confidence = np.array([0.8, 0.0], np.float32)
    found = clip_boxes(raw, None, times, 432, 240, config, confidence)
    np.testing.assert_array_equal(found.boxes, bx.stabilise(raw, times, 432, 240, config.boxes).boxes)
    np.testing.assert_allclose(found.confidence, [0.8, 0.4])
