// The runtime's functions about memory and copies.
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "tests/cuda_on_host/calls.h"
#include "tests/cuda_on_host/device_memory.h"
#include "tests/cuda_on_host/lock.h"
#include "tests/cuda_on_host/settings.h"
#include "tests/cuda_on_host/streams.h"

namespace basin::cuda_on_host {
namespace {

struct Pinned {
  size_t bytes = 0;
  bool allocated = false;  // by cudaHostAlloc, else registered
};
struct PinnedMemories {
  Lock lock;
  std::map<uintptr_t, Pinned> all;
};
PinnedMemories& ThePinned() {
  static PinnedMemories& memories = *new PinnedMemories;
  return memories;
}

// REQUIRES: the lock.
bool Overlaps(const PinnedMemories& memories, uintptr_t begin, size_t bytes) {
  auto next = memories.all.lower_bound(begin + bytes);
  if (next == memories.all.begin()) return false;
  --next;
  return next->first + next->second.bytes > begin;
}

enum class Pinning { kNone, kPart, kWhole };
Pinning PinningOf(const void* memory, size_t bytes) {
  PinnedMemories& memories = ThePinned();
  const std::lock_guard<Lock> hold(memories.lock);
  const auto begin = reinterpret_cast<uintptr_t>(memory);
  if (!Overlaps(memories, begin, bytes)) return Pinning::kNone;
  const auto next = memories.all.upper_bound(begin);
  if (next == memories.all.begin()) return Pinning::kPart;
  const auto& [at, pinned] = *std::prev(next);
  return begin + bytes <= at + pinned.bytes ? Pinning::kWhole : Pinning::kPart;
}
bool IsPinned(const void* memory) { return PinningOf(memory, 1) == Pinning::kWhole; }

// Takes what cudaHostAlloc made, or cudaHostRegister named.
bool Forget(void* memory, bool allocated) {
  PinnedMemories& memories = ThePinned();
  const std::lock_guard<Lock> hold(memories.lock);
  const auto found = memories.all.find(reinterpret_cast<uintptr_t>(memory));
  if (found == memories.all.end() || found->second.allocated != allocated) return false;
  memories.all.erase(found);
  return true;
}

// Of one side of a copy.
struct Side {
  bool on_device = false;
  bool pinned = false;
  bool valid = true;  // within one allocation, or one pinned piece, or outside of all
};
Side SideOf(const void* memory, size_t bytes) {
  const Place place = PlaceOf(memory);
  if (place.region == Region::kOther) {
    const Pinning pinning = PinningOf(memory, bytes);
    return {false, pinning == Pinning::kWhole, pinning != Pinning::kPart};
  }
  return {true, false, place.region == Region::kDevice && bytes <= place.left};
}

bool Fits(cudaMemcpyKind kind, bool to_device, bool from_device) {
  switch (kind) {
    case cudaMemcpyHostToHost:
      return !to_device && !from_device;
    case cudaMemcpyHostToDevice:
      return to_device && !from_device;
    case cudaMemcpyDeviceToHost:
      return !to_device && from_device;
    case cudaMemcpyDeviceToDevice:
      return to_device && from_device;
    case cudaMemcpyDefault:
      return true;
  }
  return false;
}

struct Copy {
  void* to;
  size_t to_pitch;
  const void* from;
  size_t from_pitch;
  size_t width;
  size_t height;
};

void Run(const Copy& copy) {
  if (copy.to_pitch == copy.width && copy.from_pitch == copy.width) {
    std::memmove(copy.to, copy.from, copy.width * copy.height);
    return;
  }
  for (size_t row = 0; row < copy.height; ++row) {
    std::memmove(static_cast<char*>(copy.to) + row * copy.to_pitch,
                 static_cast<const char*>(copy.from) + row * copy.from_pitch, copy.width);
  }
}

// `waits`: as cudaMemcpy, not cudaMemcpyAsync. What CUDA may do at once is done at once, and what it may do late is
// done in the stream: memory that is not pinned is read at the call, and is written when it returns.
cudaError_t Start(Copy copy, cudaMemcpyKind kind, cudaStream_t stream, bool waits) {
  if (copy.width == 0 || copy.height == 0) return cudaSuccess;
  if (copy.to_pitch < copy.width || copy.from_pitch < copy.width) return cudaErrorInvalidValue;
  if (!IsStream(stream)) return cudaErrorInvalidResourceHandle;
  const Side to = SideOf(copy.to, (copy.height - 1) * copy.to_pitch + copy.width);
  const Side from = SideOf(copy.from, (copy.height - 1) * copy.from_pitch + copy.width);
  if (!to.valid || !from.valid || !Fits(kind, to.on_device, from.on_device)) return cudaErrorInvalidValue;
  if (to.on_device && !from.on_device && !from.pinned) {
    if (waits) WaitFor(LastPointOf(stream));
    auto staged = std::make_shared<std::vector<char>>(copy.width * copy.height);
    Run({staged->data(), copy.width, copy.from, copy.from_pitch, copy.width, copy.height});
    copy.from = staged->data();
    copy.from_pitch = copy.width;
    Enqueue(stream, [copy, staged = std::move(staged)] { Run(copy); });
    return cudaSuccess;
  }
  const Point done = Enqueue(stream, [copy] { Run(copy); });
  const bool pageable = (!to.on_device && !to.pinned) || (!from.on_device && !from.pinned);
  const bool within_device = to.on_device && from.on_device;
  if (pageable || (waits && !within_device)) WaitFor(done);
  return Begin("");
}

cudaError_t Fill(void* memory, int value, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!IsStream(stream)) return cudaErrorInvalidResourceHandle;
  const Side side = SideOf(memory, bytes);
  if (!side.valid || (!side.on_device && !side.pinned)) return cudaErrorInvalidValue;
  Enqueue(stream, [memory, value, bytes] { std::memset(memory, value, bytes); });
  return cudaSuccess;
}

}  // namespace
}  // namespace basin::cuda_on_host

using namespace basin::cuda_on_host;

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  return Call(__func__, [&] {
    *memory = bytes == 0 ? nullptr : AllocateDeviceMemory(CurrentDevice(), bytes);
    return *memory == nullptr && bytes != 0 ? cudaErrorMemoryAllocation : cudaSuccess;
  });
}

cudaError_t cudaFree(void* memory) {
  return Call(__func__, [&] {
    if (memory == nullptr) return cudaSuccess;
    Quiesce(true);
    return FreeDeviceMemory(memory) ? cudaSuccess : cudaErrorInvalidValue;
  });
}

cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned /*flags*/) {
  return Call(__func__, [&] {
    constexpr size_t kPage = 4096;
    *memory = bytes == 0 ? nullptr : std::aligned_alloc(kPage, (bytes + kPage - 1) / kPage * kPage);
    if (*memory == nullptr) return bytes == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
    PinnedMemories& memories = ThePinned();
    const std::lock_guard<Lock> hold(memories.lock);
    memories.all[reinterpret_cast<uintptr_t>(*memory)] = {bytes, true};
    return cudaSuccess;
  });
}

cudaError_t cudaMallocHost(void** memory, size_t bytes) { return cudaHostAlloc(memory, bytes, cudaHostAllocDefault); }

cudaError_t cudaFreeHost(void* memory) {
  return Call(__func__, [&] {
    if (memory == nullptr) return cudaSuccess;
    Quiesce(true);
    if (!Forget(memory, true)) return cudaErrorInvalidValue;
    std::free(memory);
    return cudaSuccess;
  });
}

cudaError_t cudaHostRegister(void* memory, size_t bytes, unsigned /*flags*/) {
  return Call(__func__, [&] {
    if (memory == nullptr || bytes == 0) return cudaErrorInvalidValue;
    PinnedMemories& memories = ThePinned();
    const std::lock_guard<Lock> hold(memories.lock);
    const auto begin = reinterpret_cast<uintptr_t>(memory);
    if (Overlaps(memories, begin, bytes)) return cudaErrorHostMemoryAlreadyRegistered;
    memories.all[begin] = {bytes, false};
    return cudaSuccess;
  });
}

cudaError_t cudaHostUnregister(void* memory) {
  return Call(__func__, [&] {
    if (!TheSettings().lazy) Quiesce(false);
    return Forget(memory, false) ? cudaSuccess : cudaErrorHostMemoryNotRegistered;
  });
}

cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned /*flags*/) {
  return Call(__func__, [&] {
    if (!IsPinned(host)) return cudaErrorInvalidValue;
    *device = host;
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return Call(__func__, [&] { return Start({to, bytes, from, bytes, bytes, 1}, kind, nullptr, true); });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return Call(__func__, [&] { return Start({to, bytes, from, bytes, bytes, 1}, kind, stream, false); });
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  return Call(__func__, [&] { return Start({to, to_pitch, from, from_pitch, width, height}, kind, stream, false); });
}

cudaError_t cudaMemset(void* memory, int value, size_t bytes) {
  return Call(__func__, [&] { return Fill(memory, value, bytes, nullptr); });
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  return Call(__func__, [&] { return Fill(memory, value, bytes, stream); });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory) {
  return Call(__func__, [&] {
    std::memset(attributes, 0, sizeof *attributes);
    const Place place = PlaceOf(memory);
    attributes->device = -1;
    attributes->type = cudaMemoryTypeUnregistered;
    if (place.region == Region::kDevice) {
      attributes->type = cudaMemoryTypeDevice;
      attributes->device = place.device;
      attributes->devicePointer = const_cast<void*>(memory);
    } else if (IsPinned(memory)) {
      attributes->type = cudaMemoryTypeHost;
      attributes->device = CurrentDevice();
      attributes->devicePointer = const_cast<void*>(memory);
      attributes->hostPointer = const_cast<void*>(memory);
    }
    return cudaSuccess;
  });
}
