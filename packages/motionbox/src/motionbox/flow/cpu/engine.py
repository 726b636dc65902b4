"""TV-L1 on the CPU: the workspace of one frame size and the order in which the kernels run."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from motionbox.config import TVL1Params
from motionbox.flow.arrays import Flow, GreyImage, check_frames
from motionbox.flow.cpu.kernels import NUM_FIELDS, Inputs, Level, Rules, Scratch, solve_level
from motionbox.flow.cpu.warp import PAD, make_taps, resize, taps_size_hw
from motionbox.flow.tvl1 import TVL1Plan, make_plan

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
_CACHE_LINE_FLOATS = 16
_FLOW_FIELD = 4


class NumbaTVL1Estimator:
    """TV-L1 on one core; allocates nothing but the result once a frame of its size was seen."""

    name = "numba"

    def __init__(self, params: TVL1Params) -> None:
        self._params = params
        self._workspace: _Workspace | None = None

    def __call__(self, frame0: GreyImage, frame1: GreyImage, *, initial: Flow | None = None) -> Flow:
        """Return the flow, see `motionbox.flow.FlowEstimator`."""
        check_frames(frame0, frame1, initial)
        height, width = frame0.shape
        if self._workspace is None or self._workspace.plan.sizes_wh[0] != (width, height):
            self._workspace = _Workspace(make_plan(self._params, width, height))
        return self._workspace.run(frame0, frame1, initial)

    def num_iterations(self) -> Ints:
        """Return how many iterations the last call did, int32 (levels, warpings), finest level first."""
        return np.zeros((0, 0), np.int32) if self._workspace is None else self._workspace.num_iterations.copy()


class _Workspace:
    """The arrays for frames of one size."""

    def __init__(self, plan: TVL1Plan) -> None:
        self.plan = plan
        self._levels = [_Level(*size) for size in plan.sizes_wh]
        self._down = [
            _Resizing.between(fine, coarse, 1 / plan.scale_step, 1 / plan.scale_step, plan.half_pixel)
            for fine, coarse in pairwise(self._levels)
        ]
        self._up = [
            _Resizing.between(coarse, fine, coarse.width / fine.width, coarse.height / fine.height, plan.half_pixel)
            for fine, coarse in pairwise(self._levels)
        ]
        self._pyramid0 = _Pyramid(self._levels)
        self._pyramid1 = _Pyramid(self._levels)
        sizes = [taps_size_hw(level.width, level.height) for level in self._levels]
        self._planes, self._taps = [_aligned((3, *size)) for size in sizes], [_aligned((*size, 4)) for size in sizes]
        self._lines = _aligned((max(5 * self._levels[0].stride, 192),))
        self._corner = np.zeros(32, np.int32)
        self._rules = Rules(*(getattr(plan, name) for name in Rules._fields))
        self.num_iterations = np.zeros((len(self._levels), plan.num_warps), np.int32)

    def run(self, frame0: GreyImage, frame1: GreyImage, initial: Flow | None) -> Flow:
        """Return the flow of checked frames."""
        if self._pyramid1.shows(frame0):
            self._pyramid0, self._pyramid1 = self._pyramid1, self._pyramid0
        else:
            self._fill(self._pyramid0, frame0)
        self._fill(self._pyramid1, frame1)
        self._start(initial)
        for index in reversed(range(len(self._levels))):
            flow_field = self._solve(index)
            if index:
                self._pass_up(index, flow_field)
        finest = self._levels[0]
        flow = np.empty((finest.height, finest.width, 2), np.float32)
        inverse = np.float32(1 / self.plan.taut)
        for c in range(2):
            np.multiply(finest.view(flow_field + c), inverse, out=flow[..., c])
        return flow

    def _fill(self, pyramid: _Pyramid, frame: GreyImage) -> None:
        pyramid.set_frame(frame)
        for index, resizing in enumerate(self._down):
            resizing.run(pyramid.images[index], 0, 1, pyramid.images[index + 1], 0, 1, 1.0, self._lines)

    def _start(self, initial: Flow | None) -> None:
        coarsest = self._levels[-1]
        if initial is None:
            coarsest.state.reshape(-1, NUM_FIELDS, coarsest.stride)[:, _FLOW_FIELD : _FLOW_FIELD + 2] = 0
            return
        taut = np.float32(self.plan.taut)
        for c in range(2):
            np.multiply(initial[..., c], taut, out=self._levels[0].view(_FLOW_FIELD + c))
            for (fine, coarse), resizing in zip(pairwise(self._levels), self._down, strict=True):
                channel = _FLOW_FIELD + c
                resizing.run(
                    fine.state,
                    channel,
                    NUM_FIELDS,
                    coarse.state,
                    channel,
                    NUM_FIELDS,
                    self.plan.scale_step,
                    self._lines,
                )

    def _solve(self, index: int) -> int:
        plan, level = self.plan, self._levels[index]
        image1, planes, taps = self._pyramid1.images[index], self._planes[index], self._taps[index]
        make_taps(image1, level.width, level.height, level.stride, plan.zero_border, planes, taps)
        return solve_level(
            Level(level.state, level.stride, level.width, level.height),
            Inputs(self._pyramid0.images[index], planes, taps),
            self._rules,
            Scratch(self._lines, self._corner),
            self.num_iterations[index],
        )

    def _pass_up(self, index: int, flow_field: int) -> None:
        coarse, fine = self._levels[index], self._levels[index - 1]
        for c in range(2):
            self._up[index - 1].run(
                coarse.state,
                flow_field + c,
                NUM_FIELDS,
                fine.state,
                _FLOW_FIELD + c,
                NUM_FIELDS,
                1 / self.plan.scale_step,
                self._lines,
            )


class _Level:
    """Size and solver state of one pyramid level; the layout is that of `kernels`."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        vectors = -(-width // PAD) + 2
        # An odd number of cache lines per row spreads the rows over all sets of the cache.
        self.stride = PAD * (vectors + 1 - vectors % 2)
        self.state = _aligned(((height + 2) * NUM_FIELDS * self.stride,))

    def view(self, field_index: int) -> Floats:
        """Return the (height, width) pixels of one field of the state."""
        rows = self.state.reshape(self.height + 2, NUM_FIELDS, self.stride)
        return rows[1:-1, field_index, PAD : PAD + self.width]


class _Pyramid:
    """A frame at every level, as rows with the stride of the level, one empty row above and below."""

    def __init__(self, levels: list[_Level]) -> None:
        self.images = [_aligned(((level.height + 2) * level.stride,)) for level in levels]
        self._finest = self.images[0].reshape(-1, levels[0].stride)[1:-1, PAD : PAD + levels[0].width]
        self._frame: GreyImage | None = None

    def shows(self, frame: GreyImage) -> bool:
        """Tell whether this is the pyramid of a frame with these very pixels."""
        mine = self._frame
        return mine is not None and mine.dtype == frame.dtype and np.array_equal(mine, frame)

    def set_frame(self, frame: GreyImage) -> None:
        """Fill the finest level."""
        if self._frame is None or self._frame.dtype != frame.dtype:
            self._frame = np.empty(frame.shape, frame.dtype)
        np.copyto(self._frame, frame)
        if frame.dtype == np.uint8:
            np.copyto(self._finest, frame)
        else:
            np.multiply(frame, np.float32(255), out=self._finest)


@dataclass(frozen=True)
class _Resizing:
    """Bilinear resizing between two levels: for each row and column its first source and the weight of the second."""

    source: _Level
    target: _Level
    rows: Ints
    row_weights: Floats
    columns: Ints
    column_weights: Floats

    @classmethod
    def between(cls, source: _Level, target: _Level, step_x: float, step_y: float, half_pixel: bool) -> _Resizing:
        """Make the tables; a step is the distance of two target pixels in source pixels."""
        columns, column_weights = _positions(source.width, target.width, step_x, half_pixel)
        rows, row_weights = _positions(source.height, target.height, step_y, half_pixel)
        return cls(source, target, rows, row_weights, columns, column_weights)

    def run(
        self,
        src: Floats,
        src_field: int,
        src_fields: int,
        dst: Floats,
        dst_field: int,
        dst_fields: int,
        factor: float,
        lines: Floats,
    ) -> None:
        """Resize one field of `src` into one of `dst`, times `factor`; an array has so many fields in a row."""
        source, target = self.source, self.target
        resize(
            src,
            (src_fields + src_field) * source.stride + PAD,
            src_fields * source.stride,
            self.rows,
            self.row_weights,
            dst,
            (dst_fields + dst_field) * target.stride + PAD,
            dst_fields * target.stride,
            self.columns,
            self.column_weights,
            source.width,
            factor,
            lines,
        )


def _positions(source: int, target: int, step: float, half_pixel: bool) -> tuple[Ints, Floats]:
    offset = 0.5 if half_pixel else 0.0
    position = np.clip((np.arange(target) + offset) * step - offset, 0, source - 1)
    first = np.minimum(position.astype(np.int32), np.int32(source - 2))
    return first, (position - first).astype(np.float32)


def _aligned(shape: tuple[int, ...]) -> Floats:
    """Return zeros that start at a cache line: vectors then cross no line, which is worth a third of the time."""
    size = int(np.prod(shape))
    buffer = np.zeros(size + _CACHE_LINE_FLOATS, np.float32)
    start = -(buffer.ctypes.data // 4) % _CACHE_LINE_FLOATS
    return buffer[start : start + size].reshape(shape)
