"""TV-L1 optical flow (Zach, Pock, Bischof 2007): what every backend shares, with no array code.

The energy of a level is `|Du| + lambda |I1(x + u) - I0(x)|`; each warping linearises the data term around the current
flow and alternates a pointwise threshold step, the primal update `u = v + theta div p` and the dual update
`p = (p + tau/theta Du) / (1 + tau/theta |Du|)`. Backends differ in how they compute, never in the plan made here.
"""

from __future__ import annotations

from dataclasses import dataclass

from motionbox.config import TVL1Params

__all__ = ["MIN_SIDE_PX", "TVL1Params", "TVL1Plan", "make_plan", "pyramid_sizes"]

MIN_SIDE_PX = 16
"""Smallest side of a frame and of a pyramid level."""

_CATMULL_ROM = -0.5
_OPENCV_CUBIC = -0.75


@dataclass(frozen=True)
class TVL1Plan:
    """A TV-L1 parameter set resolved for one frame size; all that a backend needs.

    Attributes:
        sizes_wh: (width, height) of every pyramid level, finest first.
        scale_step: Size ratio between two levels (exact, before rounding to pixels).
        num_warps: Warpings per level.
        num_rounds: Median filterings per warping (outer iterations); the iteration stops early by `epsilon`.
        num_iterations: Fixed-point iterations per round (inner iterations).
        median_size: Side of the median filter at the start of a round; 1: none.
        l_t: Threshold `lambda * theta` of the data step.
        taut: Dual step `tau / theta`.
        theta: Coupling.
        epsilon: Stop when the mean squared update of the flow, in px^2, is not above `epsilon ** 2`.
        sparse_checks: The CUDA variant's stopping rule: the error is looked at in odd iterations only, and after a
            check that found n times the threshold not before about n further iterations.
        cubic_a: Coefficient of the cubic interpolation of a warping: -0.75 (OpenCV) or -0.5 (Catmull-Rom).
        zero_border: Pixels outside the frame are 0 when warping (OpenCV's remap); else the border pixel repeats.
        half_pixel: Resizing aligns pixel areas (OpenCV's CPU resize); else it aligns the centres of the first pixels
            (OpenCV's CUDA resize).
    """

    sizes_wh: tuple[tuple[int, int], ...]
    scale_step: float
    num_warps: int
    num_rounds: int
    num_iterations: int
    median_size: int
    l_t: float
    taut: float
    theta: float
    epsilon: float
    sparse_checks: bool
    cubic_a: float
    zero_border: bool
    half_pixel: bool


def pyramid_sizes(width: int, height: int, num_scales: int, scale_step: float) -> tuple[tuple[int, int], ...]:
    """Return (width, height) of the pyramid levels, finest first.

    Each side is the level above's times `scale_step`, rounded half to even as in OpenCV; a level with a side under
    `MIN_SIDE_PX` pixels ends the pyramid and is not part of it.
    """
    sizes = [(width, height)]
    while len(sizes) < num_scales:
        width, height = round(width * scale_step), round(height * scale_step)
        if min(width, height) < MIN_SIDE_PX:
            break
        sizes.append((width, height))
    return tuple(sizes)


def make_plan(params: TVL1Params, width: int, height: int) -> TVL1Plan:
    """Resolve `params` for frames of `width` x `height` pixels."""
    cuda = params.variant == "opencv-cuda"
    return TVL1Plan(
        sizes_wh=pyramid_sizes(width, height, params.num_scales, params.scale_step),
        scale_step=params.scale_step,
        num_warps=params.num_warps,
        num_rounds=params.outer_iterations,
        num_iterations=params.inner_iterations,
        median_size=params.median_size,
        l_t=params.lambda_ * params.theta,
        taut=params.tau / params.theta,
        theta=params.theta,
        epsilon=params.epsilon,
        sparse_checks=cuda,
        cubic_a=_CATMULL_ROM if cuda else _OPENCV_CUBIC,
        zero_border=not cuda,
        half_pixel=not cuda,
    )
