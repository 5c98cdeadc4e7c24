"""The code for vectors that are not this machine's, and the plain code, on a few shapes, each in a process of its own.

All tests at one width: `MINICNN_VECTOR=128 python -m pytest`, and so for 256, 512 and plain. LLVM makes two vectors of
one that the processor lacks: slower, but the same arithmetic in the same order.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from kernels.cpu.machine import VECTOR

# Every way to convolve and to multiply, its tiles full and cut short, against NumPy's own arithmetic in float64.
PROGRAM = """
import itertools
import numpy as np
from kernels import cpu, reference
from kernels.cpu import machine, threads

threads.WORTHWHILE = 1
rng = np.random.default_rng(0)

def random(*shape):
    return rng.uniform(-1, 1, shape).astype(np.float32)

def same(value, expected, what):
    error = np.abs(value - expected).max() / np.abs(expected).max(initial=1e-3)
    assert value.shape == expected.shape and error < 1e-4, (what, error)

def compare(x, w, **options):
    arrays = [a.astype(np.float64) for a in (x, w)]
    b = random(w.shape[3])
    y = reference.conv2d(*arrays, b.astype(np.float64), **options)
    gy = random(*y.shape)
    what = x.shape, w.shape, options
    same(cpu.conv2d(x, w, b, **options), y, what)
    same(cpu.conv2d_relu(x, w, b, **options), np.maximum(y, 0), what)
    g = gy.astype(np.float64)
    same(cpu.conv2d_input_grad(gy, w, x.shape, **options),
         reference.conv2d_input_grad(g, arrays[1], x.shape, **options), what)
    same(cpu.conv2d_weight_grad(gy, x, w.shape, **options),
         reference.conv2d_weight_grad(g, arrays[0], w.shape, **options), what)

compare(random(3, 14, 13, 32), random(3, 3, 32, 48), pad=1)  # Winograd's
with cpu.exact():
    compare(random(3, 14, 13, 32), random(3, 3, 32, 48), pad=1)
for c, o in itertools.product((1, 3, 17, 70), (1, 16, 35)):
    compare(random(2, 5, 6, c), random(1, 1, c, o))
    compare(random(2, 5, 6, c), random(3, 2, c, o), pad=1, stride=(2, 1))
compare(random(1, 1, 1, 70), random(1, 1, 70, 33))
compare(random(2, 17, 19, 3), random(7, 7, 3, 18), pad=3, stride=2)
compare(random(2, 9, 9, 36), random(3, 3, 12, 51), pad=1, groups=3)
compare(random(2, 9, 9, 8), random(3, 3, 8, 9), pad=2, dilation=2)
for m, k, n in ((1, 1, 1), (8, 300, 70), (130, 17, 33)):
    x, w, gy = random(m, k), random(k, n), random(m, n)
    same(cpu.linear(x, w), x.astype(np.float64) @ w, (m, k, n))
    same(cpu.linear_input_grad(gy, w), gy.astype(np.float64) @ w.T, (m, k, n))
    same(cpu.linear_weight_grad(gy, x), x.astype(np.float64).T @ gy, (m, k, n))
print(machine.VECTOR)
"""


def test_each_width_computes_the_same():
    def run(vector: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"MINICNN_VECTOR": vector}
        return subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)

    others = [vector for vector in ("128", "256", "512", "plain") if vector != VECTOR]
    with ThreadPoolExecutor(2) as pool:  # most of the time goes into compiling, which is done by one thread
        for vector, run_ in zip(others, pool.map(run, others), strict=True):
            assert run_.stdout == f"{vector}\n", run_.stderr


def test_an_unknown_width_is_refused():
    command = [sys.executable, "-m", "minicnn.doctor"]
    run = subprocess.run(command, env=os.environ | {"MINICNN_VECTOR": "64"}, capture_output=True, text=True)
    assert "MINICNN_VECTOR=64: choose one of 512, 256, 128, plain" in run.stdout and run.returncode == 1


@pytest.mark.parametrize(
    ("features", "vector", "why"),
    [
        ({"avx512f", "avx2", "fma", "sse2"}, "512", "AVX-512"),
        ({"avx2", "fma", "sse2"}, "256", "no AVX-512"),
        ({"avx2", "sse2"}, "128", "no AVX2 with FMA"),
        ({"neon"}, "128", "NEON"),
        (set(), "plain", "no vectors"),
    ],
)
def test_the_processor_decides(monkeypatch, features, vector, why):
    from kernels.cpu import machine

    monkeypatch.delenv("MINICNN_VECTOR", raising=False)
    monkeypatch.setattr(machine.llvm, "get_host_cpu_features", lambda: dict.fromkeys(features, True))
    found, reason = machine.choose()
    assert found == vector and why in reason
