"""The dozen LLVM instructions that the generators are written in, on addresses (int64) and vectors of float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llvmlite import ir
from numba.core import cgutils

INT64, INT32, FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()
BYTE_POINTER = ir.IntType(8).as_pointer()
FLOAT_BYTES = 4
POINTER_BYTES = 8


class Emitter:
    """Writes instructions for vectors of `width` float32 numbers at the builder's position."""

    def __init__(self, builder: ir.IRBuilder, width: int):
        self.builder, self.width = builder, width
        self.vector = ir.VectorType(FLOAT, width)
        self.zeros = ir.Constant(self.vector, None)

    def number(self, value: int) -> ir.Constant:
        return ir.Constant(INT64, value)

    def add(self, *terms: ir.Value | int) -> ir.Value:
        """The sum of addresses and byte offsets."""
        values = [self.number(term) if isinstance(term, int) else term for term in terms]
        total = values[0]
        for value in values[1:]:
            total = self.builder.add(total, value)
        return total

    def _load(self, address: ir.Value, kind: ir.Type, align: int) -> ir.Value:
        return self.builder.load(self.builder.inttoptr(address, kind.as_pointer()), align=align)

    def load_pointer(self, address: ir.Value) -> ir.Value:
        return self._load(address, INT64, POINTER_BYTES)

    def load(self, address: ir.Value) -> ir.Value:
        """A vector, at any multiple of 4 bytes."""
        return self._load(address, self.vector, FLOAT_BYTES)

    def broadcast(self, address: ir.Value) -> ir.Value:
        """One number, copied to every lane."""
        return self.splat(self._load(address, FLOAT, FLOAT_BYTES))

    def splat(self, scalar: ir.Value) -> ir.Value:
        undefined = ir.Constant(ir.VectorType(scalar.type, self.width), ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
        lanes = ir.Constant(ir.VectorType(INT32, self.width), [0] * self.width)
        return self.builder.shuffle_vector(first, undefined, lanes)

    def constant(self, value: float) -> ir.Constant:
        return ir.Constant(self.vector, [value] * self.width)

    def store(self, vector: ir.Value, address: ir.Value) -> None:
        self.builder.store(vector, self.builder.inttoptr(address, self.vector.as_pointer()), align=FLOAT_BYTES)

    def stream(self, vector: ir.Value, address: ir.Value) -> None:
        """A store past the caches, to a multiple of the vector's size: does not read the line that it overwrites."""
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        instruction = self.builder.store(vector, pointer, align=FLOAT_BYTES * self.width)
        instruction.set_metadata("nontemporal", self.builder.module.add_metadata([INT32(1)]))

    def lanes_below(self, count: ir.Value, first: int) -> ir.Value:
        """A mask of the lanes first, first + 1, … that are less than `count`."""
        lanes = ir.Constant(ir.VectorType(INT64, self.width), list(range(first, first + self.width)))
        return self.builder.icmp_signed("<", lanes, self.splat(count))

    def load_masked(self, address: ir.Value, mask: ir.Value) -> ir.Value:
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        return self._call("masked.load", self.vector, pointer, INT32(FLOAT_BYTES), mask, self.zeros, suffix=".p0")

    def store_masked(self, vector: ir.Value, address: ir.Value, mask: ir.Value) -> None:
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        self._call("masked.store", ir.VoidType(), vector, pointer, INT32(FLOAT_BYTES), mask, suffix=".p0")

    def muladd(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a·b + c, in one rounding where the machine has such an instruction."""
        return self._call("fmuladd", self.vector, a, b, c)

    def rectified(self, vector: ir.Value) -> ir.Value:
        """max(vector, 0) that passes NaN on."""
        return self.builder.select(self.builder.fcmp_ordered("<", vector, self.zeros), self.zeros, vector)

    def prefetch(self, address: ir.Value, *, level: int = 1, writing: bool = False) -> None:
        """Ask for the cache line of that address, to be read or written from the cache of that level."""
        signature = ir.FunctionType(ir.VoidType(), [BYTE_POINTER, INT32, INT32, INT32])
        function = cgutils.get_or_insert_function(self.builder.module, signature, "llvm.prefetch.p0")
        pointer = self.builder.inttoptr(address, BYTE_POINTER)
        self.builder.call(function, [pointer, INT32(int(writing)), INT32(4 - level), INT32(1)])

    def variable(self, start: ir.Value) -> ir.Value:
        """A variable that starts as given; LLVM keeps it in a register, because only loads and stores touch it."""
        return cgutils.alloca_once_value(self.builder, start)

    @contextmanager
    def loop(self, count: ir.Value) -> Iterator[None]:
        """Repeats the block `count` times, at least once."""
        builder = self.builder
        left = self.variable(count)
        body, done = builder.append_basic_block("loop"), builder.append_basic_block("done")
        builder.branch(body)
        builder.position_at_end(body)
        yield
        now = builder.sub(builder.load(left), self.number(1))
        builder.store(now, left)
        builder.cbranch(builder.icmp_signed(">", now, self.number(0)), body, done)
        builder.position_at_end(done)

    @contextmanager
    def loop_while(self, condition: Callable[[], ir.Value]) -> Iterator[None]:
        """Repeats the block as long as the condition, asked after it, holds: once at least."""
        body, done = self.builder.append_basic_block("while"), self.builder.append_basic_block("done")
        self.builder.branch(body)
        self.builder.position_at_end(body)
        yield
        self.builder.cbranch(condition(), body, done)
        self.builder.position_at_end(done)

    def smaller(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The smaller of two integers."""
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def _call(self, name: str, result: ir.Type, *args: ir.Value, suffix: str = "") -> ir.Value:
        signature = ir.FunctionType(result, [arg.type for arg in args])
        full_name = f"llvm.{name}.v{self.width}f32{suffix}"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, signature, full_name), args)
