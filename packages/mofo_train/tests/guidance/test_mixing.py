from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mofo_train.guidance.inside import tubelets_inside_boxes
from mofo_train.guidance.mixing import Mix, draw_mix, mix_areas, mix_frames, mix_membership, mix_targets
from mofo_train.guidance.tubelets import ClipShape

CLIP = ClipShape(num_frames=4, image_px=48)


def random_boxes(rng: np.random.Generator, batch: int = 4) -> Tensor:
    low = rng.integers(-8, 48, size=(batch, 4, 2))
    return torch.from_numpy(np.concatenate([low, low + rng.integers(0, 40, size=low.shape)], axis=-1)).float()


def painted(boxes: Tensor) -> Tensor:
    """Clips (B, 3, T, S, S) that are 1 inside their box and 0 outside."""
    clips = torch.zeros(len(boxes), 3, 4, 48, 48)
    for clip, frames in enumerate(boxes.clamp(0, 48).long()):
        for frame, (x1, y1, x2, y2) in enumerate(frames.tolist()):
            clips[clip, :, frame, y1:y2, x1:x2] = 1
    return clips


def tokens_with_paint(clips: Tensor) -> Tensor:
    cells = clips[:, 0].reshape(len(clips), 2, 2, 3, 16, 3, 16)
    return (cells > 0).any(6).any(4).any(2).flatten(1)


@given(st.integers(0, 100_000))
@settings(max_examples=60, deadline=None)
def test_cutmix_moves_membership_with_the_pixels(seed: int) -> None:
    """Painting the boxes, mixing the paint and looking where it went is the definition."""
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng)
    mix = draw_mix(0.0, 1.0, 48, rng)
    assert mix.region is not None
    assert torch.equal(mix_membership(boxes, mix, CLIP), tokens_with_paint(mix_frames(painted(boxes), mix)))


def test_mixup_takes_the_union() -> None:
    rng = np.random.default_rng(1)
    boxes = random_boxes(rng)
    mix = Mix(0.3)
    assert torch.equal(mix_membership(boxes, mix, CLIP), tokens_with_paint(mix_frames(painted(boxes), mix)))


def test_no_mixing_changes_nothing() -> None:
    boxes = random_boxes(np.random.default_rng(2))
    mix = draw_mix(0.0, 0.0, 48, np.random.default_rng(0))
    assert mix == Mix(1.0)
    assert torch.equal(mix_membership(boxes, mix, CLIP), tubelets_inside_boxes(boxes, (48, 48), 16, 2))
    assert torch.equal(mix_frames(painted(boxes), mix), painted(boxes))


@given(st.integers(0, 100_000))
@settings(max_examples=40, deadline=None)
def test_the_share_is_that_of_the_pixels_that_stayed(seed: int) -> None:
    mix = draw_mix(0.0, 1.0, 48, np.random.default_rng(seed))
    clips = torch.stack([torch.zeros(3, 4, 48, 48), torch.ones(3, 4, 48, 48)])
    mixed = mix_frames(clips, mix)
    assert (1 - mixed[0].mean()).item() == pytest.approx(mix.share, abs=1e-6)
    assert mixed[1].mean().item() == pytest.approx(mix.share, abs=1e-6)


def test_both_kinds_come_up() -> None:
    rng = np.random.default_rng(0)
    kinds = [draw_mix(0.8, 1.0, 48, rng).region is None for _ in range(200)]
    assert 70 < sum(kinds) < 130
    assert all(draw_mix(0.8, 0.0, 48, rng).region is None for _ in range(20))


def test_targets_are_smoothed_and_shared() -> None:
    targets = mix_targets(torch.tensor([0, 2]), 4, share=0.75, smoothing=0.2)
    assert targets.sum(1).tolist() == pytest.approx([1, 1])
    assert targets[0].tolist() == pytest.approx([0.05 + 0.8 * 0.75, 0.05, 0.05 + 0.8 * 0.25, 0.05])


def random_areas(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    areas = torch.randint(256, (4, 2, 3, 3), generator=generator, dtype=torch.uint8)
    return areas * (torch.rand(areas.shape, generator=generator) < 0.6)


@given(st.integers(0, 100_000))
@settings(max_examples=60)
def test_cutmix_moves_strength_with_the_pixels(seed: int) -> None:
    areas, mix = random_areas(seed), draw_mix(0.0, 1.0, 48, np.random.default_rng(seed))
    pixels = areas.float().repeat_interleave(16, 2).repeat_interleave(16, 3)
    frames = pixels[:, None].repeat_interleave(2, 2).expand(-1, 3, -1, -1, -1)
    shown = mix_frames(frames, mix)[:, 0, ::2].reshape(4, 2, 3, 16, 3, 16).mean((3, 5))
    torch.testing.assert_close(mix_areas(areas, mix, CLIP).float(), shown, rtol=1e-4, atol=1e-3)


@given(st.integers(0, 100_000))
@settings(max_examples=60)
def test_mixing_makes_no_more_inside(seed: int) -> None:
    areas, boxes = random_areas(seed), random_boxes(np.random.default_rng(seed))
    mix = draw_mix(0.8, 1.0, 48, np.random.default_rng(seed))
    inside = mix_membership(boxes, mix, CLIP, areas).view(4, 2, 9).sum(2)
    assert (inside <= 3).all(), "40 % of nine"
    anything = mix_areas(areas, mix, CLIP).flatten(2).amax(2) > 0
    assert torch.equal(inside > 0, anything)


def test_mixup_takes_the_stronger() -> None:
    areas = random_areas(3)
    assert torch.equal(mix_areas(areas, Mix(0.3), CLIP), torch.maximum(areas, areas.flip(0)))
    assert torch.equal(mix_areas(areas, Mix(1.0), CLIP), areas)
