from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mofo_train.guidance.inside import tubelets_inside_boxes
from mofo_train.guidance.mixing import Mix, draw_mix, mix_frames, mix_membership, mix_targets
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
