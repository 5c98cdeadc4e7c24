// Half precision: stored as IEEE binary16; arithmetic goes through float and rounds once, as on the device.
#pragma once
#include "cuda_on_host.h"

struct __half_raw { unsigned short x; };
struct __half {
  _Float16 value;
  __half() = default;
  __half(const __half_raw& raw) : value(host::bits<_Float16>(raw.x)) {}
  template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>> __half(T v) : value(v) {}
  operator float() const { return value; }
  operator __half_raw() const { return {host::bits<unsigned short>(value)}; }
  __half operator-() const { return __half(-float(value)); }
};
typedef __half half;
struct alignas(4) __half2 { __half x, y; };
typedef __half2 half2;

inline unsigned short __half_as_ushort(__half h) { return __half_raw(h).x; }
inline __half __ushort_as_half(unsigned short s) { return __half(__half_raw{s}); }
inline float __half2float(__half h) { return h; }
inline __half __float2half(float f) { return __half(f); }
inline __half __float2half_rn(float f) { return __half(f); }
inline float2 __half22float2(__half2 h) { return {h.x, h.y}; }
inline __half2 __float22half2_rn(float2 f) { return {__half(f.x), __half(f.y)}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline __half __low2half(__half2 h) { return h.x; }
inline __half __high2half(__half2 h) { return h.y; }
