"""The micro-kernel: one register tile of C = A·B, the loop in which a convolutional network spends its time.

                          one row of B a step, shared by all rows
                          ┌──────────┬──────────┐
                          │    b₀    │    b₁    │          COLUMNS = VECTORS · WIDTH numbers
    one number of A       └──────────┴──────────┘
    a row, a step         ┌──────────┬──────────┐
     a[0] ── broadcast ─▶ │  acc 0,0 │  acc 0,1 │
     a[1] ── broadcast ─▶ │  acc 1,0 │  acc 1,1 │          each cell a register:
       ⋮                  │     ⋮    │     ⋮    │          acc[r][v] += a[r] · b[v]
     a[5] ── broadcast ─▶ │  acc 5,0 │  acc 5,1 │
                          └──────────┴──────────┘          12 + 2 + 1 of AVX2's 16 registers

    def micro_kernel(rows, panel, targets, …):
        acc, total = [bias or 0 for r in range(ROWS)], 0                     # COLUMNS numbers each
        for segment in range(segments):                                      # kernel taps, or image rows
            for step in range(steps):                                        # channels, or pixels of an image row
                b = panel[segment, step]                                     # COLUMNS numbers
                for r in range(ROWS):
                    acc[r] += rows[segment, r][step] * b                     # a scalar times a vector
                # after every RUN of these steps: total += acc, acc = 0
        for r in range(ROWS):
            targets[r][:columns] = total[r] + acc[r]                         # or +=, or the larger of it and 0

A row of A, and a row of C, is wherever its pointer says. That alone makes this one loop serve matrix products,
convolution, both of its gradients and Winograd's products without a column buffer: a row of A is an output pixel and
its segments are the kernel taps (padding is a pointer to zeros, stride and dilation are other pointers); or, in the
gradient of the weights, a row is a tap and channel and its steps are pixels. After Goto & van de Geijn, Anatomy of
High-Performance Matrix Multiplication (2008), without the packing of A.

Each addition rounds, by as much as the sum so far is large. So what RUN steps have added up to goes to a total, and acc
starts from zero again: a sum of thousands then is as exact as one of a hundred, for one instruction in fifty.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.cpu.ir.emit import FLOAT_BYTES, POINTER_BYTES, Emitter

# What becomes of C, a sum of these:
OVERWRITE = 0
ACCUMULATE = 1  # add to it
RECTIFY = 2  # max(·, 0) at the end
STREAM = 4  # store past the caches; every row of C must be aligned to the vector's size

RUN = 64  # steps


def emit(e: Emitter, rows: int, vectors: int, arguments: tuple[ir.Value, ...]) -> None:
    """Writes the loop above for a tile of `rows` by `vectors`."""
    table, segments, steps, a_step, a_shift, panel, b_step, b_segment, targets, c_shift, bias, mode, columns = arguments
    builder = e.builder
    vector_bytes = FLOAT_BYTES * e.width
    cells = [(r, v) for r in range(rows) for v in range(vectors)]
    has = {
        flag: builder.icmp_signed("!=", builder.and_(mode, e.number(flag)), e.number(0))
        for flag in (ACCUMULATE, RECTIFY, STREAM)
    }
    target = [e.add(e.load_pointer(e.add(targets, POINTER_BYTES * r)), c_shift) for r in range(rows)]
    inside = [e.lanes_below(columns, v * e.width) for v in range(vectors)]
    whole = builder.icmp_signed(">=", columns, e.number(vectors * e.width))

    acc = {cell: e.variable(e.zeros) for cell in cells}
    with builder.if_then(builder.icmp_signed("!=", bias, e.number(0))):
        for v in range(vectors):
            first = e.load(e.add(bias, vector_bytes * v))
            for r in range(rows):
                builder.store(first, acc[r, v])
    for r in range(rows):
        for line in range(0, vectors * vector_bytes, 64):  # a cache line has 64 bytes
            e.prefetch(e.add(target[r], line), writing=True)

    def add_products(row: list[ir.Value], a_offset: ir.Value, b_row: ir.Value, steps: ir.Value) -> None:
        with e.loop(steps):
            b = [e.load(e.add(builder.load(b_row), vector_bytes * v)) for v in range(vectors)]
            for r in range(rows):
                a = e.broadcast(e.add(row[r], builder.load(a_offset)))
                for v in range(vectors):
                    builder.store(e.muladd(a, b[v], builder.load(acc[r, v])), acc[r, v])
            builder.store(e.add(builder.load(a_offset), a_step), a_offset)
            builder.store(e.add(builder.load(b_row), b_step), b_row)

    def add_segments(add_segment: Callable[..., None]) -> None:
        pointers, b_pointer = e.variable(table), e.variable(panel)
        a_offset, b_row = e.variable(e.number(0)), e.variable(e.number(0))
        with e.loop(segments):
            row = [
                e.add(e.load_pointer(e.add(builder.load(pointers), POINTER_BYTES * r)), a_shift) for r in range(rows)
            ]
            builder.store(e.number(0), a_offset)
            builder.store(builder.load(b_pointer), b_row)
            add_segment(row, a_offset, b_row, steps)
            builder.store(e.add(builder.load(pointers), POINTER_BYTES * rows), pointers)
            builder.store(e.add(builder.load(b_pointer), b_segment), b_pointer)

    # Two ways through the same loops: a short sum needs no total, and no register to keep track of it.
    with builder.if_else(builder.icmp_signed("<=", builder.mul(segments, steps), e.number(RUN))) as (short, long):
        with short:
            add_segments(add_products)
        with long:
            total = {cell: e.variable(e.zeros) for cell in cells}
            room = e.variable(e.number(RUN))  # steps that acc may still add

            def add_to_total() -> None:
                for cell in cells:
                    builder.store(builder.fadd(builder.load(total[cell]), builder.load(acc[cell])), total[cell])
                    builder.store(e.zeros, acc[cell])
                builder.store(e.number(RUN), room)

            def add_runs(row: list[ir.Value], a_offset: ir.Value, b_row: ir.Value, steps: ir.Value) -> None:
                left = e.variable(steps)
                builder.store(steps, left)
                with e.loop_while(lambda: builder.icmp_signed(">", builder.load(left), e.number(0))):
                    with builder.if_then(builder.icmp_signed("==", builder.load(room), e.number(0))):
                        add_to_total()
                    run = e.smaller(builder.load(left), builder.load(room))
                    add_products(row, a_offset, b_row, run)
                    builder.store(builder.sub(builder.load(left), run), left)
                    builder.store(builder.sub(builder.load(room), run), room)

            add_segments(add_runs)
            add_to_total()
            for cell in cells:
                builder.store(builder.load(total[cell]), acc[cell])

    # At the end, not as the sum's start: many short sums lose less to rounding than a long one. A branch, not a mask: a
    # masked load waits for its cache line with no lane on, too.
    with builder.if_then(has[ACCUMULATE]):
        for r, v in cells:
            before = e.load_masked(e.add(target[r], vector_bytes * v), inside[v])
            builder.store(builder.fadd(builder.load(acc[r, v]), before), acc[r, v])
    with builder.if_then(has[RECTIFY]):
        for cell in cells:
            builder.store(e.rectified(builder.load(acc[cell])), acc[cell])
    result = {(r, v): (builder.load(acc[r, v]), e.add(target[r], vector_bytes * v)) for r, v in cells}
    with builder.if_else(whole) as (unmasked, masked):
        with unmasked, builder.if_else(has[STREAM]) as (streamed, cached):
            with streamed:
                for value, address in result.values():
                    e.stream(value, address)
            with cached:
                for value, address in result.values():
                    e.store(value, address)
        with masked:
            for (_, v), (value, address) in result.items():
                e.store_masked(value, address, inside[v])


def microkernel(rows: int, vectors: int, width: int) -> Callable[..., None]:
    """The micro-kernel of that tile, to be called from Numba code; every argument is an int64, addresses in bytes.

    Its caller is kept out of line: inlined, LLVM would allocate the tile's registers anew at every call.
    """

    @intrinsic
    def micro_kernel(
        typing_context,
        table,  # address of (segments, ROWS) addresses: the rows of A
        segments,
        steps,
        a_step,  # bytes from one step to the next in a row of A
        a_shift,  # bytes added to every row of A
        panel,  # address of B
        b_step,  # bytes between rows of B, and …
        b_segment,  # … between its segments
        targets,  # address of ROWS addresses: the rows of C
        c_shift,  # bytes added to every row of C
        bias,  # address of COLUMNS numbers to start from, or 0
        mode,  # OVERWRITE, or a sum of ACCUMULATE, RECTIFY and STREAM
        columns,  # how many columns to store: at most COLUMNS
    ):
        def generate(context, builder, signature, arguments):
            builder.function.attributes.add("noinline")
            emit(Emitter(builder, width), rows, vectors, arguments)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 13), generate

    return micro_kernel
