// Convolution as a matrix product whose left matrix is never stored: "implicit GEMM".
//
//   y[row, o]  = Σ_k  A[row, k] · w[k, o]        row = (n, oh, ow)      k = (kh, kw, c)      A = im2col(x)
//   gx[row, c] = Σ_k  A[row, k] · wᵀ[k, c]       row = (n, h, w)        k = (kh, kw, o)      A gathers gy
//   gw[k, o]   = Σ_row A[row, k] · gy[row, o]    the same A as forward, transposed
//
// The reference kernel is one thread for each output and a loop over k. It reads two floats for each multiplication,
// and a card can multiply some fifty times faster than it can read:
//
//   float sum = 0;
//   for (int k = 0; k < K; ++k) sum += A(row, k) * B(k, column);
//
// Here a block of 256 threads computes a tile of 64 x 64 outputs. For 16 values of k at a time it copies a 64 x 16
// piece of A and a 16 x 64 piece of B to shared memory, which all its threads then read: each float from memory is used
// 64 times. A thread keeps 4 x 4 outputs in registers: of each k it reads 4 + 4 floats from shared memory for 16
// multiplications.
//
//              16 x 64 of B               thread (ty, tx), 16 x 16 of them, has rows ty + 16·i
//             +--------------+                        and columns tx + 16·j of the tile
//   64 x 16   |   64 x 64    |
//   of A      |   outputs    |            Where an element of A lies in x is worked out as it is copied. Its row's
//             +--------------+            share of that, the divisions, is done once and kept: struct Row or Tap.
//
// G groups of channels are G independent products: blockIdx.z says which.
//
// T is float or half.

#include "common.cuh"

constexpr int TILE = 64;      // rows and columns of outputs of a block
constexpr int DEPTH = 16;     // values of k at a time
constexpr int THREADS = 256;  // of a block: 16 x 16, with 4 x 4 outputs each
constexpr int PER_THREAD = 4;
constexpr int PITCH = TILE + 1;  // of a row in shared memory: 16 threads that write a column then hit 16 banks

struct Shape {
    int H, W, C, O, OH, OW, KH, KW, SH, SW, PH, PW, DH, DW, G;
};

// A position in the outputs, as the input position of its window's first tap; a row that is none has h out of sight.
struct Row {
    int image, h, w;
};
// A tap of the filter and a channel in the group; one that is none has kh < 0.
struct Tap {
    int kh, kw, c;
};

__device__ __forceinline__ Row row_of_output(const Shape& s, int row, int rows) {
    if (row >= rows) return {0, -(1 << 30), 0};
    const int ow = row % s.OW, oh = row / s.OW % s.OH;
    return {row / s.OW / s.OH, oh * s.SH - s.PH, ow * s.SW - s.PW};
}

__device__ __forceinline__ Tap tap_of(const Shape& s, int k, int channels) {
    if (k >= s.KH * s.KW * channels) return {-1, 0, 0};
    const int tap = k / channels;
    return {tap / s.KW, tap % s.KW, k - tap * channels};
}

// A of im2col: what tap t of the window at r sees in group g.
__device__ __forceinline__ float seen(const T* x, const Shape& s, const Row& r, const Tap& t, int g) {
    const int h = r.h + t.kh * s.DH, w = r.w + t.kw * s.DW;
    if (t.kh < 0 || h < 0 || h >= s.H || w < 0 || w >= s.W) return 0.0f;
    return x[((r.image * s.H + h) * s.W + w) * s.C + g * (s.C / s.G) + t.c];
}

// Multiply what lies in shared memory, and add it to the outputs of this thread.
__device__ __forceinline__ void multiply(
    const float (&a)[DEPTH][PITCH], const float (&b)[DEPTH][TILE], float (&sum)[PER_THREAD][PER_THREAD]) {
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
    for (int k = 0; k < DEPTH; ++k) {
        float ak[PER_THREAD], bk[PER_THREAD];
#pragma unroll
        for (int i = 0; i < PER_THREAD; ++i) {
            ak[i] = a[k][ty + 16 * i];
            bk[i] = b[k][tx + 16 * i];
        }
#pragma unroll
        for (int i = 0; i < PER_THREAD; ++i)
#pragma unroll
            for (int j = 0; j < PER_THREAD; ++j) sum[i][j] += ak[i] * bk[j];
    }
}

// y = conv2d(x, w) + b + residual, then ReLU if asked. Grid: tiles of rows, tiles of a group's outputs, groups.
extern "C" __global__ void __launch_bounds__(THREADS) conv2d(
    const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ b /* or null */,
    const T* __restrict__ residual /* or null */, T* __restrict__ y, bool rectify, int N, int H, int W, int C, int O,
    int OH, int OW, int KH, int KW, int SH, int SW, int PH, int PW, int DH, int DW, int G) {
    const Shape s = {H, W, C, O, OH, OW, KH, KW, SH, SW, PH, PW, DH, DW, G};
    const int rows = N * OH * OW, g = blockIdx.z, channels = C / G, outputs = O / G, K = KH * KW * channels;
    const int first_row = blockIdx.x * TILE, first_o = blockIdx.y * TILE;
    __shared__ float as[DEPTH][PITCH], bs[DEPTH][TILE];

    // To copy, a thread takes value k = thread % 16 of four rows (neighbours read neighbouring channels)...
    const int a_k = threadIdx.x % DEPTH, a_row = threadIdx.x / DEPTH;
    Row r[PER_THREAD];
    for (int i = 0; i < PER_THREAD; ++i) r[i] = row_of_output(s, first_row + a_row + 16 * i, rows);
    // ... and output thread % 64 of four values k.
    const int b_o = threadIdx.x % TILE, b_k = threadIdx.x / TILE;

    float sum[PER_THREAD][PER_THREAD] = {};
    for (int k0 = 0; k0 < K; k0 += DEPTH) {
        const Tap t = tap_of(s, k0 + a_k, channels);
#pragma unroll
        for (int i = 0; i < PER_THREAD; ++i) {
            as[a_k][a_row + 16 * i] = seen(x, s, r[i], t, g);
            const int k = k0 + b_k + 4 * i, o = first_o + b_o;
            bs[b_k + 4 * i][b_o] = k < K && o < outputs ? float(w[k * O + g * outputs + o]) : 0.0f;
        }
        __syncthreads();
        multiply(as, bs, sum);
        __syncthreads();
    }
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    for (int i = 0; i < PER_THREAD; ++i)
        for (int j = 0; j < PER_THREAD; ++j) {
            const int row = first_row + ty + 16 * i, o = first_o + tx + 16 * j;
            if (row >= rows || o >= outputs) continue;
            const int at = row * O + g * outputs + o;
            float v = sum[i][j];
            if (b) v += float(b[g * outputs + o]);
            if (residual) v += float(residual[at]);
            y[at] = rectify && v < 0.0f ? 0.0f : v;
        }
}

// Which of `outputs` windows starts at `start`, counted from the padding's edge; −1 for none.
__device__ __forceinline__ int window_of(int start, int stride, int outputs) {
    return start >= 0 && start % stride == 0 && start / stride < outputs ? start / stride : -1;
}

// gx: each input position gathers from the windows that saw it.
// Grid: tiles of positions, tiles of a group's channels, groups.
extern "C" __global__ void __launch_bounds__(THREADS) conv2d_input_grad(
    const T* __restrict__ gy, const T* __restrict__ w, T* __restrict__ gx, int N, int H, int W, int C, int O,
    int OH, int OW, int KH, int KW, int SH, int SW, int PH, int PW, int DH, int DW, int G) {
    const Shape s = {H, W, C, O, OH, OW, KH, KW, SH, SW, PH, PW, DH, DW, G};
    const int rows = N * H * W, g = blockIdx.z, channels = C / G, outputs = O / G, K = KH * KW * outputs;
    const int first_row = blockIdx.x * TILE, first_c = blockIdx.y * TILE;
    __shared__ float as[DEPTH][PITCH], bs[DEPTH][TILE];

    const int a_k = threadIdx.x % DEPTH, a_row = threadIdx.x / DEPTH;
    Row r[PER_THREAD];  // input positions, counted from the padding's edge
    for (int i = 0; i < PER_THREAD; ++i) {
        const int row = first_row + a_row + 16 * i;
        r[i] = {row / W / H, row < rows ? row / W % H + PH : -1, row % W + PW};
    }
    const int b_c = threadIdx.x % TILE, b_k = threadIdx.x / TILE;

    float sum[PER_THREAD][PER_THREAD] = {};
    for (int k0 = 0; k0 < K; k0 += DEPTH) {
        const Tap t = tap_of(s, k0 + a_k, outputs);  // its channel is an output channel
#pragma unroll
        for (int i = 0; i < PER_THREAD; ++i) {
            const int oh = t.kh < 0 ? -1 : window_of(r[i].h - t.kh * DH, SH, OH);
            const int ow = window_of(r[i].w - t.kw * DW, SW, OW);
            const bool saw = oh >= 0 && ow >= 0;
            const int from = ((r[i].image * OH + oh) * OW + ow) * O + g * outputs + t.c;
            as[a_k][a_row + 16 * i] = saw ? float(gy[from]) : 0.0f;
            const int k = k0 + b_k + 4 * i, tap = k / outputs, o = k - tap * outputs, c = first_c + b_c;
            const bool there = k < K && c < channels;
            bs[b_k + 4 * i][b_c] = there ? float(w[(tap * channels + c) * O + g * outputs + o]) : 0.0f;
        }
        __syncthreads();
        multiply(as, bs, sum);
        __syncthreads();
    }
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    for (int i = 0; i < PER_THREAD; ++i)
        for (int j = 0; j < PER_THREAD; ++j) {
            const int row = first_row + ty + 16 * i, c = first_c + tx + 16 * j;
            if (row < rows && c < channels) gx[row * C + g * channels + c] = sum[i][j];
        }
}

// gw: the sum runs over all N·OH·OW rows, and there are few outputs to share among blocks. So it is cut into slices of
// `slice` rows, each a block's own, and sum_slices adds up what they got: in the order of the slices, where an
// atomicAdd would add in the order in which blocks end. Grid: tiles of k, tiles of a group's outputs, groups x slices.
extern "C" __global__ void __launch_bounds__(THREADS) conv2d_weight_grad(
    const T* __restrict__ gy, const T* __restrict__ x, float* __restrict__ parts, int slice, int N, int H, int W,
    int C, int O, int OH, int OW, int KH, int KW, int SH, int SW, int PH, int PW, int DH, int DW, int G) {
    const Shape s = {H, W, C, O, OH, OW, KH, KW, SH, SW, PH, PW, DH, DW, G};
    const int g = blockIdx.z % G, part = blockIdx.z / G, channels = C / G, outputs = O / G, K = KH * KW * channels;
    const int rows = min(N * OH * OW, (part + 1) * slice);
    const int first_k = blockIdx.x * TILE, first_o = blockIdx.y * TILE;
    __shared__ float as[DEPTH][PITCH], bs[DEPTH][TILE];

    // The product's depth is `row` here: a thread copies of four rows the value k = thread % 64 and output thread % 64.
    const int at = threadIdx.x % TILE, depth = threadIdx.x / TILE;
    const Tap t = tap_of(s, first_k + at, channels);

    float sum[PER_THREAD][PER_THREAD] = {};
    for (int row0 = part * slice; row0 < rows; row0 += DEPTH) {
#pragma unroll
        for (int i = 0; i < PER_THREAD; ++i) {
            const int d = depth + 4 * i, row = row0 + d, o = first_o + at;
            as[d][at] = seen(x, s, row_of_output(s, row, rows), t, g);
            bs[d][at] = row < rows && o < outputs ? float(gy[row * O + g * outputs + o]) : 0.0f;
        }
        __syncthreads();
        multiply(as, bs, sum);
        __syncthreads();
    }
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    for (int i = 0; i < PER_THREAD; ++i)
        for (int j = 0; j < PER_THREAD; ++j) {
            const int k = first_k + ty + 16 * i, o = first_o + tx + 16 * j;
            if (k < K && o < outputs) parts[(part * K + k) * O + g * outputs + o] = sum[i][j];
        }
}

// gw[i] = Σ_part parts[part, i], in order
extern "C" __global__ void sum_slices(const float* __restrict__ parts, T* __restrict__ gw, int slices, int n) {
    const int i = global_thread();
    if (i >= n) return;
    float sum = 0.0f;
    for (int part = 0; part < slices; ++part) sum += parts[part * n + i];
    gw[i] = sum;
}
