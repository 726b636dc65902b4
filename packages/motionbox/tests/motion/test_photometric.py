from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from motionbox.config import ConfigError, MotionConfig, load_config
from motionbox.motion.maps import MotionAccumulator, fit_camera, residual_motion
from motionbox.motion.photometric import half_size, unexplained_share, weigh_motion

HEIGHT, WIDTH = 120, 160
CAMERA_PX = (3.0, -2.0)
OWN_PX = (-4.0, 3.0)
SQUARE = (slice(40, 80), slice(60, 110))


def texture(seed: int, blur_px: float = 2.0) -> np.ndarray:
    field = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 1, (HEIGHT, WIDTH)), (0, 0), blur_px)
    return np.clip(128 + 40 * field / field.std(), 0, 255).astype(np.uint8)


def shift(image: np.ndarray, by_px: tuple[float, float]) -> np.ndarray:
    matrix = np.array([[1, 0, by_px[0]], [0, 1, by_px[1]]])
    return cv2.warpAffine(image, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)


def scene(*, halo_px: int = 0) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """A textured square moves over a textured ground under a moving camera; its flow may bleed over the edge."""
    ground, square = texture(0), texture(1)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[SQUARE] = 1
    moved = shift(mask, OWN_PX)
    pair = (np.where(mask, square, ground), np.where(moved, shift(square, OWN_PX), shift(ground, CAMERA_PX)))
    flow = np.empty((HEIGHT, WIDTH, 2), np.float32)
    flow[:] = CAMERA_PX
    rows, columns = SQUARE
    flow[rows.start - halo_px : rows.stop + halo_px, columns.start - halo_px : columns.stop + halo_px] = OWN_PX
    return flow, pair


def halves(pair: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return half_size(pair[0]), half_size(pair[1])


def test_motion_counts_inside_what_moves_and_not_where_flow_bleeds():
    flow, pair = scene(halo_px=16)
    camera = fit_camera(flow)
    share = unexplained_share(flow, camera, halves(pair))
    assert share.shape == (HEIGHT // 4, WIDTH // 4)
    assert share[12:18, 17:25].min() > 0.9  # well inside the square
    assert share[7:9, 14:28].mean() < 0.15  # the halo above it, away from what the square covers
    assert share[24:, :].max() < 0.15  # the ground
    motion = residual_motion(flow, camera)
    weighed = weigh_motion(motion, flow, camera, halves(pair), 0.2)
    np.testing.assert_allclose(weighed[50:70, 72:98], np.hypot(7, 5), rtol=0.1)
    assert (weighed >= 0.2 * motion - 1e-5).all()
    assert (weighed <= motion + 1e-5).all()
    np.testing.assert_allclose(weighed[28:35, 60:110].mean(), 0.2 * np.hypot(7, 5), rtol=0.3)


def test_slips_along_stripes_are_explained_by_the_camera():
    stripes = np.tile(texture(3)[:, :1], (1, WIDTH))
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    flow[SQUARE] = (6, 0)  # along the stripes: the frames are the same
    share = unexplained_share(flow, np.zeros((3, 2)), halves((stripes, stripes)))
    assert share.max() < 0.01


@pytest.mark.parametrize("seed", range(3))
def test_noise_of_the_sensor_is_no_motion(seed):
    rng = np.random.default_rng(seed)
    pair = [np.clip(texture(4) + rng.normal(0, 3, (HEIGHT, WIDTH)), 0, 255).astype(np.uint8) for _ in range(2)]
    flow = cv2.GaussianBlur(rng.normal(0, 2, (HEIGHT, WIDTH, 2)).astype(np.float32), (0, 0), 4)
    assert unexplained_share(flow, np.zeros((3, 2)), halves(pair)).mean() < 0.02


def test_the_accumulator_weighs_the_residual_and_needs_frames():
    flow, pair = scene()
    config = MotionConfig(cue="residual", explained_weight=0.3)
    found = MotionAccumulator(config).push(flow, pair)
    camera = fit_camera(flow)
    np.testing.assert_array_equal(found, weigh_motion(residual_motion(flow, camera), flow, camera, halves(pair), 0.3))
    with pytest.raises(ValueError, match="pair must be"):
        MotionAccumulator(config).push(flow)


def test_only_the_residual_can_be_weighed():
    with pytest.raises(ConfigError, match=r"explained_weight must be 1 for cue = .boundaries."):
        load_config("paper", overrides={"motion.explained_weight": 0.5})
