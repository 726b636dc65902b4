"""Which tubelets are hidden: tube, random, motion-box and motion-map masks, bool over tokens.

A mask is bool, `True` = hidden, one row of `T*H*W` tokens (tubelets in time-major order) per clip. Everything works on
whole batches on the generator's device, and every row of a batch hides exactly the same number of tokens.

Paper: MOFO section 2.2 (motion tubes), VideoMAE section 3.2 (tube masking), ST-MAE (random, "space-time agnostic").
"""

from __future__ import annotations

import torch
from torch import Tensor


def tube_mask(
    batch_size: int, num_patches: int, num_tubelets: int, *, mask_ratio: float = 0.9, generator: torch.Generator
) -> Tensor:
    """Hide the same random patches over all time (VideoMAE).

    Args:
        batch_size: Rows of the mask.
        num_patches: H*W patches of a frame.
        num_tubelets: T tubelets in time.
        mask_ratio: Share of the patches hidden, in [0, 1].
        generator: Source of randomness; its device is the mask's.

    Returns:
        bool (B, T*H*W), `round(mask_ratio * H*W)` tubes hidden in every row.
    """
    num_hidden = _num_hidden(num_patches, mask_ratio)
    ranks = _ranks(_noise((batch_size, num_patches), generator))
    return _tubes(ranks < num_hidden, num_tubelets)


def random_mask(batch_size: int, num_tokens: int, *, mask_ratio: float = 0.9, generator: torch.Generator) -> Tensor:
    """Hide random tubelets anywhere in space and time (ST-MAE's agnostic sampling).

    Args:
        batch_size: Rows of the mask.
        num_tokens: T*H*W tokens of a clip.
        mask_ratio: Share of the tokens hidden, in [0, 1].
        generator: Source of randomness; its device is the mask's.

    Returns:
        bool (B, T*H*W), `round(mask_ratio * T*H*W)` tokens hidden in every row.
    """
    return _ranks(_noise((batch_size, num_tokens), generator)) < _num_hidden(num_tokens, mask_ratio)


def motion_tube_mask(
    inside: Tensor,
    num_tubelets: int,
    *,
    mask_ratio: float = 0.9,
    inside_ratio: float = 0.75,
    generator: torch.Generator,
) -> Tensor:
    """Hide a fixed share of the tubes inside the motion box and the rest outside (MOFO section 2.2).

    With P patches, k of them inside and M = round(mask_ratio * P), every row hides exactly M tubes. Of the inside ones
    it hides round(inside_ratio * k), with two exceptions that M forces: where the P - k outside tubes are too few for
    the rest, the remainder spills inside (M - (P - k) are hidden there; with .9 and .75 of 196 patches from k = 81 on),
    and where inside_ratio * k exceeds M, M are hidden there and none outside. Halves round to even, as `round` does.

    Args:
        inside: bool (B, H*W), `True` = the motion box touches the patch.
        num_tubelets: T tubelets in time.
        mask_ratio: Share of all tubes hidden, in [0, 1].
        inside_ratio: Share of the inside tubes hidden, in [0, 1].
        generator: Source of randomness, on the device of `inside`.

    Returns:
        bool (B, T*H*W), `True` = hidden.

    Raises:
        ValueError: Wrong shape or dtype of `inside`, or a ratio outside [0, 1].
    """
    _check_patch_rows("inside", inside, torch.bool)
    if not 0 <= inside_ratio <= 1:
        raise ValueError(f"inside_ratio must be in [0, 1], got {inside_ratio!r}")
    num_patches = inside.shape[1]
    num_hidden = _num_hidden(num_patches, mask_ratio)
    num_inside = inside.sum(1, keepdim=True)
    wanted = (num_inside.to(torch.float64) * inside_ratio).round().to(torch.int64)
    spilled = num_hidden - (num_patches - num_inside)
    hidden_inside = torch.maximum(wanted, spilled).clamp(max=num_hidden)
    noise = _noise((inside.shape[0], num_patches), generator)
    # Noise is in [0, 1): adding 1 to the other group puts it behind, so a patch's rank counts within its own group.
    rank_inside = _ranks(noise + (~inside).to(noise.dtype))
    rank_outside = _ranks(noise + inside.to(noise.dtype))
    hidden = torch.where(inside, rank_inside < hidden_inside, rank_outside < num_hidden - hidden_inside)
    return _tubes(hidden, num_tubelets)


def motion_map_tube_mask(
    motion: Tensor, num_tubelets: int, *, mask_ratio: float = 0.9, floor: float = 0.5, generator: torch.Generator
) -> Tensor:
    """Hide tubes drawn without replacement with probability following the motion map (beyond the paper).

    A patch's weight is its motion divided by the clip's mean motion, plus `floor` (Gumbel top-k draws).
    A clip without motion gets a uniform tube mask. Every patch can be hidden and every patch can stay visible.

    Args:
        motion: (B, H*W) mean motion per patch, any non-negative number type.
        num_tubelets: T tubelets in time.
        mask_ratio: Share of the tubes hidden, in [0, 1].
        floor: Weight of a patch without motion, relative to the clip's mean; positive.
        generator: Source of randomness, on the device of `motion`.

    Returns:
        bool (B, T*H*W), `round(mask_ratio * H*W)` tubes hidden in every row.

    Raises:
        ValueError: Wrong shape of `motion`, negative or non-finite motion, or `floor` not positive.
    """
    _check_patch_rows("motion", motion, None)
    if not floor > 0:
        raise ValueError(f"floor must be positive, got {floor!r}")
    weights = motion.to(torch.float32)
    if not bool(((weights >= 0) & weights.isfinite()).all()):
        raise ValueError("motion must be finite and non-negative")
    mean = weights.mean(1, keepdim=True)
    weights = weights / mean.where(mean > 0, torch.ones_like(mean)) + floor
    noise = _noise((motion.shape[0], motion.shape[1]), generator).to(torch.float32)
    keys = weights.log() - (-noise.clamp(1e-12, 1 - 1e-7).log()).log()
    return _tubes(_ranks(-keys) < _num_hidden(motion.shape[1], mask_ratio), num_tubelets)


def _num_hidden(num_positions: int, mask_ratio: float) -> int:
    if not 0 <= mask_ratio <= 1:
        raise ValueError(f"mask_ratio must be in [0, 1], got {mask_ratio!r}")
    return round(mask_ratio * num_positions)


def _check_patch_rows(name: str, value: Tensor, dtype: torch.dtype | None) -> None:
    if value.ndim != 2 or value.shape[1] == 0 or (dtype is not None and value.dtype != dtype):
        kind = "" if dtype is None else f"{dtype} "
        raise ValueError(f"{name} must be {kind}(B, H*W), got {value.dtype} {tuple(value.shape)}")


def _noise(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)


def _ranks(keys: Tensor) -> Tensor:
    """Return each entry's rank in its row (0 = smallest); a permutation even where keys tie."""
    return keys.argsort(1).argsort(1)


def _tubes(hidden: Tensor, num_tubelets: int) -> Tensor:
    if num_tubelets < 1:
        raise ValueError(f"num_tubelets must be at least 1, got {num_tubelets!r}")
    return hidden[:, None].expand(-1, num_tubelets, -1).flatten(1)
