// The windows of a map side by side (im2col), and their way back (col2im). With them convolution is a matrix product.
//
//   x (N, H, W, C)                       col (N·OH·OW, KH·KW·C): row (n, oh, ow) is the window under that output
//
//   w0 . . . . . .                       kh=0: w0 w0 w0 | kh=1: .  .  .  | kh=2: ...
//   .  . . . . . .      ->               the next window, SW columns further: ...
//
// T is float or half.
// UNIT is float or half or unsigned long long.

#include "common.cuh"

// Naive: one thread for each element of col, which divides its index by C, KW, KH, OW and OH to find out where it is.
// The five divisions cost more than the memory access. Here a thread knows its window from two divisions, and walks
// through it. The KW·C elements of a window's row lie side by side in x as in col (unless dilated), so the 32 threads
// of a warp copy 32 neighbours at a time.
//
// A copy does not care what it copies: where two floats or four halves of neighbouring channels always go together,
// they are one UNIT of 8 bytes, and C counts those. That takes half the instructions or a quarter of them.
//
// `first` is the row of col that the call starts with: a caller makes as many rows as stay in the L2 cache, multiplies
// them, and reuses their memory for the next ones.
extern "C" __global__ void __launch_bounds__(256) im2col(
    const UNIT* __restrict__ x, UNIT* __restrict__ col, int first, int rows, int H, int W, int C, int OH, int OW,
    int KH, int KW, int SH, int SW, int PH, int PW, int DH, int DW) {
    const int r = blockIdx.x * blockDim.y + threadIdx.y;
    if (r >= rows) return;
    const int ow = (first + r) % OW, oh = (first + r) / OW % OH, n = (first + r) / OW / OH;
    const int line = KW * C;
    for (int kh = 0; kh < KH; ++kh) {
        const int h = oh * SH - PH + kh * DH;
        for (int j = threadIdx.x; j < line; j += blockDim.x) {
            const int kw = j / C, c = j - kw * C, w = ow * SW - PW + kw * DW;
            const bool inside = 0 <= h && h < H && 0 <= w && w < W;
            col[(r * KH + kh) * line + j] = inside ? x[((n * H + h) * W + w) * C + c] : static_cast<UNIT>(0);
        }
    }
}

// The adjoint: gx[n, h, w, c] is the sum of the taps that were read from there.
//
// Naive: each element of col adds itself to its place in x with an atomicAdd, in whatever order the threads come: the
// last bits then differ from run to run. Here each element of gx collects its taps instead, in a fixed order.
extern "C" __global__ void __launch_bounds__(256) col2im(
    const T* __restrict__ col, T* __restrict__ gx, int positions, int H, int W, int C, int OH, int OW,
    int KH, int KW, int SH, int SW, int PH, int PW, int DH, int DW) {
    const int position = blockIdx.x * blockDim.y + threadIdx.y;
    if (position >= positions) return;
    const int w = position % W, h = position / W % H, n = position / W / H;
    const Under row(h + PH, SH), column(w + PW, SW);
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        float sum = 0.0f;
        Under r = row;
        for (int kh = 0; kh < KH; ++kh, r.next_tap(SH, DH)) {
            if (!r.is(OH)) continue;
            Under s = column;
            for (int kw = 0; kw < KW; ++kw, s.next_tap(SW, DW))
                if (s.is(OW)) sum += float(col[((((n * OH + r.window) * OW + s.window) * KH + kh) * KW + kw) * C + c]);
        }
        gx[position * C + c] = sum;
    }
}
