// Batch normalisation over a map as a matrix x (M, C), M = N·H·W: statistics and sums down the columns, and maps.
//
//   y = gamma · (x − mean) / √(var + eps) + beta                 x̂ = (x − mean) / √(var + eps)
//   gbeta = Σ gy      ggamma = Σ gy·x̂      gx = gamma / √(var + eps) · (gy − gbeta / M − x̂ · ggamma / M)
//
// The naive way is one block for each channel, which walks down its column: neighbouring threads then read floats that
// lie C apart, and a card with 64 channels to do uses 64 of its multiprocessors' thousands of places for threads.
// Here a block takes 8, 16 or 32 neighbouring channels and a slice of the rows; a second, small kernel joins what the
// slices got, in their order. How many slices there are depends on the shape alone, so a sum is taken in the same
// order on every card and in every run. Statistics, gamma and beta are float whatever the map is.
//
// T is float or half.

#include "common.cuh"

// ---- Mean and variance ----------------------------------------------------------------------------------------------
//
// E[x²] − E[x]² cancels where the mean is large beside the deviation; subtracting the mean in a second pass reads x
// twice. Welford's way keeps the mean so far and the sum of squares around it, and Chan's formula joins two of these:
//
//   mean = a.mean + (b.mean − a.mean) · b.n / n
//   squares = a.squares + b.squares + (b.mean − a.mean)² · a.n · b.n / n

struct Moments {
    float n, mean, squares;
};

__device__ __forceinline__ Moments join(const Moments& a, const Moments& b) {
    const float n = a.n + b.n, apart = b.mean - a.mean;
    if (b.n == 0.0f) return a;
    const float share = b.n / n;
    return {n, a.mean + apart * share, a.squares + b.squares + apart * apart * a.n * share};
}

// Of the column of a thread; valid where threadIdx.y is 0.
__device__ __forceinline__ Moments column_join(Moments mine) {
    __shared__ Moments shared[BLOCK];
    const int at = threadIdx.y * blockDim.x + threadIdx.x;
    shared[at] = mine;
    __syncthreads();
    for (int half_of = blockDim.y / 2; half_of > 0; half_of /= 2) {
        if (threadIdx.y < half_of) shared[at] = join(shared[at], shared[at + half_of * blockDim.x]);
        __syncthreads();
    }
    return shared[at];
}

// Grid: slices of rows, blocks of channels. parts (slices, 2, C): mean and squares of each slice.
extern "C" __global__ void __launch_bounds__(BLOCK) stats_of_slices(
    const T* __restrict__ x, float* __restrict__ parts, int slice, int M, int C) {
    const int c = blockIdx.y * blockDim.x + threadIdx.x, end = min(M, (int(blockIdx.x) + 1) * slice);
    Moments sum = {0.0f, 0.0f, 0.0f};
    if (c < C)
        for (int row = blockIdx.x * slice + threadIdx.y; row < end; row += blockDim.y) {
            const float apart = float(x[row * C + c]) - sum.mean;
            sum.n += 1.0f;
            sum.mean += apart / sum.n;
            sum.squares += apart * (float(x[row * C + c]) - sum.mean);
        }
    sum = column_join(sum);
    if (threadIdx.y > 0 || c >= C) return;
    parts[blockIdx.x * 2 * C + c] = sum.mean;
    parts[blockIdx.x * 2 * C + C + c] = sum.squares;
}

// Grid: blocks of channels.
extern "C" __global__ void __launch_bounds__(BLOCK) join_stats(
    const float* __restrict__ parts, float* __restrict__ mean, float* __restrict__ var, int slices, int slice, int M,
    int C) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    Moments sum = {0.0f, 0.0f, 0.0f};
    if (c < C)
        for (int part = threadIdx.y; part < slices; part += blockDim.y) {
            const int rows = min(slice, M - part * slice);
            sum = join(sum, {float(rows), parts[part * 2 * C + c], parts[part * 2 * C + C + c]});
        }
    sum = column_join(sum);
    if (threadIdx.y > 0 || c >= C) return;
    mean[c] = sum.mean;
    var[c] = sum.squares / M;
}

// running = (1 − momentum) · running + momentum · new, in place; the variance unbiased by count / (count − 1)
extern "C" __global__ void update_running(
    float* __restrict__ running_mean, float* __restrict__ running_var, const float* __restrict__ mean,
    const float* __restrict__ var, float momentum, float unbias, int C) {
    const int c = global_thread();
    if (c >= C) return;
    running_mean[c] += momentum * (mean[c] - running_mean[c]);
    running_var[c] += momentum * (unbias * var[c] - running_var[c]);
}

// ---- Forward: normalise, add the residual, rectify in one pass ------------------------------------------------------

// Grid: slices of rows, blocks of channels. A thread keeps what belongs to its channel, and goes down its slice.
extern "C" __global__ void __launch_bounds__(BLOCK) normalise(
    const T* __restrict__ x, const float* __restrict__ gamma, const float* __restrict__ beta,
    const float* __restrict__ mean, const float* __restrict__ var, const T* __restrict__ residual /* or null */,
    T* __restrict__ y, bool rectify, float eps, int slice, int M, int C) {
    const int c = blockIdx.y * blockDim.x + threadIdx.x, end = min(M, (int(blockIdx.x) + 1) * slice);
    if (c >= C) return;
    const float centre = mean[c], scale = gamma[c] / sqrtf(var[c] + eps), shift = beta[c];
    for (int row = blockIdx.x * slice + threadIdx.y; row < end; row += blockDim.y) {
        const int at = row * C + c;
        float v = (float(x[at]) - centre) * scale + shift;
        if (residual) v += float(residual[at]);
        y[at] = rectify && v < 0.0f ? 0.0f : v;
    }
}

// ---- Backward -------------------------------------------------------------------------------------------------------

// gbeta and ggamma of each slice: parts (slices, 2, C). Where y is given, y = relu(...): gradients pass where y > 0,
// and what passes is also written to gresidual. Grid: slices of rows, blocks of channels.
extern "C" __global__ void __launch_bounds__(BLOCK) grads_of_slices(
    const T* __restrict__ gy, const T* __restrict__ y /* or null */, const T* __restrict__ x,
    const float* __restrict__ mean, const float* __restrict__ var, T* __restrict__ gresidual /* or null */,
    float* __restrict__ parts, float eps, int slice, int M, int C) {
    __shared__ float shared[BLOCK];
    const int c = blockIdx.y * blockDim.x + threadIdx.x, end = min(M, (int(blockIdx.x) + 1) * slice);
    float gbeta = 0.0f, ggamma = 0.0f;
    if (c < C) {
        const float centre = mean[c], inv_std = 1.0f / sqrtf(var[c] + eps);
        for (int row = blockIdx.x * slice + threadIdx.y; row < end; row += blockDim.y) {
            const int at = row * C + c;
            float g = gy[at];
            if (y) {
                g = float(y[at]) > 0.0f ? g : 0.0f;
                gresidual[at] = g;
            }
            gbeta += g;
            ggamma += g * ((float(x[at]) - centre) * inv_std);
        }
    }
    gbeta = column_sum(gbeta, shared);
    ggamma = column_sum(ggamma, shared);
    if (threadIdx.y > 0 || c >= C) return;
    parts[blockIdx.x * 2 * C + c] = gbeta;
    parts[blockIdx.x * 2 * C + C + c] = ggamma;
}

// gb of a bias: the sum of each channel. parts (slices, C). Grid: slices of rows, blocks of channels.
extern "C" __global__ void __launch_bounds__(BLOCK) sums_of_slices(
    const T* __restrict__ gy, float* __restrict__ parts, int slice, int M, int C) {
    __shared__ float shared[BLOCK];
    const int c = blockIdx.y * blockDim.x + threadIdx.x, end = min(M, (int(blockIdx.x) + 1) * slice);
    float sum = 0.0f;
    if (c < C)
        for (int row = blockIdx.x * slice + threadIdx.y; row < end; row += blockDim.y) sum += float(gy[row * C + c]);
    sum = column_sum(sum, shared);
    if (threadIdx.y == 0 && c < C) parts[blockIdx.x * C + c] = sum;
}

// sums[i] = Σ_part parts[part, i]. Grid: blocks of columns.
extern "C" __global__ void __launch_bounds__(BLOCK) join_sums(
    const float* __restrict__ parts, float* __restrict__ sums, int slices, int columns) {
    __shared__ float shared[BLOCK];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0.0f;
    if (i < columns)
        for (int part = threadIdx.y; part < slices; part += blockDim.y) sum += parts[part * columns + i];
    sum = column_sum(sum, shared);
    if (threadIdx.y == 0 && i < columns) sums[i] = sum;
}

// gx by the formula above; without sums, where mean and var are constants, gamma / √(var + eps) · gy.
// Grid: slices of rows, blocks of channels.
extern "C" __global__ void __launch_bounds__(BLOCK) normalise_grad(
    const T* __restrict__ gy, const T* __restrict__ x, const float* __restrict__ gamma,
    const float* __restrict__ mean, const float* __restrict__ var, const float* __restrict__ sums /* or null */,
    T* __restrict__ gx, float eps, int slice, int M, int C) {
    const int c = blockIdx.y * blockDim.x + threadIdx.x, end = min(M, (int(blockIdx.x) + 1) * slice);
    if (c >= C) return;
    const float centre = mean[c], inv_std = 1.0f / sqrtf(var[c] + eps), scale = gamma[c] * inv_std;
    const float gbeta = sums ? sums[c] / M : 0.0f, ggamma = sums ? sums[C + c] / M : 0.0f;
    for (int row = blockIdx.x * slice + threadIdx.y; row < end; row += blockDim.y) {
        const int at = row * C + c;
        gx[at] = scale * (float(gy[at]) - gbeta - (float(x[at]) - centre) * inv_std * ggamma);
    }
}
