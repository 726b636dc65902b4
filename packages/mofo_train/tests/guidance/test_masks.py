from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mofo_train.guidance import masks
from mofo_train.guidance.inside import patches_inside_box, tubelets_inside_boxes, union_boxes


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _tubes_of(mask: torch.Tensor, num_tubelets: int) -> torch.Tensor:
    """Check that the mask is the same at every time and return one time step."""
    by_time = mask.unflatten(1, (num_tubelets, -1))
    assert (by_time == by_time[:, :1]).all()
    return by_time[:, 0]


@settings(max_examples=150, deadline=None)
@given(
    num_patches=st.integers(1, 60),
    share_inside=st.floats(0, 1),
    mask_ratio=st.floats(0, 1),
    inside_ratio=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_motion_mask_counts_are_exact(
    num_patches: int, share_inside: float, mask_ratio: float, inside_ratio: float, seed: int
) -> None:
    inside = torch.rand(5, num_patches, generator=_generator(seed)) < share_inside
    mask = masks.motion_tube_mask(
        inside, 3, mask_ratio=mask_ratio, inside_ratio=inside_ratio, generator=_generator(seed)
    )
    hidden = _tubes_of(mask, 3)
    total = round(mask_ratio * num_patches)
    assert (hidden.sum(1) == total).all()
    for row, box in zip(hidden, inside, strict=True):
        num_inside = int(box.sum())
        hidden_inside, hidden_outside = int((row & box).sum()), int((row & ~box).sum())
        wanted = round(inside_ratio * num_inside)
        if hidden_inside > wanted:
            assert hidden_outside == num_patches - num_inside, "spills inside only when outside runs out"
        elif hidden_inside < wanted:
            assert hidden_inside == total, "fewer than wanted inside only when all hidden tubes are inside"
        else:
            assert hidden_inside == wanted


@pytest.mark.parametrize("num_inside", [0, 1, 2, 3, 10, 40, 80, 81, 100, 195, 196])
def test_motion_mask_known_counts_at_vitb(num_inside: int, generator: torch.Generator) -> None:
    inside = torch.zeros(16, 196, dtype=torch.bool)
    inside[:, :num_inside] = True
    hidden = _tubes_of(masks.motion_tube_mask(inside, 8, generator=generator), 8)
    assert (hidden.sum(1) == 176).all()
    expected = {0: 0, 1: 1, 2: 2, 3: 2, 10: 8, 40: 30, 80: 60, 81: 61, 100: 80, 195: 175, 196: 176}[num_inside]
    assert ((hidden & inside).sum(1) == expected).all()


def test_more_wanted_inside_than_hidden_at_all(generator: torch.Generator) -> None:
    inside = torch.ones(3, 20, dtype=torch.bool)
    inside[:, 18:] = False
    hidden = _tubes_of(masks.motion_tube_mask(inside, 1, mask_ratio=0.5, inside_ratio=1.0, generator=generator), 1)
    assert (hidden.sum(1) == 10).all()
    assert not hidden[:, 18:].any()


def test_every_patch_is_hidden_and_visible_equally_often(generator: torch.Generator) -> None:
    inside = torch.zeros(4000, 49, dtype=torch.bool)
    inside[:, 10:22] = True
    hidden = _tubes_of(masks.motion_tube_mask(inside, 2, generator=generator), 2).double().mean(0)
    # 9 of 12 inside, 35 of 37 outside; three standard errors of 4,000 draws and a margin.
    assert torch.allclose(hidden[10:22], torch.full((12,), 9 / 12, dtype=torch.float64), atol=0.03)
    outside = torch.cat([hidden[:10], hidden[22:]])
    assert torch.allclose(outside, torch.full((37,), 35 / 37, dtype=torch.float64), atol=0.02)


def test_seed_repeats_and_samples_differ() -> None:
    inside = torch.zeros(8, 196, dtype=torch.bool)
    inside[:, 50:90] = True
    first = masks.motion_tube_mask(inside, 8, generator=_generator(3))
    assert torch.equal(first, masks.motion_tube_mask(inside, 8, generator=_generator(3)))
    assert not torch.equal(first, masks.motion_tube_mask(inside, 8, generator=_generator(4)))
    assert len({tuple(row.tolist()) for row in first}) == 8


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.9, 1.0])
def test_tube_and_random_masks_count(ratio: float, generator: torch.Generator) -> None:
    tube = masks.tube_mask(6, 49, 4, mask_ratio=ratio, generator=generator)
    assert (_tubes_of(tube, 4).sum(1) == round(ratio * 49)).all()
    free = masks.random_mask(6, 4 * 49, mask_ratio=ratio, generator=generator)
    assert (free.sum(1) == round(ratio * 4 * 49)).all()
    if ratio == 0.5:
        by_time = free.unflatten(1, (4, -1))
        assert not (by_time == by_time[:, :1]).all()


def test_motion_map_mask_follows_the_map(generator: torch.Generator) -> None:
    motion = torch.zeros(3000, 36)
    motion[:, :6] = 5.0
    motion[:, 6:12] = 1.0
    hidden = _tubes_of(masks.motion_map_tube_mask(motion, 2, mask_ratio=0.5, generator=generator), 2).double()
    assert (hidden.sum(1) == 18).all()
    share = hidden.mean(0)
    assert share[:6].min() > share[6:12].max() > share[12:].max()
    assert share.max() < 1
    assert share.min() > 0
    still = _tubes_of(masks.motion_map_tube_mask(motion * 0, 2, mask_ratio=0.5, generator=generator), 2).double()
    assert torch.allclose(still.mean(0), torch.full((36,), 0.5, dtype=torch.float64), atol=0.04)


@settings(max_examples=200, deadline=None)
@given(
    box=st.tuples(*[st.integers(-40, 120)] * 4),
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    patch_px=st.sampled_from([4, 16]),
)
@example(box=(1, 1, 4, 8), rows=3, columns=3, patch_px=4)  # ends on borders, which random boxes seldom do
@example(box=(4, 8, 7, 11), rows=3, columns=3, patch_px=4)  # begins on borders
def test_patches_inside_are_those_with_a_common_pixel(
    box: tuple[int, int, int, int], rows: int, columns: int, patch_px: int
) -> None:
    picture = torch.zeros(rows * patch_px, columns * patch_px, dtype=torch.bool)
    x1, y1, x2, y2 = (max(0, value) for value in box)
    picture[y1:y2, x1:x2] = True
    expected = torch.stack(
        [
            picture[r * patch_px : (r + 1) * patch_px, c * patch_px : (c + 1) * patch_px].any()
            for r in range(rows)
            for c in range(columns)
        ]
    )
    inside = patches_inside_box(torch.tensor(box), (rows * patch_px, columns * patch_px), patch_px)
    assert torch.equal(inside, expected)


def test_boxes_follow_a_flip() -> None:
    boxes = torch.rand(50, 2, 2, generator=_generator()).mul(64).sort(1).values.flatten(1)
    flipped = torch.stack([64 - boxes[:, 2], boxes[:, 1], 64 - boxes[:, 0], boxes[:, 3]], 1)
    direct = patches_inside_box(boxes, (64, 64), 16).unflatten(1, (4, 4))
    assert torch.equal(direct.flip(2), patches_inside_box(flipped, (64, 64), 16).unflatten(1, (4, 4)))


def test_tubelet_membership_takes_either_frame() -> None:
    boxes = torch.tensor([[[0, 0, 16, 16], [16, 0, 17, 1], [0, 0, 0, 0], [0, 31, 32, 32]]])
    inside = tubelets_inside_boxes(boxes, (32, 32), 16, 2)
    assert inside.tolist() == [[True, True, False, False, False, False, True, True]]


def test_union_ignores_empty_boxes() -> None:
    boxes = torch.tensor([[[5, 6, 9, 10], [0, 0, 0, 0], [3, 8, 4, 30]], [[7, 7, 7, 9], [0, 0, 0, 0], [9, 9, 9, 9]]])
    assert union_boxes(boxes).tolist() == [[3, 6, 9, 30], [0, 0, 0, 0]]
    assert union_boxes(boxes.double()).tolist() == [[3, 6, 9, 30], [0, 0, 0, 0]]


def test_union_of_boxes_left_of_the_crop() -> None:
    boxes = torch.tensor([[[-30, -9, -20, -4], [-25, -8, -12, -2], [0, 0, 0, 0]]])
    assert union_boxes(boxes).tolist() == [[-30, -9, -12, -2]]
    assert not patches_inside_box(union_boxes(boxes), (32, 32), 16).any()


def test_misuse_is_named(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="mask_ratio must be in"):
        masks.tube_mask(1, 4, 1, mask_ratio=1.2, generator=generator)
    with pytest.raises(ValueError, match=r"inside must be torch\.bool"):
        masks.motion_tube_mask(torch.zeros(2, 4), 1, generator=generator)
    with pytest.raises(ValueError, match="inside_ratio must be in"):
        masks.motion_tube_mask(torch.zeros(2, 4, dtype=torch.bool), 1, inside_ratio=-1, generator=generator)
    with pytest.raises(ValueError, match="motion must be finite"):
        masks.motion_map_tube_mask(torch.full((1, 4), torch.nan), 1, generator=generator)
    with pytest.raises(ValueError, match="multiples of patch_px"):
        patches_inside_box(torch.zeros(4), (30, 32), 16)


def test_no_clips_have_no_tubelets() -> None:
    assert tubelets_inside_boxes(torch.zeros(0, 4, 4), (32, 48), 16, 2).shape == (0, 12)
