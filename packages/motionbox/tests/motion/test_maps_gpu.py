"""Motion maps of batches must be those of `motionbox.motion.maps`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from motionbox.config import MotionConfig
from motionbox.motion.maps import MotionAccumulator

torch = pytest.importorskip("torch")

CONFIGS = [
    {},
    {"derivative": "prewitt"},
    {"combine": "mean"},
    {"channels": "vertical"},
    {"window": 8},
    {"window": 3, "derivative": "prewitt", "combine": "mean", "channels": "vertical", "quantise_bound_px": 20.0},
    {"quantise_bound_px": 2.0},
    {"cue": "residual"},
    {"cue": "residual", "window": 3},
]


def make_flows(num: int = 11) -> np.ndarray:
    """Noise over a camera's zoom and shift, with a corner that moves on its own."""
    flows = np.random.default_rng(num).normal(0, 0.5, (num, 37, 53, 2))
    flows += 0.05 * np.stack(np.meshgrid(np.arange(53), np.arange(37)), axis=-1) + [1, -2]
    flows[:, :15, :20] += 6
    return flows.astype(np.float32)


@pytest.mark.parametrize("values", CONFIGS, ids=str)
@pytest.mark.parametrize("splits", [[11], [1, 2, 8], [7, 4]], ids=str)
def test_maps_are_those_of_the_cpu(values: dict[str, Any], splits: list[int]) -> None:
    from motionbox.motion.maps_gpu import BatchMotionAccumulator

    config, flows = MotionConfig(**values), make_flows()
    one_by_one = MotionAccumulator(config)
    expected = np.stack([one_by_one.push(flow) for flow in flows])
    batched = BatchMotionAccumulator(config)
    parts = torch.split(torch.from_numpy(flows), splits)
    maps = torch.cat([batched.push(part) for part in parts]).numpy()
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.1


def test_wrong_shapes_are_named() -> None:
    from motionbox.motion.maps_gpu import BatchMotionAccumulator

    accumulator = BatchMotionAccumulator(MotionConfig(window=2))
    for bad in ((4, 17, 23), (4, 17, 23, 3), (4, 2, 23, 2)):
        with pytest.raises(ValueError, match=r"flows must be \(B, H, W, 2\)"):
            accumulator.push(torch.zeros(bad))
    accumulator.push(torch.zeros(4, 17, 23, 2))
    with pytest.raises(ValueError, match="as before"):
        accumulator.push(torch.zeros(4, 17, 24, 2))


def test_motion_weighed_by_frames_is_refused() -> None:
    from motionbox.motion.maps_gpu import BatchMotionAccumulator

    with pytest.raises(ValueError, match="explained_weight must be 1 on the device"):
        BatchMotionAccumulator(MotionConfig(cue="residual", explained_weight=0.2))
