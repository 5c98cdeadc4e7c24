// Softmax and cross-entropy over the rows of a matrix (N, K): a warp of 32 threads for each row.
//
//   p = e^(x − max) / Σ e^(x − max)         loss = −Σ_k q_k log p_k        log p = x − max − log Σ e^(x − max)
//
// The naive version is three kernels, for the maximum, the sum and the quotient, each of which reads the matrix from
// memory. Here the row's later readings come from the cache, and the threads of the warp reduce among themselves by
// exchanging registers: no shared memory, no barrier. Ten classes keep ten threads busy, a thousand all of them.
//
// T is float or half.

#include "common.cuh"

constexpr int WARPS = 4;  // rows of a block

__device__ __forceinline__ float warp_max(float value) {
    for (int distance = 16; distance > 0; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

// The row of this thread's warp. All of a warp's threads have the same: they leave together, or none does.
__device__ __forceinline__ int row_of_warp() { return blockIdx.x * WARPS + threadIdx.x / 32; }

struct Scale {
    float max, sum;
};

// The largest of a row, and Σ e^(x − max). fmaxf passes over a NaN, which then makes the sum NaN.
__device__ __forceinline__ Scale scale_of(const T* x, int K) {
    float largest = __int_as_float(0xff800000), sum = 0.0f;  // −∞
    for (int k = threadIdx.x % 32; k < K; k += 32) largest = fmaxf(largest, float(x[k]));
    largest = warp_max(largest);
    for (int k = threadIdx.x % 32; k < K; k += 32) sum += expf(float(x[k]) - largest);
    return {largest, warp_sum(sum)};
}

extern "C" __global__ void __launch_bounds__(32 * WARPS) softmax(
    const T* __restrict__ x, T* __restrict__ y, int N, int K) {
    const int row = row_of_warp();
    if (row >= N) return;
    const Scale s = scale_of(x + row * K, K);
    for (int k = threadIdx.x % 32; k < K; k += 32) y[row * K + k] = expf(float(x[row * K + k]) - s.max) / s.sum;
}

// gx = y · (gy − Σ gy·y)
extern "C" __global__ void __launch_bounds__(32 * WARPS) softmax_grad(
    const T* __restrict__ gy, const T* __restrict__ y, T* __restrict__ gx, int N, int K) {
    const int row = row_of_warp();
    if (row >= N) return;
    float sum = 0.0f;
    for (int k = threadIdx.x % 32; k < K; k += 32) sum += float(gy[row * K + k]) * float(y[row * K + k]);
    sum = warp_sum(sum);
    for (int k = threadIdx.x % 32; k < K; k += 32)
        gx[row * K + k] = float(y[row * K + k]) * (float(gy[row * K + k]) - sum);
}

// q: one for the class that labels[row] names, or the row of `targets`; mixed with the uniform distribution.
__device__ __forceinline__ float target(
    const int* labels, const T* targets, float smoothing, int row, int k, int K) {
    const float q = labels ? float(labels[row] == k) : float(targets[row * K + k]);
    return (1.0f - smoothing) * q + smoothing / K;
}

extern "C" __global__ void __launch_bounds__(32 * WARPS) cross_entropy(
    const T* __restrict__ logits, const int* __restrict__ labels /* or null */,
    const T* __restrict__ targets /* or null */, T* __restrict__ losses, T* __restrict__ p, float smoothing, int N,
    int K) {
    const int row = row_of_warp();
    if (row >= N) return;
    const Scale s = scale_of(logits + row * K, K);
    const float log_sum = logf(s.sum);
    float loss = 0.0f;
    for (int k = threadIdx.x % 32; k < K; k += 32) {
        const float log_p = float(logits[row * K + k]) - s.max - log_sum;
        const float q = target(labels, targets, smoothing, row, k, K);
        p[row * K + k] = expf(log_p);
        if (q > 0.0f) loss -= q * log_p;  // 0 · log 0 = 0
    }
    loss = warp_sum(loss);
    // The host does not look at labels, which would make it wait. A class that there is not is seen by its loss: NaN.
    if (labels && (labels[row] < 0 || labels[row] >= K)) loss = __int_as_float(0x7fffffff);
    if (threadIdx.x % 32 == 0) losses[row] = loss;
}

// glogits = glosses · (p · Σ q − q)
extern "C" __global__ void __launch_bounds__(32 * WARPS) cross_entropy_grad(
    const T* __restrict__ glosses, const T* __restrict__ p, const int* __restrict__ labels /* or null */,
    const T* __restrict__ targets /* or null */, T* __restrict__ glogits, float smoothing, int N, int K) {
    const int row = row_of_warp();
    if (row >= N) return;
    float sum = 0.0f;
    for (int k = threadIdx.x % 32; k < K; k += 32) sum += target(labels, targets, smoothing, row, k, K);
    sum = warp_sum(sum);
    const float g = glosses[row];
    for (int k = threadIdx.x % 32; k < K; k += 32) {
        const float q = target(labels, targets, smoothing, row, k, K);
        glogits[row * K + k] = g * (float(p[row * K + k]) * sum - q);
    }
}
