"""The host finds what it is there to find: each of these kernels has one mistake."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cuda.host.module import ORDERS, HostModule, KernelError, load

RIGHT = """
#include <cuda_fp16.h>
#define BLOCK 128
__device__ float warp_sum(float v) {
    for (int d = 16; d > 0; d >>= 1) v += __shfl_down_sync(0xffffffffu, v, d);
    return v;
}
extern "C" __global__ void block_sum(const float* x, float* y, int n) {
    __shared__ float sums[BLOCK / 32];
    float v = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) v += x[blockIdx.x * n + i];
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = v;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < blockDim.x / 32; w++) v += sums[w];
        y[blockIdx.x] = v;
    }
}
extern "C" __global__ void reverse(const float* x, float* y, int n) {
    extern __shared__ float buffer[];
    if (threadIdx.x < n) buffer[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    if (threadIdx.x < n) y[threadIdx.x] = buffer[n - 1 - threadIdx.x];
}
extern "C" __global__ void places(int* y) {
    int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    y[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1 + thread + 1000 * block;
}
extern "C" __global__ void warps(unsigned* y, int n) {
    int i = threadIdx.x;
    y[i] = __ballot_sync(~0u, i % 3 == 0);
    y[n + i] = __shfl_xor_sync(~0u, i, 5);
    y[2 * n + i] = __shfl_up_sync(~0u, i, 2, 8);
    y[3 * n + i] = __syncthreads_count(i % 2);
    atomicAdd(&y[4 * n], 1u);
}
extern "C" __global__ void halves(const half* x, const half* b, half* y, int n) {
    int i = threadIdx.x;
    if (i < n) y[i] = __float2half(__half2float(x[i]) * 2.0f + (b ? __half2float(b[0]) : 0.0f));
}
"""

WRONG = """
extern "C" __global__ void no_barrier(const float* x, float* y) {
    __shared__ float s[128];
    s[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = s[127 - threadIdx.x];
}
extern "C" __global__ void divergent(float* y) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    y[threadIdx.x] = 1;
}
extern "C" __global__ void stuck(float* y) {
    if (threadIdx.x == 0) y[0] = __shfl_sync(0xffffffffu, 1.0f, 0);
    else __syncthreads();
}
extern "C" __global__ void not_in_mask(float* y) { y[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 0); }
extern "C" __global__ void uninitialised(float* y) {
    __shared__ float s[64];
    if (threadIdx.x < 32) s[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x];
}
extern "C" __global__ void past_shared(float* y) {
    __shared__ float s[64];
    s[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x % 64] = s[threadIdx.x];
}
extern "C" __global__ void past_dynamic(float* y) {
    extern __shared__ float s[];
    s[threadIdx.x] = 1;
    y[0] = s[threadIdx.x];
}
extern "C" __global__ void misaligned(const float* x, float* y) {
    float4 v = *reinterpret_cast<const float4*>(x + 1);
    y[threadIdx.x] = v.x;
}
extern "C" __global__ void shift(float* y, int bits) { y[threadIdx.x] = 1 << bits; }
extern "C" __global__ void overflow(int* y, int n) { y[threadIdx.x] = n * n; }
extern "C" __global__ void at(float* y, int i) { y[i] = 1; }
"""


@pytest.fixture(params=ORDERS)
def order(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[False, True], ids=["plain", "ubsan"])
def right(request: pytest.FixtureRequest, order: str) -> HostModule:
    return load(RIGHT, order=order, ubsan=request.param)


def wrong(order: str = "forward") -> HostModule:
    return load(WRONG, order=order, ubsan=True)


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_shared_memory_and_shuffles_sum_each_block(right: HostModule) -> None:
    x = np.random.default_rng(0).integers(-9, 9, (5, 200)).astype(np.float32)
    y = zeros(5)
    right.launch("block_sum", (5,), (128,), (x, y, np.int32(200)))
    assert (y == x.sum(axis=1)).all()


def test_dynamic_shared_memory(right: HostModule) -> None:
    x, y = np.arange(70, dtype=np.float32), zeros(70)
    right.launch("reverse", (1,), (96,), (x, y, np.int32(70)), shared=280)
    assert (y == x[::-1]).all()


def test_every_thread_of_every_block_runs_once(right: HostModule) -> None:
    y = np.zeros((24, 30), np.int32)
    right.launch("places", (2, 3, 4), (5, 3, 2), (y,))
    assert (y == 1 + np.arange(30) + 1000 * np.arange(24)[:, None]).all()


def test_warp_collectives(right: HostModule) -> None:
    i = np.arange(64)
    y = np.zeros(4 * 64 + 1, np.uint32)
    right.launch("warps", (1,), (64,), (y, np.int32(64)))
    ballots = [sum(1 << (j % 32) for j in range(w * 32, w * 32 + 32) if j % 3 == 0) for w in (0, 1)]
    assert (y[:64] == np.repeat(ballots, 32)).all()
    assert (y[64:128] == i ^ 5).all()
    assert (y[128:192] == np.where(i % 8 < 2, i, i - 2)).all()
    assert (y[192:256] == 32).all()
    assert y[256] == 64


def test_half_precision_and_null_pointers(right: HostModule) -> None:
    x, y = np.linspace(-2, 2, 40).astype(np.float16), np.zeros(40, np.float16)
    right.launch("halves", (1,), (64,), (x, None, y, np.int32(40)))
    assert (y == x * np.float16(2)).all()
    right.launch("halves", (1,), (64,), (x, np.ones(1, np.float16), y, np.int32(40)))
    assert (y == (x.astype(np.float32) * 2 + 1).astype(np.float16)).all()


def test_a_missing_barrier_shows_in_some_order() -> None:
    x = np.arange(128, dtype=np.float32)
    results = {}
    for order in ORDERS:
        results[order] = zeros(128)
        wrong(order).launch("no_barrier", (1,), (128,), (x, results[order]))
    assert any((y != x[::-1]).any() for y in results.values())


def test_uninitialised_shared_memory_is_nan(order: str) -> None:
    y = zeros(64)
    wrong(order).launch("uninitialised", (1,), (64,), (y,))
    assert (y[:32] == 1).all() and np.isnan(y[32:]).all()


@pytest.mark.parametrize(
    ("kernel", "args", "message"),
    [
        ("divergent", (zeros(64),), "divergent __syncthreads"),
        ("stuck", (zeros(64),), "deadlock: 63 threads wait at __syncthreads and 1 in a warp collective"),
        ("not_in_mask", (zeros(64),), "mask leaves it out"),
        ("past_shared", (zeros(64),), "an index beyond its array"),
        ("past_dynamic", (zeros(64),), "memory that is not the kernel's"),
        ("misaligned", (zeros(64), zeros(64)), "misaligned pointer"),
        ("shift", (zeros(64), np.int32(40)), "shift"),
        ("overflow", (np.zeros(64, np.int32), np.int32(2**20)), "product overflows, line"),
        ("at", (zeros(64), np.int32(64)), "memory that is not the kernel's"),
        ("at", (zeros(64), np.int32(-1000)), "memory that is not the kernel's"),
        ("at", (zeros(63), np.int32(63)), "memory beside an array"),
        ("at", (zeros(64), np.int32(-1)), "memory beside an array"),
    ],
)
def test_a_mistake_is_an_error_that_says_where(kernel: str, args: tuple, message: str, order: str) -> None:
    block = 65 if kernel in ("past_shared", "past_dynamic") else 64
    with pytest.raises(KernelError, match=message):
        wrong(order).launch(kernel, (1,), (block,), args, shared=256 if kernel == "past_dynamic" else 0)


def test_kernels_run_after_one_has_failed(order: str) -> None:
    module = load(RIGHT, order=order)
    with pytest.raises(KernelError):
        wrong(order).launch("stuck", (1,), (64,), (zeros(64),))
    x, y = np.ones((1, 128), np.float32), zeros(1)
    module.launch("block_sum", (1,), (128,), (x, y, np.int32(128)))
    assert y[0] == 128


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((zeros(1), zeros(1)), "takes 3 arguments, 2 given"),
        ((zeros(1), zeros(1), 1), "argument 2 must be i4, int given"),
        ((zeros(1), zeros(1), np.int64(1)), "argument 2 must be i4, int64 int64 given"),
        ((zeros(1).astype(np.float64), zeros(1), np.int32(1)), "argument 0 must be &f4, ndarray float64 given"),
        ((zeros(4)[::2], zeros(1), np.int32(1)), "argument 0 must be &f4"),
    ],
)
def test_arguments_are_checked_against_the_signature(args: tuple, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        load(RIGHT).launch("block_sum", (1,), (32,), args)


@pytest.mark.parametrize(("grid", "block", "shared"), [((0,), (32,), 0), ((1,), (1025,), 0), ((1,), (32,), 49 << 10)])
def test_an_impossible_configuration_is_an_error(grid: tuple, block: tuple, shared: int) -> None:
    with pytest.raises(KernelError, match="invalid configuration"):
        load(RIGHT).launch("reverse", grid, block, (zeros(1), zeros(1), np.int32(1)), shared=shared)
