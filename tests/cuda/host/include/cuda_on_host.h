// The CUDA C++ of a kernel file as g++ understands it: keywords, built-in variables, vector types, warp collectives,
// atomics and the arithmetic that the C library lacks. How a block runs stands in block.h.
#pragma once
#include <math.h>
#include <cstring>
#include <type_traits>
#include <utility>
#include "block.h"
#include "undefined.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static thread_local  // poisoned before each block: see block.cpp
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __restrict__ __restrict

#undef assert
#define assert(condition) ((condition) ? void() : host::fail("assert(" #condition ") does not hold, line ", __LINE__))

#define threadIdx (host::now.threadIdx)
#define blockIdx (host::now.blockIdx)
#define blockDim (host::now.blockDim)
#define gridDim (host::now.gridDim)
static constexpr int warpSize = 32;

// ---- Vector types --------------------------------------------------------------------------------------------------

#define HOST_VECTORS(T, NAME)                                         \
  struct NAME##1 { T x; };                                            \
  struct alignas(2 * sizeof(T)) NAME##2 { T x, y; };                  \
  struct NAME##3 { T x, y, z; };                                      \
  struct alignas(sizeof(T) < 8 ? 4 * sizeof(T) : 16) NAME##4 { T x, y, z, w; }; \
  inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }          \
  inline NAME##3 make_##NAME##3(T x, T y, T z) { return {x, y, z}; }  \
  inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }
HOST_VECTORS(float, float)
HOST_VECTORS(double, double)
HOST_VECTORS(int, int)
HOST_VECTORS(unsigned char, uchar)
HOST_VECTORS(short, short)
HOST_VECTORS(long long, longlong)
struct uint1 { unsigned x; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// ---- Barriers and warp collectives ---------------------------------------------------------------------------------

#define __syncthreads() host::barrier(__LINE__)
#define __syncthreads_count(vote) int(host::barrier_count(__LINE__, (vote) != 0))
#define __syncthreads_or(vote) int(host::barrier_count(__LINE__, (vote) != 0) != 0)
#define __syncthreads_and(vote) int(host::barrier_count(__LINE__, (vote) == 0) == 0)
inline void __syncwarp(unsigned mask = ~0u) { host::collective(host::Collective::Sync, mask, 0, 0); }
inline unsigned __ballot_sync(unsigned mask, int vote) { return host::collective(host::Collective::Ballot, mask, vote != 0, 0); }
inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(unsigned mask, int vote) { return __ballot_sync(mask, !vote) == 0; }
inline unsigned __activemask() { return ~0u; }

namespace host {
inline int lane() { return now.thread & 31; }
template <class T> T shuffle(unsigned mask, T value, int source) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = collective(Collective::Shuffle, mask, bits, source);
  memcpy(&value, &bits, sizeof value);
  return value;
}
}  // namespace host
template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  int base = host::lane() & ~(width - 1);
  return host::shuffle(mask, value, base | (source & (width - 1)));
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  int lane = host::lane(), source = lane ^ bits;
  return host::shuffle(mask, value, source / width > lane / width ? lane : source);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
  int lane = host::lane(), source = lane + int(by);
  return host::shuffle(mask, value, source / width != lane / width ? lane : source);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
  int lane = host::lane(), source = lane - int(by);
  return host::shuffle(mask, value, source < 0 || source / width != lane / width ? lane : source);
}

// ---- Memory --------------------------------------------------------------------------------------------------------

inline void __threadfence() {}
inline void __threadfence_block() {}
template <class T> T __ldg(const T* p) { return *p; }

#define HOST_ATOMIC(NAME, NEW)                                   \
  template <class T> T NAME(T* p, std::common_type_t<T> value) { \
    T old = *p; /* fibers do not change over in here */          \
    *p = NEW;                                                    \
    return old;                                                  \
  }
HOST_ATOMIC(atomicAdd, old + value)
HOST_ATOMIC(atomicSub, old - value)
HOST_ATOMIC(atomicExch, value)
HOST_ATOMIC(atomicMax, old > value ? old : value)
HOST_ATOMIC(atomicMin, old < value ? old : value)
HOST_ATOMIC(atomicAnd, old & value)
HOST_ATOMIC(atomicOr, old | value)
HOST_ATOMIC(atomicXor, old ^ value)
template <class T> T atomicCAS(T* p, std::common_type_t<T> expected, std::common_type_t<T> value) {
  T old = *p;
  if (old == expected) *p = value;
  return old;
}

// ---- Arithmetic ----------------------------------------------------------------------------------------------------

namespace host {
template <class To, class From> To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
inline float fast_exp(float x) { return expf(x); }
inline float fast_log(float x) { return logf(x); }
inline float fast_pow(float x, float y) { return powf(x, y); }
}  // namespace host
#define __expf host::fast_exp  // names that the C library has for itself
#define __logf host::fast_log
#define __powf host::fast_pow
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __saturatef(float x) { return x > 0 ? fminf(x, 1) : 0; }
inline float __int2float_rn(int x) { return x; }
inline float __uint2float_rn(unsigned x) { return x; }
inline int __float2int_rn(float x) { return lrintf(x); }
inline int __float_as_int(float x) { return host::bits<int>(x); }
inline float __int_as_float(int x) { return host::bits<float>(x); }
inline unsigned __float_as_uint(float x) { return host::bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return host::bits<float>(x); }
inline double __longlong_as_double(long long x) { return host::bits<double>(x); }
inline long long __double_as_longlong(double x) { return host::bits<long long>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned x, unsigned y) { return (uint64_t(x) * y) >> 32; }
inline int __mulhi(int x, int y) { return (int64_t(x) * y) >> 32; }
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) { return (static_cast<unsigned __int128>(x) * y) >> 64; }
template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b) {
  using C = std::common_type_t<A, B>;
  return C(b) < C(a) ? C(b) : C(a);
}
template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b) {
  using C = std::common_type_t<A, B>;
  return C(a) < C(b) ? C(b) : C(a);
}

// ---- What a module exports: for each kernel its launch and its signature ---------------------------------------------

namespace host {
// A type as NumPy writes it: f4, i8, b1; * in front of it for a pointer, & for a pointer to what is only read.
template <class T> void spell(char*& text) {
  if constexpr (std::is_pointer_v<T>) {
    using Element = std::remove_pointer_t<T>;
    *text++ = std::is_const_v<Element> ? '&' : '*';
    spell<std::remove_cv_t<Element>>(text);
  } else {
    bool half = !std::is_arithmetic_v<T> && sizeof(T) == 2;
    *text++ = std::is_same_v<T, bool> ? 'b' : std::is_floating_point_v<T> || half ? 'f' : !std::is_integral_v<T> ? 'V' : std::is_signed_v<T> ? 'i' : 'u';
    for (char digit : {sizeof(T) / 10, sizeof(T) % 10})
      if (digit) *text++ = '0' + digit;
    *text++ = ' ';
  }
}
template <class Function> struct Kernel;
template <class... A> struct Kernel<void (*)(A...)> {
  template <void (*K)(A...), size_t... I> static void call(void** p, std::index_sequence<I...>) {
    K(*static_cast<std::remove_reference_t<A>*>(p[I])...);  // as many bytes as the parameter has, as on the device
  }
  template <void (*K)(A...)> static void body(void** p) { call<K>(p, std::index_sequence_for<A...>{}); }
  static const char* signature() {
    static char text[8 * sizeof...(A) + 1];
    char* end = text;
    (spell<std::remove_cv_t<A>>(end), ...);
    *end = 0;
    return text;
  }
};
}  // namespace host

static thread_local volatile char host_shared;  // lies among the `__shared__` variables, so that they are found
#define HOST_EXPORT extern "C" __attribute__((visibility("default")))
#define HOST_KERNEL(SYMBOL, ...)                                                                                 \
  HOST_EXPORT const char* host_launch_##SYMBOL(const host::Launch* l, void** parameters) {                       \
    return host::launch(*l, host::Kernel<decltype(&__VA_ARGS__)>::body<&__VA_ARGS__>, parameters, &host_shared); \
  }                                                                                                              \
  HOST_EXPORT const char* host_signature_##SYMBOL() { return host::Kernel<decltype(&__VA_ARGS__)>::signature(); }
