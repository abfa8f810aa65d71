// A device that counts what crosses to it and back, and how often the CPU waits for it.
#pragma once

#include <memory>
#include <utility>

#include "common/device/device.h"

namespace basin {

class CountingDevice final : public Device {
 public:
  explicit CountingDevice(std::unique_ptr<Device> device) : device_(std::move(device)) {}

  struct Counts {
    size_t bytes_in = 0, bytes_out = 0;
    int waits = 0;
  };
  // Since the last call.
  Counts Take() { return std::exchange(counts_, {}); }

  absl::string_view name() const override { return device_->name(); }
  bool is_host() const override { return device_->is_host(); }
  absl::StatusOr<DeviceMemory> Allocate(size_t bytes) override { return device_->Allocate(bytes); }
  PinnedMemory Pin(void* memory, size_t bytes) override { return device_->Pin(memory, bytes); }
  void CopyIn(void* to, const void* from, size_t bytes) override {
    counts_.bytes_in += bytes;
    device_->CopyIn(to, from, bytes);
  }
  void CopyOut(void* to, const void* from, size_t bytes) override {
    counts_.bytes_out += bytes;
    device_->CopyOut(to, from, bytes);
  }
  uint64_t Mark() override { return device_->Mark(); }
  absl::Status WaitFor(uint64_t mark) override {
    ++counts_.waits;
    return device_->WaitFor(mark);
  }
  absl::Status Finish() override {
    ++counts_.waits;
    return device_->Finish();
  }
  int number() const override { return device_->number(); }
  const void* stream() const override { return device_->stream(); }
  absl::StatusOr<const void*> StreamAt(uint64_t mark) override { return device_->StreamAt(mark); }

  void Gemm(Transpose a_transposed, Transpose b_transposed, int64_t m, int64_t n, int64_t k, float alpha,
            const float* a, const float* b, float beta, float* c) override {
    device_->Gemm(a_transposed, b_transposed, m, n, k, alpha, a, b, beta, c);
  }
  void AddBias(int64_t rows, int64_t columns, const float* bias, float* x) override {
    device_->AddBias(rows, columns, bias, x);
  }
  void Relu(int64_t count, float* x) override { device_->Relu(count, x); }
  void ReluBackward(int64_t count, const float* forward, float* gradient) override {
    device_->ReluBackward(count, forward, gradient);
  }
  void ColumnSums(int64_t rows, int64_t columns, const float* x, float* out) override {
    device_->ColumnSums(rows, columns, x, out);
  }
  void CopyColumns(int64_t rows, absl::Span<const ColumnCopy> copies) override { device_->CopyColumns(rows, copies); }
  void SoftmaxCrossEntropy(int64_t rows, int64_t classes, const float* logits, const uint8_t* labels, float* gradient,
                           LossResult* result) override {
    device_->SoftmaxCrossEntropy(rows, classes, logits, labels, gradient, result);
  }
  void SigmoidCrossEntropy(int64_t rows, const float* logits, const uint8_t* labels, float* gradient,
                           LossResult* result) override {
    device_->SigmoidCrossEntropy(rows, logits, labels, gradient, result);
  }

 private:
  const std::unique_ptr<Device> device_;
  Counts counts_;
};

}  // namespace basin
