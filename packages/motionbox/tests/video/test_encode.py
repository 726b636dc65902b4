import io

import av
import numpy as np
import pytest
from PIL import Image

from motionbox.errors import InputError
from motionbox.video.encode import encode_image, write_file


def ramp_frames(num_frames=6, height=48, width=64):
    """Smooth frames that differ from each other and survive compression."""
    y, x = np.mgrid[:height, :width]
    return [
        np.stack([x * 3, y * 4, np.full_like(x, 20 + 30 * index)], axis=2).clip(0, 255).astype(np.uint8)
        for index in range(num_frames)
    ]


def decode(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.average_rate, [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]


@pytest.mark.parametrize("fps", [12, 29.97, 60])
def test_a_video_holds_its_frames_at_their_rate(tmp_path, fps):
    frames = ramp_frames()
    write_file(tmp_path / "sub" / "out.mp4", frames, fps)
    rate, decoded = decode(tmp_path / "sub" / "out.mp4")
    assert abs(float(rate) - fps) < 0.01
    assert len(decoded) == 6
    for given, back in zip(frames, decoded, strict=True):
        assert np.abs(given.astype(int) - back).mean() < 6


def test_odd_sizes_are_padded_with_their_border(tmp_path):
    write_file(tmp_path / "out.mp4", ramp_frames(height=47, width=63), 10)
    _, decoded = decode(tmp_path / "out.mp4")
    assert decoded[0].shape == (48, 64, 3)


def test_a_gif_loops_with_all_frames(tmp_path):
    frames = ramp_frames()
    write_file(tmp_path / "out.gif", iter(frames), 10)
    with Image.open(tmp_path / "out.gif") as gif:
        assert gif.info["loop"] == 0
        assert gif.n_frames == 6
        gif.seek(5)
        assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - frames[5]).mean() < 12


def test_a_png_is_the_first_frame_exactly(tmp_path):
    frames = ramp_frames()
    write_file(tmp_path / "out.png", iter(frames), 10)
    with Image.open(tmp_path / "out.png") as png:
        np.testing.assert_array_equal(np.asarray(png.convert("RGB")), frames[0])


def test_a_picture_as_bytes():
    frame = ramp_frames()[3]
    with Image.open(io.BytesIO(encode_image(frame, ".webp", quality=90))) as picture:
        assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - frame).mean() < 6
    assert len(encode_image(frame, ".jpg", quality=10)) < len(encode_image(frame, ".jpg", quality=95))


def test_a_failure_on_the_way_leaves_no_file_and_the_old_one(tmp_path):
    def breaking():
        yield ramp_frames()[0]
        raise RuntimeError("decoder died")

    for name in ("out.mp4", "out.gif"):
        (tmp_path / name).write_bytes(b"old")
        with pytest.raises(RuntimeError, match="decoder died"):
            write_file(tmp_path / name, breaking(), 10)
        assert (tmp_path / name).read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.gif", "out.mp4"]


@pytest.mark.parametrize("name", ["out.mp4", "out.gif"])
def test_no_frame_is_an_error(tmp_path, name):
    with pytest.raises(ValueError, match="at least one frame"):
        write_file(tmp_path / name, [], 10)
    assert not list(tmp_path.iterdir())


def test_bad_targets_are_refused_in_words(tmp_path):
    with pytest.raises(InputError, match=r"must end in .mp4, .gif, .png, got .*clip.avi"):
        write_file(tmp_path / "clip.avi", ramp_frames(), 10)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write_file(tmp_path / "file" / "out.png", ramp_frames(), 10)
