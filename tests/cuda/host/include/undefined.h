// What -fsanitize=undefined calls where a kernel does what C++ leaves undefined: an error of the launch, with the line.
#pragma once
#include "block.h"

namespace host {
struct Place { const char* file; uint32_t line, column; };  // every report of the sanitizer begins with it
[[noreturn]] inline void undefined(const char* what, void* report) {
  fail(what, static_cast<Place*>(report)->line);
}
}  // namespace host

#define HOST_UNDEFINED(NAME, WHAT) \
  extern "C" __attribute__((weak, visibility("hidden"))) void \
  __ubsan_handle_##NAME(void* report) { host::undefined("undefined behaviour: " WHAT ", line ", report); }
HOST_UNDEFINED(add_overflow_abort, "a sum overflows")
HOST_UNDEFINED(sub_overflow_abort, "a difference overflows")
HOST_UNDEFINED(mul_overflow_abort, "a product overflows")
HOST_UNDEFINED(negate_overflow_abort, "a negation overflows")
HOST_UNDEFINED(divrem_overflow_abort, "a division by zero, or one that overflows")
HOST_UNDEFINED(shift_out_of_bounds_abort, "a shift by a negative number or by too many bits")
HOST_UNDEFINED(out_of_bounds_abort, "an index beyond its array")
HOST_UNDEFINED(type_mismatch_v1_abort, "a null or misaligned pointer")
HOST_UNDEFINED(pointer_overflow_abort, "pointer arithmetic that overflows")
HOST_UNDEFINED(load_invalid_value_abort, "a value that its type does not have")
HOST_UNDEFINED(float_cast_overflow_abort, "a float beyond the range of its integer")
HOST_UNDEFINED(vla_bound_not_positive_abort, "an array without elements")
HOST_UNDEFINED(nonnull_arg_abort, "a null argument")
HOST_UNDEFINED(invalid_builtin_abort, "a count of the leading zeros of zero")
HOST_UNDEFINED(builtin_unreachable, "unreachable code")
HOST_UNDEFINED(missing_return, "the end of a function without its return")
