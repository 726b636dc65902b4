import numpy as np
import pytest
from scipy import ndimage

from motionbox.config import ContourConfig, load_config
from motionbox.motion.boxes import iou
from motionbox.motion.contours import detect_frame, energy_concentration, frame_box, motion_contours, wide_smooth
from motionbox.motion.maps import motion_map

HEIGHT, WIDTH = 256, 456
CONFIG = ContourConfig()


def square_flow(x1: int, y1: int, x2: int, y2: int, velocity=(4.0, 2.0)) -> np.ndarray:
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    flow[y1:y2, x1:x2] = velocity
    return flow


def test_moving_square_gives_a_box_around_the_square():
    truth = (180, 90, 280, 170)
    box = frame_box(motion_map(square_flow(*truth)), CONFIG)
    assert box[0] <= 180
    assert box[1] <= 90
    assert box[2] >= 280
    assert box[3] >= 170
    assert iou(np.array(box), np.array(truth)) > 0.4  # the wide Gaussian spreads it by about 20 px on each side
    centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    np.testing.assert_allclose(centre, (230, 130), atol=2)


def test_the_box_ignores_translation_of_the_camera():
    still = motion_map(square_flow(180, 90, 280, 170))
    moving = motion_map(square_flow(180, 90, 280, 170) + np.float32([9, -5]))
    assert frame_box(moving, CONFIG) == frame_box(still, CONFIG)


@pytest.mark.parametrize("kind", ["translation", "rotation", "zoom", "zero"])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (64, 64), (17, 301)])
def test_nothing_stands_out_gives_none(kind, size):
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    rng = np.random.default_rng(4)
    flow = {
        "translation": np.full((height, width, 2), 3.3),
        "rotation": np.stack([-0.02 * y, 0.02 * x], -1) + rng.normal(size=(height, width, 2)) * 1e-4,
        "zoom": np.stack([0.03 * x, 0.03 * y], -1),
        "zero": np.zeros((height, width, 2)),
    }[kind]
    assert frame_box(motion_map(flow.astype(np.float32)), CONFIG) is None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (240, 320)])
def test_noise_gives_none(seed, size):
    flow = np.random.default_rng(seed).normal(size=(*size, 2)).astype(np.float32)
    assert frame_box(motion_map(flow), CONFIG) is None


def test_two_largest_areas_are_kept_and_the_third_is_not():
    flow = square_flow(150, 80, 200, 130) + square_flow(230, 80, 300, 150) + square_flow(30, 200, 50, 215)
    found = motion_map(flow)
    config = CONFIG.model_copy(update={"wide_sigma_share": 0.02, "threshold_std": 0.5})
    assert len(motion_contours(found, config)) == 2
    box = frame_box(found, config)
    assert box[0] < 150
    assert box[2] > 300
    assert box[3] < 190


def test_second_area_too_far_away_is_dropped():
    flow = square_flow(10, 10, 90, 90) + square_flow(400, 180, 440, 220)
    found = motion_map(flow)
    config = CONFIG.model_copy(update={"wide_sigma_share": 0.03, "threshold_std": 0.5})
    near = frame_box(found, config)
    assert near[2] < 130
    far = frame_box(found, config.model_copy(update={"max_centre_distance": 1.0}))
    assert far[2] > 430


def test_ranking_is_by_area():
    flow = square_flow(100, 60, 130, 90) + square_flow(250, 60, 350, 160)
    config = CONFIG.model_copy(update={"wide_sigma_share": 0.02, "threshold_std": 0.5})
    first, second = motion_contours(motion_map(flow), config)
    assert first[:, 0].min() > 200 > second[:, 0].max()


@pytest.mark.parametrize("shape", [(256, 456), (240, 427), (100, 175)])
@pytest.mark.parametrize("sigma", [2.0, 10.0, 30.0, 45.0])
def test_wide_gaussian_at_reduced_resolution_is_the_gaussian(shape, sigma):
    rng = np.random.default_rng(0)
    values = np.zeros(shape, np.float32)
    values[60:90, 100:160] = rng.random((30, 60))
    values[:20, :40] = 1
    values[30, 150:] = 3
    exact = ndimage.gaussian_filter(values, sigma, mode="reflect")
    assert np.abs(wide_smooth(values, sigma) - exact).max() < 0.01 * exact.max()


def release_box(motion: np.ndarray) -> tuple[int, int, int, int]:
    """The released rules, derived again with scipy at full resolution."""
    smooth = ndimage.gaussian_filter(motion.astype(np.float64), 1)
    smooth[smooth < 0.4 * smooth.max()] = 0
    wide = ndimage.gaussian_filter(smooth, 30)
    labels, _ = ndimage.label(wide > wide.mean() + 1.5 * wide.std(), np.ones((3, 3)))
    found = sorted(ndimage.find_objects(labels), key=lambda s: -(labels[s] > 0).sum())[:2]
    boxes = [(s[1].start, s[0].start, s[1].stop, s[0].stop) for s in found]
    return tuple(f(b[i] for b in boxes) for i, f in enumerate((min, min, max, max)))


@pytest.mark.parametrize("seed", range(6))
def test_release_preset_against_an_independent_derivation(seed):
    rng = np.random.default_rng(seed)
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    for _ in range(2):
        x, y = rng.integers(100, 300), rng.integers(60, 160)
        flow[y : y + rng.integers(30, 80), x : x + rng.integers(30, 80)] += rng.normal(0, 5, 2)
    found = motion_map(flow)
    box = frame_box(found, load_config("release").contours)
    np.testing.assert_allclose(box, release_box(found), atol=2)


def test_energy_concentration_known_answers():
    values = np.zeros((10, 20), np.float32)
    values[2:4, 5:10] = 1
    assert energy_concentration(values, (5, 2, 10, 4)) == pytest.approx(1)
    assert energy_concentration(values, (0, 5, 20, 10)) == 0
    assert energy_concentration(np.ones((10, 20), np.float32), (5, 2, 10, 4)) == pytest.approx(0, abs=1e-6)
    assert energy_concentration(values, (0, 0, 20, 10)) == 0
    assert energy_concentration(values, None) == 0


def test_detection_carries_box_energy_and_confidence():
    found = motion_map(square_flow(180, 90, 280, 170))
    detection = detect_frame(found, CONFIG)
    assert detection.box_xyxy == frame_box(found, CONFIG)
    assert detection.energy == pytest.approx(float(found.mean()))
    assert detection.confidence == pytest.approx(1)
    nothing = detect_frame(np.zeros((HEIGHT, WIDTH), np.float32), CONFIG)
    assert (nothing.box_xyxy, nothing.energy, nothing.confidence) == (None, 0, 0)


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros((3, 3, 2)), np.full((30, 30), np.nan)])
def test_unusable_maps_are_refused(bad):
    with pytest.raises(ValueError, match="motion_map must be"):
        frame_box(bad.astype(np.float32), CONFIG)


def blobs(*blobs: tuple[int, int, int, int, float]) -> np.ndarray:
    found = np.full((HEIGHT, WIDTH), 0.1, np.float32)
    for x1, y1, x2, y2, value in blobs:
        found[y1:y2, x1:x2] = value
    return found


TUNED = load_config("tuned").contours


def test_without_the_wide_gaussian_the_strong_area_is_the_box():
    np.testing.assert_allclose(frame_box(blobs((100, 50, 180, 120, 5)), TUNED), (100, 50, 180, 120), atol=8)


def test_threshold_by_noise():
    rng = np.random.default_rng(0)
    found = blobs((100, 50, 180, 120, 5)) + np.abs(rng.normal(0, 0.3, (HEIGHT, WIDTH))).astype(np.float32)
    np.testing.assert_allclose(frame_box(found, TUNED), (100, 50, 180, 120), atol=8)
    assert frame_box(found, TUNED.model_copy(update={"threshold_noise": 50.0})) is None


def test_ranking_by_energy():
    small_strong, large_weak = (60, 60, 90, 90, 20), (200, 60, 280, 130, 3)
    config = TUNED.model_copy(update={"num_contours": 1})
    assert frame_box(blobs(small_strong, large_weak), config)[2] < 110
    by_area = config.model_copy(update={"rank_by": "area"})
    assert frame_box(blobs(small_strong, large_weak), by_area)[0] > 150
