#include "common/device/cuda_device.h"

#include <cuda_runtime_api.h>

#include <deque>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/device/cublas.h"
#include "common/device/cuda_kernels.h"
#include "common/device/cuda_memory.h"
#include "common/device/cuda_status.h"

namespace basin {
namespace {

// Losses that may be asked for before a Finish; with more there is one in between.
constexpr size_t kMostResults = 64;
// More than the variables of a model whose gradients are waited for one by one, or they are waited for together.
constexpr size_t kMarks = 64;

// Both wait for what uses the memory. Of what fails here the device's next Finish tells, if it is lost.
void Free(void* memory) { static_cast<void>(cudaFree(memory)); }
void Unpin(void* memory) {
  static_cast<void>(cudaDeviceSynchronize());
  static_cast<void>(cudaHostUnregister(memory));
}

class CudaDevice final : public Device {
 public:
  static absl::StatusOr<std::unique_ptr<Device>> Open(int number) {
    auto device = std::unique_ptr<CudaDevice>(new CudaDevice(number));
    BASIN_ASSIGN_OR_RETURN(device->cublas_, LoadCublas());
    const auto check = [&device](cudaError_t error, const char* what) {
      return CudaStatus(error, device->name_, what);
    };
    BASIN_RETURN_IF_ERROR(check(cudaSetDevice(number), "open"));
    for (cudaStream_t* stream : {&device->stream_, &device->marks_stream_}) {
      BASIN_RETURN_IF_ERROR(check(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking), "make a stream"));
    }
    for (cudaEvent_t& mark : device->marks_) {
      BASIN_RETURN_IF_ERROR(check(cudaEventCreateWithFlags(&mark, cudaEventDisableTiming), "make an event"));
    }
    void* results = nullptr;
    BASIN_RETURN_IF_ERROR(
        check(cudaHostAlloc(&results, kMostResults * sizeof(LossResult), cudaHostAllocMapped), "pin memory"));
    device->results_ = static_cast<LossResult*>(results);
    cublasStatus_t status = device->cublas_->create(&device->handle_);
    if (status == CUBLAS_STATUS_SUCCESS) status = device->cublas_->set_stream(device->handle_, device->stream_);
    if (status != CUBLAS_STATUS_SUCCESS) return device->CublasError("open cuBLAS", status);
    return device;
  }

  ~CudaDevice() override {
    Use();
    losses_ = DeviceVector<RowLoss>();
    if (handle_ != nullptr) cublas_->destroy(handle_);
    if (results_ != nullptr) cudaFreeHost(results_);
    for (const cudaEvent_t mark : marks_) {
      if (mark != nullptr) cudaEventDestroy(mark);
    }
    for (const cudaStream_t stream : {stream_, marks_stream_}) {
      if (stream != nullptr) cudaStreamDestroy(stream);
    }
  }

  absl::string_view name() const override { return name_; }

  bool is_host() const override { return false; }

  absl::StatusOr<DeviceMemory> Allocate(size_t bytes) override {
    BASIN_RETURN_IF_ERROR(status_);
    Use();
    BASIN_ASSIGN_OR_RETURN(void* const memory, AllocateCuda(name_, bytes));
    return DeviceMemory(memory, bytes, &Free);
  }

  PinnedMemory Pin(void* memory, size_t bytes) override {
    Use();
    if (bytes == 0) return PinnedMemory();
    const cudaError_t error = cudaHostRegister(memory, bytes, cudaHostRegisterDefault);
    static_cast<void>(cudaGetLastError());
    return error == cudaSuccess ? PinnedMemory(memory, &Unpin) : PinnedMemory();
  }

  void CopyIn(void* to, const void* from, size_t bytes) override {
    if (!Ready() || bytes == 0) return;
    Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "copy to the device");
  }
  void CopyOut(void* to, const void* from, size_t bytes) override {
    if (!Ready() || bytes == 0) return;
    Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "copy from the device");
  }

  uint64_t Mark() override {
    if (Ready()) Check(cudaEventRecord(marks_[marked_ % kMarks], stream_), "mark a point");
    return marked_++;
  }
  absl::Status WaitFor(uint64_t mark) override {
    // The event of an old mark may be that of a newer one by now: it waits for more.
    if (Ready()) Check(cudaEventSynchronize(marks_[mark % kMarks]), "wait for a mark");
    TakeResults(mark);
    return status_;
  }

  absl::Status Finish() override {
    if (Ready()) Check(cudaStreamSynchronize(stream_), "wait for what was asked before");
    TakeResults(marked_);
    return status_;
  }

  int number() const override { return number_; }
  const void* stream() const override { return stream_; }
  absl::StatusOr<const void*> StreamAt(uint64_t mark) override {
    // The event of an old mark may be that of a newer one by now, as in WaitFor.
    if (Ready()) Check(cudaStreamWaitEvent(marks_stream_, marks_[mark % kMarks], 0), "let a stream wait for a mark");
    if (!status_.ok()) return status_;
    return marks_stream_;
  }

  void Gemm(Transpose a_transposed, Transpose b_transposed, int64_t m, int64_t n, int64_t k, float alpha,
            const float* a, const float* b, float beta, float* c) override {
    if (!Ready()) return;
    const bool ta = a_transposed == Transpose::kYes, tb = b_transposed == Transpose::kYes;
    constexpr int64_t kMost = std::numeric_limits<int>::max();
    if (m > kMost || n > kMost || k > kMost) {
      status_ = absl::InvalidArgumentError(
          absl::StrCat(name_, ": a product of ", m, " x ", k, " x ", n, "; cuBLAS takes extents up to ", kMost));
      return;
    }
    // cuBLAS has matrices by columns: there C is its own transpose, op(B)^T op(A)^T.
    const cublasStatus_t status =
        cublas_->sgemm(handle_, tb ? CUBLAS_OP_T : CUBLAS_OP_N, ta ? CUBLAS_OP_T : CUBLAS_OP_N, static_cast<int>(n),
                       static_cast<int>(m), static_cast<int>(k), &alpha, b, static_cast<int>(tb ? k : n), a,
                       static_cast<int>(ta ? m : k), &beta, c, static_cast<int>(n));
    if (status != CUBLAS_STATUS_SUCCESS) status_ = CublasError("multiply", status);
  }

  void AddBias(int64_t rows, int64_t columns, const float* bias, float* x) override {
    if (Ready()) Check(StartAddBias(stream_, rows, columns, bias, x), "add a bias");
  }
  void Relu(int64_t count, float* x) override {
    if (Ready()) Check(StartRelu(stream_, count, x), "ReLU");
  }
  void ReluBackward(int64_t count, const float* forward, float* gradient) override {
    if (Ready()) Check(StartReluBackward(stream_, count, forward, gradient), "ReLU's gradient");
  }
  void ColumnSums(int64_t rows, int64_t columns, const float* x, float* out) override {
    if (Ready()) Check(StartColumnSums(stream_, rows, columns, x, out), "sum columns");
  }
  void CopyColumns(int64_t rows, absl::Span<const ColumnCopy> copies) override {
    if (Ready()) Check(StartCopyColumns(stream_, rows, copies), "copy columns");
  }

  void SoftmaxCrossEntropy(int64_t rows, int64_t classes, const float* logits, const uint8_t* labels, float* gradient,
                           LossResult* result) override {
    if (!ReadyForLosses(rows)) return;
    Check(StartSoftmaxCrossEntropy(stream_, rows, classes, logits, labels, gradient, losses_.data()),
          "softmax cross entropy");
    SumLosses(rows, result);
  }
  void SigmoidCrossEntropy(int64_t rows, const float* logits, const uint8_t* labels, float* gradient,
                           LossResult* result) override {
    if (!ReadyForLosses(rows)) return;
    Check(StartSigmoidCrossEntropy(stream_, rows, logits, labels, gradient, losses_.data()), "sigmoid cross entropy");
    SumLosses(rows, result);
  }

 private:
  explicit CudaDevice(int number) : number_(number), name_(absl::StrCat("cuda:", number)) {}

  // The current device is the thread's, and others may set theirs.
  void Use() { Check(cudaSetDevice(number_), "use"); }
  bool Ready() {
    if (status_.ok()) Use();
    return status_.ok();
  }
  void Check(cudaError_t error, const char* what) {
    if (error != cudaSuccess && status_.ok()) status_ = CudaStatus(error, name_, what);
  }
  absl::Status CublasError(const char* what, cublasStatus_t status) const {
    const std::string text = absl::StrCat(name_, ": ", what, ": ", cublas_->status_string(status));
    return status == CUBLAS_STATUS_ALLOC_FAILED ? absl::ResourceExhaustedError(text) : absl::InternalError(text);
  }

  bool ReadyForLosses(int64_t rows) {
    if (!Ready()) return false;
    if (wanted_.size() == kMostResults) status_ = Finish();
    if (status_.ok()) status_ = losses_.Resize(*this, static_cast<size_t>(rows));
    return status_.ok();
  }
  // The kernel writes into the host's memory, which is shorter than a copy of 16 bytes after it.
  void SumLosses(int64_t rows, LossResult* result) {
    LossResult* const made = results_ + asked_++ % kMostResults;
    Check(StartSumLosses(stream_, rows, losses_.data(), made), "sum losses");
    wanted_.push_back({result, made, marked_});
  }
  // Of those that were asked for before `mark`.
  void TakeResults(uint64_t mark) {
    while (!wanted_.empty() && wanted_.front().mark <= mark) {
      if (status_.ok()) *wanted_.front().to = *wanted_.front().made;
      wanted_.pop_front();
    }
  }

  const int number_;
  const std::string name_;
  const Cublas* cublas_ = nullptr;
  cudaStream_t stream_ = nullptr;
  cudaStream_t marks_stream_ = nullptr;  // StreamAt's
  cublasHandle_t handle_ = nullptr;
  cudaEvent_t marks_[kMarks] = {};
  uint64_t marked_ = 0;
  struct Wanted {
    LossResult* to;
    const LossResult* made;
    uint64_t mark;  // the first that is behind it
  };
  LossResult* results_ = nullptr;  // pinned; used in turn
  uint64_t asked_ = 0;
  std::deque<Wanted> wanted_;
  DeviceVector<RowLoss> losses_;  // of the newest, a row each
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int number) { return CudaDevice::Open(number); }

}  // namespace basin
