#include "tests/cuda_on_host/streams.h"

#include <pthread.h>

#include <limits>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "tests/cuda_on_host/calls.h"
#include "tests/cuda_on_host/device_memory.h"
#include "tests/cuda_on_host/lock.h"
#include "tests/cuda_on_host/sanitizers.h"
#include "tests/cuda_on_host/settings.h"

namespace basin::cuda_on_host {
namespace {

using Stream = std::shared_ptr<CUstream_st>;

struct Streams {
  Lock lock;
  Changes changes;
  std::map<cudaStream_t, Stream> all;  // null: the default stream
  int quiescing = 0;                   // threads that do
  std::set<std::pair<int, uint64_t>> loaded;
  bool lost = false;
};

Streams& TheStreams() {
  static Streams& streams = *new Streams;
  return streams;
}

// REQUIRES: the lock.
void Demand(Streams& streams, const Point& point) {
  if (point.stream->demanded >= point.number) return;
  point.stream->demanded = point.number;
  streams.changes.Announce();
}

// REQUIRES: the lock. Afterwards what the stream did is ordered before the caller.
void Await(Streams& streams, const Point& point) {
  Demand(streams, point);
  streams.changes.Await(streams.lock, [&] { return point.stream->done >= point.number; });
  Acquire(&point.stream->order);
}

void Execute(const Stream& stream) {
  Streams& streams = TheStreams();
  const std::lock_guard<Lock> hold(streams.lock);
  for (;;) {
    streams.changes.Await(streams.lock, [&] {
      return stream->queue.empty() ? stream->destroyed : stream->queue.front().number <= stream->demanded;
    });
    if (stream->queue.empty()) return;
    Operation operation = std::move(stream->queue.front());
    stream->queue.pop_front();
    for (const Point& point : operation.after) Await(streams, point);
    Acquire(operation.order.get());
    if (!streams.lost) {
      streams.lock.unlock();
      if (operation.on_device) {
        const DeviceWork work;
        operation.run();
      } else {
        operation.run();
      }
      operation.run = nullptr;
      streams.lock.lock();
    }
    Release(&stream->order);
    stream->done = operation.number;
    streams.changes.Announce();
  }
}

// REQUIRES: the lock.
const Stream& Open(Streams& streams, cudaStream_t key, Stream stream) {
  stream->demanded = TheSettings().lazy ? 0 : std::numeric_limits<uint64_t>::max();
  std::thread([stream] {
    pthread_setname_np(pthread_self(), "cuda stream");
    Execute(stream);
  }).detach();
  return streams.all[key] = std::move(stream);
}

// REQUIRES: the lock. The default stream has many names.
const Stream& Get(Streams& streams, cudaStream_t stream) {
  if (stream == cudaStreamLegacy) stream = nullptr;
  const auto found = streams.all.find(stream);
  if (found != streams.all.end()) return found->second;
  return Open(streams, nullptr, std::make_shared<CUstream_st>());
}

Point Last(const Stream& stream) { return {stream, stream->asked}; }

// REQUIRES: the lock.
void AwaitQuiet(Streams& streams) {
  streams.changes.Await(streams.lock, [&] { return streams.quiescing == 0; });
}

// REQUIRES: the lock.
Point Add(Streams& streams, const Stream& stream, Operation operation) {
  operation.number = ++stream->asked;
  stream->queue.push_back(std::move(operation));
  streams.changes.Announce();
  return Last(stream);
}

}  // namespace

Point Enqueue(cudaStream_t handle, std::function<void()> run, Seen seen, bool on_device) {
  Streams& streams = TheStreams();
  Operation operation;
  operation.run = std::move(run);
  operation.on_device = on_device;
  Release(operation.order.get());
  const std::lock_guard<Lock> hold(streams.lock);
  AwaitQuiet(streams);
  const Stream stream = Get(streams, handle);
  const auto blocking = [](const Stream& other) { return (other->flags & cudaStreamNonBlocking) == 0; };
  const auto standard = streams.all.find(nullptr);
  // The default stream and those that are not non-blocking wait for each other.
  for (const auto& [key, other] : streams.all) {
    const bool of_two =
        other != stream && (key == nullptr || (standard != streams.all.end() && stream == standard->second));
    if (of_two && blocking(other) && blocking(stream)) operation.after.push_back(Last(other));
  }
  const Point point = Add(streams, stream, std::move(operation));
  if (seen == Seen::kByItself) Demand(streams, point);
  return point;
}

void EnqueueWait(cudaStream_t handle, const Point& point) {
  Streams& streams = TheStreams();
  Operation operation;
  operation.run = [] {};
  operation.on_device = false;
  operation.after = {point};
  Release(operation.order.get());
  const std::lock_guard<Lock> hold(streams.lock);
  AwaitQuiet(streams);
  Add(streams, Get(streams, handle), std::move(operation));
}

bool IsStream(cudaStream_t stream) {
  if (stream == nullptr || stream == cudaStreamLegacy) return true;
  Streams& streams = TheStreams();
  const std::lock_guard<Lock> hold(streams.lock);
  return streams.all.count(stream) != 0;
}

cudaStream_t MakeStream(unsigned flags, int priority, int device) {
  Streams& streams = TheStreams();
  auto stream = std::make_shared<CUstream_st>();
  stream->flags = flags;
  stream->priority = priority;
  stream->device = device;
  const std::lock_guard<Lock> hold(streams.lock);
  return Open(streams, stream.get(), stream).get();
}

void DestroyStream(cudaStream_t handle) {
  Streams& streams = TheStreams();
  const std::lock_guard<Lock> hold(streams.lock);
  const Stream stream = Get(streams, handle);
  Demand(streams, Last(stream));
  stream->destroyed = true;
  streams.all.erase(handle);
  streams.changes.Announce();
}

Point LastPointOf(cudaStream_t stream) {
  Streams& streams = TheStreams();
  const std::lock_guard<Lock> hold(streams.lock);
  return Last(Get(streams, stream));
}

std::vector<Point> LastPoints() {
  Streams& streams = TheStreams();
  const std::lock_guard<Lock> hold(streams.lock);
  std::vector<Point> points;
  for (const auto& [key, stream] : streams.all) points.push_back(Last(stream));
  return points;
}

void WaitFor(const Point& point) {
  Streams& streams = TheStreams();
  const std::lock_guard<Lock> hold(streams.lock);
  Await(streams, point);
}

void Quiesce(bool ordered) {
  Streams& streams = TheStreams();
  const std::lock_guard<Lock> hold(streams.lock);
  ++streams.quiescing;
  std::vector<Point> points;
  for (const auto& [key, stream] : streams.all) points.push_back(Last(stream));
  for (const Point& point : points) {
    Demand(streams, point);
    streams.changes.Await(streams.lock, [&] { return point.stream->done >= point.number; });
    if (ordered) Acquire(&point.stream->order);
  }
  --streams.quiescing;
  streams.changes.Announce();
}

void Load(uint64_t code) {
  if (TheSettings().lazy) return;
  {
    Streams& streams = TheStreams();
    const std::lock_guard<Lock> hold(streams.lock);
    if (!streams.loaded.insert({CurrentDevice(), code}).second) return;
  }
  Quiesce(false);
}

bool IsDone(const Point& point) {
  Streams& streams = TheStreams();
  const std::lock_guard<Lock> hold(streams.lock);
  if (point.stream->done >= point.number) {
    Acquire(&point.stream->order);
    return true;
  }
  Demand(streams, point);
  return false;
}

void LoseDevice() {
  Streams& streams = TheStreams();
  const std::lock_guard<Lock> hold(streams.lock);
  streams.lost = true;
  streams.changes.Announce();
}

}  // namespace basin::cuda_on_host
