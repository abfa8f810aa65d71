// The runtime's functions about events, also those between processes.
#include <cuda_runtime_api.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "tests/cuda_on_host/calls.h"
#include "tests/cuda_on_host/device_memory.h"
#include "tests/cuda_on_host/sanitizers.h"
#include "tests/cuda_on_host/streams.h"

namespace basin::cuda_on_host {
namespace {

struct Record {
  Point point;
  std::chrono::steady_clock::time_point time;
};

// In memory of all processes that have the event.
struct Counts {
  std::atomic<uint64_t> recorded;
  std::atomic<uint64_t> reached;  // the highest of those that the streams have come to
};

// What another process did is not seen by the sanitizer: each wait for it is ordered behind each record here.
char between_processes = 0;

void Reach(Counts* counts, uint64_t number) {
  Release(&between_processes);
  uint64_t reached = counts->reached.load();
  while (reached < number && !counts->reached.compare_exchange_weak(reached, number)) {
  }
}

bool IsReached(const Counts* counts, uint64_t number) {
  if (counts->reached.load() < number) return false;
  Acquire(&between_processes);
  return true;
}

void WaitForReach(const Counts* counts, uint64_t number) {
  while (!IsReached(counts, number)) std::this_thread::sleep_for(std::chrono::microseconds(20));
}

}  // namespace
}  // namespace basin::cuda_on_host

// Used by one thread at a time, as the runtime asks for.
struct CUevent_st {
  unsigned flags = 0;
  std::shared_ptr<basin::cuda_on_host::Record> record;  // null before the first
  basin::cuda_on_host::Counts* counts = nullptr;        // of one between processes
  int file = -1;                                        // that holds them; in the process that made it

  bool timed() const { return (flags & cudaEventDisableTiming) == 0; }
};

using namespace basin::cuda_on_host;

namespace {

Counts* MapCounts(int file) {
  void* memory = mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<Counts*>(memory);
}

// As the first bytes of CUDA's handle, as MemoryInFile is.
struct EventHandle {
  pid_t process;
  int file;
};
static_assert(sizeof(MemoryInFile) <= CUDA_IPC_HANDLE_SIZE && sizeof(EventHandle) <= CUDA_IPC_HANDLE_SIZE);

}  // namespace

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return Call(__func__, [&] {
    auto made = std::make_unique<CUevent_st>();
    made->flags = flags;
    if ((flags & cudaEventInterprocess) != 0) {
      if (made->timed()) return cudaErrorInvalidValue;
      made->file = memfd_create("cuda_on_host event", MFD_CLOEXEC);
      if (made->file < 0 || ftruncate(made->file, sizeof(Counts)) != 0) return cudaErrorMemoryAllocation;
      made->counts = MapCounts(made->file);
      if (made->counts == nullptr) return cudaErrorMemoryAllocation;
    }
    *event = made.release();
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return Call(__func__, [&] {
    if (event == nullptr) return cudaErrorInvalidResourceHandle;
    // Streams may still wait for its counts: they stay mapped.
    if (event->file >= 0) close(event->file);
    delete event;
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return Call(__func__, [&] {
    if (event == nullptr || !IsStream(stream)) return cudaErrorInvalidResourceHandle;
    if (Counts* const counts = event->counts; counts != nullptr) {
      const uint64_t number = ++counts->recorded;
      Enqueue(
          stream, [counts, number] { Reach(counts, number); }, Seen::kByItself, false);
      return cudaSuccess;
    }
    const auto record = std::make_shared<Record>();
    event->record = record;
    record->point = Enqueue(
        stream, [record] { record->time = std::chrono::steady_clock::now(); }, Seen::kWhenWaitedFor, false);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned /*flags*/) {
  return Call(__func__, [&] {
    if (event == nullptr || !IsStream(stream)) return cudaErrorInvalidResourceHandle;
    if (const Counts* const counts = event->counts; counts != nullptr) {
      const uint64_t number = counts->recorded;
      Enqueue(
          stream, [counts, number] { WaitForReach(counts, number); }, Seen::kWhenWaitedFor, false);
    } else if (event->record != nullptr) {
      EnqueueWait(stream, event->record->point);
    }
    return cudaSuccess;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return Call(__func__, [&] {
    if (event == nullptr) return cudaErrorInvalidResourceHandle;
    if (event->counts != nullptr) {
      WaitForReach(event->counts, event->counts->recorded);
    } else if (event->record != nullptr) {
      WaitFor(event->record->point);
    }
    return Begin("");
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return Call(__func__, [&] {
    if (event == nullptr) return cudaErrorInvalidResourceHandle;
    const bool done = event->counts != nullptr ? IsReached(event->counts, event->counts->recorded)
                                               : event->record == nullptr || IsDone(event->record->point);
    return done ? Begin("") : cudaErrorNotReady;
  });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  return Call(__func__, [&] {
    for (const cudaEvent_t event : {from, to}) {
      if (event == nullptr || !event->timed() || event->record == nullptr) return cudaErrorInvalidResourceHandle;
      if (!IsDone(event->record->point)) return cudaErrorNotReady;
    }
    *milliseconds = std::chrono::duration<float, std::milli>(to->record->time - from->record->time).count();
    return cudaSuccess;
  });
}

cudaError_t cudaIpcGetEventHandle(cudaIpcEventHandle_t* handle, cudaEvent_t event) {
  return Call(__func__, [&] {
    if (event == nullptr || event->file < 0) return cudaErrorInvalidResourceHandle;
    const EventHandle made = {getpid(), event->file};
    std::memset(handle, 0, sizeof *handle);
    std::memcpy(handle, &made, sizeof made);
    return cudaSuccess;
  });
}

cudaError_t cudaIpcOpenEventHandle(cudaEvent_t* event, cudaIpcEventHandle_t handle) {
  return Call(__func__, [&] {
    EventHandle made;
    std::memcpy(&made, &handle, sizeof made);
    if (made.process == getpid()) return cudaErrorDeviceUninitialized;
    const std::string path = "/proc/" + std::to_string(made.process) + "/fd/" + std::to_string(made.file);
    const int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (file < 0) return cudaErrorMapBufferObjectFailed;
    auto opened = std::make_unique<CUevent_st>();
    opened->flags = cudaEventInterprocess | cudaEventDisableTiming;
    opened->counts = MapCounts(file);
    close(file);
    if (opened->counts == nullptr) return cudaErrorMapBufferObjectFailed;
    *event = opened.release();
    return cudaSuccess;
  });
}

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* memory) {
  return Call(__func__, [&] {
    MemoryInFile made;
    if (!ShareDeviceMemory(memory, &made)) return cudaErrorInvalidValue;
    std::memset(handle, 0, sizeof *handle);
    std::memcpy(handle, &made, sizeof made);
    return cudaSuccess;
  });
}

cudaError_t cudaIpcOpenMemHandle(void** memory, cudaIpcMemHandle_t handle, unsigned flags) {
  return Call(__func__, [&] {
    MemoryInFile made;
    std::memcpy(&made, &handle, sizeof made);
    if (flags != cudaIpcMemLazyEnablePeerAccess) return cudaErrorInvalidValue;
    if (made.process == getpid()) return cudaErrorDeviceUninitialized;
    *memory = MapDeviceMemory(made);
    return *memory == nullptr ? cudaErrorMapBufferObjectFailed : cudaSuccess;
  });
}

cudaError_t cudaIpcCloseMemHandle(void* memory) {
  return Call(__func__, [&] {
    Quiesce(true);
    return UnmapDeviceMemory(memory) ? cudaSuccess : cudaErrorInvalidValue;
  });
}
