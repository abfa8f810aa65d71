#include "common/device/cpu_device.h"

#include <cblas.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace basin {
namespace {

// Below this many elements a loop ends before another core has woken up.
constexpr int64_t kSplitElements = int64_t{1} << 18;
constexpr size_t kAlignment = 256;

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(int threads) : threads_(threads), arena_(threads) { openblas_set_num_threads(threads); }

  absl::string_view name() const override { return "cpu"; }

  bool is_host() const override { return true; }
  absl::StatusOr<DeviceMemory> Allocate(size_t bytes) override {
    const size_t whole = (std::max<size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
    void* memory = std::aligned_alloc(kAlignment, whole);
    if (memory == nullptr) return absl::ResourceExhaustedError(absl::StrCat("cpu: no memory for ", bytes, " bytes"));
    return DeviceMemory(memory, whole, &std::free);
  }
  PinnedMemory Pin(void*, size_t) override { return PinnedMemory(); }
  void CopyIn(void* to, const void* from, size_t bytes) override { Copy(to, from, bytes); }
  void CopyOut(void* to, const void* from, size_t bytes) override { Copy(to, from, bytes); }
  uint64_t Mark() override { return 0; }
  absl::Status WaitFor(uint64_t) override { return absl::OkStatus(); }
  absl::Status Finish() override { return absl::OkStatus(); }
  int number() const override { return -1; }
  const void* stream() const override { return nullptr; }
  absl::StatusOr<const void*> StreamAt(uint64_t) override { return nullptr; }

  void Gemm(Transpose a_transposed, Transpose b_transposed, int64_t m, int64_t n, int64_t k, float alpha,
            const float* a, const float* b, float beta, float* c) override {
    const bool ta = a_transposed == Transpose::kYes, tb = b_transposed == Transpose::kYes;
    cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, static_cast<blasint>(m),
                static_cast<blasint>(n), static_cast<blasint>(k), alpha, a, static_cast<blasint>(ta ? m : k), b,
                static_cast<blasint>(tb ? k : n), beta, c, static_cast<blasint>(n));
  }

  void AddBias(int64_t rows, int64_t columns, const float* bias, float* x) override {
    ForRows(rows, columns, [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        float* at = x + row * columns;
        for (int64_t i = 0; i < columns; ++i) at[i] += bias[i];
      }
    });
  }

  void Relu(int64_t count, float* x) override {
    ForRows(count, 1, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) x[i] = std::max(x[i], 0.0f);
    });
  }

  void ReluBackward(int64_t count, const float* forward, float* gradient) override {
    ForRows(count, 1, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) gradient[i] = forward[i] > 0 ? gradient[i] : 0.0f;
    });
  }

  void ColumnSums(int64_t rows, int64_t columns, const float* x, float* out) override {
    std::fill(out, out + columns, 0.0f);
    for (int64_t row = 0; row < rows; ++row) {
      const float* at = x + row * columns;
      for (int64_t i = 0; i < columns; ++i) out[i] += at[i];
    }
  }

  void CopyColumns(int64_t rows, absl::Span<const ColumnCopy> copies) override {
    for (const ColumnCopy& copy : copies) {
      ForRows(rows, copy.columns, [copy](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          std::copy_n(copy.from + row * copy.from_width, copy.columns, copy.to + row * copy.to_width);
        }
      });
    }
  }

  void SoftmaxCrossEntropy(int64_t rows, int64_t classes, const float* logits, const uint8_t* labels, float* gradient,
                           LossResult* result) override {
    LossResult sums;
    const float scale = 1.0f / static_cast<float>(rows);
    for (int64_t row = 0; row < rows; ++row) {
      const float* x = logits + row * classes;
      const int64_t label = labels[row];
      const int64_t best = std::max_element(x, x + classes) - x;
      const float largest = x[best];  // taken off before exp, which cannot overflow then
      float sum = 0;
      for (int64_t i = 0; i < classes; ++i) sum += std::exp(x[i] - largest);
      sums.loss_sum += std::log(static_cast<double>(sum)) - static_cast<double>(x[label] - largest);
      sums.correct += best == label ? 1 : 0;
      if (gradient == nullptr) continue;
      float* g = gradient + row * classes;
      for (int64_t i = 0; i < classes; ++i)
        g[i] = scale * (std::exp(x[i] - largest) / sum - (i == label ? 1.0f : 0.0f));
    }
    *result = sums;
  }

  void SigmoidCrossEntropy(int64_t rows, const float* logits, const uint8_t* labels, float* gradient,
                           LossResult* result) override {
    LossResult sums;
    const float scale = 1.0f / static_cast<float>(rows);
    for (int64_t row = 0; row < rows; ++row) {
      const float x = logits[row], label = labels[row];
      const float power = std::exp(-std::abs(x));  // at most 1: no overflow
      // log(1 + e^x) - label x, by the side on which e^x is large. x - label x, not (1 - label) x: a NaN stays one.
      sums.loss_sum += std::log1p(static_cast<double>(power)) + (x > 0 ? x - label * x : -label * x);
      sums.correct += (x > 0) == (labels[row] != 0) ? 1 : 0;
      if (gradient == nullptr) continue;
      gradient[row] = scale * ((x > 0 ? 1 / (1 + power) : power / (1 + power)) - label);
    }
    *result = sums;
  }

 private:
  static void Copy(void* to, const void* from, size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }

  template <class Loop>
  void ForRows(int64_t rows, int64_t columns, Loop loop) {
    if (threads_ == 1 || rows * columns < kSplitElements) return loop(0, rows);
    arena_.execute([&] {
      tbb::parallel_for(tbb::blocked_range<int64_t>(0, rows, std::max<int64_t>(1, kSplitElements / columns)),
                        [&](const tbb::blocked_range<int64_t>& range) { loop(range.begin(), range.end()); });
    });
  }

  const int threads_;
  tbb::task_arena arena_;
};

}  // namespace

std::unique_ptr<Device> MakeCpuDevice(int threads) { return std::make_unique<CpuDevice>(threads); }

}  // namespace basin
