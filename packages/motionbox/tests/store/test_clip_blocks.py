from collections.abc import Iterable

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionbox.errors import ClipError, Reason
from motionbox.store import clip_decoder
from motionbox.store.clip_blocks import (
    GROUP_FRAMES,
    NUM_CHAINS,
    pack_block,
    planes_to_rgb,
    read_clip_frames,
    read_clip_planes,
    read_index,
)
from motionbox.store.clip_coder import PieceClips, write_clip
from motionbox.store.units import Piece
from motionbox.video import read_colour_frames
from motionbox.video.frames import ColourFrame, Frame


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


@pytest.mark.parametrize("first", [0, 1, 5])
def test_every_second_frame_is_read_without_the_frames_between(first, blocks):
    data, whole = blocks["h264"]
    wanted = range(first, 30, NUM_CHAINS)
    broken = without(data, range(first + 1, 30, NUM_CHAINS))
    assert np.array_equal(read_clip_frames(broken, wanted), whole[first::NUM_CHAINS])
    with pytest.raises(ClipError):
        read_clip_frames(broken, range(30))


def without(data: bytes, positions: Iterable[int]) -> bytes:
    """Return a block with zeros in place of some frames' data."""
    index, content = read_index(data), bytearray(data)
    for position in positions:
        first, stop = index.offsets[position : position + 2].tolist()
        content[first:stop] = bytes(stop - first)
    return bytes(content)


@pytest.mark.parametrize(
    ("first", "last", "unread", "keys"),
    [
        (4, 44, [*range(0, 4, 2), 46], [22, 24]),  # a group that runs back, one that runs forward: what is wanted alone
        (23, 25, [*range(1, 23, 2), *range(27, 48, 2)], [23, 25]),
        (28, 30, [*range(0, 24, 2), *range(32, 48, 2)], [24, 26]),
        (50, 52, range(0, 50, 2), [54]),  # a short group of the end runs back from its last frame
    ],
)
def test_keyframes_of_two_groups_are_neighbours(first, last, unread, keys):
    """What is not needed may be broken; the keyframe and what lies between it and a wanted frame may not."""
    data = write_clip(colour_frames(56, 48, 64))
    wanted = range(first, last + 1, NUM_CHAINS)
    assert np.array_equal(read_clip_frames(without(data, unread), wanted), read_clip_frames(data, wanted))
    for key in keys:
        with pytest.raises(ClipError):
            read_clip_frames(without(data, [key]), wanted)


def test_blocks_all_of_whose_groups_run_forward_are_read():
    """Coding 2 of older stores: what is coded backwards here is the source backwards, so it comes back forwards."""
    frames = colour_frames(60, 48, 64)
    reach = NUM_CHAINS * GROUP_FRAMES
    turned = [
        group * reach + (reach - 2 - i + 2 * (i % 2) if group % 2 == 0 else i)
        for group in range(2)
        for i in range(reach)
    ]
    order = [*turned, *(2 * reach + 10 - i + 2 * (i % 2) for i in range(12))]
    assert sorted(order) == list(range(60))
    coded = write_clip([ColourFrame(i, frames[i].time_seconds, frames[source].rgb) for i, source in enumerate(order)])
    offsets = read_index(coded).offsets.tolist()
    units = [coded[offsets[order.index(i)] : offsets[order.index(i) + 1]] for i in range(60)]
    old = bytearray(pack_block("h264", (64, 48), [frame.time_seconds for frame in frames], units))
    old[20:24] = (2).to_bytes(4, "little")
    assert not read_index(bytes(old)).turns
    read = read_clip_frames(bytes(old), range(60))
    assert np.array_equal(read[order], read_clip_frames(coded, range(60)))
    assert np.array_equal(read_clip_frames(bytes(old), [59, 20, 31]), read[[59, 20, 31]])


def test_another_magic_and_another_coding_are_told():
    data = bytearray(write_clip(colour_frames(3, 16, 16)))
    data[20:24] = (1).to_bytes(4, "little")
    with pytest.raises(ClipError, match=r"coding 0, 2 or 3, got .* 3 frames of coding 1") as caught:
        read_index(bytes(data))
    assert caught.value.reason == Reason.NOT_A_VIDEO
    with pytest.raises(ClipError, match=r"must begin with b'MBCLIP1.*got b'XBCLIP1"):
        read_index(b"X" + bytes(data[1:]))


@pytest.mark.parametrize("form", ["jpeg", "h264"])
def test_reduced_frames_are_the_area_mean(form, blocks):
    data, whole = blocks[form]
    reduced = read_clip_frames(data, [7, 22], short_side_px=21)
    assert reduced.shape == (2, 21, 29, 3)
    for one, frame in zip(reduced, whole[[7, 22]], strict=True):
        assert psnr(one, cv2.resize(frame, (29, 21), interpolation=cv2.INTER_AREA)) > 30
    assert np.array_equal(read_clip_frames(data, [7], short_side_px=99), whole[[7]])


def test_planes_are_what_the_frames_are_made_of(blocks):
    """libswscale makes the same RGB of them; an odd last row and column are those that were padded."""
    data, whole = blocks["h264"]
    planes = read_clip_planes(data, [17, 4, 17])
    assert planes.shape == (3, 75, 68)
    for image, position in zip(planes, (17, 4, 17), strict=True):
        rgb = av.VideoFrame.from_ndarray(image, format="yuv420p").to_ndarray(format="rgb24", threads=1)
        assert np.array_equal(rgb[:49, :67], whole[position])
    assert np.array_equal(planes_to_rgb(planes)[:, :49, :67], whole[[17, 4, 17]])
    with pytest.raises(ClipError, match=r"must be H\.264") as caught:
        read_clip_planes(blocks["jpeg"][0], [0])
    assert caught.value.reason == Reason.UNSUPPORTED
    with pytest.raises(ValueError, match="from 0 to 29"):
        read_clip_planes(data, [30])


def test_a_window_is_cut_out_of_the_planes(blocks):
    """Luma and both differences; a window is even, since a pixel of the differences stands for two by two."""
    data, _ = blocks["h264"]
    whole = read_clip_planes(data, [17, 4])
    room = np.zeros((2, 30 * 3 // 2, 26), np.uint8)
    cut = read_clip_planes(data, [17, 4], window_xywh=(42, 20, 26, 30), out=room)
    assert np.shares_memory(cut, room)
    assert np.array_equal(cut[:, :30], whole[:, 20:50, 42:68])
    differences = whole[:, 50:].reshape(2, 2, 25, 34)
    assert np.array_equal(cut[:, 30:].reshape(2, 2, 15, 13), differences[:, :, 10:25, 21:34])
    for window in ((1, 0, 26, 30), (0, 0, 25, 30), (44, 0, 26, 30), (0, 22, 26, 30), (-2, 0, 26, 30), (0, 0, 0, 30)):
        with pytest.raises(ValueError, match="window_xywh must be even and within 68x50"):
            read_clip_planes(data, [0], window_xywh=window)


def test_a_decoder_is_used_again_only_for_the_same_parameter_sets(blocks):
    """What a decoder remembers of one block must not stand in for what another one has lost."""
    data, whole = blocks["h264"]
    assert np.array_equal(read_clip_frames(data, [4]), whole[[4]])
    [idle] = [decoder for key, decoder in clip_decoder._idle.items() if key[:2] == ("h264", (68, 50))]
    assert np.array_equal(read_clip_frames(data, [17]), whole[[17]])
    assert idle in clip_decoder._idle.values()
    broken = bytearray(data)
    start = int(read_index(data).offsets[22]) + 4  # of the keyframe that frame 4 hangs on
    broken[start : start + 24] = bytes(24)
    with pytest.raises(ClipError):
        read_clip_frames(bytes(broken), [4])
    assert np.array_equal(read_clip_frames(data, [4]), whole[[4]])


def test_misuse_is_refused():
    data = write_clip(colour_frames(3, 16, 16))
    for arguments, message in (
        ({"indices": [3]}, "indices must be from 0 to 2"),
        ({"indices": [-1]}, "indices must be from 0 to 2"),
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
    """The figures that docs/epic-and-ssv2.md compares, loosely: bytes per frame and quality on a real SSV2 clip."""
    path = testdata / "ssv2/4.webm"
    frames = list(read_colour_frames(path, short_side_px=256))
    sizes = {}
    for form, least_psnr in (("jpeg", 39.0), ("h264", 37.5)):
        data = write_clip(frames, form=form)
        sizes[form] = len(data) / path.stat().st_size
        read = read_clip_frames(data, range(0, 42, 5))
        assert np.mean([psnr(one, frame.rgb) for one, frame in zip(read, frames[::5], strict=True)]) > least_psnr
    assert sizes["jpeg"] < 3.8
    assert sizes["h264"] < 1.5


def test_a_piece_is_coded_block_by_block():
    """Frames of other pieces are left out; what comes out has lost its colour, which is in the blocks."""
    seen = [Frame(i, 3.0 + i / 2, np.zeros((16, 16), np.uint8), f.rgb) for i, f in enumerate(colour_frames(14, 16, 18))]
    clips = PieceClips(Piece("v", "v.mp4", 1, 2, 10), "jpeg")
    passed = list(clips.watch(iter(seen)))
    assert [frame.time_seconds for frame in passed] == [frame.time_seconds for frame in seen]
    assert all(frame.rgb is None for frame in passed)
    data = clips.take(1)
    assert read_index(data).times_seconds.tolist() == [t / 2 for t in range(8, 16)]
    assert psnr(read_clip_frames(data, [3])[0], seen[5].rgb) > 30
    with pytest.raises(KeyError):
        clips.take(2)


def test_a_frame_that_cannot_be_coded_costs_its_block_alone(monkeypatch):
    seen = [Frame(i, 1.0 + 2 * i, np.zeros((16, 16), np.uint8), f.rgb) for i, f in enumerate(colour_frames(6, 16, 16))]
    real, calls = cv2.imencode, []

    def breaks(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise cv2.error("planted")
        return real(*arguments)

    monkeypatch.setattr(cv2, "imencode", breaks)
    clips = PieceClips(Piece("v", "v.mp4", None, None, 10), "jpeg")
    assert len(list(clips.watch(iter(seen)))) == 6
    assert read_index(clips.take(0)).num_frames == 2
    with pytest.raises(ClipError, match="planted") as caught:
        clips.take(1)
    assert caught.value.reason == Reason.ENCODE_ERROR
    assert read_index(clips.take(2)).num_frames == 2
