from __future__ import annotations

import numpy as np
import pytest
import torch

from mofo_train.data.augment import _MOVING_OPS, _OPS, apply_op, augment_clip, move_boxes, random_crop
from mofo_train.finetune_config import AugmentConfig

QUIET = AugmentConfig(crop_area=(1, 1), crop_aspect=(1, 1), rand_ops=0, erase_probability=0)


def bright_rectangle(x1: int, y1: int, x2: int, y2: int) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.zeros((2, 64, 80, 3), np.uint8)
    pixels[:, y1:y2, x1:x2] = 255
    return pixels, np.tile(np.array([x1, y1, x2, y2], np.float32), (2, 1))


def extent(frame: torch.Tensor) -> list[float]:
    """Box around the bright pixels of (3, H, W)."""
    rows, columns = (frame.float().mean(0) > 180).nonzero().unbind(1)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("name", _MOVING_OPS)
def test_boxes_follow_what_moves(name: str, sign: float) -> None:
    pixels, boxes = bright_rectangle(30, 24, 50, 40)
    frames = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    moved, placed = apply_op(name, frames, 0.5, sign), move_boxes(name, torch.from_numpy(boxes), (64, 80), 0.5, sign)
    assert moved.shape == frames.shape
    seen = extent(moved[0])
    assert placed[0].tolist() == pytest.approx(seen, abs=1.6)
    assert placed[0].tolist() != pytest.approx([30, 24, 50, 40], abs=1.0), "the operation moved it"


@pytest.mark.parametrize("name", [name for name in _OPS if name not in _MOVING_OPS])
def test_colours_change_and_boxes_stay(name: str) -> None:
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(30, 200, size=(2, 3, 64, 80), dtype=np.uint8))
    boxes = torch.tensor([[1.0, 2, 30, 40]]).repeat(2, 1)
    changed, placed = apply_op(name, frames, 0.7, 1.0), move_boxes(name, boxes, (64, 80), 0.7, 1.0)
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, frames)
    assert torch.equal(placed, boxes)


def test_a_box_moved_out_of_the_frame_is_empty() -> None:
    _, boxes = bright_rectangle(60, 24, 78, 40)
    placed = move_boxes("translate_x", torch.from_numpy(boxes), (64, 80), 1.0, 1.0)
    assert not bool((placed[:, 2:] > placed[:, :2]).all(1).any())


def test_crop_and_mirror_carry_the_box() -> None:
    pixels, boxes = bright_rectangle(20, 10, 40, 30)
    config = QUIET.model_copy(update={"crop_area": (0.4, 0.8), "flip_probability": 1.0})
    seen_some = 0
    for seed in range(30):
        view, placed, _ = augment_clip(pixels, boxes, config, 48, np.random.default_rng(seed))
        if placed.any():
            seen_some += 1
            assert placed[1].tolist() == pytest.approx(extent(view[:, 1]), abs=2)
    assert seen_some > 20


def test_an_empty_box_stays_empty_when_mirrored() -> None:
    pixels, _ = bright_rectangle(0, 0, 1, 1)
    config = QUIET.model_copy(update={"flip_probability": 1.0})
    _, placed, _ = augment_clip(pixels, np.zeros((2, 4), np.float32), config, 48, np.random.default_rng(0))
    assert not placed.any()


def test_erasing_hides_a_rectangle_of_all_frames_and_leaves_the_box() -> None:
    pixels, boxes = bright_rectangle(0, 0, 80, 64)
    config = QUIET.model_copy(update={"erase_probability": 1.0})
    view, placed, _ = augment_clip(pixels, boxes, config, 48, np.random.default_rng(3))
    erased = (view < 255).any(0)
    share = erased.float().mean().item()
    assert 0.015 < share < 0.4
    rows, columns = erased[0].nonzero().unbind(1)
    area = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
    assert erased[0].sum() > 0.95 * area, "one rectangle"
    assert (erased[0] == erased[1]).float().mean() > 0.95, "the same in every frame"
    assert placed[0].tolist() == [0, 0, 48, 48]


def test_a_view_depends_on_its_seed_alone() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(4, 64, 80, 3), dtype=np.uint8)
    boxes = np.tile(np.array([10, 10, 50, 50], np.float32), (4, 1))
    one = augment_clip(pixels, boxes, AugmentConfig(), 32, np.random.default_rng(5))
    two = augment_clip(pixels, boxes, AugmentConfig(), 32, np.random.default_rng(5))
    other = augment_clip(pixels, boxes, AugmentConfig(), 32, np.random.default_rng(6))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])
    assert one[0].shape == (3, 4, 32, 32)


def test_crops_keep_to_their_area_and_aspect() -> None:
    rng = np.random.default_rng(0)
    crops = [random_crop(320, 240, (0.08, 1.0), (0.75, 4 / 3), rng) for _ in range(300)]
    shares = np.array([crop.width * crop.height / (320 * 240) for crop in crops])
    ratios = np.array([crop.width / crop.height for crop in crops])
    assert shares.min() > 0.075
    assert shares.max() <= 1
    assert 0.4 < shares.mean() < 0.65
    assert ratios.min() > 0.73
    assert ratios.max() < 1.37
    assert all(crop.x + crop.width <= 320 and crop.y + crop.height <= 240 for crop in crops)
    wide = random_crop(1000, 10, (1.0, 1.0), (0.75, 4 / 3), rng)
    assert (wide.width, wide.height) == (13, 10), "no crop of that area fits: the centre"
