from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mofo_train.data.transforms import Crop, crop_boxes, crop_frames, join_views, multi_scale_crop

SCALES = (1.0, 0.875, 0.75, 0.66)


@given(st.integers(40, 400), st.integers(40, 400), st.integers(0, 1000))
def test_crops_lie_in_the_frame_with_published_sides(width: int, height: int, seed: int) -> None:
    crop = multi_scale_crop(width, height, 224, SCALES, np.random.default_rng(seed))
    assert crop.x >= 0
    assert crop.y >= 0
    assert crop.x + crop.width <= width
    assert crop.y + crop.height <= height
    short = min(width, height)
    sides = [int(short * scale) for scale in SCALES]
    sides = [224 if abs(side - 224) < 3 and short >= 224 else side for side in sides]
    assert abs(sides.index(crop.width) - sides.index(crop.height)) <= 1


def test_every_crop_size_and_place_occurs() -> None:
    rng = np.random.default_rng(0)
    crops = {multi_scale_crop(320, 240, 224, SCALES, rng) for _ in range(4000)}
    assert {(crop.width, crop.height) for crop in crops} == {
        (w, h)
        for i, w in enumerate((240, 210, 180, 158))
        for j, h in enumerate((240, 210, 180, 158))
        if abs(i - j) <= 1
    }
    places = {(crop.x, crop.y) for crop in crops if (crop.width, crop.height) == (180, 180)}
    assert len(places) == 13
    assert (0, 0) in places
    assert (140, 60) in places


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000))
def test_boxes_follow_the_pixels(seed: int) -> None:
    """Paint the box white, crop and resize: what is white afterwards is the moved box, to a pixel's blur."""
    rng = np.random.default_rng(seed)
    x1, x2 = sorted(rng.choice(97, 2, replace=False))
    y1, y2 = sorted(rng.choice(73, 2, replace=False))
    frames = np.zeros((1, 72, 96, 3), np.uint8)
    frames[:, y1:y2, x1:x2] = 255
    crop = multi_scale_crop(96, 72, 64, SCALES, rng)
    picture = crop_frames(torch.from_numpy(frames), crop, 64)[0, 0].numpy()
    box = crop_boxes(np.array([[x1, y1, x2, y2]], np.float32), crop, 64)[0]
    share = picture.astype(float).sum() / 255
    assert abs(share - (box[2] - box[0]) * (box[3] - box[1])) < 4 + 0.05 * share
    solid = np.argwhere(picture == 255)
    if len(solid):
        assert (solid.min(0) >= np.floor(box[[1, 0]]) - 1).all()
        assert (solid.max(0) <= np.ceil(box[[3, 2]]) + 1).all()


def test_a_box_outside_the_crop_becomes_empty() -> None:
    boxes = np.array([[0, 0, 10, 10], [40, 40, 60, 60]], np.float32)
    moved = crop_boxes(boxes, Crop(20, 20, 40, 40), 80)
    assert moved.tolist() == [[0, 0, 0, 0], [40, 40, 80, 80]]


def test_frames_keep_their_order_and_channels() -> None:
    frames = torch.zeros(3, 8, 8, 3, dtype=torch.uint8)
    frames[1, :, :, 2] = 200
    cut = crop_frames(frames, Crop(2, 1, 4, 4), 4)
    assert cut.shape == (3, 3, 4, 4)
    assert (cut[2, 1] == 200).all()
    assert cut.sum() == 200 * 16


def test_colours_stay_side_by_side_from_crop_to_batch() -> None:
    """Any other order would be copied byte by byte in the worker."""
    frames = torch.randint(256, (4, 50, 60, 3), dtype=torch.uint8)
    views = [crop_frames(frames, Crop(x, 2, side, side), 32)[None] for x, side in ((3, 32), (8, 40), (0, 24))]
    joined = join_views(views)
    assert torch.equal(joined, torch.cat(views))
    for view in (*views, joined):
        assert view.permute(0, 2, 3, 4, 1).is_contiguous()
