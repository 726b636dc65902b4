import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from motionbox.config import MotionConfig, load_config
from motionbox.motion.contours import detect_frame
from motionbox.motion.maps import (
    MotionAccumulator,
    dequantise_map,
    fit_camera,
    motion_map,
    quantise_flow,
    quantise_map,
    residual_motion,
    shrink_map,
)


def grid(height: int = 40, width: int = 60) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return x, y


def rotation_flow(radians: float) -> np.ndarray:
    x, y = grid()
    return np.stack([-radians * y, radians * x], axis=-1).astype(np.float32)


def noise_flow(seed: int = 0, height: int = 40, width: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.normal(size=(height, width, 2)), (2, 2, 0)).astype(np.float32) * 30


def test_translation_of_the_camera_gives_an_empty_map():
    flow = np.broadcast_to(np.float32([7.25, -3.5]), (40, 60, 2)).copy()
    assert motion_map(flow).max() == 0


def test_rotation_of_the_camera_gives_a_small_constant():
    found = motion_map(rotation_flow(0.01))
    np.testing.assert_allclose(found[1:-1, 1:-1], np.sqrt(2) * 0.01, rtol=1e-4)
    assert found.max() < 0.0142


def test_zoom_of_the_camera_gives_a_small_constant():
    x, y = grid()
    found = motion_map(np.stack([0.02 * x, 0.02 * y], -1))
    np.testing.assert_allclose(found[1:-1, 1:-1], np.sqrt(2) * 0.02, rtol=1e-4)
    assert found.max() < 0.0283


def gradients(flow: np.ndarray) -> np.ndarray:
    """Numpy's central differences of the mirrored flow, (4, H, W)."""
    mirrored = np.pad(flow, ((1, 1), (1, 1), (0, 0)), mode="symmetric")
    return np.stack([part[1:-1, 1:-1] for c in (0, 1) for part in np.gradient(mirrored[..., c])])


def test_equation_1_against_numpy_gradient():
    flow = noise_flow()
    np.testing.assert_allclose(motion_map(flow), np.linalg.norm(gradients(flow), axis=0), rtol=1e-4, atol=1e-5)


def test_moving_square_answers_at_its_edge_alone():
    flow = np.zeros((40, 60, 2), np.float32)
    flow[10:30, 20:40] = (3, 4)
    found = motion_map(flow)
    assert found[20, 20] == pytest.approx(2.5)  # (3, 4) / 2 across one edge
    assert found[12:28, 22:38].max() == 0  # inside
    assert found[:8].max() == found[:, 43:].max() == 0


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (2, 9, 2)])
def test_wrong_shape_is_refused(shape):
    with pytest.raises(ValueError, match="flow must be"):
        motion_map(np.zeros(shape, np.float32))


def test_window_1_is_equation_1():
    flow = noise_flow()
    np.testing.assert_array_equal(MotionAccumulator(MotionConfig()).push(flow), motion_map(flow))


def test_window_averages_derivatives_of_the_last_flows():
    flows = [noise_flow(seed) for seed in range(5)]
    accumulator = MotionAccumulator(MotionConfig(window=3))
    maps = [accumulator.push(flow) for flow in flows]
    for t, found in enumerate(maps):
        mean = np.mean([gradients(flow) for flow in flows[max(0, t - 2) : t + 1]], axis=0)
        np.testing.assert_allclose(found, np.linalg.norm(mean, axis=0), rtol=1e-4, atol=1e-5)


def test_a_map_depends_on_its_window_alone():
    flows = [noise_flow(seed) for seed in range(9)]
    whole, late = (MotionAccumulator(MotionConfig(window=4)) for _ in range(2))
    expected = [whole.push(flow) for flow in flows]
    assert late.context_frames == 3
    found = [late.push(flow) for flow in flows[5 - late.context_frames :]][late.context_frames :]
    for a, b in zip(expected[5:], found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_callers_flow_is_neither_kept_nor_changed():
    flow = noise_flow()
    before = flow.copy()
    accumulator = MotionAccumulator(MotionConfig(window=2))
    accumulator.push(flow)
    np.testing.assert_array_equal(flow, before)
    flow[:] = 0  # an estimator may reuse its array
    later = accumulator.push(np.zeros_like(flow))
    np.testing.assert_allclose(later, motion_map(before / 2), rtol=1e-4, atol=1e-5)


def test_another_shape_is_refused():
    accumulator = MotionAccumulator(MotionConfig(window=2))
    accumulator.push(np.zeros((10, 10, 2), np.float32))
    with pytest.raises(ValueError, match="as before"):
        accumulator.push(np.zeros((10, 12, 2), np.float32))


def release_map(flows: list[np.ndarray]) -> np.ndarray:
    """The released computation, derived again with scipy on 8-bit flow images."""
    images = [np.rint((np.clip(f.astype(np.float64), -20, 20) + 20) * 255 / 40) for f in flows[-8:]]
    restored = [image / 255 * 40 - 20 for image in images]
    magnitudes = []
    for channel in (0, 1):
        dx = np.mean([ndimage.prewitt(f[..., channel], axis=1) / 6 for f in restored], axis=0)
        dy = np.mean([ndimage.prewitt(f[..., channel], axis=0) / 6 for f in restored], axis=0)
        magnitudes.append(np.hypot(dx, dy))
    return np.stack(magnitudes)


def test_release_preset_against_an_independent_derivation():
    flows = [noise_flow(seed) for seed in range(10)]
    config = load_config("release").motion
    lossy = MotionAccumulator(config)
    full = MotionAccumulator(config.model_copy(update={"channels": "both"}))
    for flow in flows:
        found_lossy, found_full = lossy.push(flow), full.push(flow)
    horizontal, vertical = release_map(flows)
    np.testing.assert_allclose(found_lossy, vertical, atol=1e-4)
    np.testing.assert_allclose(found_full, (horizontal + vertical) / 2, atol=1e-4)


def test_quantised_flow_has_256_values_and_saturates():
    flow = np.linspace(-30, 30, 2 * 90 * 90, dtype=np.float32).reshape(90, 90, 2)
    found = quantise_flow(flow, 20)
    assert len(np.unique(found)) == 256
    assert (found.min(), found.max()) == (-20, 20)
    inside = np.abs(flow) <= 20
    assert np.abs(found - flow)[inside].max() <= 20 / 255 + 1e-5


def test_shrink_map_averages_real_pixels():
    values = np.arange(5 * 7, dtype=np.float32).reshape(5, 7)
    expected = [[values[r : r + 4, c : c + 4].mean() for c in (0, 4)] for r in (0, 4)]
    np.testing.assert_allclose(shrink_map(values, 4), expected, rtol=1e-6)
    np.testing.assert_array_equal(shrink_map(values, 1), values)


@given(
    hnp.arrays(np.float32, (6, 7), elements=st.floats(0, 5, width=32)),
    st.floats(0.25, 4),
)
def test_stored_map_is_the_map_within_its_rounding(values, full_scale):
    stored = quantise_map(values, full_scale)
    back = dequantise_map(stored, full_scale)
    wanted = np.minimum(values, full_scale)
    np.testing.assert_allclose(np.sqrt(back / full_scale), np.sqrt(wanted / full_scale), atol=0.5 / 255 + 1e-4)
    np.testing.assert_array_equal(quantise_map(back, full_scale), stored)


def affine_flow(camera: np.ndarray, height: int = 120, width: int = 160) -> np.ndarray:
    x, y = grid(height, width)
    return (camera[0] + x[..., None] * camera[1] + y[..., None] * camera[2]).astype(np.float32)


CAMERA = np.array([[3.0, -2.0], [0.01, 0.02], [-0.02, 0.015]])


def test_camera_fit_recovers_an_affine_motion():
    np.testing.assert_allclose(fit_camera(affine_flow(CAMERA)), CAMERA, atol=1e-4)


def test_camera_fit_ignores_what_moves_otherwise():
    flow = affine_flow(CAMERA)
    flow[30:110, 40:120] += (9, 5)  # a third of the frame
    np.testing.assert_allclose(fit_camera(flow)[0], CAMERA[0], atol=0.02)
    residual = residual_motion(flow)
    np.testing.assert_allclose(residual[40:100, 50:110], np.hypot(9, 5), rtol=0.02)
    assert residual[:22].max() < 0.05


def test_residual_motion_of_a_moving_camera_is_zero():
    assert residual_motion(affine_flow(CAMERA)).max() < 1e-3
    assert residual_motion(np.zeros((64, 64, 2), np.float32)).max() == 0


@pytest.mark.parametrize("shape", [(16, 16), (17, 301), (250, 333)])
def test_camera_fit_of_odd_sizes(shape):
    np.testing.assert_allclose(fit_camera(affine_flow(CAMERA, *shape)), CAMERA, atol=0.02)


def test_residual_cue_of_the_accumulator():
    flow = affine_flow(CAMERA) + noise_flow(0, 120, 160)
    found = MotionAccumulator(MotionConfig(cue="residual")).push(flow)
    np.testing.assert_array_equal(found, residual_motion(flow))


@pytest.mark.parametrize("preset", ["paper", "release", "tuned"])
@pytest.mark.parametrize("shape", [(67, 101), (96, 128), (191, 251)])
def test_results_do_not_depend_on_where_the_arrays_lie_in_memory(preset, shape):
    config = load_config(preset)
    flow = noise_flow(3, *shape)
    greys = np.random.default_rng(4).integers(0, 256, (2, *shape), np.uint8)
    results, held = set(), []
    for attempt in range(24):
        motion = MotionAccumulator(config.motion).push(flow, (greys[0], greys[1]))
        found = detect_frame(motion, config.contours)
        results.add((motion.tobytes(), found))
        # What stays allocated moves the arrays of the next round by some multiple of 16 bytes.
        held += [np.empty(4 * (1 + (attempt * 7 + step) % 29), np.float32) for step in range(5)] + [motion]
    assert len(results) == 1
