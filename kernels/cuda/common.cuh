// What several topics share. Maps are (N, H, W, C) of type T, float or half; all arithmetic is in float.
//
//   N H W C    images, rows, columns, channels of x      KH KW    rows and columns of a window or a filter
//   O OH OW    channels, rows, columns of y              SH SW PH PW DH DW    stride, padding in front, dilation
//   x w b y    input, weights, bias, output              gx gw gb gy    the gradient of the loss by each of them

__device__ __forceinline__ int global_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }

// ---- From a position back to its windows ----------------------------------------------------------------------------
//
// Going backward an input position, seen from the padding's edge, looks for the windows that it is in: it is under
// their tap k if position − k·dilation is a multiple of the stride, the window's number times the stride. From tap to
// tap that number is counted down, where a division for each would cost more than the access to memory.

struct Under {
    int window, rest;  // window · stride + rest = position − k · dilation

    __device__ __forceinline__ Under(int position, int stride) : window(position / stride), rest(position % stride) {}

    __device__ __forceinline__ void next_tap(int stride, int dilation) {
        for (rest -= dilation; rest < 0; rest += stride) --window;
    }
    // Whether there is a window that has its present tap on the position.
    __device__ __forceinline__ bool is(int outputs) const { return rest == 0 && 0 <= window && window < outputs; }
};

// ---- Sums over the rows of a block ----------------------------------------------------------------------------------
//
// A map is a matrix of N·H·W positions by C channels. Blocks of blockDim.x channels by blockDim.y positions read it a
// warp's width of neighbouring channels at a time; what is summed over positions is summed by each thread for itself
// first, then over the threads of a column, in the order of a tree: the same for every run.

constexpr int BLOCK = 256;  // threads of such a block, and floats that its sums need of shared memory

// The sum of `value` over the column of a thread; valid where threadIdx.y is 0. May be called again with the same
// memory: each thread ends with its own element, which nobody else reads before the next barrier.
__device__ __forceinline__ float column_sum(float value, float (&shared)[BLOCK]) {
    const int at = threadIdx.y * blockDim.x + threadIdx.x;
    shared[at] = value;
    __syncthreads();
    for (int half_of = blockDim.y / 2; half_of > 0; half_of /= 2) {
        if (threadIdx.y < half_of) shared[at] += shared[at + half_of * blockDim.x];
        __syncthreads();
    }
    return shared[at];
}

// The sum of `value` over the 32 threads of a warp, in all of them: they exchange registers, no memory is needed.
__device__ __forceinline__ float warp_sum(float value) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}
