"""The generated code for this machine's tile, each piece as a function for the other kernels to call."""

from __future__ import annotations

from kernels.cpu.compile import compiled
from kernels.cpu.ir.copy import copier, transposer
from kernels.cpu.ir.microkernel import microkernel
from kernels.cpu.machine import COLUMNS, ROWS, VECTORS, WIDTH

copy_row = copier(COLUMNS)  # (target, source): as many numbers as a panel has columns …
copy_strip = copier(ROWS)  # … or a tile has rows
_square = transposer(WIDTH)
_tile = microkernel(ROWS, VECTORS, WIDTH)


@compiled
def multiply_tile(
    table, segments, steps, a_step, a_shift, panel, b_step, b_segment, targets, c_shift, bias, mode, columns
):
    """One tile of C = A·B, see ir/microkernel.py. Arguments are addresses and bytes: nothing here knows of arrays."""
    _tile(table, segments, steps, a_step, a_shift, panel, b_step, b_segment, targets, c_shift, bias, mode, columns)


@compiled
def transpose_square(target, target_step, source, source_step):
    """target[j, i] = source[i, j], both (WIDTH, WIDTH) at these addresses, their rows so many bytes apart."""
    _square(target, target_step, source, source_step)
