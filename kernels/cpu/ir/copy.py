"""Copies of float32 numbers from address to address, in their order or as a transposed square, or into the cache.

Written as a loop, such a copy runs number by number: the compiler cannot rule out that source and target overlap.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.cpu.ir.emit import FLOAT_BYTES, INT32, Emitter


def copier(numbers: int) -> Callable[..., None]:
    """copy(target, source), both addresses (int64) of that many numbers that do not overlap."""

    @intrinsic
    def copy(typing_context, target, source):
        def generate(context, builder, signature, arguments):
            to, from_ = (builder.inttoptr(address, cgutils.voidptr_t) for address in arguments)
            cgutils.raw_memcpy(builder, to, from_, ir.IntType(64)(numbers), FLOAT_BYTES, align=FLOAT_BYTES)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    return copy


@intrinsic
def _copy_floats(typing_context, target, source, numbers):

    def generate(context, builder, signature, arguments):
        to, from_ = (builder.inttoptr(address, cgutils.voidptr_t) for address in arguments[:2])
        cgutils.raw_memcpy(builder, to, from_, arguments[2], FLOAT_BYTES, align=FLOAT_BYTES)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


copy_floats: Callable[..., None] = _copy_floats  # (target, source, numbers): the number is known when it runs


def transposer(width: int) -> Callable[..., None]:
    """transpose(target, target_step, source, source_step): target[j, i] = source[i, j], both (width, width).

    The steps are the bytes from row to row. Riffle the first half of the rows with the second, number by number, as a
    deck of cards: once for each bit of the row's index, and that index has changed places with the column's.

        a₀a₁a₂a₃  b₀b₁b₂b₃  c₀c₁c₂c₃  d₀d₁d₂d₃  ─▶  a₀c₀a₁c₁  a₂c₂a₃c₃  b₀d₀b₁d₁  b₂d₂b₃d₃
                                                ─▶  a₀b₀c₀d₀  a₁b₁c₁d₁  a₂b₂c₂d₂  a₃b₃c₃d₃
    """
    lanes = [i // 2 + i % 2 * width for i in range(2 * width)]
    low, high = (ir.Constant(ir.VectorType(INT32, width), half) for half in (lanes[:width], lanes[width:]))

    @intrinsic
    def transpose(typing_context, target, target_step, source, source_step):
        def generate(context, builder, signature, arguments):
            target, target_step, source, source_step = arguments
            e = Emitter(builder, width)
            rows = [e.load(e.add(source, builder.mul(source_step, e.number(i)))) for i in range(width)]
            for _ in range(width.bit_length() - 1):
                pairs = list(zip(rows[: width // 2], rows[width // 2 :], strict=True))
                rows = [builder.shuffle_vector(a, b, half) for a, b in pairs for half in (low, high)]
            for i, row in enumerate(rows):
                e.store(row, e.add(target, builder.mul(target_step, e.number(i))))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), generate

    return transpose


@intrinsic
def _prefetch(typing_context, address):

    def generate(context, builder, signature, arguments):
        Emitter(builder, 1).prefetch(arguments[0], level=2)
        return context.get_dummy_value()

    return types.void(types.int64), generate


prefetch: Callable[..., None] = _prefetch  # (address): have the cache line there in the second-level cache
