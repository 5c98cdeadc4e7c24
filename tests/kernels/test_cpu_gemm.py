"""Matrix products on the micro-kernel, and the fully connected layers made of them: shapes, layouts, threads, edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kernels import cpu
from kernels.cpu import fully_connected, gemm, threads
from kernels.cpu.machine import COLUMNS, ROWS

LAYOUTS = {
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "every other": lambda a: np.repeat(np.repeat(a, 2, axis=0), 2, axis=1)[::2, ::2],
    "backwards": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
}
layouts = st.sampled_from([*LAYOUTS])
sizes = st.integers(1, 3 * max(ROWS, COLUMNS) + 1)


@pytest.fixture(autouse=True)
def plan(monkeypatch):
    """Chunks and bands so small, and threads so willing, that small examples have many of each."""
    monkeypatch.setattr(threads, "WORTHWHILE", 1)
    monkeypatch.setattr(gemm, "CACHED_BYTES", 4 * COLUMNS * 10)
    monkeypatch.setattr(gemm, "BAND", 2)
    before = threads.count()
    yield monkeypatch
    threads.set_count(before)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def close(value: np.ndarray, expected: np.ndarray) -> None:
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=0, atol=1e-5 * np.abs(expected).max(initial=1e-3))


@given(M=sizes, K=sizes, N=sizes, layout=st.tuples(layouts, layouts), turned=st.booleans(), biased=st.booleans())
@example(M=1, K=1, N=1, layout=("rows", "rows"), turned=False, biased=True)
@example(M=5 * ROWS, K=40, N=4 * COLUMNS, layout=("columns", "rows"), turned=True, biased=True)
def test_product_writes_c_and_nothing_around_it(M, K, N, layout, turned, biased):
    a, b = LAYOUTS[layout[0]](random(M, K)), LAYOUTS[layout[1]](random(K, N, seed=1))
    bias = random(N, seed=2) if biased else None
    expected = a.astype(np.float64) @ b + (0 if bias is None else bias)
    before, guard = (a.copy(), b.copy()), 64
    memory = np.full(M * N + 2 * guard, 7, np.float32)
    c = memory[guard:-guard].reshape((N, M) if turned else (M, N))
    gemm.multiply(a, b, c.T if turned else c, bias)
    close(c.T if turned else c, expected)
    assert (memory[:guard] == 7).all() and (memory[-guard:] == 7).all()
    assert np.array_equal(a, before[0]) and np.array_equal(b, before[1])


SHAPES = [(1, 70, 33), (7, 130, 50), (16, 200, 90), (70, 64, 10), (130, 45, 95)]  # images, inputs, outputs


def results(k, images: int, inputs: int, outputs: int, dtype=np.float32) -> list[np.ndarray]:
    x, w = random(images, inputs).astype(dtype), random(inputs, outputs, seed=1).astype(dtype)
    b, gy = random(outputs, seed=2).astype(dtype), random(images, outputs, seed=3).astype(dtype)
    return [k.linear(x, w, b), k.linear(x, w), k.linear_input_grad(gy, w), k.linear_weight_grad(gy, x)]


@pytest.mark.parametrize("small", [0, 1 << 30])  # bytes of w up to which linear takes the micro-kernel
@pytest.mark.parametrize("shape", SHAPES)
def test_fully_connected_layers_equal_the_reference_with_the_same_bits_on_any_number_of_threads(
    shape, small, plan, reference
):
    plan.setattr(fully_connected, "SMALL_BYTES", small)
    threads.set_count(1)
    expected = results(cpu, *shape)
    for value, e in zip(expected, results(reference, *shape, dtype=np.float64), strict=True):
        close(value, e)
    for n in (2, 3):
        threads.set_count(n)
        assert all(np.array_equal(a, b) for a, b in zip(results(cpu, *shape), expected, strict=True)), n


@pytest.mark.parametrize("shape", [(0, 5, 3), (4, 0, 3), (4, 5, 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sizes_of_zero(shape, dtype, reference):
    for value, e in zip(results(cpu, *shape, dtype=dtype), results(reference, *shape, dtype=dtype), strict=True):
        assert value.dtype == e.dtype
        close(value, e)


def test_nan_and_infinity_stay_visible():
    x, w = np.ones((70, 9), np.float32), np.ones((9, 20), np.float32)
    x[3, 4], w[2, 7] = np.nan, np.inf
    y = cpu.linear(x, w)
    assert np.isnan(y[3]).all() and np.isposinf(np.delete(y[:, 7], 3)).all()
    assert np.isfinite(np.delete(np.delete(y, 3, 0), 7, 1)).all()
