#include "worker/client/cuda_gate.h"

#include <cuda.h>

#include <atomic>
#include <vector>

#include "common/base/mutex.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

// A stream waits until a word reaches the number of its gate. Words are used again with the next number, which a late
// look finds beyond its own too. They are never freed: a stream may look at one long after its gate is gone.
struct Word {
  uint32_t* at = nullptr;
  uint32_t number = 0;
};
constexpr size_t kWords = 4096;

class Words final {
 public:
  static Words& Get() {
    static Words* const words = new Words;
    return *words;
  }
  absl::StatusOr<Word> Take(int device) {
    MutexLock lock(mutex_);
    if (!made_) {
      void* memory = nullptr;
      const CurrentDevice current(device);
      BASIN_RETURN_IF_ERROR(current.status());
      BASIN_RETURN_IF_ERROR(
          Checked(cudaHostAlloc(&memory, kWords * sizeof(uint32_t), cudaHostAllocPortable | cudaHostAllocMapped),
                  device, "pin memory that streams wait on"));
      made_ = true;
      for (size_t i = 0; i < kWords; ++i) {
        uint32_t* const at = static_cast<uint32_t*>(memory) + i;
        *at = 0;
        free_.push_back({at, 0});
      }
    }
    if (free_.empty()) {
      return absl::ResourceExhaustedError(
          absl::StrCat(kWords, " calls hold streams back; wait for some of them before starting more"));
    }
    Word word = free_.back();
    free_.pop_back();
    ++word.number;
    return word;
  }
  void Give(Word word) {
    MutexLock lock(mutex_);
    free_.push_back(word);
  }

 private:
  Mutex mutex_;
  bool made_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Word> free_ ABSL_GUARDED_BY(mutex_);
};

using WaitValue = decltype(&cuStreamWaitValue32);

absl::StatusOr<WaitValue> FindWaitValue(int device) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
// Deprecated from CUDA 13 on, for a call that 12.0 does not have; gives the version that is current for this runtime.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  const cudaError_t error = cudaGetDriverEntryPoint("cuStreamWaitValue32", &function, cudaEnableDefault, &found);
#pragma GCC diagnostic pop
  BASIN_RETURN_IF_ERROR(Checked(error, device, "find cuStreamWaitValue32"));
  if (found != cudaDriverEntryPointSuccess || function == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat(CudaName(device), ": this driver has no cuStreamWaitValue32; install one for CUDA 12 or later"));
  }
  return reinterpret_cast<WaitValue>(function);
}

class CudaGate final : public StreamGate {
 public:
  CudaGate(int device, Word word, WaitValue wait) : device_(device), word_(word), wait_(wait) {}
  ~CudaGate() override {
    Open();
    Words::Get().Give(word_);
  }

  absl::Status HoldBack(const DeviceStream& stream) override {
    const CurrentDevice current(device_);  // stream 0 is the current device's
    BASIN_RETURN_IF_ERROR(current.status());
    void* there = nullptr;
    BASIN_RETURN_IF_ERROR(
        Checked(cudaHostGetDevicePointer(&there, word_.at, 0), device_, "find memory that streams wait on"));
    const CUresult result =
        wait_(StreamOf(stream), reinterpret_cast<CUdeviceptr>(there), word_.number, CU_STREAM_WAIT_VALUE_GEQ);
    if (result == CUDA_SUCCESS) return absl::OkStatus();
    return absl::InternalError(absl::StrCat(CudaName(device_), ": let the stream wait: CUDA driver error ",
                                            static_cast<int>(result), "; is it a stream of this device?"));
  }

  // In order: the copies that the stream is to see have ended, and were waited for.
  void Open() override { std::atomic_ref<uint32_t>(*word_.at).store(word_.number, std::memory_order_release); }

 private:
  const int device_;
  const Word word_;
  const WaitValue wait_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<StreamGate>> MakeCudaGate(int device) {
  BASIN_ASSIGN_OR_RETURN(const WaitValue wait, FindWaitValue(device));
  BASIN_ASSIGN_OR_RETURN(const Word word, Words::Get().Take(device));
  return std::make_unique<CudaGate>(device, word, wait);
}

}  // namespace basin
