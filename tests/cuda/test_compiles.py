"""Level 1: NVIDIA's compiler takes every kernel for every generation of cards, and each stays within its budget."""

from __future__ import annotations

import pytest

from kernels.cuda.launcher import signatures
from tests.cuda import nvrtc

REGISTERS = 64  # of a thread: 65536 of a multiprocessor then hold 1024 threads, enough to hide the delay of memory
SHARED = 16 * 1024  # bytes of a block: four blocks on a multiprocessor of sm_75, which has 64 KiB

SOURCES = dict(nvrtc.sources())


@pytest.fixture(scope="module", autouse=True)
def compiler() -> None:
    if nvrtc.library() is None or nvrtc.half_headers() is None:
        pytest.skip("NVIDIA's compiler is not installed: pip install nvidia-cuda-nvrtc nvidia-cuda-runtime")


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
@pytest.mark.parametrize("name", SOURCES)
def test_every_kernel_compiles_without_spills_and_within_its_budget(name, architecture):
    code = SOURCES[name].code
    log = nvrtc.compile_log(code, name, architecture)
    assert "warning" not in log
    table = nvrtc.needs(log)
    assert {row.kernel for row in table} == set(signatures(code))
    for row in table:
        assert row.spilled == 0, row
        assert row.registers <= REGISTERS, row
        assert row.shared <= SHARED, row


def test_what_the_compiler_refuses_is_an_error_with_its_message():
    with pytest.raises(SyntaxError, match=r"(?s)broken.cu for sm_80.*undefined_name"):
        nvrtc.compile_log('extern "C" __global__ void k(float* y) { y[0] = undefined_name; }', "broken.cu", 80)


def test_spills_and_shared_memory_are_seen():
    code = """
    extern "C" __global__ void __launch_bounds__(1024) greedy(const float* x, float* y, int n) {
        __shared__ float s[1000];
        float v[200];
        for (int i = 0; i < 200; ++i) v[i] = x[i * n + threadIdx.x];
        s[threadIdx.x % 1000] = v[n];
        __syncthreads();
        for (int i = 0; i < 200; ++i) y[i * n] = v[i] * v[(i * n) % 200] + s[i];
    }"""
    (row,) = nvrtc.needs(nvrtc.compile_log(code, "greedy.cu", 80))
    assert row.kernel == "greedy" and row.registers > 8 and row.spilled > 0 and row.shared == 4000
