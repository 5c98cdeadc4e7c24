// Local response normalisation over the channels of each position (Krizhevsky et al. 2012, section 3.3).
//
//   s_i = k + alpha · Σ_{|j − i| <= half} x_j²        y_i = x_i · s_i^(−beta)
//   gx_i = gy_i · s_i^(−beta) − 2·alpha·beta · x_i · t_i,      t_i = Σ_{|j − i| <= half} gy_j · x_j · s_j^(−beta) / s_j
//
// The naive kernel is one thread for each element, which reads its size (5) neighbours; the gradient needs s of all
// neighbours, each from its own neighbours: size² reads and size powers. Here a block takes 8 positions by 32 channels
// and copies what these see into shared memory, once:
//
//   x:           |half|half|  32 channels  |half|half|        size·2 − 1 neighbours, for the gradient
//   s and terms:      |half|  32 channels  |half|             computed once for each channel, read by size threads
//   gx:                    |  32 channels  |
//
// T is float or half.

#include "common.cuh"

constexpr int CHANNELS = 32, POSITIONS = 8;  // of a block

// x² of `count` channels from `first` on, for the position of this thread; 0 for channels that there are not.
__device__ __forceinline__ void load_squares(const T* x, float* squares, int first, int count, int C, bool inside) {
    for (int j = threadIdx.x; j < count; j += CHANNELS) {
        const int c = first + j;
        const float v = inside && 0 <= c && c < C ? float(x[c]) : 0.0f;
        squares[j] = v * v;
    }
}

__device__ __forceinline__ float sum_of(const float* from, int count) {
    float sum = 0.0f;
    for (int j = 0; j < count; ++j) sum += from[j];
    return sum;
}

// Grid: positions, channels. Shared memory: POSITIONS x (CHANNELS + 2·half) floats.
extern "C" __global__ void __launch_bounds__(CHANNELS * POSITIONS) lrn(
    const T* __restrict__ x, T* __restrict__ y, int half_size, float alpha, float beta, float k, int positions, int C) {
    extern __shared__ float shared[];
    const int count = CHANNELS + 2 * half_size, first = blockIdx.y * CHANNELS;
    const int position = blockIdx.x * POSITIONS + threadIdx.y, c = first + threadIdx.x;
    float* squares = shared + threadIdx.y * count;
    load_squares(x + position * C, squares, first - half_size, count, C, position < positions);
    __syncthreads();
    if (position >= positions || c >= C) return;
    const float s = k + alpha * sum_of(squares + threadIdx.x, 2 * half_size + 1);
    y[position * C + c] = float(x[position * C + c]) * powf(s, -beta);
}

// Grid: positions, channels. Shared memory: POSITIONS x (2·CHANNELS + 6·half) floats.
extern "C" __global__ void __launch_bounds__(CHANNELS * POSITIONS) lrn_grad(
    const T* __restrict__ gy, const T* __restrict__ x, T* __restrict__ gx, int half_size, float alpha, float beta,
    float k, int positions, int C) {
    extern __shared__ float shared[];
    const int size = 2 * half_size + 1, count = CHANNELS + 2 * half_size, first = blockIdx.y * CHANNELS;
    const int position = blockIdx.x * POSITIONS + threadIdx.y, c = first + threadIdx.x;
    const bool inside = position < positions;
    float* squares = shared + threadIdx.y * (2 * count + 2 * half_size);
    float* terms = squares + count + 2 * half_size;
    load_squares(x + position * C, squares, first - 2 * half_size, count + 2 * half_size, C, inside);
    __syncthreads();
    for (int j = threadIdx.x; j < count; j += CHANNELS) {
        const int at = first - half_size + j;
        float term = 0.0f;
        if (inside && 0 <= at && at < C) {
            const float s = k + alpha * sum_of(squares + j, size);
            term = float(gy[position * C + at]) * float(x[position * C + at]) * powf(s, -beta) / s;
        }
        terms[j] = term;
    }
    __syncthreads();
    if (!inside || c >= C) return;
    const float s = k + alpha * sum_of(squares + threadIdx.x + half_size, size), t = sum_of(terms + threadIdx.x, size);
    const float direct = float(gy[position * C + c]) * powf(s, -beta);
    gx[position * C + c] = direct - 2.0f * alpha * beta * float(x[position * C + c]) * t;
}
