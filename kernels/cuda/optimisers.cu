// The steps of the optimisers, in place: one pass over a parameter, its gradient and what the optimiser remembers.
//
// As array code a step of Adam is some fifteen kernels, each of which reads and writes whole arrays. Here each array is
// read once and written once, which is all that memory asks for. Parameters and what is remembered are float always: a
// step is often smaller than the last bit of a half. T is the gradient's type.
//
// T is float or half.

#include "common.cuh"

// g += weight_decay·w;  v = momentum·v + g;  w −= lr · (g + momentum·v if nesterov else v)
extern "C" __global__ void sgd(
    float* __restrict__ w, const T* __restrict__ gradient, float* __restrict__ velocity /* or null */, float lr,
    float momentum, float weight_decay, bool nesterov, int n) {
    const int i = global_thread();
    if (i >= n) return;
    float g = float(gradient[i]) + weight_decay * w[i];
    if (velocity) {
        const float v = momentum * velocity[i] + g;
        velocity[i] = v;
        g = nesterov ? g + momentum * v : v;
    }
    w[i] -= lr * g;
}

// square = decay·square + (1 − decay)·g²;  the step is g over the root of that, with eps inside or outside the root
extern "C" __global__ void rmsprop(
    float* __restrict__ w, const T* __restrict__ gradient, float* __restrict__ square,
    float* __restrict__ velocity /* or null */, float lr, float decay, float rest, float eps, float momentum,
    float weight_decay, bool eps_inside, int n) {
    const int i = global_thread();
    if (i >= n) return;
    const float g = float(gradient[i]) + weight_decay * w[i];
    const float s = decay * square[i] + rest * g * g;
    square[i] = s;
    float step = g / (eps_inside ? sqrtf(s + eps) : sqrtf(s) + eps);
    if (velocity) {
        step += momentum * velocity[i];
        velocity[i] = step;
    }
    w[i] -= lr * step;
}

// m and v: the running means of g and g²; correction1 and 2: 1 − beta^step, as both start at 0; shrink: 1 − lr·decay,
// where the decay is decoupled (AdamW), else 1
extern "C" __global__ void adam(
    float* __restrict__ w, const T* __restrict__ gradient, float* __restrict__ m, float* __restrict__ v, float lr,
    float beta1, float rest1, float beta2, float rest2, float eps, float weight_decay, float shrink, float correction1,
    float correction2, int n) {
    const int i = global_thread();
    if (i >= n) return;
    const float old = w[i] * shrink, g = float(gradient[i]) + weight_decay * old;
    const float mean = beta1 * m[i] + rest1 * g, square = beta2 * v[i] + rest2 * g * g;
    m[i] = mean;
    v[i] = square;
    w[i] = old - lr * (mean / correction1) / (sqrtf(square / correction2) + eps);
}

// average = decay·average + (1 − decay)·w
extern "C" __global__ void ema(
    float* __restrict__ average, const T* __restrict__ w, float decay, float rest, int n) {
    const int i = global_thread();
    if (i < n) average[i] = decay * average[i] + rest * float(w[i]);
}

// total += g
extern "C" __global__ void add(T* __restrict__ total, const T* __restrict__ g, int n) {
    const int i = global_thread();
    if (i < n) total[i] = float(total[i]) + float(g[i]);
}
