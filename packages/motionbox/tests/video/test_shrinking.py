"""Grey frames are shrunk as `cv2.resize` shrinks them, to the bit, whoever does it."""

import platform

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from motionbox.video import _pixels, read_frames, working_size
from motionbox.video._pixels import GreyConverter, _AreaMeans
from video_support import moving

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="OpenCV's sums round in another way on this processor"
)
SIDES = st.integers(16, 700)


@given(SIDES, SIDES, st.floats(0.02, 1.0), st.floats(0.02, 1.0), st.integers(0, 2**32 - 1))
@example(1280, 720, 455 / 1280, 256 / 720, 0)
@example(1920, 1080, 455 / 1920, 256 / 1080, 1)
@example(719, 405, 1.0, 0.5, 2)  # one side stays
@settings(deadline=None)
def test_the_kernel_gives_what_opencv_gives(width, height, across, down, seed) -> None:
    source, target = (width, height), (max(1, round(width * across)), max(1, round(height * down)))
    if not _AreaMeans.can(source, target):
        return
    rng = np.random.default_rng(seed)
    means = _AreaMeans(source, target)
    for high in (256, 2, 256):  # noise, black and white; the second picture of a size finds used memory
        picture = rng.integers(0, high, (height, width), np.uint8) * np.uint8(255 // (high - 1))
        assert np.array_equal(means(picture, limited=False), cv2.resize(picture, target, interpolation=cv2.INTER_AREA))


def test_limited_range_is_stretched_on_the_way_as_by_the_table() -> None:
    """All 256 codes, those beyond black and white too."""
    codes = np.random.default_rng(0).permuted(np.tile(np.arange(256, dtype=np.uint8), (301, 2)), axis=1)
    expected = np.clip(np.rint((codes.astype(float) - 16) / 219 * 255), 0, 255).astype(np.uint8)
    assert not np.array_equal(codes, expected)
    one_by_one = _AreaMeans((512, 301), (512, 300))  # across, every sum is of one pixel
    for means in (one_by_one, _AreaMeans((512, 301), (171, 113))):
        shrunk = cv2.resize(expected, means.sizes_wh[1], interpolation=cv2.INTER_AREA)
        assert np.array_equal(means(codes, limited=True), shrunk)


def test_whole_factors_enlarging_and_other_processors_are_left_to_opencv(monkeypatch) -> None:
    assert _AreaMeans.can((1280, 720), (455, 256))
    assert _AreaMeans.can((1280, 720), (640, 256))
    assert not _AreaMeans.can((1024, 512), (512, 256))
    assert not _AreaMeans.can((400, 300), (455, 256))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not _AreaMeans.can((1280, 720), (455, 256))


def test_frames_do_not_depend_on_when_the_kernel_takes_over(tmp_path, write_video, monkeypatch) -> None:
    path = write_video(tmp_path / "a.mkv", moving(9, 300, 500), codec="ffv1")
    size = working_size(500, 300, 100)
    shrunk = []
    monkeypatch.setattr(
        cv2, "resize", lambda *args, _of=cv2.resize, **options: shrunk.append(0) or _of(*args, **options)
    )
    frames, by_opencv = {}, {}
    for pixels in (0, 4 * 500 * 300, 1 << 40):
        monkeypatch.setattr(GreyConverter, "_num_pixels", 0)
        monkeypatch.setattr(_pixels, "_LOADING_PAYS_PIXELS", pixels)
        shrunk.clear()
        frames[pixels] = [frame.grey for frame in read_frames(path, short_side_px=100)]
        by_opencv[pixels] = len(shrunk)
    assert list(by_opencv.values()) == [0, 3, 9]
    for together in zip(*frames.values(), strict=True):
        assert together[0].shape == size[::-1]
        assert all(np.array_equal(together[0], other) for other in together[1:])


def test_turned_frames_are_shrunk_upright(testdata, monkeypatch) -> None:
    path = testdata / "odd/rotation_meta_90.mov"
    expected = [frame.grey for frame in read_frames(path, short_side_px=100)]
    monkeypatch.setattr(_pixels, "_LOADING_PAYS_PIXELS", 0)
    got = [frame.grey for frame in read_frames(path, short_side_px=100)]
    assert len(got) == 3
    assert all(np.array_equal(*pair) for pair in zip(got, expected, strict=True))
