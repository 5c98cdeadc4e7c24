"""Copies of a fixed, small number of float32 numbers.

Written as a loop, such a copy runs number by number: the compiler cannot rule out that source and target overlap.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.cpu.ir.emit import FLOAT_BYTES


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
