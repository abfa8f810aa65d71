#include "tests/cuda_on_host/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tests/cuda_on_host/lock.h"
#include "tests/cuda_on_host/sanitizers.h"

#if !defined(__x86_64__)
#error "fibers are switched in x86-64's assembler; elsewhere configure with -DBASIN_CUDA=OFF"
#endif

extern "C" {
// Saves the registers that a callee keeps, and the stack pointer in *from; goes on with those of `to`.
__attribute__((visibility("hidden"))) void basin_switch_fiber(void** from, void* to);
__attribute__((visibility("hidden"))) void basin_enter_fiber();
}
// The first switch to a fiber finds it in rbx.
asm(R"(
  .text
  .type basin_switch_fiber, @function
  .globl basin_switch_fiber
basin_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size basin_switch_fiber, .-basin_switch_fiber
  .type basin_enter_fiber, @function
  .globl basin_enter_fiber
basin_enter_fiber:
  movq %rbx, %rdi
  callq *%rbp
  hlt
  .size basin_enter_fiber, .-basin_enter_fiber
)");

namespace basin::cuda_on_host {
namespace {

constexpr size_t kGuard = 4096;
// A kernel needs little; a sanitizer's report is written on it too.
constexpr size_t kStack = 256 << 10;

// Never destroyed: executors may run at exit.
Lock& PoolLock() {
  static Lock& lock = *new Lock;
  return lock;
}
std::vector<Fiber*>& Pool() {
  static std::vector<Fiber*>& pool = *new std::vector<Fiber*>;
  return pool;
}

}  // namespace

Fiber* Fiber::Take() {
  PoolLock().lock();
  Fiber* fiber = nullptr;
  if (!Pool().empty()) {
    fiber = Pool().back();
    Pool().pop_back();
  }
  PoolLock().unlock();
  return fiber != nullptr ? fiber : new Fiber;
}

void Fiber::Rest(const std::vector<Fiber*>& fibers) {
  PoolLock().lock();
  Pool().insert(Pool().end(), fibers.rbegin(), fibers.rend());
  PoolLock().unlock();
}

Fiber::Fiber() {
  void* memory =
      mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kGuard, PROT_NONE) != 0) {
    std::perror("cuda_on_host: memory for the stack of a CUDA thread");
    std::abort();
  }
  bottom_ = static_cast<char*>(memory) + kGuard;
  // As basin_switch_fiber leaves a stack: r15, r14, r13, r12, rbx, rbp, where to return to. Then the stack is aligned
  // as the called function expects it.
  auto* const top = reinterpret_cast<uint64_t*>(bottom_ + kStack) - 2;
  top[-1] = reinterpret_cast<uint64_t>(&basin_enter_fiber);
  top[-2] = reinterpret_cast<uint64_t>(&Main);
  top[-3] = reinterpret_cast<uint64_t>(this);
  stack_pointer_ = top - 7;
  if (WatchesRaces()) race_context_ = __tsan_create_fiber(0);
}

void Fiber::Main(Fiber* fiber) {
  if (__sanitizer_finish_switch_fiber != nullptr) {
    __sanitizer_finish_switch_fiber(nullptr, &fiber->back_bottom_, &fiber->back_size_);
  }
  for (;;) {
    fiber->body_(fiber->argument_);
    fiber->SwitchBack();
  }
}

void Fiber::Start(void (*body)(void*), void* argument) {
  body_ = body;
  argument_ = argument;
  SwitchTo();
}

void Fiber::Resume() { SwitchTo(); }

// No order comes from a switch: that a thread of a block ran before another orders nothing on a GPU.
constexpr unsigned kNoOrder = 1;

void Fiber::SwitchTo() {
  void* fake_stack = nullptr;
  if (race_context_ != nullptr) {
    back_race_context_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(race_context_, kNoOrder);
  }
  if (__sanitizer_start_switch_fiber != nullptr) __sanitizer_start_switch_fiber(&fake_stack, bottom_, kStack);
  basin_switch_fiber(&back_stack_pointer_, stack_pointer_);
  if (__sanitizer_finish_switch_fiber != nullptr) __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}

void Fiber::SwitchBack() {
  if (race_context_ != nullptr) __tsan_switch_to_fiber(back_race_context_, kNoOrder);
  if (__sanitizer_start_switch_fiber != nullptr) {
    __sanitizer_start_switch_fiber(&fake_stack_, back_bottom_, back_size_);
  }
  basin_switch_fiber(&stack_pointer_, back_stack_pointer_);
  if (__sanitizer_finish_switch_fiber != nullptr) {
    __sanitizer_finish_switch_fiber(fake_stack_, &back_bottom_, &back_size_);
  }
}

}  // namespace basin::cuda_on_host
