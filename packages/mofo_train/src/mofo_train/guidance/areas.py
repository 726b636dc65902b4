"""Motion areas -> inside: the strongest patches of a sample, so few of them that the paper's rule can hold.

The paper hides 90 % of all tubes and 75 % of those inside; that is possible only while at most
(1 - 0.9) / (1 - 0.75) = 40 % of the patches are inside. A box around everything that moves is seldom that small.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_ROUNDING = 1e-9  # 0.29 * 100 is 28.999999999999996
_MIXERS = (0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35)  # odd, below 2^32: a hash's multipliers


def inside_patches(
    areas: Tensor,
    *,
    max_share: float = 0.4,
    min_share: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Find the patches of each sample that belong most strongly to its motion area.

    Of P patches at most `floor(max_share * P)` are inside, the strongest, and only patches with any strength; where
    these are fewer than `ceil(min_share * P)`, patches without strength join them up to that number. A row without any
    strength has nothing inside. Among equally strong patches chance decides, never their place.

    Args:
        areas: Number (B, P), the strength of each patch; zero, negative or not a number = outside.
        max_share: Largest share of the patches inside, in [0, 1]. At 0.4 the rule "90 % of all, 75 % of those inside"
            of `motion_tube_mask` always holds exactly.
        min_share: Smallest share inside of a row with any strength, in [0, `max_share`].
        generator: Chooses among equally strong patches, on the device of `areas`. None: the values themselves do, so
            that the same row gives the same patches wherever it stands in a batch (for testing).

    Returns:
        bool (B, P), `True` = inside.

    Raises:
        ValueError: Wrong shape of `areas`, or shares that are none.
    """
    if areas.ndim != 2 or areas.shape[1] == 0:
        raise ValueError(f"areas must be numbers (B, H*W), got {areas.dtype} {tuple(areas.shape)}")
    if not 0 <= min_share <= max_share <= 1:
        raise ValueError(
            f"min_share and max_share must be in [0, 1], the smaller first, got {min_share!r} and {max_share!r}"
        )
    num_patches = areas.shape[1]
    most = math.floor(max_share * num_patches + _ROUNDING)
    least = min(math.ceil(min_share * num_patches - _ROUNDING), most)
    strength = areas.where(areas > 0, torch.zeros_like(areas))
    order = _chance(strength, generator).argsort(1)
    order = order.gather(1, strength.gather(1, order).argsort(dim=1, descending=True, stable=True))
    strong = (strength > 0).sum(1, keepdim=True)
    number = strong.clamp(min=least, max=most) * (strong > 0)
    first = torch.arange(num_patches, device=areas.device) < number
    return torch.zeros_like(first).scatter(1, order, first)


def _chance(strength: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return keys (B, P) in random order: drawn, or hashed from the place of a patch and all values of its row."""
    if generator is not None:
        return torch.rand(strength.shape, generator=generator, device=strength.device)
    place = torch.arange(1, strength.shape[1] + 1, device=strength.device)
    bits = strength.float().contiguous().view(torch.int32).long()
    keys = _scramble(place) + (_scramble(bits + _scramble(place))).sum(1, keepdim=True)
    return _scramble(keys)


def _scramble(values: Tensor) -> Tensor:
    """Hash int64 values to [0, 2^31): nearby values come out far apart."""
    for factor in _MIXERS:
        values = (values & 0x7FFFFFFF) * factor
        values = values ^ (values >> 15)
    return values & 0x7FFFFFFF
