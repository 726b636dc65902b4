"""Visible tubes that follow the flow: the masks of MGMAE, batched.

What is visible is drawn on the middle frame and carried to the others along the flow, so that the model sees the same
piece of a moving thing at all times and nothing of it comes into view where a straight tube would let it pass.

Paper: MGMAE (Huang et al., ICCV 2023, arXiv 2308.10794), section 3: a mixture of Gaussians on the base frame, backward
warping, holes filled from the base frame's map, and the strongest patches of each tubelet visible. The numbers are
those of its authors' code; docs/fidelity.md says where we differ.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mofo_train.data.areas import POINTS

_INVERTING_STEPS = 10


def flow_tube_mask(
    steps: Tensor, *, tubelet_frames: int = 2, mask_ratio: float = 0.9, generator: torch.Generator
) -> Tensor:
    """Hide all but tubes that follow the flow (MGMAE).

    Of the P patches, P - round(mask_ratio * P) are drawn at random on the middle frame. Their map, the largest of the
    Gaussians around their middles (standard deviation a patch over the root of two), is carried from frame to frame
    by `carried`. Visible in a tubelet slot are as many patches, those with the largest sum of the map. Without any
    motion that is a tube mask: the drawn patches, at all times.

    Args:
        steps: Float (B, T - 1, 2, g, g), dx and dy in patches from each frame to the next, at `POINTS` points on each
            side of each of its patches; see `areas.FrameFlow.on_points`.
        tubelet_frames: Frames of a tubelet; T is a multiple of it.
        mask_ratio: Share of the patches hidden in every slot, in [0, 1].
        generator: Source of randomness, on the device of `steps`.

    Returns:
        bool (B, T / tubelet_frames * P), `True` = hidden, exactly `round(mask_ratio * P)` in every slot.

    Raises:
        ValueError: Wrong shape of `steps`, or a ratio outside [0, 1].
    """
    if steps.ndim != 5 or steps.shape[2] != 2 or steps.shape[3] != steps.shape[4] or steps.shape[3] % POINTS:
        raise ValueError(f"steps must be (B, T - 1, 2, g, g), g a multiple of {POINTS}, got {tuple(steps.shape)}")
    if (steps.shape[1] + 1) % tubelet_frames:
        raise ValueError(f"steps must be one less than a multiple of {tubelet_frames}, got {steps.shape[1]}")
    if not 0 <= mask_ratio <= 1:
        raise ValueError(f"mask_ratio must be in [0, 1], got {mask_ratio!r}")
    side = steps.shape[3] // POINTS
    num_hidden = round(mask_ratio * side**2)
    chosen = torch.rand(len(steps), side**2, generator=generator, device=steps.device).argsort(1)[:, num_hidden:]
    maps = carried(bumps(chosen, side), steps.float())
    cut = maps.view(len(maps), -1, tubelet_frames, side, POINTS, side, POINTS)
    strength = cut.sum((2, 4, 6)).flatten(2)
    return (strength.argsort(2).argsort(2) < num_hidden).flatten(1)


def bumps(chosen: Tensor, side: int) -> Tensor:
    """Draw a map that is largest on some patches.

    Args:
        chosen: int64 (B, k), patches, row by row.
        side: Patches of a row.

    Returns:
        float32 (B, g, g), g = POINTS * side: at each point exp(-d^2), d the distance in patches to the nearest middle
        of a chosen patch; zeros where none is chosen.
    """
    spots = _spots(side, chosen.device)
    if not chosen.shape[1]:
        return spots.new_zeros(len(chosen), len(spots), len(spots))
    down = (spots - (chosen // side)[..., None] - 0.5).square()
    across = (spots - (chosen % side)[..., None] - 0.5).square()
    return (-(down[..., :, None] + across[..., None, :]).amin(1)).exp()


def carried(base: Tensor, steps: Tensor) -> Tensor:
    """Carry a map of the middle frame to all frames.

    A frame's map is that of its neighbour nearer to the middle, read where the flow says that each point lies there
    (bilinear). The flow leads from a frame to the next; after the middle it is inverted for this, by iteration. Where a
    point comes from beyond the picture or from nowhere (it was hidden before), the base map at its own place stands in.

    Args:
        base: float32 (B, g, g), the map of frame T // 2.
        steps: float32 (B, T - 1, 2, g, g), as in `flow_tube_mask`.

    Returns:
        float32 (B, T, g, g).
    """
    num_frames, side = steps.shape[1] + 1, steps.shape[3] // POINTS
    points = _points(side, steps.device)
    maps = {num_frames // 2: base}
    for frame in reversed(range(num_frames // 2)):
        place = points + steps[:, frame]
        maps[frame] = torch.where(_within(place, side), _read(maps[frame + 1][:, None], place)[:, 0], base)
    for frame in range(num_frames // 2, num_frames - 1):
        place, found = _before(steps[:, frame], points)
        known = found & _within(place, side)
        maps[frame + 1] = torch.where(known, _read(maps[frame][:, None], place)[:, 0], base)
    return torch.stack([maps[frame] for frame in range(num_frames)], 1)


def _before(step: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the points of the next frame were, (B, 2, g, g), and whether anything came from there."""
    place = points.expand_as(step)
    for _ in range(_INVERTING_STEPS):
        place = points - _read(step, place)
    missed = (place + _read(step, place) - points).abs().amax(1)
    return place, missed <= 1 / POINTS


def _read(values: Tensor, place: Tensor) -> Tensor:
    """Read (B, c, g, g) at places (B, 2, g, g) in patches, bilinear; beyond the border the border's values."""
    grid = place.movedim(1, -1) * (2 * POINTS / values.shape[-1]) - 1
    return F.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _within(place: Tensor, side: int) -> Tensor:
    return ((place >= 0) & (place <= side)).all(1)


def _spots(side: int, device: torch.device) -> Tensor:
    return (torch.arange(POINTS * side, device=device) + 0.5) / POINTS


def _points(side: int, device: torch.device) -> Tensor:
    """Return x and y of all points in patches, (1, 2, g, g)."""
    spots = _spots(side, device)
    return torch.stack(torch.meshgrid(spots, spots, indexing="xy"))[None]
