import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionbox.clips import GROUP_FRAMES, clip_from_video, read_clip_frames, read_index, write_clip
from motionbox.errors import ClipError, Reason
from motionbox.frames import ColourFrame
from motionbox.video import read_colour_frames


def colour_frames(num_frames: int, height: int, width: int, seed: int = 0) -> list[ColourFrame]:
    rng = np.random.default_rng(seed)
    wide = cv2.GaussianBlur(rng.integers(0, 256, (height, width + 2 * num_frames, 3), dtype=np.uint8), (0, 0), 4)
    wide = cv2.normalize(wide, None, 20, 235, cv2.NORM_MINMAX)
    return [
        ColourFrame(i, i / 12 + 0.1, np.ascontiguousarray(wide[:, 2 * i : 2 * i + width])) for i in range(num_frames)
    ]


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(np.float64) - other) ** 2)))


@pytest.mark.parametrize("form", ["jpeg", "h264"])
@pytest.mark.parametrize(("num_frames", "height", "width"), [(1, 16, 16), (20, 64, 96), (GROUP_FRAMES, 51, 33)])
def test_frames_times_and_sizes_come_back(form, num_frames, height, width):
    frames = colour_frames(num_frames, height, width)
    data = write_clip(frames, form=form)
    index = read_index(data)
    assert (index.form, index.width, index.height, index.num_frames) == (form, width, height, num_frames)
    assert index.times_seconds.tolist() == [frame.time_seconds for frame in frames]
    read = read_clip_frames(data, range(num_frames))
    assert read.shape == (num_frames, height, width, 3)
    for one, frame in zip(read, frames, strict=True):
        assert psnr(one, frame.rgb) > 26  # the smallest frame's colours change within a chroma sample
    if num_frames > 4:  # each is its own frame, not a neighbour
        assert psnr(read[3], frames[3].rgb) > psnr(read[3], frames[4].rgb) + 3


@pytest.mark.parametrize("form", ["jpeg", "h264"])
@settings(max_examples=25, deadline=None)
@given(indices=st.lists(st.integers(0, 29), max_size=8))
def test_any_frames_in_any_order_equal_those_of_the_whole(form, blocks, indices):
    data, whole = blocks[form]
    assert np.array_equal(read_clip_frames(data, indices), whole[np.array(indices, dtype=int)])


@pytest.fixture(scope="module")
def blocks():
    made = {}
    for form in ("jpeg", "h264"):
        data = write_clip(colour_frames(30, 49, 67), form=form)
        made[form] = (data, read_clip_frames(data, range(30)))
    return made


@pytest.mark.parametrize("form", ["jpeg", "h264"])
@pytest.mark.parametrize("crop", [(0, 0, 67, 49), (3, 5, 40, 31), (66, 48, 1, 1), (1, 1, 66, 48)])
def test_crop_equals_the_crop_of_the_whole_frame(form, blocks, crop):
    data, whole = blocks[form]
    x, y, width, height = crop
    read = read_clip_frames(data, [7, 22], crop_xywh=crop)
    assert np.abs(read.astype(int) - whole[[7, 22], y : y + height, x : x + width]).max() <= 1
    resized = read_clip_frames(data, [7], crop_xywh=crop, size_wh=(20, 24))
    assert resized.shape == (1, 24, 20, 3)


def test_misuse_is_refused():
    data = write_clip(colour_frames(3, 16, 16))
    for arguments, message in (
        ({"indices": [3]}, "indices must be from 0 to 2"),
        ({"indices": [-1]}, "indices must be from 0 to 2"),
        ({"indices": [0], "crop_xywh": (0, 0, 17, 16)}, "crop_xywh must lie within 16x16"),
        ({"indices": [0], "crop_xywh": (0, 0, 0, 16)}, "crop_xywh must lie within 16x16"),
    ):
        with pytest.raises(ValueError, match=message):
            read_clip_frames(data, **arguments)
    with pytest.raises(ValueError, match="at least one frame"):
        write_clip([])
    with pytest.raises(ValueError, match="frames must all be 16x16, got 18x16"):
        write_clip([*colour_frames(1, 16, 16), *colour_frames(1, 16, 18)])
    with pytest.raises(ValueError, match="form must be one of jpeg, h264"):
        write_clip(colour_frames(1, 16, 16), form="gif")


@pytest.mark.parametrize("form", ["jpeg", "h264"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_blocks_give_frames_or_a_clip_error(form, blocks, data):
    content = bytearray(blocks[form][0])
    for _ in range(data.draw(st.integers(0, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    block = bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        index = read_index(block)
        num_frames = min(index.num_frames, 30)
        assert len(read_clip_frames(block, range(num_frames))) == num_frames
    except ClipError as error:
        assert error.reason in (Reason.TRUNCATED, Reason.NOT_A_VIDEO, Reason.DECODE_ERROR)  # noqa: PT017


def test_real_clip_quality_and_size(testdata):
    """The figures that docs/datasets.md compares, loosely: bytes per frame and quality on a real SSV2 clip."""
    path = testdata / "ssv2/4.webm"
    frames = list(read_colour_frames(path, short_side_px=256))
    sizes = {}
    for form, least_psnr in (("jpeg", 39.0), ("h264", 38.0)):
        data = write_clip(frames, form=form)
        sizes[form] = len(data) / path.stat().st_size
        read = read_clip_frames(data, range(0, 42, 5))
        assert np.mean([psnr(one, frame.rgb) for one, frame in zip(read, frames[::5], strict=True)]) > least_psnr
    assert sizes["jpeg"] < 3.8
    assert sizes["h264"] < 1.5


def test_span_of_a_video_becomes_a_block(testdata):
    block, fault = clip_from_video(testdata / "ssv2/4.webm", start_seconds=1.0, stop_seconds=2.0)
    index = read_index(block)
    assert fault is None
    assert (index.width, index.height, index.num_frames) == (427, 240, 12)
    assert index.times_seconds[0] == pytest.approx(1.0, abs=1e-3)


def test_frames_before_a_fault_are_kept(testdata):
    block, fault = clip_from_video(testdata / "odd/corrupted_after_frame28_720p.mp4", form="jpeg")
    assert read_index(block).num_frames == 29
    assert fault is not None
    assert fault.reason == Reason.DECODE_ERROR
    with pytest.raises(ClipError) as caught:
        clip_from_video(testdata / "odd/derived_garbage.mp4")
    assert caught.value.reason == Reason.NOT_A_VIDEO
