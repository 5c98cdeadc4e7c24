// ResNet's option A shortcut, which has no parameters: every stride-th position, and channels of zeros beside those
// that there are. One thread for each output element; each is written once, with what belongs there or with zero.
//
// T is float or half.

#include "common.cuh"

// (..., C) -> (..., before + C + after)
extern "C" __global__ void pad_channels(
    const T* __restrict__ x, T* __restrict__ y, int before, int C, int wide, int n) {
    const int i = global_thread();
    if (i >= n) return;
    const int c = i % wide - before;
    y[i] = 0 <= c && c < C ? float(x[i / wide * C + c]) : 0.0f;
}

// y[n, oh, ow] = x[n, oh·SH, ow·SW]
extern "C" __global__ void subsample(
    const T* __restrict__ x, T* __restrict__ y, int H, int W, int C, int OH, int OW, int SH, int SW, int n) {
    const int i = global_thread();
    if (i >= n) return;
    const int c = i % C, ow = i / C % OW, oh = i / C / OW % OH, image = i / C / OW / OH;
    y[i] = x[((image * H + oh * SH) * W + ow * SW) * C + c];
}

// gx[n, h, w] = gy[n, h / SH, w / SW] where both divide, else 0
extern "C" __global__ void subsample_grad(
    const T* __restrict__ gy, T* __restrict__ gx, int H, int W, int C, int OH, int OW, int SH, int SW, int n) {
    const int i = global_thread();
    if (i >= n) return;
    const int c = i % C, w = i / C % W, h = i / C / W % H, image = i / C / W / H;
    const bool kept = h % SH == 0 && w % SW == 0;
    gx[i] = kept ? float(gy[((image * OH + h / SH) * OW + w / SW) * C + c]) : 0.0f;
}
