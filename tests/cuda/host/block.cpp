// One CUDA block on one CPU thread: every thread of the block is a fiber, and fibers change over only at barriers and at
// warp collectives. Which of them goes on then is the order's choice; a right kernel computes the same in any order.
//
// Not modelled: races between blocks, memory fences, time. A thread that reads what another one writes without a
// barrier between them is seen as soon as an order runs the two the other way round.
#include "include/block.h"

#include <link.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace host {

constexpr size_t STACK = 64 << 10, PAGE = 4096, SHARED_LIMIT = 48 << 10;

Now now;

// ---- Fibers --------------------------------------------------------------------------------------------------------

#if defined(__x86_64__)
struct Context { void* stack_pointer = nullptr; };
extern "C" void host_switch(void** save, void* load);
asm(".text\n.type host_switch, @function\n"
    "host_switch:\n"
    "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
    "  mov %rsp, (%rdi)\n  mov %rsi, %rsp\n"
    "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n  ret\n");
static void start(Context& context, char* stack, void (*entry)()) {
  void** top = reinterpret_cast<void**>(stack + STACK);
  *--top = nullptr;  // a function expects the stack 8 bytes off a multiple of 16
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; i++) *--top = nullptr;  // the registers that host_switch pops
  context.stack_pointer = top;
}
static void change(Context& from, Context& to) { host_switch(&from.stack_pointer, to.stack_pointer); }
#else
struct Context { ucontext_t context; };
static void start(Context& c, char* stack, void (*entry)()) {
  getcontext(&c.context);
  c.context.uc_stack.ss_sp = stack;
  c.context.uc_stack.ss_size = STACK;
  c.context.uc_link = nullptr;
  makecontext(&c.context, entry, 0);
}
static void change(Context& from, Context& to) { swapcontext(&from.context, &to.context); }
#endif

struct Fiber { Context context; char* stack; };

// ---- The block that runs -------------------------------------------------------------------------------------------

enum class State : uint8_t { New, Ready, Barrier, Warp, Done };
struct Thread {
  uint3 index;
  unsigned rank;            // its place in the order
  Fiber* fiber;
  State state;
  int line;                 // of the barrier that it waits at
  Collective what;          // the warp collective that it waits in, its mask, its value, the lane it wants, what it gets
  uint32_t mask;
  uint64_t value, result;
  int source;
};

static std::vector<Thread> threads;
static std::vector<unsigned> order;            // thread numbers; greedy: the first that can go on goes on
static bool greedy;
static unsigned first, alive, waiting, votes;  // first: no thread earlier in the order can go on
static Context launcher;                       // where the launch itself waits while fibers run
static std::vector<Fiber*> idle, fibers;
static void (*body)(void**);
static void** parameters;
static char *dynamic, *dynamic_end;            // dynamic shared memory ends at a guard page
static char* statics;                          // all `__shared__` variables of the module
static size_t statics_bytes;
static thread_local std::string error;
static sigjmp_buf escape;

static Thread& self() { return threads[now.thread]; }

static std::string where() {
  auto &b = now.blockIdx, &t = now.threadIdx;
  char text[96];
  snprintf(text, sizeof text, " in block (%u, %u, %u), thread (%u, %u, %u)", b.x, b.y, b.z, t.x, t.y, t.z);
  return text;
}

[[noreturn]] static void stop(const std::string& message) {  // the fibers of this launch are left as they stand
  error = message + where();
  Context nowhere;
  change(nowhere, launcher);
  abort();
}

void fail(const char* message, long number) { stop(message + (number < 0 ? "" : std::to_string(number))); }

static bool runnable(const Thread& t) { return t.state == State::New || t.state == State::Ready; }

static unsigned choose() {  // the number of the thread that goes on
  unsigned n = threads.size();
  if (greedy) {
    for (; first < n; first++)
      if (runnable(threads[order[first]])) return order[first];
  } else {
    for (unsigned i = 1; i <= n; i++)
      if (runnable(threads[(now.thread + i) % n])) return (now.thread + i) % n;
  }
  auto count = [](State s) {
    return std::to_string(std::count_if(threads.begin(), threads.end(), [s](Thread& t) { return t.state == s; }));
  };
  stop("deadlock: " + count(State::Barrier) + " threads wait at __syncthreads and " + count(State::Warp) +
       " in a warp collective");
}

static void wake(Thread& t) {
  t.state = State::Ready;
  first = std::min(first, t.rank);
}

static void run_threads();

static Fiber* fiber() {
  if (idle.empty()) {
    void* stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    mprotect(stack, PAGE, PROT_NONE);
    fibers.push_back(new Fiber{{}, static_cast<char*>(stack)});
    start(fibers.back()->context, fibers.back()->stack, run_threads);
    return fibers.back();
  }
  Fiber* f = idle.back();
  idle.pop_back();
  return f;
}

static void resume(unsigned number, Context& from) {  // goes on with that thread, until it is `from`'s turn again
  now.thread = number;
  Thread& next = self();
  if (!next.fiber) next.fiber = fiber();
  if (&next.fiber->context != &from) change(from, next.fiber->context);
}

static void wait() {  // until somebody has woken this thread and the order chooses it
  Thread& t = self();
  resume(choose(), t.fiber->context);
  now.threadIdx = t.index;
}

// ---- Barriers and warp collectives ---------------------------------------------------------------------------------

static void release_barrier() {
  int line = -1;
  for (auto& t : threads) {
    if (t.state != State::Barrier) continue;
    if (line >= 0 && line != t.line)
      stop("divergent __syncthreads: some threads wait in line " + std::to_string(line) + ", others in line " +
           std::to_string(t.line));
    line = t.line;
  }
  for (auto& t : threads)
    if (t.state == State::Barrier) wake(t);
  waiting = 0;
}

void barrier(int line) {
  self().line = line;
  self().state = State::Barrier;
  if (++waiting == alive) release_barrier();
  wait();
}

unsigned barrier_count(int line, bool vote) {
  votes += vote;
  barrier(line);
  unsigned total = votes;
  barrier(line);
  votes = 0;
  return total;
}

static void try_collective(Thread& asking) {  // completes it if all lanes of its mask are there
  unsigned n = threads.size(), warp = (&asking - threads.data()) & ~31u;
  Thread* lanes[32] = {};
  uint32_t ballot = 0;
  for (unsigned l = 0; l < 32 && warp + l < n; l++) {
    Thread& t = threads[warp + l];
    if (!(asking.mask >> l & 1) || t.state == State::Done) continue;
    if (t.state != State::Warp) return;
    if (t.mask != asking.mask || t.what != asking.what) stop("lanes of a warp meet in different collectives");
    lanes[l] = &t;
    ballot |= uint32_t(t.value != 0) << l;
  }
  for (auto* t : lanes) {
    if (!t) continue;
    Thread* source = t->source >= 0 && t->source < 32 ? lanes[t->source] : nullptr;
    t->result = t->what == Collective::Ballot ? ballot : source ? source->value : ~0ull;  // no such lane: a NaN
    wake(*t);
  }
}

uint64_t collective(Collective what, uint32_t mask, uint64_t value, int source) {
  Thread& t = self();
  if (!(mask >> (now.thread & 31) & 1)) stop("a lane calls a warp collective whose mask leaves it out");
  t.what = what, t.mask = mask, t.value = value, t.source = source, t.state = State::Warp;
  try_collective(t);
  wait();
  return t.result;
}

// ---- Running -------------------------------------------------------------------------------------------------------

static void finish_thread() {
  self().state = State::Done;
  alive--;
  if (alive && waiting == alive) release_barrier();
  unsigned warp = now.thread & ~31u, end = std::min<size_t>(warp + 32, threads.size());
  for (unsigned k = warp; k < end; k++)
    if (threads[k].state == State::Warp) try_collective(threads[k]);
}

static void run_threads() {  // what a fiber does: thread after thread, while the next one has not begun elsewhere
  for (;;) {
    Fiber* mine = self().fiber;
    now.threadIdx = self().index;
    self().state = State::Ready;
    body(parameters);
    finish_thread();
    unsigned next = alive ? choose() : now.thread;
    if (alive && !threads[next].fiber) {
      now.thread = next;
      self().fiber = mine;
      continue;
    }
    idle.push_back(mine);
    if (alive) resume(next, mine->context);
    else change(mine->context, launcher);
  }
}

static void run_block() {
  for (auto& t : threads) t.state = State::New, t.fiber = nullptr;
  alive = threads.size();
  waiting = first = votes = 0;
  memset(statics, 0xFF, statics_bytes);  // shared memory holds NaNs, and indices that lead astray
  memset(dynamic, 0xFF, dynamic_end - dynamic);
  resume(order[0], launcher);
}

char* dynamic_shared() { return dynamic; }

static void set_dynamic(unsigned bytes) {
  static char* pages = [] {
    void* p = mmap(nullptr, SHARED_LIMIT + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(static_cast<char*>(p) + SHARED_LIMIT, PAGE, PROT_NONE);
    return static_cast<char*>(p);
  }();
  dynamic_end = pages + SHARED_LIMIT;
  dynamic = dynamic_end - (bytes + 15) / 16 * 16;
}

static void find_statics(const volatile char* inside) {  // `__shared__` is thread_local: the linker lays all side by side
  static const volatile char* found_by = nullptr;
  if (inside == found_by) return;
  found_by = inside;
  dl_iterate_phdr([](dl_phdr_info* info, size_t, void* wanted) {
    for (int i = 0; i < info->dlpi_phnum; i++) {
      auto start = static_cast<char*>(info->dlpi_tls_data);
      if (info->dlpi_phdr[i].p_type != PT_TLS || !start) continue;
      size_t bytes = info->dlpi_phdr[i].p_memsz;
      if (size_t(static_cast<char*>(wanted) - start) < bytes) return statics = start, statics_bytes = bytes, 1;
    }
    return 0;
  }, const_cast<char*>(inside));
}

static void on_fault(int, siginfo_t* info, void*) {
  char text[64];
  snprintf(text, sizeof text, "access to memory that is not the kernel's (%p)", info->si_addr);
  error = text + where();
  siglongjmp(escape, 1);
}

struct CatchFaults {  // a wild access becomes an error of the launch instead of the end of the process
  struct sigaction segv, bus;
  stack_t stack;
  CatchFaults() {
    static char memory[64 << 10];
    stack_t own{};
    own.ss_sp = memory, own.ss_size = sizeof memory;
    sigaltstack(&own, &stack);
    struct sigaction action {};
    action.sa_sigaction = on_fault, action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &segv);
    sigaction(SIGBUS, &action, &bus);
  }
  ~CatchFaults() {
    sigaction(SIGSEGV, &segv, nullptr);
    sigaction(SIGBUS, &bus, nullptr);
    sigaltstack(&stack, nullptr);
  }
};

static std::string problem(const Launch& l) {
  unsigned long long in_block = 1ull * l.block[0] * l.block[1] * l.block[2];
  if (!in_block || in_block > 1024) return "invalid configuration: a block needs 1 to 1024 threads";
  if (!l.grid[0] || !l.grid[1] || !l.grid[2]) return "invalid configuration: a grid needs a block along each axis";
  if (l.grid[0] > 2147483647u || l.grid[1] > 65535 || l.grid[2] > 65535)
    return "invalid configuration: the grid is beyond (2^31 - 1, 65535, 65535)";
  if (statics_bytes + l.shared > SHARED_LIMIT) return "invalid configuration: more than 48 KiB of shared memory";
  return "";
}

static std::vector<unsigned> counted(unsigned count, bool down) {
  std::vector<unsigned> v(count);
  for (unsigned i = 0; i < count; i++) v[i] = down ? count - 1 - i : i;
  return v;
}

static void run_grid(const Launch& l) {
  uint32_t state = l.seed * 2654435761u | 1;
  auto shuffle = [&](std::vector<unsigned>& v) {
    for (unsigned i = v.size() - 1; i > 0; i--) {
      state ^= state << 13, state ^= state >> 17, state ^= state << 5;
      std::swap(v[i], v[state % (i + 1)]);
    }
  };
  unsigned bx = l.block[0], by = l.block[1], n = bx * by * l.block[2];
  now.gridDim = {l.grid[0], l.grid[1], l.grid[2]};
  now.blockDim = {bx, by, l.block[2]};
  threads.assign(n, {});
  for (unsigned i = 0; i < n; i++) threads[i].index = {i % bx, i / bx % by, i / (bx * by)};
  greedy = l.order != Forward;
  order = counted(n, l.order == Reverse);
  auto blocks = counted(l.grid[0] * l.grid[1] * l.grid[2], l.order == Reverse);
  if (l.order == Random) shuffle(blocks);
  for (unsigned b : blocks) {
    if (l.order == Random) shuffle(order);
    for (unsigned i = 0; i < n; i++) threads[order[i]].rank = i;
    now.blockIdx = {b % l.grid[0], b / l.grid[0] % l.grid[1], b / (l.grid[0] * l.grid[1])};
    run_block();
    if (!error.empty()) return;
  }
}

const char* launch(const Launch& l, void (*kernel)(void**), void** values, const volatile char* shared) {
  static std::mutex one_at_a_time;
  std::lock_guard lock(one_at_a_time);
  find_statics(shared);
  error = problem(l);
  if (!error.empty()) return error.c_str();
  body = kernel, parameters = values;
  set_dynamic(l.shared);
  {
    CatchFaults guard;
    if (!sigsetjmp(escape, 1)) run_grid(l);
  }
  if (error.empty()) return nullptr;
  for (auto* f : fibers) munmap(f->stack, STACK), delete f;  // they hang in the middle of a thread
  fibers.clear(), idle.clear();
  return error.c_str();
}

}  // namespace host
