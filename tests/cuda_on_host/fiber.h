// Stacks that a thread of the CPU switches between: each thread of a CUDA block has one.
#pragma once

#include <cstddef>
#include <vector>

namespace basin::cuda_on_host {

class Fiber {
 public:
  // From those that rest, or a new one; never deleted. To the thread sanitizer each is a thread.
  static Fiber* Take();
  static void Rest(const std::vector<Fiber*>& fibers);

  // Called by the executor: runs `body(argument)` on the fiber until it calls SwitchBack or returns.
  // REQUIRES: what it ran before has returned.
  void Start(void (*body)(void*), void* argument);
  // Goes on behind SwitchBack.
  void Resume();
  // Called on the fiber: the executor's Start or Resume returns.
  void SwitchBack();

 private:
  Fiber();
  static void Main(Fiber* fiber);
  void SwitchTo();

  char* bottom_;
  void* stack_pointer_ = nullptr;
  void* race_context_ = nullptr;
  void* fake_stack_ = nullptr;
  void (*body_)(void*) = nullptr;
  void* argument_ = nullptr;
  // Of the executor that runs it.
  void* back_stack_pointer_ = nullptr;
  void* back_race_context_ = nullptr;
  const void* back_bottom_ = nullptr;
  size_t back_size_ = 0;
};

}  // namespace basin::cuda_on_host
