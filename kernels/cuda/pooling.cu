// Pooling: the largest value or the mean of each window, and their gradients.
//
// A block is some positions by some channels: neighbouring threads take neighbouring channels, and a window's elements,
// which windows share, come from memory once and from the cache then. Nothing is summed by two threads: forward a
// thread has an output and looks through its window; backward it has an input and looks through the windows that it is
// in, instead of each output adding to its inputs with an atomicAdd.
//
// T is float or half.
// WINNER is unsigned char or int.

#include "common.cuh"

// The winner is the tap kh·KW + kw of the first maximum; of several NaN the last wins; padding never does.
extern "C" __global__ void __launch_bounds__(BLOCK) max_pool(
    const T* __restrict__ x, T* __restrict__ y, WINNER* __restrict__ winners, int positions, int H, int W, int C,
    int OH, int OW, int KH, int KW, int SH, int SW, int PH, int PW) {
    const int position = blockIdx.x * blockDim.y + threadIdx.y;
    if (position >= positions) return;
    const int ow = position % OW, oh = position / OW % OH, n = position / OW / OH;
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        float best = __int_as_float(0xff800000);  // −∞
        int winner = 0;
        for (int kh = 0; kh < KH; ++kh) {
            const int h = oh * SH - PH + kh;
            if (h < 0 || h >= H) continue;
            for (int kw = 0; kw < KW; ++kw) {
                const int w = ow * SW - PW + kw;
                if (w < 0 || w >= W) continue;
                const float candidate = x[((n * H + h) * W + w) * C + c];
                if (candidate > best || candidate != candidate) {
                    best = candidate;
                    winner = kh * KW + kw;
                }
            }
        }
        y[position * C + c] = best;
        winners[position * C + c] = winner;
    }
}

// gx[n, h, w, c] = Σ gy of the windows that it won
extern "C" __global__ void __launch_bounds__(BLOCK) max_pool_grad(
    const T* __restrict__ gy, const WINNER* __restrict__ winners, T* __restrict__ gx, int positions, int H, int W,
    int C, int OH, int OW, int KH, int KW, int SH, int SW, int PH, int PW) {
    const int position = blockIdx.x * blockDim.y + threadIdx.y;
    if (position >= positions) return;
    const int w = position % W, h = position / W % H, n = position / W / H;
    const Under row(h + PH, SH), column(w + PW, SW);
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        float sum = 0.0f;
        Under r = row;
        for (int kh = 0; kh < KH; ++kh, r.next_tap(SH, 1)) {
            if (!r.is(OH)) continue;
            Under s = column;
            for (int kw = 0; kw < KW; ++kw, s.next_tap(SW, 1)) {
                const int from = ((n * OH + r.window) * OW + s.window) * C + c;
                if (s.is(OW) && winners[from] == kh * KW + kw) sum += float(gy[from]);
            }
        }
        gx[position * C + c] = sum;
    }
}

// How many positions of a window count: those from `low` up to `high`, the map's or the padded map's.
__device__ __forceinline__ int counted(int start, int size, int low, int high) {
    return min(start + size, high) - max(start, low);
}

extern "C" __global__ void __launch_bounds__(BLOCK) avg_pool(
    const T* __restrict__ x, T* __restrict__ y, int positions, int H, int W, int C, int OH, int OW, int KH, int KW,
    int SH, int SW, int PH, int PW, int top, int bottom, int left, int right) {
    const int position = blockIdx.x * blockDim.y + threadIdx.y;
    if (position >= positions) return;
    const int ow = position % OW, oh = position / OW % OH, n = position / OW / OH;
    const int h0 = oh * SH - PH, w0 = ow * SW - PW;
    const float elements = counted(h0, KH, top, bottom) * counted(w0, KW, left, right);
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        float sum = 0.0f;
        for (int h = max(h0, 0); h < min(h0 + KH, H); ++h)
            for (int w = max(w0, 0); w < min(w0 + KW, W); ++w) sum += float(x[((n * H + h) * W + w) * C + c]);
        y[position * C + c] = sum / elements;
    }
}

// gx[n, h, w, c] = Σ gy / elements of the windows that it is in
extern "C" __global__ void __launch_bounds__(BLOCK) avg_pool_grad(
    const T* __restrict__ gy, T* __restrict__ gx, int positions, int H, int W, int C, int OH, int OW, int KH, int KW,
    int SH, int SW, int PH, int PW, int top, int bottom, int left, int right) {
    const int position = blockIdx.x * blockDim.y + threadIdx.y;
    if (position >= positions) return;
    const int w = position % W, h = position / W % H, n = position / W / H;
    const Under row(h + PH, SH), column(w + PW, SW);
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        float sum = 0.0f;
        Under r = row;
        for (int kh = 0; kh < KH; ++kh, r.next_tap(SH, 1)) {
            if (!r.is(OH)) continue;
            const int rows = counted(r.window * SH - PH, KH, top, bottom);
            Under s = column;
            for (int kw = 0; kw < KW; ++kw, s.next_tap(SW, 1)) {
                if (!s.is(OW)) continue;
                const int elements = rows * counted(s.window * SW - PW, KW, left, right);
                sum += float(gy[((n * OH + r.window) * OW + s.window) * C + c]) / elements;
            }
        }
        gx[position * C + c] = sum;
    }
}

// The mean of each channel over an image's H·W positions. Grid: blocks of channels, images.
extern "C" __global__ void __launch_bounds__(BLOCK) global_avg_pool(
    const T* __restrict__ x, T* __restrict__ y, int HW, int C) {
    __shared__ float shared[BLOCK];
    const int c = blockIdx.x * blockDim.x + threadIdx.x, n = blockIdx.y;
    float sum = 0.0f;
    if (c < C)
        for (int position = threadIdx.y; position < HW; position += blockDim.y)
            sum += float(x[(n * HW + position) * C + c]);
    sum = column_sum(sum, shared);
    if (threadIdx.y == 0 && c < C) y[n * C + c] = sum / HW;
}

// Each position gets the same share, gy / (H·W).
extern "C" __global__ void global_avg_pool_grad(
    const T* __restrict__ gy, T* __restrict__ gx, int HW, int C, int n) {
    const int i = global_thread();
    if (i < n) gx[i] = float(gy[i / C / HW * C + i % C]) / HW;
}
