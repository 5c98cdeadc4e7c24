// Local contrast normalisation (Jarrett et al. 2009, section 2), in the steps of its formulas:
//
//   v = x − blur(mean of x)      σ = √blur(mean of v²)      y = v / d,  d = max(mean of σ over the map, σ, eps)
//
// where "mean" is over the channels of a position and "blur" a Gaussian over the map, which has one channel then: of C
// channels' memory traffic the blurs cost 1/C. What reads a map with its channels does all that it can at once.
// A size x size blur is two blurs of `size` elements, along the columns and along the rows.
//
// A position's channels are summed by one warp. All that is not x, y, gx or gy is float.
//
// T is float or half.

#include "common.cuh"

constexpr int WARPS = 8;  // positions of a block

__device__ __forceinline__ int position_of_warp() { return blockIdx.x * WARPS + threadIdx.x / 32; }

// mean[position] = Σ_c x / C
extern "C" __global__ void __launch_bounds__(32 * WARPS) channel_mean(
    const T* __restrict__ x, float* __restrict__ mean, int positions, int C) {
    const int position = position_of_warp();
    if (position >= positions) return;
    float sum = 0.0f;
    for (int c = threadIdx.x % 32; c < C; c += 32) sum += float(x[position * C + c]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) mean[position] = sum / C;
}

// Gaussian blur of n numbers along one axis, zeros beyond its ends; neighbours lie `stride` apart, the deviation is
// size / 4. Each block first makes the bell, which sums to 1, in shared memory: size floats.
extern "C" __global__ void __launch_bounds__(BLOCK) blur(
    const float* __restrict__ a, float* __restrict__ blurred, int size, int length, int stride, int n) {
    extern __shared__ float bell[];
    for (int j = threadIdx.x; j < size; j += blockDim.x) {
        const float z = float(j - size / 2) / (size / 4.0f);
        bell[j] = expf(-0.5f * z * z);
    }
    __syncthreads();
    const int i = global_thread();
    if (i >= n) return;
    const int at = i / stride % length - size / 2;
    float sum = 0.0f, weights = 0.0f;
    for (int j = 0; j < size; ++j) {
        weights += bell[j];
        if (0 <= at + j && at + j < length) sum += bell[j] * a[i + (j - size / 2) * stride];
    }
    blurred[i] = sum / weights;
}

// v = x − blurred, and the mean of v² over the channels
extern "C" __global__ void __launch_bounds__(32 * WARPS) centre(
    const T* __restrict__ x, const float* __restrict__ blurred, float* __restrict__ v, float* __restrict__ square,
    int positions, int C) {
    const int position = position_of_warp();
    if (position >= positions) return;
    float sum = 0.0f;
    for (int c = threadIdx.x % 32; c < C; c += 32) {
        const float centred = float(x[position * C + c]) - blurred[position];
        v[position * C + c] = centred;
        sum += centred * centred;
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) square[position] = sum / C;
}

// The mean over each image of σ; or, where gd is given, of gd at those positions whose divisor is not σ itself: what
// flows back to the mean. Grid: images.
extern "C" __global__ void __launch_bounds__(BLOCK) map_mean(
    const float* __restrict__ variance, const float* __restrict__ mean /* or null */,
    const float* __restrict__ gd /* or null */, float* __restrict__ result, int HW) {
    __shared__ float shared[BLOCK];
    const int n = blockIdx.x;
    float sum = 0.0f;
    for (int i = threadIdx.y; i < HW; i += blockDim.y) {
        const float sigma = sqrtf(variance[n * HW + i]);
        sum += gd ? (sigma > mean[n] ? 0.0f : gd[n * HW + i]) : sigma;
    }
    sum = column_sum(sum, shared);
    if (threadIdx.y == 0) result[n] = sum / HW;
}

// d of a position, from σ² there and the mean of σ
__device__ __forceinline__ float divisor(float variance, float mean, float eps) {
    return fmaxf(fmaxf(sqrtf(variance), mean), eps);
}

extern "C" __global__ void divide(
    const float* __restrict__ v, const float* __restrict__ variance, const float* __restrict__ mean,
    T* __restrict__ y, float eps, int HW, int C, int n) {
    const int i = global_thread();
    if (i < n) y[i] = v[i] / divisor(variance[i / C], mean[i / C / HW], eps);
}

// ---- Backward -------------------------------------------------------------------------------------------------------
//
//   gd = −Σ_channels gy·v / d²        goes to σ itself where σ > mean, else to the mean, that is equally to all σ
//   gv = gy / d + v / C · blur(gσ / σ)
//   gx = gv − blur(mean of gv)

// gd of each position; nothing flows where eps decides
extern "C" __global__ void __launch_bounds__(32 * WARPS) divisor_grad(
    const T* __restrict__ gy, const float* __restrict__ v, const float* __restrict__ variance,
    const float* __restrict__ mean, float* __restrict__ gd, float eps, int HW, int positions, int C) {
    const int position = position_of_warp();
    if (position >= positions) return;
    float sum = 0.0f;
    for (int c = threadIdx.x % 32; c < C; c += 32) sum += float(gy[position * C + c]) * v[position * C + c];
    sum = warp_sum(sum);
    const float d = divisor(variance[position], mean[position / HW], eps);
    if (threadIdx.x % 32 == 0) gd[position] = d > eps ? -sum / (d * d) : 0.0f;
}

// gσ / σ, where there is a deviation
extern "C" __global__ void deviation_grad(
    const float* __restrict__ gd, const float* __restrict__ variance, const float* __restrict__ mean,
    const float* __restrict__ to_mean, float* __restrict__ ratio, int HW, int positions) {
    const int i = global_thread();
    if (i >= positions) return;
    const float sigma = sqrtf(variance[i]), gsigma = (sigma > mean[i / HW] ? gd[i] : 0.0f) + to_mean[i / HW];
    ratio[i] = sigma > 0.0f ? gsigma / sigma : 0.0f;
}

// gv, in place of v, and its mean over the channels
extern "C" __global__ void __launch_bounds__(32 * WARPS) centre_grad(
    const T* __restrict__ gy, float* __restrict__ v, const float* __restrict__ variance,
    const float* __restrict__ mean, const float* __restrict__ blurred, float* __restrict__ gv_mean, float eps, int HW,
    int positions, int C) {
    const int position = position_of_warp();
    if (position >= positions) return;
    const float d = divisor(variance[position], mean[position / HW], eps), share = blurred[position] / C;
    float sum = 0.0f;
    for (int c = threadIdx.x % 32; c < C; c += 32) {
        const int at = position * C + c;
        const float gv = float(gy[at]) / d + v[at] * share;
        v[at] = gv;
        sum += gv;
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) gv_mean[position] = sum / C;
}

extern "C" __global__ void subtract(
    const float* __restrict__ gv, const float* __restrict__ blurred, T* __restrict__ gx, int C, int n) {
    const int i = global_thread();
    if (i < n) gx[i] = gv[i] - blurred[i / C];
}
