// Pictures travel to the device as bytes, a quarter of what their numbers take, and are finished here: cut out, mirrored,
// normalised. One thread for each element of y reads the byte that it is made of; neighbours read neighbours, forward or
// backward.
//
// y = pixel · 1/(255·std) − mean/std, each step rounded, never contracted to a fused multiply-add: the same bits as NumPy's.
//
// T is float or half.

#include "common.cuh"

// x (N, H, W, C), corners (N, 2), mirrored (N,), mean and deviation (C,) -> y (N, size, size, C); outside x all is black.
extern "C" __global__ void crop_flip_normalise(
    const unsigned char* __restrict__ x, const int* __restrict__ corners, const bool* __restrict__ mirrored,
    const float* __restrict__ mean, const float* __restrict__ deviation, T* __restrict__ y,
    int H, int W, int C, int size, int n) {
    const int i = global_thread();
    if (i >= n) return;
    const int c = i % C, column = i / C % size, row = i / C / size % size, picture = i / C / size / size;
    const int h = corners[2 * picture] + row;
    const int w = corners[2 * picture + 1] + (mirrored[picture] ? size - 1 - column : column);
    const bool inside = 0 <= h && h < H && 0 <= w && w < W;
    const float pixel = inside ? x[((picture * H + h) * W + w) * C + c] : 0;
    const float scale = __frcp_rn(__fmul_rn(255.0f, deviation[c])), shift = __fdiv_rn(mean[c], deviation[c]);
    y[i] = __fadd_rn(__fmul_rn(pixel, scale), -shift);
}
