from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from motionbox.flow import compute_flow
from motionbox.flow.tvl1 import pyramid_sizes
from motionbox.truth import warped_pair

Grey = npt.NDArray[np.uint8]


def read_grey(path: Path, index: int, short_side_px: int) -> Grey:
    capture = cv2.VideoCapture(str(path))
    for _ in range(index):
        assert capture.grab()
    ok, frame = capture.read()
    assert ok
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    scale = short_side_px / min(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)


def assert_agrees(flow: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> None:
    distance = np.hypot(*np.moveaxis(flow - reference, 2, 0))
    assert distance.mean() <= 0.02
    assert (distance <= 0.1).mean() >= 0.97


@pytest.mark.parametrize(
    ("name", "indices"),
    [
        ("epic_P01_06_90_456x256_60_h264.mp4", (0, 2)),
        ("kitchen_flip_pancake_240p30_h264.mkv", (10, 11)),
        ("handobj_pour_coffee_720p30_h264.mp4", (5, 6)),
    ],
)
def test_agrees_with_opencv_on_real_frames(testdata: Path, name: str, indices: tuple[int, int]) -> None:
    frame0, frame1 = (read_grey(testdata / "clips" / name, index, 128) for index in indices)
    assert_agrees(compute_flow(frame0, frame1), compute_flow(frame0, frame1, backend="opencv"))


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (33, 64), (131, 50)])
@pytest.mark.parametrize("kind", ["translation", "zoom"])
def test_agrees_with_opencv_at_odd_sizes(size: tuple[int, int], kind: str) -> None:
    pair = warped_pair(kind, width=size[0], height=size[1])
    reference = compute_flow(pair.frame0, pair.frame1, backend="opencv")
    assert_agrees(compute_flow(pair.frame0, pair.frame1), reference)


def test_pyramid_sizes_are_those_of_opencv() -> None:
    image = np.zeros((90, 61), np.float32)
    sizes = [(61, 90)]
    for _ in range(10):
        image = cv2.resize(image, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_LINEAR)
        if min(image.shape) >= 16:
            sizes.append((image.shape[1], image.shape[0]))
    assert pyramid_sizes(61, 90, 16, 0.8) == tuple(sizes)
    assert pyramid_sizes(61, 90, 3, 0.8) == tuple(sizes[:3])
    assert pyramid_sizes(16, 16, 5, 0.8) == ((16, 16),)
