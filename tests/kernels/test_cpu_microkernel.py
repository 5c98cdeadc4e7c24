"""The generated code: the register tile against a matrix product, and what becomes of it as machine code."""

from __future__ import annotations

import re

import llvmlite.binding as llvm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llvmlite import ir

from kernels.cpu.compile import compiled
from kernels.cpu.ir import microkernel
from kernels.cpu.ir.emit import INT64, Emitter
from kernels.cpu.ir.microkernel import ACCUMULATE, OVERWRITE, RECTIFY, STREAM
from kernels.cpu.machine import COLUMNS, ROWS, TILES
from kernels.cpu.memory import empty
from kernels.cpu.tile import multiply_tile


@compiled
def run_tile(a, table, panel, c, targets, bias, mode, columns):
    """C = A·B for one tile: a (segments, ROWS, steps), panel (segments, steps, COLUMNS), c (ROWS, COLUMNS)."""
    segments, _, steps = a.shape
    for r in range(ROWS):
        targets[r] = c[r].ctypes.data
        for s in range(segments):
            table[s, r] = a[s, r].ctypes.data
    multiply_tile(
        table.ctypes.data, segments, steps, 4, 0, panel.ctypes.data, 4 * COLUMNS, 4 * COLUMNS * steps,
        targets.ctypes.data, 0, bias.ctypes.data if bias.size else 0, mode, columns,
    )  # fmt: skip


@pytest.mark.parametrize("start", ["zeros", "bias", "C"])
@pytest.mark.parametrize("rectify", [OVERWRITE, RECTIFY])
@given(data=st.data())
def test_tile_is_a_matrix_product(start, rectify, data):
    segments, steps = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    columns = data.draw(st.integers(1, COLUMNS))
    stream = data.draw(st.sampled_from([OVERWRITE, STREAM])) if columns == COLUMNS else OVERWRITE
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    a = rng.standard_normal((segments, ROWS, steps), np.float32)
    panel = rng.standard_normal((segments, steps, COLUMNS), np.float32)
    c = empty((ROWS, COLUMNS))
    c[:] = rng.standard_normal(c.shape)
    bias = rng.standard_normal(COLUMNS if start == "bias" else 0, np.float32)
    expected = np.einsum("srk,skc->rc", a, panel) + {"zeros": 0, "bias": bias, "C": c.copy()}[start]
    if rectify:
        expected = np.maximum(expected, 0)
    expected[:, columns:] = c[:, columns:]  # what is not asked for stays as it was

    mode = (ACCUMULATE if start == "C" else OVERWRITE) | rectify | stream
    tables = np.empty((segments, ROWS), np.int64), np.empty(ROWS, np.int64)
    run_tile(a, tables[0], panel, c, tables[1], bias, mode, columns)
    np.testing.assert_allclose(c, expected, rtol=0, atol=1e-5)


def test_relu_passes_nan_on():
    a = np.full((1, ROWS, 1), np.nan, np.float32)
    a[0, 0] = -1
    c = empty((ROWS, COLUMNS))
    tables = np.empty((1, ROWS), np.int64), np.empty(ROWS, np.int64)
    ones, no_bias = np.ones((1, 1, COLUMNS), np.float32), np.empty(0, np.float32)
    run_tile(a, tables[0], ones, c, tables[1], no_bias, RECTIFY, COLUMNS)
    assert (c[0] == 0).all() and np.isnan(c[1:]).all()


PROCESSORS = [("512", "znver4"), ("512", "skylake-avx512"), ("256", "znver3"), ("256", "haswell")]


@pytest.mark.parametrize(("bits", "cpu"), PROCESSORS)
def test_inner_loop_is_multiply_adds_on_registers(bits, cpu):
    """One vfmadd for each cell of the tile, no accumulator on the stack; also for processors that are not here."""
    tile = TILES[bits]
    loop = inner_loop(assembly(tile, cpu))
    assert len(re.findall(r"vfmadd\d+ps", loop)) == tile.rows * tile.vectors
    register = {"512": "zmm", "256": "ymm"}[bits]
    assert not re.findall(rf"vmov\w+\s.*%{register}\d+, .*\(%rsp\)|vmov\w+\s.*\(%rsp\), %{register}", loop)


def assembly(tile, cpu: str) -> str:
    """Machine code of the micro-kernel for any x86 processor, as Numba would have it made."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = ir.Module()
    module.triple = "x86_64-unknown-linux-gnu"
    try:
        target = llvm.Target.from_triple(module.triple)
    except RuntimeError:
        pytest.skip("this llvmlite makes no code for x86")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [INT64] * 13), "tile")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    microkernel.emit(Emitter(builder, tile.width), tile.rows, tile.vectors, function.args)
    builder.ret_void()
    machine = target.create_target_machine(cpu=cpu, opt=3)
    parsed = llvm.parse_assembly(str(module))
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(parsed, passes)
    return machine.emit_assembly(parsed)


def inner_loop(text: str) -> str:
    """The lines from a label to the jump back to it, around the multiply-adds."""
    lines = text.splitlines()
    labels = {line.split(":")[0]: i for i, line in enumerate(lines) if re.match(r"\.LBB\w+:", line)}
    loops = [
        "\n".join(lines[labels[match[1]] : i])
        for i, line in enumerate(lines)
        if (match := re.match(r"\s+j\w+\s+(\.LBB\w+)", line)) and labels[match[1]] < i
    ]
    return min((loop for loop in loops if "vfmadd" in loop), key=len)
