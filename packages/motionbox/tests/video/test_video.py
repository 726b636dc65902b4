import contextlib
import itertools
import os
import tarfile
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionbox.errors import ClipError, Reason
from motionbox.video import probe, read_colour_frames, read_frames
from motionbox.video.frames import DecodeLimits
from odd_videos import two_codecs
from video_support import moving, read_all, write_frames

ODD_FILES = {  # name -> frames that come, then the reason that ends the read
    "corrupted_after_frame28_720p.mp4": (29, Reason.DECODE_ERROR),
    "derived_all_black.mp4": (24, None),
    "derived_garbage.mp4": (0, Reason.NOT_A_VIDEO),
    "derived_gray_h264.mp4": (24, None),
    "derived_odd_size_427x239_vp9.webm": (24, None),
    "derived_single_frame.mp4": (1, None),
    "derived_static_same_frame.mp4": (24, None),
    "derived_text_renamed.webm": (0, Reason.NOT_A_VIDEO),
    "derived_tiny_16x12.mp4": (0, Reason.TOO_SMALL),
    "derived_truncated_60pct.mp4": (148, Reason.TRUNCATED),
    "derived_zero_bytes.mp4": (0, Reason.EMPTY_FILE),
    "derived_zero_frames.mkv": (0, Reason.NO_FRAMES),
    "fullrange_yuvj420p_720p.mp4": (30, None),
    "git_lfs_pointer_130bytes.mp4": (0, Reason.LFS_POINTER),
    "heavy_compression_176x144.mp4": (120, None),
    "hevc_10bit.mp4": (30, None),
    "rotation_meta_0.mov": (3, None),
    "rotation_meta_180.mov": (3, None),
    "rotation_meta_90.mov": (3, None),
    "vfr_340x256_32frames.mp4": (32, None),
    "yuv444p_1fps_584x388_rubberwhale.mp4": (8, None),
}


@pytest.mark.parametrize("name", ODD_FILES)
def test_odd_file_gives_frames_or_a_precise_error(testdata, name):
    num_frames, reason = ODD_FILES[name]
    frames, error = read_all(testdata / "odd" / name)
    assert len(frames) == num_frames
    assert (None if error is None else error.reason) == reason
    assert error is None or name in error.message
    if num_frames == 0:
        with pytest.raises(ClipError) as caught:
            probe(testdata / "odd" / name)
        assert caught.value.reason == reason


def test_every_odd_file_is_in_the_table(testdata):
    assert {path.name for path in (testdata / "odd").iterdir()} == set(ODD_FILES)


@pytest.mark.parametrize("folder", ["clips", "ssv2"])
def test_grey_frames_follow_opencvs_decoder(testdata, folder):
    """Peer: OpenCV's own FFmpeg, converted from its BGR; same frames, count, size and (nearly) grey levels."""
    for path in sorted((testdata / folder).glob("*.*")):
        if path.suffix == ".json" or "av1" in path.name:
            continue
        frames = list(read_frames(path, short_side_px=4096, stop_seconds=1.0))
        capture = cv2.VideoCapture(str(path))
        for frame in frames[:20]:
            ok, bgr = capture.read()
            assert ok
            grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
            assert frame.grey.shape == grey.shape
            # BT.709 luma weighs saturated colours differently, see `to_grey`; neutral ones and BT.601 agree
            assert np.abs(frame.grey.astype(int) - grey).mean() < 6
        times = [frame.time_seconds for frame in frames]
        assert times[0] == 0
        assert all(a < b for a, b in itertools.pairwise(times))
        assert [frame.index for frame in frames] == list(range(len(frames)))


def test_rotation_follows_the_metadata(testdata):
    """Peer: OpenCV rotates by the same metadata on its own."""
    for degrees in (0, 90, 180):
        path = testdata / f"odd/rotation_meta_{degrees}.mov"
        ok, bgr = cv2.VideoCapture(str(path)).read()
        assert ok
        frame = next(read_frames(path, short_side_px=4096))
        info = probe(path)
        assert (info.height, info.width) == frame.grey.shape == bgr.shape[:2]
        assert np.abs(frame.grey.astype(int) - cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)).mean() < 6
        colour = next(read_colour_frames(path))
        assert np.abs(colour.rgb[..., ::-1].astype(int) - bgr).mean() < 3


RAMP = np.tile(np.linspace(0, 255, 256).astype(np.uint8), (32, 1))


def test_limited_range_luma_is_stretched_to_the_grey_that_went_in(tmp_path, write_video):
    path = write_video(tmp_path / "ramp.mkv", RAMP[None], codec="ffv1")
    [frame] = read_frames(path)
    assert np.abs(frame.grey.astype(int) - RAMP).max() <= 1


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv444p", "gray", "gray10le", "yuv422p12le", "bgr0", "gray16le"])
def test_every_depth_and_layout_gives_the_same_grey(tmp_path, write_video, pix_fmt):
    path = write_video(tmp_path / "ramp.mkv", RAMP[None], codec="ffv1", pix_fmt=pix_fmt)
    [frame] = read_frames(path)
    assert np.abs(frame.grey.astype(int) - RAMP).max() <= 1


def test_bt601_colours_equal_rgb_to_grey(tmp_path, write_video):
    rng = np.random.default_rng(0)
    small = rng.integers(40, 215, (1, 8, 16, 3), dtype=np.uint8)
    rgb = small.repeat(8, axis=1).repeat(8, axis=2)
    [frame] = read_frames(write_video(tmp_path / "colour.mkv", rgb, codec="ffv1", pix_fmt="yuv444p"))
    assert np.abs(frame.grey.astype(int) - cv2.cvtColor(rgb[0], cv2.COLOR_RGB2GRAY)).max() <= 2


def test_full_range_is_not_stretched(testdata):
    path = testdata / "odd/fullrange_yuvj420p_720p.mp4"
    with av.open(path) as container:
        picture = next(container.decode(video=0))
        luma = np.frombuffer(picture.planes[0], np.uint8).reshape(720, -1)[:, :1280]
        assert np.array_equal(next(read_frames(path, short_side_px=4096)).grey, luma)


def test_downscaling_is_area_interpolation(tmp_path, write_video):
    path = write_video(tmp_path / "a.mkv", moving(2, 64, 96), codec="ffv1", pix_fmt="gray")
    full = next(read_frames(path, short_side_px=64)).grey
    half = next(read_frames(path, short_side_px=32)).grey
    mean = full.reshape(32, 2, 48, 2).mean(axis=(1, 3))
    assert np.abs(half - mean).max() <= 0.75


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        ("mp4", "libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1"}),
        ("mp4", "libx264", {"g": "250"}),
        ("webm", "libvpx-vp9", {"g": "10", "cpu-used": "8", "deadline": "realtime"}),
        ("mkv", "libx265", {"x265-params": "keyint=15:log-level=none"}),
        ("avi", "mpeg4", {"g": "12", "bf": "2"}),
        ("ts", "libx264", {"g": "12"}),
    ],
)
def test_any_span_equals_that_part_of_the_whole(tmp_path, write_video, suffix, codec, options):
    path = write_video(tmp_path / f"a.{suffix}", moving(100), fps=25, codec=codec, options=options)
    whole = list(read_frames(path))
    assert len(whole) == 100
    assert np.allclose([frame.time_seconds for frame in whole], np.arange(100) / 25, atol=2e-3)
    for start, stop in ((0.0, 0.2), (0.5, 0.9), (1.0, 1.04), (1.3, 2.7), (2.2, None), (3.9, 9.0), (None, 1.0)):
        part = list(read_frames(path, start_seconds=start, stop_seconds=stop))
        low = 0.0 if start is None else start
        high = np.inf if stop is None else stop
        expected = [frame for frame in whole if low <= frame.time_seconds < high]
        assert [frame.time_seconds for frame in part] == [frame.time_seconds for frame in expected]
        for one, other in zip(part, expected, strict=True):
            assert np.array_equal(one.grey, other.grey)


def test_spans_of_real_clips(testdata):
    for name in ("clips/handobj_pour_coffee_720p30_h264.mp4", "clips/man_dog_480x480_30_vp9.webm"):
        whole = list(read_frames(testdata / name, short_side_px=64, stop_seconds=6.0))
        for start in (2.0, 5.005):
            part = list(read_frames(testdata / name, short_side_px=64, start_seconds=start, stop_seconds=start + 0.5))
            expected = [frame for frame in whole if start <= frame.time_seconds < start + 0.5]
            assert [frame.time_seconds for frame in part] == [frame.time_seconds for frame in expected]
            assert all(np.array_equal(a.grey, b.grey) for a, b in zip(part, expected, strict=True))


def test_span_without_frames_is_an_error(tmp_path, write_video):
    path = write_video(tmp_path / "a.mp4", moving(10), fps=10)
    for start, stop in ((5.0, 6.0), (0.31, 0.32)):
        with pytest.raises(ClipError) as caught:
            list(read_frames(path, start_seconds=start, stop_seconds=stop))
        assert caught.value.reason == Reason.EMPTY_SPAN


def test_variable_rate_keeps_its_timestamps(tmp_path, write_video):
    pts = [0, 1, 2, 10, 11, 30]
    path = write_video(tmp_path / "a.mkv", moving(6), fps=10, codec="ffv1", pts=pts)
    assert [frame.time_seconds for frame in read_frames(path)] == pytest.approx([p / 10 for p in pts])


def test_avi_is_timed_by_position(testdata):
    frames = list(read_frames(testdata / "clips/makeup_hand_320x240_25_mpeg4.avi"))
    assert [frame.time_seconds for frame in frames] == pytest.approx(np.arange(164) / 25)


def test_a_track_that_changes_its_codec_is_no_file_to_fetch_again(tmp_path):
    two_codecs(tmp_path / "two.mp4")
    frames, error = read_all(tmp_path / "two.mp4")
    assert len(frames) == 60
    assert error.reason == Reason.UNSUPPORTED
    assert "two.mp4: its track changes its codec at 3.00 s, of 6.00 s; write it anew in one codec" in error.message


def test_file_cut_at_a_clean_boundary_is_truncated(tmp_path, write_video):
    path = write_video(tmp_path / "a.mkv", moving(100), fps=10, codec="mjpeg", pix_fmt="yuvj420p")
    data = path.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    frames, error = read_all(tmp_path / "cut.mkv")
    assert 30 < len(frames) < 70
    assert error is not None
    assert error.reason == Reason.TRUNCATED


def test_limits(tmp_path, write_video):
    path = write_video(tmp_path / "a.mp4", moving(20), fps=10)
    for limits, reason, num_frames in (
        (DecodeLimits(max_pixels=1000), Reason.TOO_LARGE, 0),
        (DecodeLimits(max_duration_seconds=1.0), Reason.TOO_LONG, 0),
        (DecodeLimits(max_frames=7), Reason.TOO_LONG, 7),
    ):
        frames, error = read_all(path, limits=limits)
        assert len(frames) == num_frames
        assert error is not None
        assert error.reason == reason


def test_only_local_files_of_known_containers_are_opened(tmp_path):
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    concat = tmp_path / "list.mp4"
    concat.write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    for path in (playlist, concat):
        _, error = read_all(path)
        assert error is not None
        assert error.reason == Reason.NOT_A_VIDEO
    _, error = read_all(Path("http://127.0.0.1:9/a.mp4"))
    assert error is not None
    assert error.reason == Reason.MISSING


def test_sound_alone_has_no_video_stream(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    _, error = read_all(path)
    assert error is not None
    assert error.reason == Reason.NO_VIDEO_STREAM


def test_unreadable_file(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x" * 100)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    _, error = read_all(path)
    assert error is not None
    assert error.reason == Reason.UNREADABLE


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_files_end_in_frames_or_a_clip_error(small_video, data):
    """Fuzz: any bytes changed, removed or appended; nothing but `ClipError` may come out."""
    content = bytearray(small_video.read_bytes())
    for _ in range(data.draw(st.integers(1, 12))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    path = small_video.with_name("damaged.mp4")
    path.write_bytes(bytes(content[:cut]))
    frames, _ = read_all(path)
    times = [frame.time_seconds for frame in frames]
    assert all(a < b for a, b in itertools.pairwise(times))


@pytest.fixture(scope="module")
def small_video(tmp_path_factory, write_video):
    return write_video(tmp_path_factory.mktemp("fuzz") / "a.mp4", moving(12), fps=12)


@pytest.fixture(scope="module")
def small_files(tmp_path_factory, write_video):
    """One file of each kind that a parser reads: WebM, AVI, MPEG-TS, a tar of frames."""
    folder = tmp_path_factory.mktemp("kinds")
    realtime = {"cpu-used": "8", "deadline": "realtime"}
    files = [
        write_video(folder / "a.webm", moving(6), codec="libvpx-vp9", options=realtime),
        write_video(folder / "a.avi", moving(6), codec="mpeg4"),
        write_video(folder / "a.ts", moving(6)),
    ]
    frames = write_frames(folder / "v", moving(3))
    with tarfile.open(folder / "a.tar", "w") as archive:
        archive.add(frames, arcname="v")
    return {path.suffix: path.read_bytes() for path in [*files, folder / "a.tar"]} | {"folder": folder}


@pytest.mark.parametrize("suffix", [".webm", ".avi", ".ts", ".tar"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damaged_files_of_every_kind(small_files, suffix, data):
    content = bytearray(small_files[suffix])
    head = data.draw(st.booleans())  # damage to the index shows more than damage to pictures
    for _ in range(data.draw(st.integers(1, 8))):
        position = data.draw(st.integers(0, min(600, len(content) - 1) if head else len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    path = small_files["folder"] / f"damaged{suffix}"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    with contextlib.suppress(ClipError):
        probe(path)
    frames, _ = read_all(path, start_seconds=data.draw(st.sampled_from([None, 0.2])))
    assert all(frame.grey.dtype == np.uint8 for frame in frames)
