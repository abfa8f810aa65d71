#include "tests/cuda_on_host/block.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "absl/debugging/symbolize.h"
#include "tests/cuda_on_host/device_memory.h"
#include "tests/cuda_on_host/fiber.h"
#include "tests/cuda_on_host/sanitizers.h"

namespace basin::cuda_on_host {

constinit thread_local Position position = {};

namespace {

constexpr unsigned kWarp = 32;

enum class State { kReady, kAtBarrier, kInWarp, kReturned };

struct Thread {
  State state = State::kReady;
  Fiber* fiber = nullptr;  // from its start until it returns
  Site site = {};          // where it waits
  WarpOperation operation = WarpOperation::kSync;
  unsigned mask = 0;
  unsigned source = 0;
  uint64_t value = 0;  // given to a warp's operation, then its result
};

std::string Text(uint3 index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
}
std::string Text(Site site) {
  return std::string(site.file) + ":" + std::to_string(site.line) + " in " + site.function;
}
const char* NameOf(WarpOperation operation) {
  switch (operation) {
    case WarpOperation::kSync:
      return "__syncwarp";
    case WarpOperation::kShuffle:
      return "a shuffle";
    case WarpOperation::kBallot:
      return "a vote";
    case WarpOperation::kMatch:
      return "__match_any_sync";
  }
  return "";
}

// First in, first out. Each thread is in it at most once, and fibers add to it: the sanitizer is not to see that, so it
// allocates nothing.
class ReadyThreads {
 public:
  explicit ReadyThreads(size_t most) : threads_(most) {}
  bool empty() const { return size_ == 0; }
  void Add(unsigned thread) { threads_[(first_ + size_++) % threads_.size()] = thread; }
  unsigned Take() {
    const unsigned thread = threads_[first_];
    first_ = (first_ + 1) % threads_.size();
    --size_;
    return thread;
  }

 private:
  std::vector<unsigned> threads_;
  size_t first_ = 0;
  size_t size_ = 0;
};

// One block at a time of one grid.
class Block {
 public:
  Block(const void* kernel, uint3 size, const std::function<void()>& body)
      : kernel_(kernel), size_(size), body_(body), threads_(size_t{size.x} * size.y * size.z), ready_(threads_.size()) {
    warps_.resize((threads_.size() + kWarp - 1) / kWarp);
    if (WatchesRaces()) idle_.resize(threads_.size());
  }
  ~Block() { Fiber::Rest(idle_); }

  // What the caller did is ordered before all blocks.
  void Begin() { Release(&begin_); }
  // And they before what it does next.
  void End() {
    Acquire(&ends_[0]);
    Acquire(&ends_[1]);
  }

  void Run(uint3 index) {
    position.block = index;
    ++blocks_;
    returned_ = 0;
    for (unsigned i = 0; i < threads_.size(); ++i) {
      threads_[i].state = State::kReady;
      ready_.Add(i);
    }
    while (!ready_.empty()) {
      running_ = ready_.Take();
      RunThread(threads_[running_]);
    }
    if (returned_ != threads_.size()) Abort("its threads wait for some that do not come");
  }

  Votes Meet(int predicate, Site site) {
    Barrier& barrier = barriers_[turn_ % 2];
    Thread& me = threads_[running_];
    me.state = State::kAtBarrier;
    me.site = site;
    if (barrier.arrived == 0) {
      barrier.votes = {1, 0, 0};
      barrier.first = site;
    } else if (barrier.first.line != site.line || std::strcmp(barrier.first.file, site.file) != 0) {
      Abort("its threads are at two barriers at once");
    }
    barrier.votes.all &= predicate != 0;
    barrier.votes.any |= predicate != 0;
    barrier.votes.count += predicate != 0;
    Release(&barrier);
    if (++barrier.arrived < threads_.size()) {
      me.fiber->SwitchBack();
    } else {
      // Nobody comes to this one again before all have left it: the next is the other one.
      barrier.arrived = 0;
      ++turn_;
      for (unsigned i = 0; i < threads_.size(); ++i) GoOn(i);
    }
    Acquire(&barrier);
    return barrier.votes;
  }

  uint64_t MeetWarp(WarpOperation operation, unsigned mask, uint64_t value, unsigned source, Site site) {
    Thread& me = threads_[running_];
    me.state = State::kInWarp;
    me.site = site;
    me.operation = operation;
    me.mask = mask;
    me.value = value;
    me.source = source;
    if ((mask >> lane() & 1) == 0) Abort("a thread calls a warp operation whose mask does not name it");
    const void* const token = &warps_[running_ / kWarp];
    if (operation == WarpOperation::kSync) Release(token);
    if (!CompleteWarp()) me.fiber->SwitchBack();
    if (operation == WarpOperation::kSync) Acquire(token);
    return me.value;
  }

  unsigned lane() const { return running_ % kWarp; }

  std::string What() const {
    char name[512];
    if (!absl::Symbolize(kernel_, name, sizeof name)) std::snprintf(name, sizeof name, "kernel at %p", kernel_);
    return std::string(name) + ", block " + Text(position.block) + ", thread " + Text(IndexOf(running_));
  }

 private:
  struct Barrier {
    size_t arrived = 0;
    Site first = {};
    Votes votes = {};
  };

  uint3 IndexOf(unsigned thread) const {
    return {thread % size_.x, thread / size_.x % size_.y, thread / size_.x / size_.y};
  }

  // A fiber whose thread has returned serves the next, so that a kernel without barriers needs one. To the sanitizer a
  // fiber is a thread, and two CUDA threads on one would be ordered: there each has its own.
  Fiber*& IdleFiber() {
    if (WatchesRaces()) return idle_[running_];
    if (idle_.empty()) idle_.push_back(nullptr);
    return idle_.back();
  }

  void RunThread(Thread& thread) {
    position.thread = IndexOf(running_);
    if (thread.fiber != nullptr) {
      thread.fiber->Resume();
    } else {
      Fiber*& idle = IdleFiber();
      if (idle == nullptr) idle = Fiber::Take();
      thread.fiber = idle;
      if (!WatchesRaces()) idle_.pop_back();
      thread.fiber->Start([](void* block) { static_cast<Block*>(block)->RunBody(); }, this);
    }
    if (thread.state != State::kReturned) return;
    if (!WatchesRaces()) idle_.push_back(thread.fiber);
    thread.fiber = nullptr;
  }

  // On the thread's fiber.
  void RunBody() {
    Acquire(&begin_);
    Acquire(&ends_[1 - blocks_ % 2]);  // of the block before, which used the same shared memory
    body_();
    Release(&ends_[blocks_ % 2]);
    threads_[running_].state = State::kReturned;
    ++returned_;
  }

  void GoOn(unsigned thread) {
    threads_[thread].state = State::kReady;
    if (thread != running_) ready_.Add(thread);
  }

  // Whether all lanes that the running thread's operation names have come: then each has its result.
  bool CompleteWarp() {
    const Thread me = threads_[running_];
    const unsigned first = running_ - lane();
    unsigned there = 0;
    for (unsigned i = 0; i < kWarp && first + i < threads_.size(); ++i) {
      if ((me.mask >> i & 1) == 0) continue;
      const Thread& other = threads_[first + i];
      if (other.state != State::kInWarp || other.operation != me.operation || other.mask != me.mask) return false;
      there |= 1u << i;
    }
    uint64_t results[kWarp] = {};
    for (unsigned i = 0; i < kWarp; ++i) {
      if ((there >> i & 1) != 0) results[i] = ResultOf(first, i, there);
    }
    for (unsigned i = 0; i < kWarp; ++i) {
      if ((there >> i & 1) == 0) continue;
      threads_[first + i].value = results[i];
      GoOn(first + i);
    }
    return true;
  }

  uint64_t ResultOf(unsigned first, unsigned lane, unsigned there) {
    const Thread& thread = threads_[first + lane];
    if (thread.operation == WarpOperation::kSync) return 0;
    if (thread.operation == WarpOperation::kShuffle) {
      if (first + thread.source >= threads_.size()) return thread.value;
      if ((there >> thread.source & 1) == 0) Abort("a shuffle reads of a lane that its mask does not name");
      return threads_[first + thread.source].value;
    }
    uint64_t lanes = 0;
    for (unsigned i = 0; i < kWarp; ++i) {
      if ((there >> i & 1) == 0) continue;
      const uint64_t value = threads_[first + i].value;
      const bool counts = thread.operation == WarpOperation::kBallot ? value != 0 : value == thread.value;
      if (counts) lanes |= uint64_t{1} << i;
    }
    return lanes;
  }

  [[noreturn]] void Abort(const char* why) {
    std::string text = "cuda_on_host: divergence: " + What() + ": " + why + "\n";
    // The first of each kind of waiting tells the story.
    State told = State::kReady;
    for (unsigned i = 0; i < threads_.size(); ++i) {
      const Thread& thread = threads_[i];
      if (thread.state == told && i != running_) continue;
      told = thread.state;
      text += "  thread " + Text(IndexOf(i));
      if (thread.state == State::kReady) text += " has not come to a barrier";
      if (thread.state == State::kReturned) text += " has returned";
      if (thread.state == State::kAtBarrier) text += " waits at the barrier " + Text(thread.site);
      if (thread.state == State::kInWarp) {
        char mask[16];
        std::snprintf(mask, sizeof mask, "0x%08x", thread.mask);
        text += std::string(" waits in ") + NameOf(thread.operation) + " for lanes " + mask + ", " + Text(thread.site);
      }
      text += "\n";
    }
    std::fputs(text.c_str(), stderr);
    std::abort();
  }

  const void* const kernel_;
  const uint3 size_;
  const std::function<void()>& body_;
  std::vector<Thread> threads_;
  std::vector<Fiber*> idle_;
  ReadyThreads ready_;
  unsigned running_ = 0;
  size_t returned_ = 0;
  size_t blocks_ = 0;  // counts from the first that ran here
  Barrier barriers_[2];
  size_t turn_ = 0;
  // Tokens for the sanitizer.
  std::vector<char> warps_;
  char begin_ = 0;
  char ends_[2] = {};
};

thread_local Block* running_block = nullptr;

Block& Running(const char* what) {
  if (running_block == nullptr) {
    std::fprintf(stderr, "cuda_on_host: %s is called outside of a kernel\n", what);
    std::abort();
  }
  return *running_block;
}

char fence_token = 0;

}  // namespace

Votes MeetBlock(int predicate, Site site) { return Running("a barrier").Meet(predicate, site); }

uint64_t MeetWarp(WarpOperation operation, unsigned mask, uint64_t value, unsigned source, Site site) {
  return Running("a warp operation").MeetWarp(operation, mask, value, source, site);
}

unsigned Lane() { return Running("a warp operation").lane(); }

void Fence() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  Release(&fence_token);
  Acquire(&fence_token);
}

namespace {

// Every `step`th block from `first`.
void RunBlocks(Block& block, uint3 grid, uint3 size, uint64_t first, uint64_t step) {
  position.grid_size = grid;
  position.block_size = size;
  running_block = &block;
  for (uint64_t i = first; i < uint64_t{grid.x} * grid.y * grid.z; i += step) {
    block.Run({static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
               static_cast<unsigned>(i / grid.x / grid.y)});
  }
  running_block = nullptr;
}

}  // namespace

void RunGrid(const void* kernel, dim3 grid, dim3 size, const std::function<void()>& thread) {
  const uint3 grid_size = {grid.x, grid.y, grid.z}, block_size = {size.x, size.y, size.z};
  Block block(kernel, block_size, thread);
  if (!WatchesRaces() || (grid.x == 1 && grid.y == 1 && grid.z == 1)) {
    block.Begin();
    RunBlocks(block, grid_size, block_size, 0, 1);
    block.End();
    return;
  }
  // Blocks that run on one thread of the CPU share its shared memory, and so are ordered. With two, on fibers of their
  // own, the sanitizer sees neighbours as what they are.
  Block other(kernel, block_size, thread);
  std::thread beside([&] {
    const DeviceWork work;
    other.Begin();
    RunBlocks(other, grid_size, block_size, 1, 2);
  });
  block.Begin();
  RunBlocks(block, grid_size, block_size, 0, 2);
  beside.join();
  block.End();
  other.End();
}

std::string WhatRuns() { return running_block == nullptr ? "" : running_block->What(); }

}  // namespace basin::cuda_on_host
