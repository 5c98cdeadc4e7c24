// Dropout: random numbers without a state, one generator call for four elements.
//
// Philox4x32-10 (Salmon et al. 2011) encrypts a counter: the words for elements 4·block to 4·block + 3 depend on the
// key and on (block, layer, step) alone. So a thread needs nobody else's state, the mask need not be kept for the
// gradient, and it is the same, bit for bit, as the CPU's. The naive generator, a state for each thread, gives numbers
// that change with the size of the grid.
//
// T is float or half.

#include "common.cuh"

// y = x / (1 − p) where a 24-bit fraction is at least p, that is where word >> 8 >= threshold; else 0.
extern "C" __global__ void dropout(
    const T* __restrict__ x, T* __restrict__ y, float keep, unsigned threshold, unsigned seed_low, unsigned seed_high,
    unsigned layer, unsigned step, int n) {
    const int block = global_thread();
    if (block >= (n + 3) / 4) return;
    // The counter is (block low, block high, layer, step): arrays have less than 2³² blocks.
    unsigned word[4] = {unsigned(block), 0u, layer, step}, k0 = seed_low, k1 = seed_high;
    for (int round = 0; round < 10; ++round) {
        const unsigned long long p0 = 0xD2511F53ull * word[0], p1 = 0xCD9E8D57ull * word[2];
        word[0] = unsigned(p1 >> 32) ^ word[1] ^ k0;
        word[1] = unsigned(p1);
        word[2] = unsigned(p0 >> 32) ^ word[3] ^ k1;
        word[3] = unsigned(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) {
        const int i = 4 * block + lane;
        if (i < n) y[i] = (word[lane] >> 8) >= threshold ? float(x[i]) / keep : 0.0f;
    }
}
