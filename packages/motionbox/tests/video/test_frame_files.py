import io
import tarfile

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from motionbox.errors import Reason
from motionbox.video import is_frame_folder, probe, read_colour_frames, read_frames
from motionbox.video._image_header import image_size
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


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "LA", "I;16"])
def test_every_kind_of_png_is_what_opencv_reads(tmp_path, mode):
    rgb = np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8)
    image = Image.fromarray(rgb[..., 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(rgb)
    path = tmp_path / "v" / "1.png"
    path.parent.mkdir()
    image.convert(mode).save(path)
    [grey], [colour] = read_frames(path.parent), read_colour_frames(path.parent)
    known = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(colour.rgb.astype(int) - known).max() <= (1 if mode == "I;16" else 0)  # rounded from 16 bits
    expected = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert np.abs(grey.grey.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_frames_are_turned_and_mirrored_by_their_exif_tag(tmp_path, suffix, orientation):
    """Peer: OpenCV follows the same tag on its own."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    rgb = moving(1, 32, 48)[0][..., None].repeat(3, axis=2)
    path = tmp_path / "v" / f"1.{suffix}"
    path.parent.mkdir()
    Image.fromarray(rgb).save(path, exif=exif, quality=95)
    expected = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]
    [grey], [colour] = read_frames(path.parent), read_colour_frames(path.parent)
    assert colour.rgb.shape == expected.shape
    assert np.abs(colour.rgb.astype(int) - expected).max() <= 2
    assert np.abs(grey.grey.astype(int) - expected[..., 0]).max() <= 2
    info = probe(path.parent)
    assert (info.height, info.width) == expected.shape[:2]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_jpeg_that_is_cut_off_is_no_frame(tmp_path, share):
    folder = write_frames(tmp_path / "v", moving(3), "frame_{}.jpg")
    data = (folder / "frame_2.jpg").read_bytes()
    (folder / "frame_2.jpg").write_bytes(data[: int(len(data) * share)])
    frames, error = read_all(folder)
    assert len(frames) == 1
    assert error is not None
    assert error.reason == Reason.DECODE_ERROR
