"""Winograd's transforms, L·X·Lᵀ for a small constant matrix L: every element of X is a vector of channels.

    for channels in steps of WIDTH:
        X = load the (inputs, inputs) elements                       # an image tile, or a tile in Winograd's domain
        Y = L @ X @ L.T                                              # (outputs, outputs), written out number by number
        store Y  (+ bias, then max(·, 0), if asked)

L's entries are known when the code is made: zeros cost nothing, ±1 an addition, and all others a multiply-add. Elements
lie either `stride` bytes apart, or, where a tile meets the border of its image, at addresses of their own in a table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.cpu.ir.emit import FLOAT_BYTES, POINTER_BYTES, Emitter

Matrix = Sequence[Sequence[float]]


def dot(e: Emitter, row: Sequence[float], vectors: Sequence[ir.Value]) -> ir.Value:
    """Σ row[i] · vectors[i]."""
    terms = [(coefficient, vector) for coefficient, vector in zip(row, vectors, strict=True) if coefficient]
    terms.sort(key=lambda term: abs(term[0]) != 1 or term[0] == -1)  # begin with a 1, if there is one
    coefficient, vector = terms[0]
    total = vector if coefficient == 1 else e.builder.fmul(vector, e.constant(coefficient))
    for coefficient, vector in terms[1:]:
        if coefficient == 1:
            total = e.builder.fadd(total, vector)
        elif coefficient == -1:
            total = e.builder.fsub(total, vector)
        else:
            total = e.muladd(vector, e.constant(coefficient), total)
    return total


def emit(e: Emitter, matrix: Matrix, from_table: bool, to_table: bool, arguments: tuple[ir.Value, ...]) -> None:
    """Writes the loop above."""
    source, source_stride, target, target_stride, channels, bias, rectify = arguments
    builder = e.builder
    outputs, inputs = len(matrix), len(matrix[0])

    def element(base: ir.Value, stride: ir.Value, table: bool, index: int) -> ir.Value:
        if table:
            return e.load_pointer(e.add(base, POINTER_BYTES * index))
        return e.add(base, builder.mul(stride, e.number(index)))

    offset = e.variable(e.number(0))
    added = e.variable(e.zeros)
    with e.loop(builder.udiv(channels, e.number(e.width))):
        here = builder.load(offset)
        columns = []  # of L·X
        for j in range(inputs):
            x = [e.load(e.add(element(source, source_stride, from_table, i * inputs + j), here)) for i in range(inputs)]
            columns.append([dot(e, row, x) for row in matrix])
        with builder.if_then(builder.icmp_signed("!=", bias, e.number(0))):
            builder.store(e.load(e.add(bias, here)), added)
        for i in range(outputs):
            for j in range(outputs):
                y = dot(e, matrix[j], [column[i] for column in columns])
                if to_table:
                    y = builder.fadd(y, builder.load(added))
                    y = builder.select(builder.icmp_signed("!=", rectify, e.number(0)), e.rectified(y), y)
                e.store(y, e.add(element(target, target_stride, to_table, i * outputs + j), here))
        builder.store(e.add(here, FLOAT_BYTES * e.width), offset)


def transform(matrix: Matrix, width: int, from_table: bool = False, to_table: bool = False) -> Callable[..., None]:
    """The transform by that matrix, to be called from Numba code; every argument is an int64, addresses in bytes.

    Only a transform to a table adds a bias. Its caller is kept out of line, like that of the micro-kernel.
    """

    @intrinsic
    def winograd_transform(
        typing_context,
        source,  # address of the first element, or of a table of the elements' addresses
        source_stride,  # bytes between elements; unused with a table
        target,
        target_stride,
        channels,  # a multiple of the vector's width
        bias,  # address of `channels` numbers to add, or 0
        rectify,  # 1: max(·, 0)
    ):
        def generate(context, builder, signature, arguments):
            builder.function.attributes.add("noinline")
            emit(Emitter(builder, width), matrix, from_table, to_table, arguments)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), generate

    return winograd_transform
