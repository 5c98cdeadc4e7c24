// What several topics share. Maps are (N, H, W, C) of type T, float or half; all arithmetic is in float.
//
//   N H W C    images, rows, columns, channels of x      KH KW    rows and columns of a window or a filter
//   O OH OW    channels, rows, columns of y              SH SW PH PW DH DW    stride, padding in front, dilation
//   x w b y    input, weights, bias, output              gx gw gb gy    the gradient of the loss by each of them

__device__ __forceinline__ int global_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }

// Which of `outputs` windows starts at `start` (counted from the padding's edge), or −1 for none.
__device__ __forceinline__ int window_of(int start, int stride, int outputs) {
    return start >= 0 && start % stride == 0 && start / stride < outputs ? start / stride : -1;
}
