"""Does the rule of the paper hold? How much of a sample is inside, and how much of it a mask hides."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RuleFigures:
    """What masks did, one number per sample.

    Attributes:
        share_inside: float32 (B,), share of the patches inside.
        guided: bool (B,), something is inside: the mask is not a plain one.
        holds: bool (B,), exactly the wanted share of the inside tubes is hidden, rounded to whole tubes; False where
            nothing is inside.
        hidden_inside: float32 (B,), share of the inside tubelets hidden; NaN where there are none.
        hidden_outside: float32 (B,), share of the outside tubelets hidden; NaN where there are none.
    """

    share_inside: Tensor
    guided: Tensor
    holds: Tensor
    hidden_inside: Tensor
    hidden_outside: Tensor


def rule_figures(inside: Tensor, mask: Tensor, inside_ratio: float) -> RuleFigures:
    """Compare masks with the rule that `inside_ratio` of the tubes inside are hidden.

    Args:
        inside: bool (B, P), which tubes are inside.
        mask: bool (B, T * P), `True` = hidden.
        inside_ratio: Wanted share, in [0, 1].
    """
    by_time = mask.view(len(mask), -1, inside.shape[1])
    num_inside = inside.sum(1)
    wanted = (num_inside.to(torch.float64) * inside_ratio).round().long() * by_time.shape[1]
    hidden_inside = (by_time & inside[:, None]).sum((1, 2))
    hidden_outside = mask.sum(1) - hidden_inside
    tubelets_inside, tubelets_outside = num_inside * by_time.shape[1], (~inside).sum(1) * by_time.shape[1]
    guided = num_inside > 0
    return RuleFigures(
        share_inside=num_inside / inside.shape[1],
        guided=guided,
        holds=guided & (hidden_inside == wanted),
        hidden_inside=hidden_inside / tubelets_inside,
        hidden_outside=hidden_outside / tubelets_outside,
    )


NUM_RULE_SUMS = 7
"""Length of `rule_sums`."""


def rule_sums(inside: Tensor, mask: Tensor, inside_ratio: float) -> Tensor:
    """Add up a batch's figures for a log; arguments as in `rule_figures`.

    Returns:
        float32 (NUM_RULE_SUMS,), for `rule_shares`: numbers of samples, of guided ones, of those that keep the rule and
        of those with anything outside, then the sums of the three shares.
    """
    found = rule_figures(inside, mask, inside_ratio)
    counts = (torch.ones_like(found.guided), found.guided, found.holds, ~found.hidden_outside.isnan())
    shares = (found.share_inside, found.hidden_inside.nan_to_num(), found.hidden_outside.nan_to_num())
    return torch.stack([value.float().sum() for value in (*counts, *shares)])


def rule_shares(sums: list[float]) -> dict[str, float | None]:
    """Turn sums of `rule_sums` over all samples into shares.

    Returns:
        `unguided`: share of the samples with nothing inside; `rule_holds`: share of the others that keep the rule;
        `share_inside`: of the patches of a sample, on average; `hidden_inside` and `hidden_outside`: of the tubelets
        there, on average over the samples that have any. None: no sample has.
    """
    samples, guided, holds, outside, share, hidden_inside, hidden_outside = sums

    def mean(total: float, number: float) -> float | None:
        return total / number if number else None

    return {
        "unguided": mean(samples - guided, samples),
        "rule_holds": mean(holds, guided),
        "share_inside": mean(share, samples),
        "hidden_inside": mean(hidden_inside, guided),
        "hidden_outside": mean(hidden_outside, outside),
    }
