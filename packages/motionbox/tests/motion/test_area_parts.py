import numpy as np
import pytest

from motionbox.config import load_config
from motionbox.motion.area_parts import areas_in_parts, joined_boxes, part_slices
from motionbox.motion.areas import clip_areas
from motionbox.motion.boxes import BoxSource, StabilisedBoxes

CONFIG = load_config("tuned")


def moving_spot(num_frames: int) -> np.ndarray:
    maps = np.full((num_frames, 16, 24), 3, np.uint8)
    for t in range(num_frames):
        maps[t, 4:8, 3 + t // 7 % 12 :][:, :4] = 200
    return maps


@pytest.mark.parametrize("num_frames", [1, 255, 256, 257, 10_000, 108_000, 216_000])
def test_parts_cover_a_clip_and_stay_small(num_frames: int) -> None:
    parts = part_slices(num_frames, 32 * 57)
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == num_frames
    lengths = [part.stop - part.start for part in parts]
    assert all(length % 256 == 0 for length in lengths[:-1])
    assert max(lengths) * 32 * 57 <= 2**24 + 256 * 32 * 57
    assert max(lengths) - min(lengths) <= 512


def test_a_short_clip_is_one_part() -> None:
    maps, times = moving_spot(60), np.arange(60) / 30
    whole = clip_areas(maps, times, 192, 128, CONFIG)
    (part,) = areas_in_parts(lambda rows: maps[rows], times, (16, 24), (192, 128), CONFIG)
    np.testing.assert_array_equal(part.areas, whole.areas)
    assert part.areas.max() == 255
    joined = joined_boxes([part.stabilised_boxes()], times)
    np.testing.assert_array_equal(joined.boxes, whole.boxes)
    assert joined.clip_confidence == whole.clip_confidence


def test_a_long_clip_is_read_in_parts() -> None:
    maps, times = moving_spot(1000), np.arange(1000) / 30
    asked: list[slice] = []

    def read(rows: slice) -> np.ndarray:
        asked.append(rows)
        return maps[rows]

    parts = list(areas_in_parts(read, times, (16, 24), (192, 128), CONFIG, max_cells=300 * 16 * 24))
    assert [rows.stop - rows.start for rows in asked] == [256, 256, 256, 232]
    assert sum(len(part.areas) for part in parts) == 1000
    assert all((part.areas[:, 4:8] > 0).any(axis=(1, 2)).all() for part in parts)


def test_a_part_without_motion_borrows_the_nearest_box() -> None:
    def part(box: list[int], source: BoxSource, confidence: float) -> StabilisedBoxes:
        return StabilisedBoxes(
            np.array([box] * 2, np.int16),
            np.full(2, source, np.uint8),
            np.full(2, confidence, np.float32),
            confidence,
        )

    parts = [
        part([0, 0, 4, 4], BoxSource.OWN, 0.5),
        part([9, 9, 12, 12], BoxSource.CENTRE, 0.0),
        part([1, 1, 5, 5], BoxSource.OWN, 1.0),
    ]
    joined = joined_boxes(parts, np.array([0.0, 1, 2, 3, 4, 5]))
    np.testing.assert_array_equal(joined.boxes[:, 0], [0, 0, 0, 1, 1, 1])
    assert joined.source.tolist() == [0, 0, BoxSource.BORROWED, BoxSource.BORROWED, 0, 0]
    assert joined.clip_confidence == pytest.approx(0.5)
    alone = joined_boxes(parts[1:2], np.array([0.0, 1]))
    assert alone.source.tolist() == [BoxSource.CENTRE] * 2
    np.testing.assert_array_equal(alone.boxes[:, 0], [9, 9])
