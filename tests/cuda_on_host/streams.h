// Streams: each has a thread that does its operations in order.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

namespace basin::cuda_on_host {

// A place in a stream: behind its operation `number`, counted from 1.
struct Point {
  std::shared_ptr<CUstream_st> stream;
  uint64_t number = 0;
};

struct Operation {
  std::function<void()> run;
  std::vector<Point> after;  // of other streams
  bool on_device = true;     // whether it may touch device memory
  // Of the thread that asked for it, for the sanitizer. By address, so never moved.
  std::unique_ptr<char> order = std::make_unique<char>();
  uint64_t number = 0;
};

// Who notices that an operation has run, but for those that wait: with BASIN_TEST_CUDA_LAZY such a one is not put off.
enum class Seen { kWhenWaitedFor, kByItself };

// Adds `run` to the stream; null is the default stream. REQUIRES: IsStream.
Point Enqueue(cudaStream_t stream, std::function<void()> run, Seen seen = Seen::kWhenWaitedFor, bool on_device = true);
// As an operation of the stream: what follows is done after `point`.
void EnqueueWait(cudaStream_t stream, const Point& point);
bool IsStream(cudaStream_t stream);
cudaStream_t MakeStream(unsigned flags, int priority, int device);
// What is in it is still done.
void DestroyStream(cudaStream_t stream);
Point LastPointOf(cudaStream_t stream);
std::vector<Point> LastPoints();

void WaitFor(const Point& point);
// Waits for all streams, and meanwhile nobody adds to one: so the driver has the device to itself where it frees memory
// or loads code. `ordered`: what they did is ordered before the caller.
void Quiesce(bool ordered);
// Before code runs: at its first use on the current device the driver loads it, and may have to Quiesce. A lazy one
// need not. `code`: which it is.
void Load(uint64_t code);
// In lazy mode the first to ask hears no, and the work begins.
bool IsDone(const Point& point);

// Drops what has not run, now and later.
void LoseDevice();

}  // namespace basin::cuda_on_host

struct CUstream_st {
  unsigned flags = 0;
  int priority = 0;
  int device = 0;
  std::deque<basin::cuda_on_host::Operation> queue;
  uint64_t asked = 0;     // number of the last operation
  uint64_t done = 0;      // all up to this one have run
  uint64_t demanded = 0;  // those up to this one may run
  bool destroyed = false;
  char order = 0;  // for the sanitizer
};
