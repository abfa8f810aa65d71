// The CUDA twin of the DeviceCopies seam. One thread a direction issues its copies on streams of its own and waits for
// their events, asleep; so no thread of the embedding program ever waits for a device, and its current device stays.
#include <cuda_runtime_api.h>

#include <atomic>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_status.h"
#include "common/device/cuda_uuid.h"
#include "worker/client/cuda_gate.h"
#include "worker/client/device_copies.h"
#include "worker/client/device_rows_cuda.h"
#include "worker/client/device_scratch.h"

namespace basin {
namespace {

// ---- Copies ----

struct Job {
  int device = 0;
  DeviceCopies::Mark after;
  std::function<cudaError_t(cudaStream_t)> start;  // empty: only the mark is waited for
  DeviceCopies::Done done;
};

// Events for marks, used again: one is made and destroyed for each call otherwise, by threads that hold the session's
// mutex. Each is one device's. Held by those who have a mark of it.
class Marks final : public std::enable_shared_from_this<Marks> {
 public:
  ~Marks() {
    MutexLock lock(mutex_);
    for (const auto& [device, events] : free_) {
      for (const cudaEvent_t event : events) static_cast<void>(cudaEventDestroy(event));
    }
  }
  // REQUIRES: it is the current device.
  absl::StatusOr<DeviceCopies::Mark> Take(int device) {
    cudaEvent_t event = nullptr;
    {
      MutexLock lock(mutex_);
      std::vector<cudaEvent_t>& free = free_[device];
      if (!free.empty()) {
        event = free.back();
        free.pop_back();
      }
    }
    if (event == nullptr) {
      BASIN_RETURN_IF_ERROR(Checked(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), device, "make an event"));
    }
    return DeviceCopies::Mark(event, [self = shared_from_this(), device](const void* mark) {
      MutexLock lock(self->mutex_);
      self->free_[device].push_back(EventOf(mark));
    });
  }
  static cudaEvent_t EventOf(const void* mark) { return static_cast<cudaEvent_t>(const_cast<void*>(mark)); }

 private:
  Mutex mutex_;
  std::map<int, std::vector<cudaEvent_t>> free_ ABSL_GUARDED_BY(mutex_);
};

// One direction.
class Line final {
 public:
  // `what`: of its errors.
  explicit Line(const char* what) : what_(what), thread_([this] { Run(); }) {}
  // Carries out what was added.
  ~Line() {
    {
      MutexLock lock(mutex_);
      ending_ = true;
      changed_.NotifyAll();
    }
    thread_.join();
  }

  // From now on no copy is issued before all earlier ones have ended and that was told. One to memory that is not
  // pinned keeps the thread waiting until its mark has passed, and that may wait for what an earlier job is to tell.
  void GoOneByOne() { one_by_one_ = true; }

  void Add(Job job) {
    MutexLock lock(mutex_);
    jobs_.push_back(std::move(job));
    changed_.NotifyAll();
  }

 private:
  struct UnderWay {
    Job job;
    cudaEvent_t event = nullptr;
  };
  // The thread's own, of one device.
  struct Place {
    cudaStream_t stream = nullptr;
    std::vector<cudaEvent_t> events;  // unused
  };

  void Run() {
    std::deque<UnderWay> under_way;
    for (;;) {
      std::deque<Job> jobs;
      {
        MutexLock lock(mutex_);
        while (jobs_.empty() && under_way.empty() && !ending_) changed_.Wait(mutex_);
        jobs.swap(jobs_);
      }
      for (Job& job : jobs) {
        while (one_by_one_ && !under_way.empty()) AwaitOldest(&under_way);
        absl::StatusOr<cudaEvent_t> event = Issue(job);
        if (event.ok()) {
          under_way.push_back({std::move(job), *event});
        } else {
          job.done(event.status());
        }
      }
      if (under_way.empty()) {
        if (jobs.empty()) break;
        continue;
      }
      AwaitOldest(&under_way);
    }
    for (auto& [device, place] : places_) {
      if (cudaSetDevice(device) != cudaSuccess) continue;
      for (const cudaEvent_t event : place.events) static_cast<void>(cudaEventDestroy(event));
      if (place.stream != nullptr) static_cast<void>(cudaStreamDestroy(place.stream));
    }
  }

  void AwaitOldest(std::deque<UnderWay>* under_way) {
    UnderWay oldest = std::move(under_way->front());
    under_way->pop_front();
    const absl::Status status = Checked(cudaEventSynchronize(oldest.event), oldest.job.device, what_);
    places_[oldest.job.device].events.push_back(oldest.event);
    oldest.job.done(status);
  }

  // The event behind the copy.
  absl::StatusOr<cudaEvent_t> Issue(const Job& job) {
    const auto check = [&](cudaError_t error) { return Checked(error, job.device, what_); };
    BASIN_RETURN_IF_ERROR(check(cudaSetDevice(job.device)));
    Place& place = places_[job.device];
    if (place.stream == nullptr) {
      BASIN_RETURN_IF_ERROR(check(cudaStreamCreateWithFlags(&place.stream, cudaStreamNonBlocking)));
    }
    if (place.events.empty()) {
      cudaEvent_t event = nullptr;
      BASIN_RETURN_IF_ERROR(check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync)));
      place.events.push_back(event);
    }
    if (job.after != nullptr) {
      BASIN_RETURN_IF_ERROR(check(cudaStreamWaitEvent(place.stream, Marks::EventOf(job.after.get()), 0)));
    }
    if (job.start) BASIN_RETURN_IF_ERROR(check(job.start(place.stream)));
    BASIN_RETURN_IF_ERROR(check(cudaEventRecord(place.events.back(), place.stream)));
    const cudaEvent_t event = place.events.back();
    place.events.pop_back();
    return event;
  }

  const char* const what_;
  std::atomic<bool> one_by_one_ = false;
  std::map<int, Place> places_;  // the thread's
  Mutex mutex_;
  CondVar changed_;
  std::deque<Job> jobs_ ABSL_GUARDED_BY(mutex_);
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // the last: it uses the others
};

class CudaCopies final : public DeviceCopies {
 public:
  explicit CudaCopies(int devices) : devices_(devices) {}

  absl::Status Prepare(int device) override {
    const CurrentDevice current(device);
    BASIN_RETURN_IF_ERROR(current.status());
    BASIN_RETURN_IF_ERROR(scratch_.Prepare(device));
    BASIN_RETURN_IF_ERROR(rows_->LoadKernels(device));
    for (Line* line : {&out_, &in_}) line->Add({device, nullptr, nullptr, [](const absl::Status&) {}});  // its stream
    return absl::OkStatus();
  }

  absl::Status Check(int device, const void* data, size_t bytes) override {
    if (device < 0 || device >= devices_) {
      return absl::InvalidArgumentError(
          absl::StrCat("there is no ", CudaName(device), "; this process sees ", devices_, " CUDA devices"));
    }
    if (bytes == 0) return absl::OkStatus();
    // To look one up makes the current device's context, and there may be none yet.
    const CurrentDevice current(device);
    BASIN_RETURN_IF_ERROR(current.status());
    for (const char* at : {static_cast<const char*>(data), static_cast<const char*>(data) + bytes - 1}) {
      cudaPointerAttributes found = {};
      BASIN_RETURN_IF_ERROR(Checked(cudaPointerGetAttributes(&found, at), device, "look up a pointer"));
      if (found.type == cudaMemoryTypeManaged) continue;
      if (found.type == cudaMemoryTypeDevice && found.device == device) continue;
      const std::string is = found.type == cudaMemoryTypeDevice ? absl::StrCat("memory of ", CudaName(found.device))
                             : found.type == cudaMemoryTypeHost
                                 ? "pinned host memory, which is passed as device 1 (CPU)"
                                 : "no memory that CUDA knows";
      return absl::InvalidArgumentError(absl::StrCat("byte ", at - static_cast<const char*>(data), " of ", bytes,
                                                     " is ", is, ", the tensor says ", CudaName(device)));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Mark> MarkNow(int device, const DeviceStream& stream) override {
    if (stream.kind == 0) return Mark();
    const CurrentDevice current(device);
    BASIN_RETURN_IF_ERROR(current.status());
    BASIN_ASSIGN_OR_RETURN(Mark mark, marks_->Take(device));
    BASIN_RETURN_IF_ERROR(Checked(cudaEventRecord(Marks::EventOf(mark.get()), StreamOf(stream)), device,
                                  "mark a point in the stream (is it a stream of this device?)"));
    return mark;
  }

  absl::StatusOr<std::string> Id(int device) override { return CudaUuid(device); }
  absl::StatusOr<std::shared_ptr<char>> OpenBlock(int device, const std::string& handle) override {
    cudaIpcMemHandle_t name;
    if (handle.size() != sizeof(name)) return absl::InternalError("a parameter server sent no handle of CUDA's");
    std::memcpy(&name, handle.data(), sizeof(name));
    const CurrentDevice current(device);
    BASIN_RETURN_IF_ERROR(current.status());
    void* block = nullptr;
    BASIN_RETURN_IF_ERROR(Checked(cudaIpcOpenMemHandle(&block, name, cudaIpcMemLazyEnablePeerAccess), device,
                                  "open a parameter server's memory"));
    return std::shared_ptr<char>(static_cast<char*>(block), [device](char* opened) {
      const CurrentDevice there(device);
      static_cast<void>(Checked(cudaIpcCloseMemHandle(opened), device, "close a parameter server's memory"));
    });
  }

  std::shared_ptr<const void> Pin(int device, void* memory, size_t bytes) override {
    const CurrentDevice current(device);
    if (!current.status().ok()) return nullptr;
    const cudaError_t error = cudaHostRegister(memory, bytes, cudaHostRegisterPortable);
    if (!Checked(error, device, "pin").ok()) {
      out_.GoOneByOne();
      return nullptr;
    }
    return {memory, [device](void* pinned) {
              const CurrentDevice there(device);
              static_cast<void>(cudaHostUnregister(pinned));
            }};
  }

  void CopyOut(int device, const Mark& after, void* to, const void* from, size_t bytes, Done done) override {
    out_.Add({device, after, Copying(to, from, bytes), std::move(done)});
  }
  void CopyIn(int device, void* to, const void* from, size_t bytes, Done done) override {
    in_.Add({device, nullptr, Copying(to, from, bytes), std::move(done)});
  }

  void NarrowOut(int device, const Mark& after, DType type, void* to, const void* from, uint64_t n,
                 Done done) override {
    const auto start = [this, device, type, to, from, n](cudaStream_t stream) {
      return scratch_.NarrowOut(device, stream, type, to, static_cast<const float*>(from), n);
    };
    out_.Add({device, after, start, std::move(done)});
  }
  void FindUnfit(int device, const Mark& after, DType from, DType type, const void* values, uint64_t n, Unfit* unfit,
                 Done done) override {
    const auto start = [this, device, from, type, values, n, unfit](cudaStream_t stream) {
      return scratch_.FindUnfit(device, stream, from, type, values, n, unfit);
    };
    out_.Add({device, after, start, std::move(done)});
  }

  absl::StatusOr<std::unique_ptr<DeviceRows>> PrepareRows(const DeviceRowsItem& item) override {
    const CurrentDevice current(item.device);
    BASIN_RETURN_IF_ERROR(current.status());
    return rows_->Prepare(item);
  }

  absl::StatusOr<std::unique_ptr<StreamGate>> NewGate(int device) override { return MakeCudaGate(device); }

 private:
  static DeviceRowsMemory::AddToLine AddingTo(Line& line) {
    return [&line](int device, const Mark& after, DeviceRowsMemory::Start start, Done done) {
      line.Add({device, after, std::move(start), std::move(done)});
    };
  }
  // Between the device and the host, or within the device: CUDA sees which from the addresses.
  static std::function<cudaError_t(cudaStream_t)> Copying(void* to, const void* from, size_t bytes) {
    if (bytes == 0) return nullptr;
    return [=](cudaStream_t stream) { return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream); };
  }

  const int devices_;
  const std::shared_ptr<Marks> marks_ = std::make_shared<Marks>();
  DeviceScratch scratch_;  // used by the line out alone
  const std::shared_ptr<DeviceRowsMemory> rows_ = std::make_shared<DeviceRowsMemory>(AddingTo(out_), AddingTo(in_));
  Line out_{"copy out of device memory"};
  Line in_{"copy into device memory"};
};

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceCopies>> OpenDeviceCopies() {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return absl::FailedPreconditionError(absl::StrCat("no CUDA device can be used here: ", cudaGetErrorString(error),
                                                      " (", cudaGetErrorName(error), "); copy to host memory first"));
  }
  if (devices == 0) {
    return absl::FailedPreconditionError("no CUDA device is there; copy to host memory first");
  }
  try {
    return std::make_unique<CudaCopies>(devices);
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(absl::StrCat("no thread for copies from and to devices: ", error.what()));
  }
}

}  // namespace basin
