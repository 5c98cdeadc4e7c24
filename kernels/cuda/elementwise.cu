// One output element from the same element of each input: one thread each.
//
// These kernels wait for memory, not for arithmetic, so all that can be done is to touch each byte once: neighbouring
// threads take neighbouring elements, a warp reads 128 bytes at a time, and what would be two kernels in a row is one.

// T is float or half.

#include "common.cuh"

// y = max(x, 0). Written so that a NaN stays a NaN: every comparison with it is false.
extern "C" __global__ void relu(const T* __restrict__ x, T* __restrict__ y, int n) {
    const int i = global_thread();
    if (i >= n) return;
    const float v = x[i];
    y[i] = v < 0.0f ? 0.0f : v;
}

// gx = gy where y > 0, else 0
extern "C" __global__ void relu_grad(const T* __restrict__ gy, const T* __restrict__ y, T* __restrict__ gx, int n) {
    const int i = global_thread();
    if (i < n) gx[i] = float(y[i]) > 0.0f ? float(gy[i]) : 0.0f;
}
