"""A vector of 16 floats for numba kernels, so that what a kernel compiles to does not depend on LLVM's vectoriser.

`F32x16` lives in one AVX-512 register; LLVM splits it where registers are narrower (two AVX2, four NEON). Kernels are
written as arithmetic on values of this type: `load`, `store`, `splat`, the operators `+ - * /` and the functions below.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import llvmlite.binding
import numba.extending
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

LANES = 16

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INT_VECTOR = ir.VectorType(ir.IntType(32), LANES)
_FAST = ("fast",)
_HAS_AVX512 = llvmlite.binding.get_host_cpu_features().get("avx512f", False)


def emitter(typing: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a function that types a call and emits its LLVM code into one that kernels can call."""
    return cast(Callable[..., Any], numba.extending.intrinsic(typing))


def _emitter_of_literals(typing: Callable[..., Any]) -> Callable[..., Any]:
    return cast(Callable[..., Any], numba.extending.intrinsic(prefer_literal=True)(typing))


class F32x16(types.Type):
    """The numba type of a vector of 16 float32."""

    def __init__(self) -> None:
        super().__init__(name="F32x16")


f32x16 = F32x16()


@register_model(F32x16)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _VECTOR)


def _define_operator(function: Callable[..., Any], instruction: str) -> None:
    @infer_global(function)
    class _Template(ConcreteTemplate):
        cases = [signature(f32x16, f32x16, f32x16)]  # noqa: RUF012  (numba's protocol)

    @lower_builtin(function, f32x16, f32x16)
    def _lower(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(args[0], args[1], flags=_FAST)


for _function, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define_operator(_function, _instruction)


def constant(value: float) -> Any:
    """Return the IR constant of a vector with `value` in every lane."""
    return ir.Constant(_VECTOR, [value] * LANES)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, target: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), target.as_pointer())


def emit_load(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Emit an unaligned load of a vector."""
    value = builder.load(_pointer(context, builder, array_type, array, index, _VECTOR))
    value.align = 4
    return value


def _store(context: Any, builder: Any, array_type: Any, array: Any, index: Any, value: Any) -> None:
    instruction = builder.store(value, _pointer(context, builder, array_type, array, index, value.type))
    instruction.align = 4


def _splat(builder: Any, scalar: Any, vector_type: Any) -> Any:
    first = builder.insert_element(ir.Constant(vector_type, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    return _shuffle(builder, first, first, [0] * vector_type.count)


def _call(builder: Any, name: str, result: Any, args: Sequence[Any]) -> Any:
    function_type = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), args, fastmath=_FAST)


def _shuffle(builder: Any, first: Any, second: Any, lanes: Sequence[int]) -> Any:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
    return builder.shuffle_vector(first, second, mask)


def _estimate(builder: Any, name: str, x: Any) -> Any:
    all_lanes = ir.Constant(ir.IntType(16), -1)
    return _call(builder, f"llvm.x86.avx512.{name}.ps.512", _VECTOR, [x, ir.Constant(_VECTOR, ir.Undefined), all_lanes])


def _lower_than(builder: Any, a: Any, b: Any) -> Any:
    return builder.fcmp_ordered("<", a, b, flags=_FAST)


def emit_minimum(builder: Any, a: Any, b: Any) -> Any:
    """Emit the lane-wise minimum."""
    return builder.select(_lower_than(builder, a, b), a, b)


def emit_maximum(builder: Any, a: Any, b: Any) -> Any:
    """Emit the lane-wise maximum."""
    return builder.select(_lower_than(builder, a, b), b, a)


@emitter
def load(_typing: Any, array: Any, _index: Any) -> Any:
    """Load 16 floats of a 1-D float32 array from `index` on."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit_load(context, builder, sig.args[0], args[0], args[1])

    return f32x16(array, types.intp), code


@emitter
def store(_typing: Any, array: Any, _index: Any, _value: Any) -> Any:
    """Store a vector into a 1-D float32 array from `index` on."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _store(context, builder, sig.args[0], args[0], args[1], args[2])
        return context.get_dummy_value()

    return types.none(array, types.intp, f32x16), code


@emitter
def store_int(_typing: Any, array: Any, _index: Any, _value: Any) -> Any:
    """Store a vector of whole numbers into a 1-D int32 array from `index` on."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _store(context, builder, sig.args[0], args[0], args[1], builder.fptosi(args[2], _INT_VECTOR))
        return context.get_dummy_value()

    return types.none(array, types.intp, f32x16), code


@emitter
def splat(_typing: Any, _scalar: Any) -> Any:
    """Return a vector with the float32 `scalar` in every lane."""

    def code(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return _splat(builder, args[0], _VECTOR)

    return f32x16(types.float32), code


@emitter
def lane_numbers(_typing: Any) -> Any:
    """Return the vector 0, 1, ..., 15."""

    def code(_context: Any, _builder: Any, _sig: Any, _args: Any) -> Any:
        return ir.Constant(_VECTOR, [float(i) for i in range(LANES)])

    return f32x16(), code


@emitter
def minimum(_typing: Any, _a: Any, _b: Any) -> Any:
    """Return the lane-wise minimum."""

    def code(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return emit_minimum(builder, args[0], args[1])

    return f32x16(f32x16, f32x16), code


@emitter
def maximum(_typing: Any, _a: Any, _b: Any) -> Any:
    """Return the lane-wise maximum."""

    def code(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return emit_maximum(builder, args[0], args[1])

    return f32x16(f32x16, f32x16), code


@emitter
def floor(_typing: Any, _x: Any) -> Any:
    """Return the lane-wise floor."""

    def code(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return _call(builder, "llvm.floor.v16f32", _VECTOR, [args[0]])

    return f32x16(f32x16), code


@emitter
def norm(_typing: Any, _x: Any, _y: Any) -> Any:
    """Return sqrt(x^2 + y^2) lane-wise, right to 14 bits (an AVX-512 estimate) and to 1e-15."""

    def code(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        x, y = args
        if not _HAS_AVX512:
            square = builder.fadd(builder.fmul(x, x, flags=_FAST), builder.fmul(y, y, flags=_FAST), flags=_FAST)
            return _call(builder, "llvm.sqrt.v16f32", _VECTOR, [square])
        # The smallest term keeps 0 * (1 / sqrt(0)) from being NaN and costs nothing inside the multiply-add.
        square = builder.fadd(builder.fmul(x, x, flags=_FAST), constant(1e-30), flags=_FAST)
        square = builder.fadd(builder.fmul(y, y, flags=_FAST), square, flags=_FAST)
        return builder.fmul(square, _estimate(builder, "rsqrt14", square), flags=_FAST)

    return f32x16(f32x16, f32x16), code


@emitter
def reciprocal(_typing: Any, _x: Any) -> Any:
    """Return 1 / x lane-wise right to 14 bits (an AVX-512 estimate)."""

    def code(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        if not _HAS_AVX512:
            return builder.fdiv(constant(1.0), args[0], flags=_FAST)
        return _estimate(builder, "rcp14", args[0])

    return f32x16(f32x16), code


@emitter
def select_above(_typing: Any, _x: Any, _limit: Any, _value: Any) -> Any:
    """Return `value` in the lanes where `x > limit`, 0 in the others."""

    def code(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return builder.select(_lower_than(builder, args[1], args[0]), args[2], constant(0.0))

    return f32x16(f32x16, f32x16, f32x16), code


@emitter
def keep_lanes(_typing: Any, _x: Any, _count: Any) -> Any:
    """Return `x` with 0 in lane `count` and all after it."""

    def code(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        count = _splat(builder, builder.trunc(args[1], ir.IntType(32)), _INT_VECTOR)
        kept = builder.icmp_signed("<", ir.Constant(_INT_VECTOR, list(range(LANES))), count)
        return builder.select(kept, args[0], constant(0.0))

    return f32x16(f32x16, types.intp), code


@emitter
def shift_left(_typing: Any, _x: Any, _following: Any) -> Any:
    """Return lanes 1 to 15 of `x`, then lane 0 of `following`: what a load one float further on would give.

    Two loads across cache lines cost more than all arithmetic on what they load.
    """

    def code(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return _shuffle(builder, args[0], args[1], range(1, LANES + 1))

    return f32x16(f32x16, f32x16), code


@emitter
def shift_right(_typing: Any, _preceding: Any, _x: Any) -> Any:
    """Return lane 15 of `preceding`, then lanes 0 to 14 of `x`: what a load one float before would give."""

    def code(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return _shuffle(builder, args[0], args[1], range(LANES - 1, 2 * LANES - 1))

    return f32x16(f32x16, f32x16), code


@emitter
def sum_lanes(_typing: Any, _x: Any) -> Any:
    """Return the sum of the lanes as float32."""

    def code(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        zero = ir.Constant(ir.FloatType(), 0.0)
        return _call(builder, "llvm.vector.reduce.fadd.v16f32", ir.FloatType(), [zero, args[0]])

    return types.float32(f32x16), code


@emitter
def span_lanes(_typing: Any, _x: Any) -> Any:
    """Return the least and the greatest lane as a pair of float32."""
    pair = types.UniTuple(types.float32, 2)

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        ends = [
            _call(builder, f"llvm.vector.reduce.{name}.v16f32", ir.FloatType(), [args[0]]) for name in ("fmin", "fmax")
        ]
        return context.make_tuple(builder, sig.return_type, ends)

    return pair(f32x16), code


def _load_part(context: Any, builder: Any, array_type: Any, array: Any, index: Any, count: int) -> Any:
    kind = ir.VectorType(ir.FloatType(), count)
    value = builder.load(_pointer(context, builder, array_type, array, index, kind))
    value.align = 4
    return value


@emitter
def add_taps(_typing: Any, taps: Any, _first: Any, _stride: Any, weights: Any, _lane: Any, out: Any) -> Any:
    """Interpolate four channels from 4 x 4 neighbours and store them at `out[4 * lane : 4 * lane + 4]`.

    `taps[first + r * stride + 4 * c + channel]` is neighbour (r, c); `weights[16 * c + lane]` are the weights of the
    columns, `weights[64 + 16 * r + lane]` those of the rows. A row of neighbours is one vector.
    """

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        first, stride, lane = args[1], args[2], args[4]
        index = first.type

        def weight(k: int, kind: Any) -> Any:
            data = context.make_array(sig.args[3])(context, builder, args[3]).data
            at = builder.add(lane, ir.Constant(index, 16 * k))
            return _splat(builder, builder.load(builder.gep(data, [at])), kind)

        total: Any = None
        for r in range(4):
            at = builder.add(first, builder.mul(stride, ir.Constant(index, r)))
            product = builder.fmul(
                emit_load(context, builder, sig.args[0], args[0], at), weight(4 + r, _VECTOR), flags=_FAST
            )
            total = product if total is None else builder.fadd(total, product, flags=_FAST)
        result: Any = None
        for c in range(4):
            part = _shuffle(builder, total, total, range(4 * c, 4 * c + 4))
            product = builder.fmul(part, weight(c, part.type), flags=_FAST)
            result = product if result is None else builder.fadd(result, product, flags=_FAST)
        _store(context, builder, sig.args[5], args[5], builder.mul(lane, ir.Constant(index, 4)), result)
        return context.get_dummy_value()

    return types.none(taps, types.intp, types.intp, weights, types.intp, out), code


@emitter
def add_window(_typing: Any, plane: Any, _at: Any, _stride: Any, across: Any, down: Any) -> Any:
    """Return 16 pixels, each the sum of a window of 5 x 5 weighted by `across` and `down`, tuples of five vectors.

    Lane k weighs `plane[at + r * stride + c + k]` by `across[c]` and `down[r]`.
    """

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        columns, rows = cgutils.unpack_tuple(builder, args[3]), cgutils.unpack_tuple(builder, args[4])
        total: Any = None
        for r, row_weight in enumerate(rows):
            line: Any = None
            for c, weight in enumerate(columns):
                at = builder.add(args[1], builder.mul(args[2], ir.Constant(args[2].type, r)))
                at = builder.add(at, ir.Constant(at.type, c))
                value = emit_load(context, builder, sig.args[0], args[0], at)
                line = _multiply_add(builder, value, weight, line)
            total = _multiply_add(builder, line, row_weight, total)
        return total

    return f32x16(plane, types.intp, types.intp, across, down), code


def _multiply_add(builder: Any, a: Any, b: Any, total: Any) -> Any:
    product = builder.fmul(a, b, flags=_FAST)
    return product if total is None else builder.fadd(total, product, flags=_FAST)


@_emitter_of_literals
def load_channel(_typing: Any, array: Any, channel: Any) -> Any:
    """Load lane k from `array[4 * k + channel]`; `channel` is a literal."""
    number = channel.literal_value

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        everything = _load_part(context, builder, sig.args[0], args[0], ir.Constant(ir.IntType(64), 0), 4 * LANES)
        return _shuffle(builder, everything, everything, range(number, 4 * LANES, 4))

    return f32x16(array, channel), code
