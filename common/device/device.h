// The Device seam: where gradients are computed. Matrices are float32, row-major, in the device's memory (the CPU's is
// the caller's). Twins: cpu_device; the CUDA twin repeats its names. No CUDA type stands here.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace basin {

enum class Transpose : bool { kNo = false, kYes = true };

// Calls run in order; on the CPU each has ended when it returns. Not thread-safe: one thread a device object.
class Device {
 public:
  virtual ~Device() = default;
  virtual absl::string_view name() const = 0;

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

  struct LossResult {
    double loss_sum = 0;   // over the rows: -log of the label's probability
    uint64_t correct = 0;  // rows whose largest logit is the label's (the first of equal ones)
  };
  // Softmax, then cross entropy with the labels (each below `classes`). Where gradient is not null it becomes the
  // gradient of the mean loss with respect to the logits: (softmax - one-hot) / rows. It may be `logits` itself.
  virtual LossResult SoftmaxCrossEntropy(int64_t rows, int64_t classes, const float* logits, const uint8_t* labels,
                                         float* gradient) = 0;
  // The same for two classes and one logit a row: sigmoid, then cross entropy with the labels (0 or 1). The gradient is
  // (sigmoid - label) / rows; `correct` counts the rows whose logit is above 0 where the label is 1, and only there. It
  // may be `logits` itself.
  virtual LossResult SigmoidCrossEntropy(int64_t rows, const float* logits, const uint8_t* labels, float* gradient) = 0;
};

// "cpu". Others are refused: UNIMPLEMENTED where this version has no such device, with what to use instead.
// `threads` computing threads, at least 1.
absl::StatusOr<std::unique_ptr<Device>> OpenDevice(absl::string_view name, int threads);

}  // namespace basin
