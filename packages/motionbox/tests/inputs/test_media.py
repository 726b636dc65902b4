import pytest

from motionbox.inputs.media import frame_number, is_frame_folder, is_frame_name, is_video_name, natural_key


def test_natural_order():
    names = ["a10.jpg", "a9.jpg", "a1.jpg", "b1.jpg", "a٣.jpg"]  # an Arabic digit is text, not a number
    assert sorted(names, key=natural_key)[:3] == ["a1.jpg", "a9.jpg", "a10.jpg"]


@pytest.mark.parametrize(
    ("name", "number"),
    [("frame_0000000007.jpg", 7), ("P01_06/frame_12.png", 12), ("v2_003.jpg", 3), ("cover.jpg", None)],
)
def test_frame_number(name, number):
    assert frame_number(name) == number


def test_names_of_media():
    assert is_video_name("A.MP4")
    assert is_video_name("P01_01.tar")
    assert not is_video_name(".hidden.mp4")
    assert not is_video_name("a.txt")
    assert is_frame_name("x/y.JPEG")
    assert not is_frame_name("x/.y.jpg")


def test_folder_with_videos_is_no_frame_folder(tmp_path):
    assert not is_frame_folder(tmp_path)
    (tmp_path / "cover.jpg").touch()
    assert is_frame_folder(tmp_path)
    (tmp_path / "a.mp4").touch()
    assert not is_frame_folder(tmp_path)
    assert not is_frame_folder(tmp_path / "a.mp4")
