from __future__ import annotations

import io
import shutil
import tarfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from motionbox.errors import ClipError
from motionbox.video import read_frames_at

FPS, FRAMES = 25, 60


def _grey_of(index: int) -> int:
    return 40 + 3 * index


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video whose frame i is a flat grey of 40 + 3i: decoded pictures tell their own position."""
    path = tmp_path_factory.mktemp("video") / "ramp.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"g": "12", "crf": "10"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(FRAMES):
            picture = av.VideoFrame.from_ndarray(np.full((64, 96, 3), _grey_of(index), np.uint8), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def _positions(frames: NDArray[np.uint8]) -> list[int]:
    return [round((float(frame.mean()) - 40) / 3) for frame in frames]


@pytest.mark.parametrize("first", [0, 5, 11, 12, 13, 30, 44])
def test_frames_come_at_their_times_also_after_a_seek(video: Path, first: int) -> None:
    wanted = np.arange(first, first + 16, 3)
    frames = read_frames_at(video, wanted / FPS, short_side_px=256)
    assert frames.shape == (6, 64, 96, 3)
    assert _positions(frames) == wanted.tolist()


def test_repeated_times_repeat_their_frame(video: Path) -> None:
    frames = read_frames_at(video, np.array([2, 2, 3, 3, 3]) / FPS, short_side_px=256)
    assert _positions(frames) == [2, 2, 3, 3, 3]


def test_large_frames_are_reduced(video: Path) -> None:
    assert read_frames_at(video, np.array([0.0]), short_side_px=32).shape == (1, 32, 48, 3)


def test_numbered_and_counted_frame_folders(tmp_path: Path) -> None:
    for index in range(1, 13):
        picture = Image.fromarray(np.full((16, 16, 3), _grey_of(index), np.uint8))
        picture.save(tmp_path / f"frame_{index}.jpg", quality=100)
    numbered = read_frames_at(tmp_path, np.array([2, 10, 12]) / 60, short_side_px=64, fps=60.0, numbered=True)
    assert _positions(numbered) == [2, 10, 12]
    counted = read_frames_at(tmp_path, np.array([0, 9, 11]) / 30, short_side_px=64)
    assert _positions(counted) == [1, 10, 12]
    with pytest.raises(ClipError, match=r"frame at 0\.500 s"):
        read_frames_at(tmp_path, np.array([0.5]), short_side_px=64)


@pytest.fixture(scope="module")
def frame_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar as EPIC-KITCHENS has them: frames 1 to 12 below `./`, in no order, with other files between them."""
    path = tmp_path_factory.mktemp("tar") / "P01_01.tar"
    with tarfile.open(path, "w") as archive:
        for index in [3, 10, 1, 12, 2, 11, 4, 9, 5, 8, 6, 7]:
            buffer = io.BytesIO()
            Image.fromarray(np.full((16, 16, 3), _grey_of(index), np.uint8)).save(buffer, "JPEG", quality=100)
            _add(archive, f"./frame_{index:010d}.jpg", buffer.getvalue())
            _add(archive, f"./._frame_{index:010d}.jpg", b"a file manager's note")
        _add(archive, "./readme.txt", b"13")
    return path


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def test_numbered_and_counted_frame_tars(frame_tar: Path) -> None:
    numbered = read_frames_at(frame_tar, np.array([2, 10, 10, 12]) / 50, short_side_px=64, fps=50.0, numbered=True)
    assert _positions(numbered) == [2, 10, 10, 12]
    counted = read_frames_at(frame_tar, np.array([0, 9, 11]) / 30, short_side_px=8)
    assert _positions(counted) == [1, 10, 12]
    assert counted.shape == (3, 8, 8, 3)


def test_a_tar_that_was_exchanged_is_read_anew(frame_tar: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.tar"
    shutil.copy(frame_tar, path)
    assert _positions(read_frames_at(path, np.array([0.0]), short_side_px=64)) == [1]
    with tarfile.open(path, "w") as archive:
        buffer = io.BytesIO()
        Image.fromarray(np.full((16, 16, 3), _grey_of(20), np.uint8)).save(buffer, "PNG")
        _add(archive, "0.png", buffer.getvalue())
    assert _positions(read_frames_at(path, np.array([0.0]), short_side_px=64)) == [20]


def test_broken_tars_are_named(frame_tar: Path, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"P01_01\.tar: .*frame at 0\.260 s"):
        read_frames_at(frame_tar, np.array([13 / 50]), short_side_px=64, fps=50.0, numbered=True)
    torn = tmp_path / "torn.tar"
    torn.write_bytes(frame_tar.read_bytes()[:800])  # the header and a part of frame 3
    with pytest.raises(ClipError, match=r"torn\.tar"):
        read_frames_at(torn, np.array([3 / 50]), short_side_px=64, fps=50.0, numbered=True)
    no_tar = tmp_path / "none.tar"
    no_tar.write_bytes(b"not a tar")
    with pytest.raises(ClipError, match=r"none\.tar"):
        read_frames_at(no_tar, np.array([0.0]), short_side_px=64)


def test_unreadable_files_are_named(video: Path, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"must have a frame at 99\.000 s"):
        read_frames_at(video, np.array([0.0, 99.0]), short_side_px=64)
    with pytest.raises(ClipError, match=r"none\.mp4: does not exist"):
        read_frames_at(tmp_path / "none.mp4", np.array([0.0]), short_side_px=64)
    (tmp_path / "torn.mp4").write_bytes(video.read_bytes()[:1000])
    with pytest.raises(ClipError, match=r"torn\.mp4"):
        read_frames_at(tmp_path / "torn.mp4", np.array([0.0]), short_side_px=64)
