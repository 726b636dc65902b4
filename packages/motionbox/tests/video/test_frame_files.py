import io
import tarfile

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motionbox.errors import Reason
from motionbox.video import is_frame_folder, probe, read_frames
from motionbox.video._frame_files import image_size
from video_support import moving, read_all, write_frames


def test_frame_folder_is_read_in_natural_order(tmp_path):
    images = moving(12)
    folder = write_frames(tmp_path / "v", images)
    (folder / "notes.txt").write_text("not a frame")
    (folder / ".hidden.png").write_bytes(b"")
    assert is_frame_folder(folder)
    frames = list(read_frames(folder, fps=10))
    assert np.array_equal(np.stack([frame.grey for frame in frames]), images)
    assert [frame.time_seconds for frame in frames] == pytest.approx(np.arange(12) / 10)
    info = probe(folder, fps=10)
    assert (info.width, info.height, info.num_frames_hint, info.codec, info.container) == (64, 48, 12, "png", "frames")


def test_frame_tar_equals_its_folder(tmp_path):
    folder = write_frames(tmp_path / "v", moving(12))
    with tarfile.open(tmp_path / "v.tar", "w") as archive:
        archive.add(folder, arcname="./v")
    from_tar, from_folder = list(read_frames(tmp_path / "v.tar")), list(read_frames(folder))
    assert [f.time_seconds for f in from_tar] == [f.time_seconds for f in from_folder]
    assert all(np.array_equal(a.grey, b.grey) for a, b in zip(from_tar, from_folder, strict=True))
    assert probe(tmp_path / "v.tar").container == "tar"


def test_numbered_frames_are_timed_by_their_number(tmp_path):
    folder = write_frames(tmp_path / "v", moving(10), "frame_{:010d}.jpg", first=120)
    frames = list(read_frames(folder, fps=60, numbered=True, start_seconds=122 / 60, stop_seconds=126 / 60))
    assert [frame.index for frame in frames] == [2, 3, 4, 5]
    assert [frame.time_seconds for frame in frames] == [n / 60 for n in (122, 123, 124, 125)]


def test_frames_without_usable_numbers_are_refused_where_numbers_count(tmp_path):
    folder = write_frames(tmp_path / "v", moving(2))
    (folder / "cover.png").write_bytes((folder / "frame_1.png").read_bytes())
    _, error = read_all(folder, numbered=True)
    assert error is not None
    assert error.reason == Reason.UNSUPPORTED


@pytest.mark.parametrize("damage", [b"", b"\xff\xd8\xff", b"no image"])
def test_broken_frame_file_ends_the_folder_after_the_good_ones(tmp_path, damage):
    folder = write_frames(tmp_path / "v", moving(6))
    (folder / "frame_4.png").write_bytes(damage)
    frames, error = read_all(folder)
    assert len(frames) == 3
    assert error is not None
    assert error.reason == (Reason.DECODE_ERROR if damage else Reason.EMPTY_FILE)
    assert "frame_4.png" in error.message


def test_cut_tar_gives_its_whole_frames(tmp_path):
    folder = write_frames(tmp_path / "v", moving(6))
    with tarfile.open(tmp_path / "v.tar", "w") as archive:
        for number in range(1, 7):
            archive.add(folder / f"frame_{number}.png", arcname=f"frame_{number}.png")
    data = (tmp_path / "v.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: len(data) // 3])
    frames, error = read_all(tmp_path / "cut.tar")
    assert error is not None
    assert error.reason == Reason.TRUNCATED
    assert 0 < len(frames) < 6


@pytest.mark.parametrize("content", [b"", b"garbage" * 100])
def test_tar_that_is_none(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    _, error = read_all(tmp_path / "a.tar")
    assert error is not None
    assert error.reason == (Reason.NOT_A_VIDEO if content else Reason.EMPTY_FILE)


def test_frame_size_bombs_are_refused_by_their_header(tmp_path):
    folder = tmp_path / "v"
    folder.mkdir()
    ok, png = cv2.imencode(".png", np.zeros((16, 16), np.uint8))
    assert ok
    data = bytearray(png.tobytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    (folder / "1.png").write_bytes(data)
    _, error = read_all(folder)
    assert error is not None
    assert error.reason == Reason.TOO_LARGE


def test_missing_path_and_empty_folder(tmp_path):
    for path, reason in ((tmp_path / "none.mp4", Reason.MISSING), (tmp_path / "none.tar", Reason.MISSING)):
        _, error = read_all(path)
        assert error is not None
        assert error.reason == reason
    _, error = read_all(tmp_path)
    assert error is not None
    assert error.reason == Reason.NO_FRAMES


def test_jpeg_header_size_equals_the_decoded_size(tmp_path):
    for shape in ((17, 33), (480, 640, 3)):
        for suffix in (".jpg", ".png"):
            ok, data = cv2.imencode(suffix, np.zeros(shape, np.uint8))
            assert ok
            assert image_size(data.tobytes()) == (shape[1], shape[0])
    assert image_size(io.BytesIO(b"GIF89a").getvalue()) is None


@given(st.binary(max_size=64), st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xc0", b"\x89PNG\r\n\x1a\n"]))
def test_any_bytes_have_an_image_size_or_none(content, magic):
    size = image_size(magic + content)
    assert size is None or len(size) == 2
