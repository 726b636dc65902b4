"""Pairs of frames with known flow: drawn ones, whose flow is exact, and those of the test data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from motionbox.errors import InputError
from motionbox.flow import Flow

WARPS = ("translation", "rotation", "zoom")


@dataclass(frozen=True)
class TruthPair:
    """Two frames with known flow.

    Attributes:
        name: What it is.
        frame0: (H, W) uint8.
        frame1: (H, W) uint8.
        flow: (H, W, 2) float32, pixels; NaN where it is unknown.
        margin_px: Pixels at the border that do not count: what they show leaves the frame.
    """

    name: str
    frame0: npt.NDArray[np.uint8]
    frame1: npt.NDArray[np.uint8]
    flow: Flow
    margin_px: int = 0

    def endpoint_error(self, flow: Flow) -> float:
        """Return the mean Euclidean distance of `flow` (H, W, 2) to the truth in pixels, where it is known."""
        inner = slice(self.margin_px, -self.margin_px or None)
        distance = np.hypot(*np.moveaxis(flow - self.flow, 2, 0))[inner, inner]
        return float(np.nanmean(distance))


def warped_pair(kind: str, *, width: int = 320, height: int = 240, amount: float = 1.0, seed: int = 0) -> TruthPair:
    """Draw a texture and the same texture moved by a known field.

    The texture is a sum of cosines, so both frames are exact samples: nothing is interpolated.

    Args:
        kind: `translation` (2.4, -1.3) px, `rotation` by 0.02 rad or `zoom` by 2 % about the centre, or `identity`.
        width: Pixels.
        height: Pixels.
        amount: Factor on the motion.
        seed: Seed of the texture.
    """
    angle, zoom, shift = 0.0, 1.0, np.zeros(2)
    if kind == "translation":
        shift = np.array([2.4, -1.3]) * amount
    elif kind == "rotation":
        angle = 0.02 * amount
    elif kind == "zoom":
        zoom = 1 + 0.02 * amount
    elif kind != "identity":
        raise ValueError(f"kind must be one of {', '.join(WARPS)}, identity, got {kind!r}")
    matrix = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float64)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    flow = (grid - centre) @ matrix.T + centre + shift - grid
    source = (grid - centre - shift) @ np.linalg.inv(matrix).T + centre
    margin = int(np.ceil(np.abs(flow).max())) + 4
    return TruthPair(
        name=f"{kind} x{amount:g}",
        frame0=_texture(grid, seed),
        frame1=_texture(source, seed),
        flow=flow.astype(np.float32),
        margin_px=margin,
    )


def truth_pairs(testdata: Path | None) -> list[TruthPair]:
    """Return every pair with known flow: three drawn warps at three strengths, and those of the test data.

    Args:
        testdata: Folder with `flow/flyingchairs_crop50` and `flow/motorcycle_stereo`; None or absent: drawn ones only.
    """
    pairs = [warped_pair(kind, amount=amount, seed=k) for k, kind in enumerate(WARPS) for amount in (0.4, 1.0, 2.5)]
    folder = testdata / "flow" if testdata is not None else None
    if folder is not None and (folder / "flyingchairs_crop50").is_dir():
        pairs.append(_flying_chairs(folder / "flyingchairs_crop50"))
    if folder is not None and (folder / "motorcycle_stereo").is_dir():
        pairs += [_motorcycle(folder / "motorcycle_stereo", factor) for factor in (4, 6)]
    return pairs


def _flying_chairs(folder: Path) -> TruthPair:
    import cv2

    flow = np.asarray(cv2.readOpticalFlow(str(folder / "00001_flow.flo")), np.float32)
    return TruthPair(
        "FlyingChairs crop", _read_grey(folder / "00001_img1.ppm"), _read_grey(folder / "00001_img2.ppm"), flow
    )


def _motorcycle(folder: Path, factor: int) -> TruthPair:
    """Return the stereo pair at 1 / `factor` of its size, the disparity d as flow (-d / factor, 0)."""
    import cv2

    disparity = np.load(folder / "motorcycle_disp.npz")["arr_0"]
    height, width = (side // factor * factor for side in disparity.shape)

    def shrink(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        size = (width // factor, height // factor)
        return np.asarray(cv2.resize(image[:height, :width], size, interpolation=cv2.INTER_AREA), np.uint8)

    blocks = disparity[:height, :width].reshape(height // factor, factor, width // factor, factor)
    shift = -blocks.mean(axis=(1, 3)) / factor
    flow = np.stack([shift, np.zeros_like(shift)], axis=-1)
    flow[~np.isfinite(shift)] = np.nan
    left, right = (shrink(_read_grey(folder / f"motorcycle_{side}.png")) for side in ("left", "right"))
    return TruthPair(f"motorcycle 1/{factor}", left, right, flow.astype(np.float32))


def _read_grey(path: Path) -> npt.NDArray[np.uint8]:
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise InputError(f"{path} must be an image file")
    return np.asarray(image, np.uint8)


def _texture(points: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.uint8]:
    """Sample a random texture with a 1/f spectrum at `points` (H, W, 2), pixels."""
    rng = np.random.default_rng(seed)
    frequency = np.exp(rng.uniform(np.log(0.004), np.log(0.2), 96))
    direction, phase = rng.uniform(0, 2 * np.pi, (2, 96))
    amplitude = frequency**-0.7
    total = np.zeros(points.shape[:2])
    for f, d, p, a in zip(frequency, direction, phase, amplitude, strict=True):
        total += a * np.cos(2 * np.pi * f * (np.cos(d) * points[..., 0] + np.sin(d) * points[..., 1]) + p)
    total *= 42 / np.sqrt((amplitude**2).sum() / 2)
    return np.clip(np.rint(128 + total), 0, 255).astype(np.uint8)
