// The part of HIP's runtime that CuPy calls, on the CPU: libamdhip64's stand-in. Device memory is host memory that ends
// at a page nobody may touch, modules are libraries compiled with cuda_on_host.h, and every call is over when it returns.
//
// Numbers of errors, attributes and copies are HIP's own (hip_runtime_api.h).
#include "../include/block.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#define API extern "C" __attribute__((visibility("default")))

enum Error { Success = 0, InvalidValue = 1, OutOfMemory = 2, InvalidConfiguration = 9, InvalidDevice = 101, NotFound = 500, LaunchFailure = 719, NotPermitted = 800 };
constexpr size_t PAGE = 4096, ALIGNMENT = 16, CAPACITY = size_t(8) << 30;

struct Block { char* pages; size_t all, asked; };
static std::map<uintptr_t, Block> device_memory;
static std::recursive_mutex memory_lock;
static size_t used = 0;
static bool damaged = false;            // somebody wrote beside an array: the next launch says so
static thread_local int last = Success;
static thread_local std::string message;
static unsigned order = host::Forward;  // of the launches to come
static std::atomic<unsigned> launches = 0;
static bool synchronising_forbidden = false;

static int fail(int error, std::string text = "") {
  message = std::move(text);
  return last = error;
}

// ---- What the tests ask for ----------------------------------------------------------------------------------------

API void host_order(unsigned wanted) { order = wanted; }
API unsigned host_launches() { return launches; }
API void host_forbid_synchronising(int forbid) { synchronising_forbidden = forbid; }
API size_t host_used() { return used; }
API int host_on_device(const void* p, size_t bytes) {  // do these bytes belong to one allocation?
  std::lock_guard lock(memory_lock);
  auto next = device_memory.upper_bound(uintptr_t(p));
  if (next == device_memory.begin()) return 0;
  auto& [start, block] = *std::prev(next);
  return uintptr_t(p) + bytes <= start + (block.asked + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}
static int synchronise(const char* call) {
  if (!synchronising_forbidden) return Success;
  return fail(NotPermitted, std::string("the host waits for the device: ") + call);
}

// ---- Devices and errors --------------------------------------------------------------------------------------------

API int hipGetDeviceCount(int* count) { return *count = 1, Success; }
API int hipGetDevice(int* device) { return *device = 0, Success; }
API int hipSetDevice(int device) { return device ? fail(InvalidDevice) : Success; }
API int hipDeviceSynchronize() { return synchronise("Device.synchronize"); }
API int hipRuntimeGetVersion(int* version) { return *version = 70000000, Success; }
API int hipDriverGetVersion(int* version) { return *version = 70000000, Success; }
API int hipGetLastError() { return std::exchange(last, int(Success)); }
API int hipPeekAtLastError() { return last; }
API const char* hipGetErrorName(int error) {
  switch (error) {
    case Success: return "hipSuccess";
    case InvalidValue: return "hipErrorInvalidValue";
    case OutOfMemory: return "hipErrorOutOfMemory";
    case InvalidConfiguration: return "hipErrorInvalidConfiguration";
    case InvalidDevice: return "hipErrorInvalidDevice";
    case NotFound: return "hipErrorNotFound";
    case LaunchFailure: return "hipErrorLaunchFailure";
    case NotPermitted: return "hipErrorNotPermitted";
  }
  return "hipErrorUnknown";
}
API const char* hipGetErrorString(int error) { return message.empty() ? hipGetErrorName(error) : message.c_str(); }
API int hipDeviceGetAttribute(int* value, int attribute, int) {
  static const std::map<int, int> known = {
      {23, 8}, {26, 1024}, {27, 1024}, {28, 64}, {29, 2147483647}, {30, 65535}, {31, 65535},  // version, block, grid
      {56, 1024}, {63, 4}, {87, 32}};                                      // threads of a block, processors, warp
  auto found = known.find(attribute);
  return *value = found == known.end() ? 0 : found->second, Success;
}
API int hipGetDevicePropertiesR0600(char* properties, int) {
  memset(properties, 0, 1472);
  strcpy(properties, "the host's CPU");
  *reinterpret_cast<size_t*>(properties + 288) = CAPACITY;
  *reinterpret_cast<size_t*>(properties + 296) = 48 << 10;  // shared memory of a block
  *reinterpret_cast<int*>(properties + 304) = 65536;        // registers of a block
  *reinterpret_cast<int*>(properties + 308) = 32;           // threads of a warp
  strcpy(properties + 1160, "gfx900");
  return Success;
}
API int hipDeviceGetPCIBusId(char* text, int bytes, int) { return strncpy(text, "0000:00:00.0", bytes), Success; }
API int hipDeviceCanAccessPeer(int* can, int, int) { return *can = 0, Success; }

// ---- Memory --------------------------------------------------------------------------------------------------------

API int hipMemGetInfo(size_t* free, size_t* total) { return *total = CAPACITY, *free = CAPACITY - used, Success; }
API int hipMalloc(void** p, size_t bytes) {
  size_t body = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, inner = (body + PAGE - 1) / PAGE * PAGE, all = inner + 2 * PAGE;
  std::lock_guard lock(memory_lock);
  if (bytes > CAPACITY || used + bytes > CAPACITY) return fail(OutOfMemory);
  void* pages = mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) return fail(OutOfMemory);
  char* first = static_cast<char*>(pages);
  mprotect(first, PAGE, PROT_NONE);
  mprotect(first + PAGE + inner, PAGE, PROT_NONE);
  char* start = first + PAGE + inner - body;
  memset(start, 0xFF, body);  // NaNs: who reads what nobody has written will see them
  device_memory[uintptr_t(start)] = {first, all, bytes};
  used += bytes;
  return *p = start, Success;
}
API int hipFree(void* p) {
  if (!p) return Success;
  std::lock_guard lock(memory_lock);
  auto found = device_memory.find(uintptr_t(p));
  if (found == device_memory.end()) return fail(InvalidValue);
  auto& [pages, all, asked] = found->second;
  for (auto beside = static_cast<unsigned char*>(p) + asked; beside < reinterpret_cast<unsigned char*>(pages) + all - PAGE; beside++)
    damaged |= *beside != 0xFF;
  munmap(pages, all);
  used -= asked;
  device_memory.erase(found);
  return Success;
}
API int hipMallocManaged(void** p, size_t bytes, unsigned) { return hipMalloc(p, bytes); }
API int hipHostMalloc(void** p, size_t bytes, unsigned) { return *p = aligned_alloc(PAGE, (bytes + PAGE - 1) / PAGE * PAGE), Success; }
API int hipHostFree(void* p) { return free(p), Success; }

enum Copy { HostToHost, HostToDevice, DeviceToHost, DeviceToDevice };
static int copy(void* to, const void* from, size_t bytes, int kind) {
  bool to_device = kind == HostToDevice || kind == DeviceToDevice, from_device = kind == DeviceToHost || kind == DeviceToDevice;
  if (to_device && !host_on_device(to, bytes)) return fail(InvalidValue, "a copy writes beyond device memory");
  if (from_device && !host_on_device(from, bytes)) return fail(InvalidValue, "a copy reads beyond device memory");
  if (kind == DeviceToHost && synchronise("a copy to the host")) return last;
  return memmove(to, from, bytes), Success;
}
API int hipMemcpy(void* to, const void* from, size_t bytes, int kind) { return copy(to, from, bytes, kind); }
API int hipMemcpyAsync(void* to, const void* from, size_t bytes, int kind, void*) { return copy(to, from, bytes, kind); }
API int hipMemset(void* to, int value, size_t bytes) {
  if (!host_on_device(to, bytes)) return fail(InvalidValue, "memset writes beyond device memory");
  return memset(to, value, bytes), Success;
}
API int hipMemsetAsync(void* to, int value, size_t bytes, void*) { return hipMemset(to, value, bytes); }
struct Attributes { int type, device; void *on_device, *on_host; int managed; unsigned flags; };
API int hipPointerGetAttributes(Attributes* a, const void* p) {
  memset(a, 0, sizeof *a);
  if (host_on_device(p, 1)) a->type = 2, a->on_device = const_cast<void*>(p);
  return Success;
}

// ---- Streams and events: everything has happened already -------------------------------------------------------------

API int hipStreamCreate(void** stream) { return *stream = malloc(8), Success; }
API int hipStreamCreateWithFlags(void** stream, unsigned) { return hipStreamCreate(stream); }
API int hipStreamCreateWithPriority(void** stream, unsigned, int) { return hipStreamCreate(stream); }
API int hipStreamDestroy(void* stream) { return free(stream), Success; }
API int hipStreamSynchronize(void*) { return synchronise("Stream.synchronize"); }
API int hipStreamQuery(void*) { return Success; }
API int hipStreamWaitEvent(void*, void*, unsigned) { return Success; }
API int hipStreamIsCapturing(void*, int* capturing) { return *capturing = 0, Success; }
API int hipStreamGetFlags(void*, unsigned* flags) { return *flags = 0, Success; }
API int hipStreamGetPriority(void*, int* priority) { return *priority = 0, Success; }
API int hipStreamAddCallback(void* stream, void (*f)(void*, int, void*), void* data, unsigned) { return f(stream, 0, data), Success; }
API int hipLaunchHostFunc(void*, void (*f)(void*), void* data) { return f(data), Success; }
API int hipEventCreate(void** event) { return hipStreamCreate(event); }
API int hipEventCreateWithFlags(void** event, unsigned) { return hipStreamCreate(event); }
API int hipEventDestroy(void* event) { return free(event), Success; }
API int hipEventRecord(void*, void*) { return Success; }
API int hipEventQuery(void*) { return Success; }
API int hipEventSynchronize(void*) { return synchronise("Event.synchronize"); }
API int hipEventElapsedTime(float* milliseconds, void*, void*) { return *milliseconds = 0.001f, Success; }

// ---- Modules: the image of one is "HOST:" and the path of its library -------------------------------------------------

typedef const char* (*Kernel)(const host::Launch*, void**);

API int hipModuleLoadData(void** module, const void* image) {
  auto path = static_cast<const char*>(image);
  if (strncmp(path, "HOST:", 5)) return fail(InvalidValue, "only kernels compiled for the host can run");
  *module = dlopen(path + 5, RTLD_NOW | RTLD_LOCAL);
  return *module ? Success : fail(InvalidValue, dlerror());
}
API int hipModuleUnload(void*) { return Success; }
API int hipModuleGetFunction(void** function, void* module, const char* name) {
  *function = dlsym(module, (std::string("host_launch_") + name).c_str());
  return *function ? Success : fail(NotFound, std::string("no kernel ") + name);
}
API int hipModuleGetGlobal(void** p, size_t*, void* module, const char* name) { return (*p = dlsym(module, name)) ? Success : fail(NotFound); }
API int hipFuncGetAttribute(int* value, int attribute, void*) { return *value = attribute ? 0 : 1024, Success; }
API int hipModuleLaunchKernel(Kernel kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                              unsigned shared, void*, void** parameters, void**) {
  host::Launch launch = {{gx, gy, gz}, {bx, by, bz}, shared, order, ++launches};
  if (std::exchange(damaged, false)) return fail(LaunchFailure, "an earlier launch has written beside an array");
  const char* problem = kernel(&launch, parameters);
  if (!problem) return Success;
  return fail(strncmp(problem, "invalid configuration", 21) ? LaunchFailure : InvalidConfiguration, problem);
}
API int hipLaunchKernel(...) { return fail(LaunchFailure, "this part of CuPy is precompiled for a GPU and cannot run on the host"); }

// Code objects that are compiled into CuPy register themselves when they are loaded.
API int __hipPopCallConfiguration() { return Success; }
API int __hipPushCallConfiguration() { return Success; }
API void* __hipRegisterFatBinary(const void*) {
  static int handle;
  return &handle;
}
API void __hipRegisterFunction(...) {}
API void __hipUnregisterFatBinary(void*) {}
