// The steps of the optimisers, in place: one pass over a parameter, its gradient and what the optimiser remembers.
//
// As array code a step of Adam is some fifteen kernels, each of which reads and writes whole arrays. Here each array is
// read once and written once, which is all that memory asks for. What is left are launches: a network has a hundred
// and more parameters, most of them biases that are done before the next launch has been made. So each step comes
// twice: for one parameter, with a thread for each element, and as `..._all` for all parameters at once, with a block
// for each piece of one, and a table that says where the arrays lie.
//
// Parameters and what is remembered are float always: a step may be smaller than the last bit of a half. T is the type
// of the gradients.
//
// T is float or half.

#include "common.cuh"

// ---- The steps of one element ---------------------------------------------------------------------------------------

// g += weight_decay·w;  v = momentum·v + g;  w −= lr · (g + momentum·v if nesterov else v)
__device__ __forceinline__ void sgd_step(
    float& w, float gradient, float* velocity, float lr, float momentum, float weight_decay, bool nesterov) {
    float g = gradient + weight_decay * w;
    if (velocity) {
        const float v = momentum * *velocity + g;
        *velocity = v;
        g = nesterov ? g + momentum * v : v;
    }
    w -= lr * g;
}

// square = decay·square + rest·g², rest = 1 − decay;  the step is g over its root, with eps inside or outside of that
__device__ __forceinline__ void rmsprop_step(
    float& w, float gradient, float& square, float* velocity, float lr, float decay, float rest, float eps,
    float momentum, float weight_decay, bool eps_inside) {
    const float g = gradient + weight_decay * w;
    square = decay * square + rest * g * g;
    float step = g / (eps_inside ? sqrtf(square + eps) : sqrtf(square) + eps);
    if (velocity) {
        step += momentum * *velocity;
        *velocity = step;
    }
    w -= lr * step;
}

// m and v: the running means of g and g²; correction1 and 2: 1 − beta^step, as both start at 0; shrink: 1 − lr·decay,
// where the decay is decoupled (AdamW), else 1
__device__ __forceinline__ void adam_step(
    float& w, float gradient, float& m, float& v, float lr, float beta1, float rest1, float beta2, float rest2,
    float eps, float weight_decay, float shrink, float correction1, float correction2) {
    w *= shrink;
    const float g = gradient + weight_decay * w;
    m = beta1 * m + rest1 * g;
    v = beta2 * v + rest2 * g * g;
    w -= lr * (m / correction1) / (sqrtf(v / correction2) + eps);
}

// average = decay·average + rest·w, rest = 1 − decay
__device__ __forceinline__ void ema_step(float& average, float w, float decay, float rest) {
    average = decay * average + rest * w;
}

// ---- One parameter --------------------------------------------------------------------------------------------------

extern "C" __global__ void sgd(
    float* __restrict__ w, const T* __restrict__ g, float* __restrict__ velocity /* or null */, float lr,
    float momentum, float weight_decay, bool nesterov, int n) {
    const int i = global_thread();
    if (i < n) sgd_step(w[i], g[i], velocity ? velocity + i : nullptr, lr, momentum, weight_decay, nesterov);
}

extern "C" __global__ void rmsprop(
    float* __restrict__ w, const T* __restrict__ g, float* __restrict__ square,
    float* __restrict__ velocity /* or null */, float lr, float decay, float rest, float eps, float momentum,
    float weight_decay, bool eps_inside, int n) {
    const int i = global_thread();
    if (i >= n) return;
    float* v = velocity ? velocity + i : nullptr;
    rmsprop_step(w[i], g[i], square[i], v, lr, decay, rest, eps, momentum, weight_decay, eps_inside);
}

extern "C" __global__ void adam(
    float* __restrict__ w, const T* __restrict__ g, float* __restrict__ m, float* __restrict__ v, float lr,
    float beta1, float rest1, float beta2, float rest2, float eps, float weight_decay, float shrink, float correction1,
    float correction2, int n) {
    const int i = global_thread();
    if (i >= n) return;
    adam_step(
        w[i], g[i], m[i], v[i], lr, beta1, rest1, beta2, rest2, eps, weight_decay, shrink, correction1, correction2);
}

extern "C" __global__ void ema(
    float* __restrict__ average, const T* __restrict__ w, float decay, float rest, int n) {
    const int i = global_thread();
    if (i < n) ema_step(average[i], w[i], decay, rest);
}

// total += g
extern "C" __global__ void add(T* __restrict__ total, const T* __restrict__ g, int n) {
    const int i = global_thread();
    if (i < n) total[i] = float(total[i]) + float(g[i]);
}

// ---- All parameters: a block for each piece -------------------------------------------------------------------------
//
//   arrays  (parameters, 4)    the addresses of a parameter, its gradient and what is remembered of it; 0: nothing
//   numbers (parameters, ...)  the rates of each parameter, as the kernels above take them
//   pieces  (blocks, 3)        parameter, first element, end

struct Piece {
    int parameter, begin, end;

    __device__ __forceinline__ explicit Piece(const int* pieces)
        : parameter(pieces[3 * blockIdx.x]), begin(pieces[3 * blockIdx.x + 1]), end(pieces[3 * blockIdx.x + 2]) {}

    __device__ __forceinline__ float* array(const unsigned long long* arrays, int which) const {
        return reinterpret_cast<float*>(arrays[4 * parameter + which]);
    }
    __device__ __forceinline__ const T* gradient(const unsigned long long* arrays) const {
        return reinterpret_cast<const T*>(arrays[4 * parameter + 1]);
    }
};

extern "C" __global__ void sgd_all(
    const unsigned long long* __restrict__ arrays, const float* __restrict__ numbers,
    const int* __restrict__ pieces) {
    const Piece piece(pieces);
    float *w = piece.array(arrays, 0), *velocity = piece.array(arrays, 2);
    const T* g = piece.gradient(arrays);
    const float* a = numbers + 4 * piece.parameter;
    for (int i = piece.begin + threadIdx.x; i < piece.end; i += blockDim.x)
        sgd_step(w[i], g[i], velocity ? velocity + i : nullptr, a[0], a[1], a[2], a[3] != 0.0f);
}

extern "C" __global__ void rmsprop_all(
    const unsigned long long* __restrict__ arrays, const float* __restrict__ numbers,
    const int* __restrict__ pieces) {
    const Piece piece(pieces);
    float *w = piece.array(arrays, 0), *square = piece.array(arrays, 2), *velocity = piece.array(arrays, 3);
    const T* g = piece.gradient(arrays);
    const float* a = numbers + 7 * piece.parameter;
    for (int i = piece.begin + threadIdx.x; i < piece.end; i += blockDim.x) {
        float* v = velocity ? velocity + i : nullptr;
        rmsprop_step(w[i], g[i], square[i], v, a[0], a[1], a[2], a[3], a[4], a[5], a[6] != 0.0f);
    }
}

extern "C" __global__ void adam_all(
    const unsigned long long* __restrict__ arrays, const float* __restrict__ numbers,
    const int* __restrict__ pieces) {
    const Piece piece(pieces);
    float *w = piece.array(arrays, 0), *m = piece.array(arrays, 2), *v = piece.array(arrays, 3);
    const T* g = piece.gradient(arrays);
    const float* a = numbers + 10 * piece.parameter;
    for (int i = piece.begin + threadIdx.x; i < piece.end; i += blockDim.x)
        adam_step(w[i], g[i], m[i], v[i], a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9]);
}

extern "C" __global__ void ema_all(
    const unsigned long long* __restrict__ arrays, const float* __restrict__ numbers,
    const int* __restrict__ pieces) {
    const Piece piece(pieces);
    float* average = piece.array(arrays, 0);
    const T* w = piece.gradient(arrays);
    const float* a = numbers + 2 * piece.parameter;
    for (int i = piece.begin + threadIdx.x; i < piece.end; i += blockDim.x) ema_step(average[i], w[i], a[0], a[1]);
}
