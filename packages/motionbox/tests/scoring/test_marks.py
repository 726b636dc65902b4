"""Areas from boxes and masks: shares of cells, by counting pixels."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motionbox.errors import InputError
from motionbox.scoring.box_metrics import AnnotatedClip
from motionbox.scoring.marks import Grid, Marks, cover_of_boxes, cover_of_mask, marks_of, nearest_marks
from motionbox.scoring.masks import MaskedClip, holds_masks, read_mask, read_mask_folder

GRID = Grid(frame_wh=(100, 60), cells_wh=(12.5, 7.5), size_hw=(8, 13))


def test_a_mask_covers_what_its_pixels_cover() -> None:
    mask = np.random.default_rng(1).random((60, 104)) < 0.4
    grid = Grid((104, 60), (13.0, 7.5), (8, 13))
    cover = cover_of_mask(mask, grid)
    for y in range(8):
        for x in range(13):
            share = mask[8 * y : 8 * y + 8, 8 * x : 8 * x + 8].mean()  # the last row of cells is cut in the middle
            assert cover[y, x] == pytest.approx(255 * share, abs=0.51)


@given(st.integers(0, 90), st.integers(0, 50), st.integers(1, 100), st.integers(1, 60))
def test_boxes_and_their_masks_cover_the_same(x: int, y: int, width: int, height: int) -> None:
    mask = np.zeros((60, 100), bool)
    mask[y : y + height, x : x + width] = True
    box = np.array([[x, y, min(x + width, 100), min(y + height, 60)]], float)
    np.testing.assert_allclose(cover_of_mask(mask, GRID), cover_of_boxes(box, GRID).astype(float), atol=1)


def test_a_mask_of_another_size_covers_the_same() -> None:
    mask = np.zeros((60, 100), bool)
    mask[12:40, 24:64] = True
    larger = np.repeat(np.repeat(mask, 3, axis=0), 3, axis=1)
    np.testing.assert_array_equal(cover_of_mask(larger, GRID), cover_of_mask(mask, GRID))


def test_several_boxes_do_not_fill_what_lies_between_them() -> None:
    boxes = np.array([[0, 0, 16, 16], [80, 40, 96, 56], [-1, -1, -1, -1.0]])
    cover = cover_of_boxes(boxes, GRID)
    assert (cover[:2, :2] == 255).all()
    assert (cover[5:7, 10:12] == 255).all()
    assert np.count_nonzero(cover) == 8


def test_a_sliver_of_a_cell_is_outside() -> None:
    assert not cover_of_boxes(np.array([[8.0, 8.0, 16.0, 8.3]]), GRID).any()
    assert cover_of_boxes(np.array([[8.0, 8.0, 16.0, 9.0]]), GRID).max() == 32


def write_mask(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def test_masks_are_found_by_their_names(tmp_path: Path) -> None:
    inside = np.zeros((60, 100, 3), np.uint8)
    inside[10:20, 30:50, 1] = 3
    for name in ("b/0004", "b/0002", "deep/er/0"):
        write_mask(tmp_path / f"{name}.png", inside)
    assert holds_masks(tmp_path)
    deep, shallow = sorted(read_mask_folder(tmp_path), key=lambda clip: clip.first_number)
    assert (deep.clip_id, deep.first_number) == ("deep/er", 0)
    assert (shallow.clip_id, shallow.numbers.tolist()) == ("b", [2, 4])
    marks = marks_of(shallow, {"fps": 10.0}, np.array([5.0, 5.1, 5.2, 5.3]), None, GRID)
    np.testing.assert_allclose(marks.seconds, [5.1, 5.3])
    np.testing.assert_array_equal(marks.boxes, [[30, 10, 50, 20]] * 2)
    np.testing.assert_array_equal(marks.areas(1), cover_of_mask(inside.any(axis=2), GRID))
    assert marks_of(deep, {"fps": 10.0}, np.array([5.0]), None, GRID).seconds.tolist() == [5.0]


def test_bad_masks_are_one_line(tmp_path: Path) -> None:
    write_mask(tmp_path / "a" / "first.png", np.zeros((60, 100), np.uint8))
    with pytest.raises(InputError, match=r"named by its frame's number, as 0001.png, got .*first.png"):
        read_mask_folder(tmp_path)
    square = write_mask(tmp_path / "1.png", np.zeros((60, 60), np.uint8))
    with pytest.raises(InputError, match="shape of its clip's 100x60 frames, got 60x60"):
        read_mask(square, (100, 60))
    square.write_bytes(b"no picture")
    with pytest.raises(InputError, match="must be a readable PNG"):
        read_mask(square, (100, 60))
    (tmp_path / "boxes.json").write_text("{}")
    assert not holds_masks(tmp_path)


def test_frames_take_the_nearest_annotated_one() -> None:
    boxes = np.array([[0, 0, 9, 9], [-1, -1, -1, -1], [5, 5, 20, 20.0]])
    marks = Marks(np.array([0.0, 0.1, 0.4]), boxes, lambda number: np.full((1, 1), number, np.uint8))
    found = nearest_marks(marks, np.arange(6) / 10)
    assert found is not None
    assert found[0].tolist() == [0, 0, 0, 2, 2, 2]
    assert found[1] == 4
    nothing = Marks(np.array([0.0]), np.array([[-1.0] * 4]), marks.areas)
    assert nearest_marks(nothing, np.arange(6) / 10) is None


def test_boxes_of_frames_of_another_size_are_one_line() -> None:
    truth = AnnotatedClip("v", np.array([1]), np.array([[900.0, 500, 1500, 1000]]))
    with pytest.raises(InputError, match=r"boxes of clip 'v' must be in pixels of its 100x60 frames, got \[900, 500"):
        marks_of(truth, {"fps": 10.0}, np.array([0.0]), None, GRID)


def test_a_masked_clip_without_frame_zero_counts_from_one() -> None:
    assert MaskedClip("a", np.array([1, 2]), ()).first_number == 1
