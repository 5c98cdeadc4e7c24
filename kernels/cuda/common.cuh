// What several topics share. T is the type of the maps' elements, float or half; all arithmetic is in float.

__device__ __forceinline__ int global_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }
