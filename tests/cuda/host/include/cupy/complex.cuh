// In place of CuPy's own, which is made for device compilers.
#pragma once
#include <complex>
template <class T> using complex = std::complex<T>;
namespace thrust {
template <class T> using complex = std::complex<T>;
using std::abs, std::arg, std::conj, std::imag, std::norm, std::real;
}  // namespace thrust
