from __future__ import annotations

import pytest
import torch

from mofo_train.guidance.inside import inside_tokens, inside_tubes
from mofo_train.guidance.masks import motion_tube_mask, random_mask
from mofo_train.guidance.rule import rule_figures, rule_shares, rule_sums
from mofo_train.guidance.tubelets import ClipShape


def first(*counts: int) -> torch.Tensor:
    """bool (B, 20), the first so many patches of each row inside."""
    return torch.arange(20) < torch.tensor(counts)[:, None]


def test_figures_of_known_masks(generator: torch.Generator) -> None:
    inside = first(4, 8, 12, 0, 20)
    found = rule_figures(inside, motion_tube_mask(inside, 3, generator=generator), 0.75)
    # 18 of 20 are hidden: beside 12 inside tubes there are 8 others, so 10 of the 12 have to be.
    assert found.share_inside.tolist() == pytest.approx([0.2, 0.4, 0.6, 0, 1])
    assert found.guided.tolist() == [True, True, True, False, True]
    assert found.holds.tolist() == [True, True, False, False, False]
    assert found.hidden_inside.tolist() == pytest.approx([0.75, 0.75, 10 / 12, float("nan"), 0.9], nan_ok=True)
    assert found.hidden_outside.tolist() == pytest.approx([15 / 16, 1, 1, 0.9, float("nan")], nan_ok=True)


def test_shares_of_many_batches_are_those_of_one(generator: torch.Generator) -> None:
    inside = first(4, 8, 12, 0, 20, 3)
    mask = motion_tube_mask(inside, 3, generator=generator)
    parts = sum(rule_sums(inside[rows], mask[rows], 0.75) for rows in (slice(0, 2), slice(2, 6)))
    assert isinstance(parts, torch.Tensor)
    shares = rule_shares(parts.tolist())
    assert shares["unguided"] == pytest.approx(1 / 6)
    assert shares["rule_holds"] == pytest.approx(3 / 5)
    assert shares["share_inside"] == pytest.approx(47 / 120)
    assert shares["hidden_inside"] == pytest.approx((0.75 + 0.75 + 10 / 12 + 0.9 + 2 / 3) / 5)
    nothing = first(0, 0)
    shares = rule_shares(rule_sums(nothing, motion_tube_mask(nothing, 1, generator=generator), 0.75).tolist())
    assert shares["unguided"] == 1
    assert shares["rule_holds"] is None
    assert shares["hidden_outside"] == pytest.approx(0.9)


def test_single_tubelets_are_counted_too(generator: torch.Generator) -> None:
    inside = first(*[10] * 50)
    found = rule_figures(inside, random_mask(50, 80, generator=generator), 0.75)
    assert found.hidden_inside.mean().item() == pytest.approx(0.9, abs=0.02)


def test_one_function_for_tubes_and_one_for_tokens(generator: torch.Generator) -> None:
    """Tubes follow the sum over the slots, tokens each slot's own strength."""
    clip = ClipShape(4, 80)
    areas = torch.zeros(2, 2, 5, 5, dtype=torch.uint8)
    areas[0, 0, 0, 0], areas[0, 1, 4, 4] = 200, 100
    boxes = torch.tensor([[0.0, 0, 80, 80]]).expand(2, 4, 4)
    tokens = inside_tokens(clip, boxes, areas).view(2, 2, 25)
    assert tokens.nonzero().tolist() == [[0, 0, 0], [0, 1, 24]]
    assert inside_tubes(clip, boxes, areas, generator=generator).nonzero().tolist() == [[0, 0], [0, 24]]
    assert inside_tubes(clip, boxes, areas[:, :, :0]).all(), "no areas: boxes"
    assert inside_tubes(clip, boxes, areas, max_share=0.05).nonzero().tolist() == [[0, 0]]
    with pytest.raises(ValueError, match=r"areas must have shape \(B, 2, 5, 5\), got \(2, 2, 4, 4\)"):
        inside_tokens(clip, boxes, areas[:, :, 1:, 1:])
