from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mofo_train.data.decoding.frame_files import _in_order, _numbers
from mofo_train.data.reader import ClipReader
from motionbox.inputs.media import frame_number, is_frame_name, natural_key
from motionbox.store import open_store
from motionbox.video import read_colour_frames

NAME = st.text(st.sampled_from("a1290._/-jpngJPG\u0664"), min_size=1, max_size=12)


@settings(max_examples=200)
@given(st.lists(st.builds(lambda stem, suffix: stem + suffix, NAME, st.sampled_from([".jpg", ".PNG", ".txt", ""]))))
def test_names_are_ordered_and_numbered_as_extraction_does(names: list[str]) -> None:
    """The order decides which frame the store's times mean."""
    expected = sorted(filter(is_frame_name, names), key=natural_key)
    assert _in_order(names) == expected
    numbers = [-1 if (number := frame_number(name)) is None else number for name in expected]
    assert _numbers(expected).tolist() == numbers


def test_boxes_and_frames_of_a_tar_belong_together(tmp_path: Path) -> None:
    """Extracted from a tar of a moving square, read by the trainer from the same tar."""
    from motionbox.cli import main

    data, rng = tmp_path / "data", np.random.default_rng(0)
    data.mkdir()
    square = rng.integers(0, 256, (24, 24, 3), np.uint8)
    with tarfile.open(data / "walk.tar", "w") as archive:
        for index in range(14):
            image = np.full((64, 96, 3), 90, np.uint8)
            image[20:44, 5 + 4 * index : 29 + 4 * index] = square
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            member = tarfile.TarInfo(f"walk/{index + 1}.png")
            member.size = buffer.tell()
            buffer.seek(0)
            archive.addfile(member, buffer)
    options = ["--flow", "dis", "--executor", "serial", "--workers", "0"]
    with pytest.raises(SystemExit) as stop:
        main(["extract", "--data-root", str(data), "--store", str(tmp_path / "store"), *options])
    assert stop.value.code == 0
    reader = ClipReader(open_store(tmp_path / "store"), data, split=None, short_side_px=256)
    chosen = np.array([0, 2, 9, 13])
    pixels, boxes = reader.read(0, chosen)
    expected = [frame.rgb for frame in read_colour_frames(data / "walk.tar")]
    assert np.array_equal(pixels, np.stack([expected[index] for index in chosen]))
    assert boxes.shape == (4, 4)
