// The Device seam: where gradients are computed. Matrices are float32, row-major, in the device's memory. Twins:
// cpu_device, whose memory is the host's, and cuda_device. No CUDA type stands here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace basin {

enum class Transpose : bool { kNo = false, kYes = true };

class DeviceMemory;
class PinnedMemory;

// What is asked for runs in the order of asking, and may still run when the call returns; Finish waits. Until then what
// is read must not change and what is written must not be looked at. A failure is kept, what is asked for after it does
// nothing, and Finish tells it. On the CPU each call has ended when it returns. Not thread-safe: one thread a device
// object at a time.
class Device {
 public:
  virtual ~Device() = default;
  virtual absl::string_view name() const = 0;

  // ---- Memory ----

  // Whether its memory is the host's: then pointers serve on both sides, and nothing need be copied.
  virtual bool is_host() const = 0;
  // At least `bytes`, not initialised, aligned to 256. RESOURCE_EXHAUSTED: how much is free.
  virtual absl::StatusOr<DeviceMemory> Allocate(size_t bytes) = 0;
  // Makes host memory such that copies from and to it go at full speed and beside kernels, until the object is gone,
  // which must be before that memory. Where that is not possible copies are slower, nothing else.
  virtual PinnedMemory Pin(void* memory, size_t bytes) = 0;
  // From host memory into the device's.
  virtual void CopyIn(void* to, const void* from, size_t bytes) = 0;
  // From the device's memory into the host's.
  virtual void CopyOut(void* to, const void* from, size_t bytes) = 0;
  // A point behind all that was asked for so far, for WaitFor.
  virtual uint64_t Mark() = 0;
  // Waits for what was asked for before the mark, perhaps for more: what was copied out before may be looked at. Fails
  // as Finish.
  virtual absl::Status WaitFor(uint64_t mark) = 0;
  // Waits for all that was asked for. The first failure since the device was opened: RESOURCE_EXHAUSTED, or INTERNAL
  // where the device is lost, which it then stays.
  virtual absl::Status Finish() = 0;

  // ---- For those who copy from and to its memory by themselves, in its order ----

  // A CUDA device's number and its stream, a cudaStream_t: what is asked for runs there. On the CPU -1 and nullptr.
  virtual int number() const = 0;
  virtual const void* stream() const = 0;
  // The device's second stream, on which nothing runs: it has come to where it is now when the device has come to the
  // mark, while what was asked for behind the mark still runs. Marks are given in their order. Fails as Finish.
  virtual absl::StatusOr<const void*> StreamAt(uint64_t mark) = 0;

  // ---- Operations ----

  // C[m, n] = alpha * op(A)[m, k] * op(B)[k, n] + beta * C. A is [m, k] as it lies in memory, or [k, m] where it is
  // transposed; B likewise. With beta 0, C may be uninitialised.
  virtual void Gemm(Transpose a_transposed, Transpose b_transposed, int64_t m, int64_t n, int64_t k, float alpha,
                    const float* a, const float* b, float beta, float* c) = 0;
  // x[row, :] += bias, for each row.
  virtual void AddBias(int64_t rows, int64_t columns, const float* bias, float* x) = 0;
  // x = max(x, 0).
  virtual void Relu(int64_t count, float* x) = 0;
  // gradient = 0 where the forward result was not above 0.
  virtual void ReluBackward(int64_t count, const float* forward, float* gradient) = 0;
  // out[column] = sum over the rows.
  virtual void ColumnSums(int64_t rows, int64_t columns, const float* x, float* out) = 0;

  // `columns` neighbouring columns of one matrix, which become columns of another: a row begins `from_width` numbers
  // behind the one before it, and `to_width` there.
  struct ColumnCopy {
    const float* from;
    int64_t from_width;
    float* to;
    int64_t to_width;
    int64_t columns;
  };
  // Puts matrices of `rows` rows beside each other, or takes one apart. REQUIRES: what one of the copies writes no
  // other one reads or writes.
  virtual void CopyColumns(int64_t rows, absl::Span<const ColumnCopy> copies) = 0;

  struct LossResult {
    double loss_sum = 0;   // over the rows: -log of the label's probability
    uint64_t correct = 0;  // rows whose largest logit is the label's (the first of equal ones)
  };
  // Softmax, then cross entropy with the labels (each below `classes`). Where gradient is not null it becomes the
  // gradient of the mean loss with respect to the logits: (softmax - one-hot) / rows. It may be `logits` itself.
  // *result, in host memory, is there after WaitFor of a later mark, or Finish.
  virtual void SoftmaxCrossEntropy(int64_t rows, int64_t classes, const float* logits, const uint8_t* labels,
                                   float* gradient, LossResult* result) = 0;
  // The same for two classes and one logit a row: sigmoid, then cross entropy with the labels (0 or 1). The gradient is
  // (sigmoid - label) / rows; `correct` counts the rows whose logit is above 0 where the label is 1, and only there. It
  // may be `logits` itself.
  virtual void SigmoidCrossEntropy(int64_t rows, const float* logits, const uint8_t* labels, float* gradient,
                                   LossResult* result) = 0;
};

// A piece of a device's memory. Its end waits for what was asked for before, which may use it; the device may be closed
// by then.
class DeviceMemory final {
 public:
  DeviceMemory() : data_(nullptr, nullptr) {}
  DeviceMemory(void* data, size_t bytes, void (*free)(void*)) : data_(data, free), bytes_(bytes) {}
  void* data() const { return data_.get(); }
  size_t bytes() const { return bytes_; }

 private:
  std::unique_ptr<void, void (*)(void*)> data_;
  size_t bytes_ = 0;
};

// Host memory that is pinned for as long as this lives.
class PinnedMemory final {
 public:
  PinnedMemory() : memory_(nullptr, nullptr) {}  // pins nothing
  PinnedMemory(void* memory, void (*unpin)(void*)) : memory_(memory, unpin) {}

 private:
  std::unique_ptr<void, void (*)(void*)> memory_;
};

// Values in a device's memory, which grows as it is needed.
template <typename T>
class DeviceVector final {
 public:
  // Room for `count` values. Their old values are lost where it grows.
  absl::Status Resize(Device& device, size_t count) {
    if (count * sizeof(T) > memory_.bytes()) {
      memory_ = DeviceMemory();
      absl::StatusOr<DeviceMemory> memory = device.Allocate(count * sizeof(T));
      if (!memory.ok()) return memory.status();
      memory_ = *std::move(memory);
    }
    size_ = count;
    return absl::OkStatus();
  }
  T* data() const { return static_cast<T*>(memory_.data()); }
  size_t size() const { return size_; }

 private:
  DeviceMemory memory_;
  size_t size_ = 0;
};

// Host values as a device reads them: themselves where the device's memory is the host's, else a copy of them.
template <typename T>
class DeviceInput final {
 public:
  // The values must not change before the device has finished. Valid until the next call.
  absl::StatusOr<const T*> Bring(Device& device, const T* values, size_t count) {
    if (device.is_host()) return values;
    if (absl::Status resized = copy_.Resize(device, count); !resized.ok()) return resized;
    device.CopyIn(copy_.data(), values, count * sizeof(T));
    return copy_.data();
  }

 private:
  DeviceVector<T> copy_;
};

// Host memory as a device writes into it, likewise.
template <typename T>
class DeviceOutput final {
 public:
  // Where the device is to write what goes to `values`. Valid until the next call.
  absl::StatusOr<T*> Place(Device& device, T* values, size_t count) {
    values_ = values;
    count_ = count;
    if (device.is_host()) return values;
    if (absl::Status resized = copy_.Resize(device, count); !resized.ok()) return resized;
    return copy_.data();
  }
  // Once it was asked to write there. The values are in host memory after WaitFor of a later mark, or Finish.
  void Fetch(Device& device) {
    if (!device.is_host()) device.CopyOut(values_, copy_.data(), count_ * sizeof(T));
  }

 private:
  T* values_ = nullptr;
  size_t count_ = 0;
  DeviceVector<T> copy_;
};

// "cpu"; "cuda:N", or "cuda" for cuda:0; "auto": the first CUDA device that can be used, else the CPU. INVALID_ARGUMENT
// where the name is none of these, FAILED_PRECONDITION where the device cannot be used, with why.
// `threads` computing threads of the CPU, at least 1.
absl::StatusOr<std::unique_ptr<Device>> OpenDevice(absl::string_view name, int threads);

}  // namespace basin
