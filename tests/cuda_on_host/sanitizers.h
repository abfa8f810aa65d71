// What the sanitizers are told, where the program is built with one: which fiber runs, and what CUDA orders.
#pragma once

#include <cstddef>

extern "C" {
__attribute__((weak)) void* __tsan_get_current_fiber();
__attribute__((weak)) void* __tsan_create_fiber(unsigned flags);
__attribute__((weak)) void __tsan_switch_to_fiber(void* fiber, unsigned flags);
__attribute__((weak)) void __tsan_acquire(void* address);
__attribute__((weak)) void __tsan_release(void* address);
__attribute__((weak)) void __tsan_read_range(void* address, unsigned long size);
__attribute__((weak)) void __tsan_write_range(void* address, unsigned long size);
__attribute__((weak)) void __tsan_ignore_thread_begin();
__attribute__((weak)) void __tsan_ignore_thread_end();
__attribute__((weak)) void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* size);
}

namespace basin::cuda_on_host {

inline bool WatchesRaces() { return __tsan_create_fiber != nullptr; }

// What was done before Release(token) happened before what is done after an Acquire(token) that follows it.
inline void Release(const void* token) {
  if (__tsan_release != nullptr) __tsan_release(const_cast<void*>(token));
}
inline void Acquire(const void* token) {
  if (__tsan_acquire != nullptr) __tsan_acquire(const_cast<void*>(token));
}

// For code that the sanitizer does not see.
inline void SayRead(const void* memory, size_t bytes) {
  if (__tsan_read_range != nullptr) __tsan_read_range(const_cast<void*>(memory), bytes);
}
inline void SayWritten(void* memory, size_t bytes) {
  if (__tsan_write_range != nullptr) __tsan_write_range(memory, bytes);
}

}  // namespace basin::cuda_on_host
