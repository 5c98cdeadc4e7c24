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

// What follows a matrix product, in place: y + b + residual, then ReLU if asked. b goes by channel: (O,).
extern "C" __global__ void finish(
    T* __restrict__ y, const T* __restrict__ b /* or null */, const T* __restrict__ residual /* or null */,
    bool rectify, int O, int n) {
    const int i = global_thread();
    if (i >= n) return;
    float v = y[i];
    if (b) v += float(b[i % O]);
    if (residual) v += float(residual[i]);
    y[i] = rectify && v < 0.0f ? 0.0f : v;
}

// y = 1 / (1 + e^−x), with e^−|x|, which cannot overflow
extern "C" __global__ void sigmoid(const T* __restrict__ x, T* __restrict__ y, int n) {
    const int i = global_thread();
    if (i >= n) return;
    const float v = x[i], e = expf(-fabsf(v));
    y[i] = (v < 0.0f ? e : 1.0f) / (1.0f + e);
}

// gx = gy · y·(1 − y)
extern "C" __global__ void sigmoid_grad(
    const T* __restrict__ gy, const T* __restrict__ y, T* __restrict__ gx, int n) {
    const int i = global_thread();
    if (i < n) gx[i] = float(gy[i]) * (float(y[i]) * (1.0f - float(y[i])));
}

extern "C" __global__ void hyperbolic_tangent(const T* __restrict__ x, T* __restrict__ y, int n) {
    const int i = global_thread();
    if (i < n) y[i] = tanhf(x[i]);
}

// gx = gy · (1 − y²)
extern "C" __global__ void hyperbolic_tangent_grad(
    const T* __restrict__ gy, const T* __restrict__ y, T* __restrict__ gx, int n) {
    const int i = global_thread();
    if (i < n) gx[i] = float(gy[i]) * (1.0f - float(y[i]) * float(y[i]));
}
