// bfloat16: the upper half of a float, rounded to even; arithmetic goes through float.
#pragma once
#include "cuda_on_host.h"

struct __nv_bfloat16_raw { unsigned short x; };
struct __nv_bfloat16 {
  unsigned short value;
  __nv_bfloat16() = default;
  __nv_bfloat16(const __nv_bfloat16_raw& raw) : value(raw.x) {}
  __nv_bfloat16(float f) {
    unsigned u = __float_as_uint(f);
    value = f != f ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
  }
  operator float() const { return __uint_as_float(unsigned(value) << 16); }
  operator __nv_bfloat16_raw() const { return {value}; }
};
inline float __bfloat162float(__nv_bfloat16 h) { return h; }
inline __nv_bfloat16 __float2bfloat16(float f) { return f; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 h) { return h.value; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short s) { return __nv_bfloat16_raw{s}; }
