// The matrix products of hipBLAS that CuPy calls, on the CPU: libhipblas's stand-in. Matrices are column-major.
//
// Sums are taken in float, or in double for doubles, as the device does for its types. Every operand must lie in device
// memory: a wrong leading dimension is an error here, where a device would read whatever is there.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))
extern "C" int host_on_device(const void* p, size_t bytes);

enum Status { Success = 0, InvalidValue = 3, NotSupported = 7 };
enum Type { F32 = 0, F64 = 1, F16 = 2, BF16 = 14 };  // hipDataType's numbers
constexpr int PLAIN = 111;                           // HIPBLAS_OP_N

static size_t bytes_of(int type) { return type == F64 ? 8 : type == F32 ? 4 : 2; }
static double load(const void* p, int type, size_t i) {
  if (type == F32) return static_cast<const float*>(p)[i];
  if (type == F64) return static_cast<const double*>(p)[i];
  if (type == F16) return static_cast<float>(static_cast<const _Float16*>(p)[i]);
  uint32_t bits = uint32_t(static_cast<const uint16_t*>(p)[i]) << 16;
  float value;
  return memcpy(&value, &bits, 4), value;
}
static void store(void* p, int type, size_t i, double value) {
  float single = value;
  uint32_t bits;
  memcpy(&bits, &single, 4);
  if (type == F32) static_cast<float*>(p)[i] = single;
  else if (type == F64) static_cast<double*>(p)[i] = value;
  else if (type == F16) static_cast<_Float16*>(p)[i] = static_cast<_Float16>(single);
  else static_cast<uint16_t*>(p)[i] = single != single ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

struct Matrix { void* p; int type, leading, operation; };  // operation: PLAIN, or transposed

static bool on_device(const Matrix& a, int rows, int columns) {
  if (a.operation != PLAIN) std::swap(rows, columns);
  return a.leading >= rows && host_on_device(a.p, (size_t(columns - 1) * a.leading + rows) * bytes_of(a.type));
}
template <class Sum> std::vector<Sum> read(const Matrix& a, int rows, int columns) {  // packed, column-major
  std::vector<Sum> packed(size_t(rows) * columns);
  for (int j = 0; j < columns; j++)
    for (int i = 0; i < rows; i++)
      packed[size_t(j) * rows + i] = load(a.p, a.type, a.operation == PLAIN ? size_t(j) * a.leading + i : size_t(i) * a.leading + j);
  return packed;
}
template <class Sum> void multiply(int m, int n, int k, Sum alpha, const Matrix& a, const Matrix& b, Sum beta, const Matrix& c) {
  auto x = read<Sum>(a, m, k), y = read<Sum>(b, k, n);
  std::vector<Sum> column(m);
  for (int j = 0; j < n; j++) {
    std::fill(column.begin(), column.end(), Sum(0));
    for (int l = 0; l < k; l++) {
      const Sum factor = y[size_t(j) * k + l], *from = &x[size_t(l) * m];
      for (int i = 0; i < m; i++) column[i] += factor * from[i];
    }
    for (int i = 0; i < m; i++) {
      size_t at = size_t(j) * c.leading + i;
      store(c.p, c.type, at, alpha * column[i] + (beta != 0 ? beta * Sum(load(c.p, c.type, at)) : Sum(0)));
    }
  }
}
static int gemm(int m, int n, int k, double alpha, const Matrix& a, const Matrix& b, double beta, const Matrix& c) {
  for (int type : {a.type, b.type, c.type})
    if (type != F32 && type != F64 && type != F16 && type != BF16) return NotSupported;
  if (m <= 0 || n <= 0) return Success;
  if (!on_device(c, m, n) || (k > 0 && (!on_device(a, m, k) || !on_device(b, k, n)))) return InvalidValue;
  if (c.type == F64) multiply<double>(m, n, k, alpha, a, b, beta, c);
  else multiply<float>(m, n, k, alpha, a, b, beta, c);
  return Success;
}
static Matrix nth(Matrix a, long long stride, int i) { return a.p = static_cast<char*>(a.p) + i * stride * bytes_of(a.type), a; }
static int strided(int m, int n, int k, double alpha, Matrix a, long long sa, Matrix b, long long sb, double beta, Matrix c, long long sc, int count) {
  for (int i = 0; i < count; i++)
    if (int status = gemm(m, n, k, alpha, nth(a, sa, i), nth(b, sb, i), beta, nth(c, sc, i))) return status;
  return Success;
}
// alpha and beta are doubles for products of doubles and floats for all others.
static double scalar(const void* p, int type) { return type == F64 ? *static_cast<const double*>(p) : *static_cast<const float*>(p); }

API int hipblasCreate(void** handle) { return *handle = malloc(8), Success; }
API int hipblasDestroy(void* handle) { return free(handle), Success; }
API int hipblasSetStream(void*, void*) { return Success; }
API int hipblasSetPointerMode(void*, int) { return Success; }
API int hipblasGetPointerMode(void*, int* mode) { return *mode = 0, Success; }
API int hipblasSetMathMode(void*, int) { return Success; }
API int hipblasGetMathMode(void*, int* mode) { return *mode = 0, Success; }

#define PRODUCTS(LETTER, T, TYPE)                                                                                          \
  API int hipblas##LETTER##gemm(void*, int ta, int tb, int m, int n, int k, const T* alpha, T* a, int lda, T* b, int ldb,  \
                                const T* beta, T* c, int ldc) {                                                           \
    return gemm(m, n, k, *alpha, {a, TYPE, lda, ta}, {b, TYPE, ldb, tb}, *beta, {c, TYPE, ldc, PLAIN});                   \
  }                                                                                                                       \
  API int hipblas##LETTER##gemmStridedBatched(void*, int ta, int tb, int m, int n, int k, const T* alpha, T* a, int lda,   \
                                              long long sa, T* b, int ldb, long long sb, const T* beta, T* c, int ldc,    \
                                              long long sc, int count) {                                                  \
    return strided(m, n, k, *alpha, {a, TYPE, lda, ta}, sa, {b, TYPE, ldb, tb}, sb, *beta, {c, TYPE, ldc, PLAIN}, sc, count); \
  }                                                                                                                       \
  API int hipblas##LETTER##gemmBatched(void*, int ta, int tb, int m, int n, int k, const T* alpha, T** a, int lda, T** b,  \
                                       int ldb, const T* beta, T** c, int ldc, int count) {                               \
    int status = Success;                                                                                                 \
    for (int i = 0; i < count && !status; i++)                                                                            \
      status = gemm(m, n, k, *alpha, {a[i], TYPE, lda, ta}, {b[i], TYPE, ldb, tb}, *beta, {c[i], TYPE, ldc, PLAIN});      \
    return status;                                                                                                        \
  }                                                                                                                       \
  API int hipblas##LETTER##gemv(void*, int ta, int rows, int columns, const T* alpha, T* a, int lda, T* x, int, const T* beta, \
                                T* y, int) { /* CuPy makes vectors contiguous: a vector is a matrix of one column */      \
    int m = ta == PLAIN ? rows : columns, k = ta == PLAIN ? columns : rows;                                               \
    return gemm(m, 1, k, *alpha, {a, TYPE, lda, ta}, {x, TYPE, k, PLAIN}, *beta, {y, TYPE, m, PLAIN});                    \
  }                                                                                                                       \
  API int hipblas##LETTER##dot(void*, int n, T* x, int, T* y, int, T* result) {                                           \
    T one = 1, zero = 0;                                                                                                  \
    return gemm(1, 1, n, one, {x, TYPE, 1, PLAIN}, {y, TYPE, n, PLAIN}, zero, {result, TYPE, 1, PLAIN});                  \
  }
PRODUCTS(S, float, F32)
PRODUCTS(D, double, F64)
API int hipblasGemmEx(void*, int ta, int tb, int m, int n, int k, const void* alpha, void* a, int at, int lda, void* b, int bt,
                      int ldb, const void* beta, void* c, int ct, int ldc, int, int) {
  return gemm(m, n, k, scalar(alpha, ct), {a, at, lda, ta}, {b, bt, ldb, tb}, scalar(beta, ct), {c, ct, ldc, PLAIN});
}
API int hipblasGemmStridedBatchedEx(void*, int ta, int tb, int m, int n, int k, const void* alpha, void* a, int at, int lda,
                                    long long sa, void* b, int bt, int ldb, long long sb, const void* beta, void* c, int ct,
                                    int ldc, long long sc, int count, int, int) {
  return strided(m, n, k, scalar(alpha, ct), {a, at, lda, ta}, sa, {b, bt, ldb, tb}, sb, scalar(beta, ct), {c, ct, ldc, PLAIN}, sc, count);
}
