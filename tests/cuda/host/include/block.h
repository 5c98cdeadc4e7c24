// One CUDA block on one CPU thread, as a kernel's code sees it; block.cpp runs it.
#pragma once
#include <cstdint>

struct uint3 { unsigned x, y, z; };
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

#pragma GCC visibility push(default)
namespace host {

enum Order : unsigned { Forward, Reverse, Random };
struct Launch { unsigned grid[3], block[3], shared, order, seed; };  // as module.py fills it in

struct Now {  // the thread that runs
  uint3 threadIdx, blockIdx;
  dim3 blockDim, gridDim;
  unsigned thread;  // its number in the block
};
extern Now now;

enum class Collective : uint8_t { Shuffle, Ballot, Sync };
void barrier(int line);
unsigned barrier_count(int line, bool vote);  // how many threads voted yes
uint64_t collective(Collective what, uint32_t mask, uint64_t value, int source);
char* dynamic_shared();
[[noreturn]] void fail(const char* message, long number = -1);

// Runs body(parameters) for every thread; null, or what went wrong. `shared` lies in the module's `__shared__` variables.
const char* launch(const Launch& launch, void (*body)(void**), void** parameters, const volatile char* shared);

}  // namespace host
#pragma GCC visibility pop
