// A built-in program: a model with its forward and backward pass on the Device seam. It knows nothing of parameter
// servers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/device/device.h"
#include "common/rules/initializer.h"

namespace basin {

struct VariableDecl {
  std::string name;
  std::vector<int64_t> shape;
  InitSpec init;
  uint64_t elements() const {
    uint64_t product = 1;
    for (const int64_t dim : shape) product *= static_cast<uint64_t>(dim);
    return product;
  }
};

// Examples, a row each; lives in a BatchBuffer.
struct Batch {
  int64_t rows = 0;
  int64_t width = 0;                // numbers an example
  const float* features = nullptr;  // [rows, width]
  const uint8_t* labels = nullptr;  // [rows]
};

struct BatchResult {
  double loss = 0;       // mean over the rows
  uint64_t correct = 0;  // rows whose most likely class is the label
};

// One buffer a variable, in the order of variables().
using ParameterSpans = absl::Span<const absl::Span<const float>>;
using GradientSpans = absl::Span<const absl::Span<float>>;
// Told of each variable, by its index, as soon as its gradient is whole: the backward pass goes on behind it.
using GradientReady = absl::FunctionRef<void(size_t variable)>;
// Whose memory parameters and gradients are in: the host's, or that of the device which computes.
enum class MemoryOf : bool { kHost = false, kDevice = true };

// Batches are in host memory, and so are parameters and gradients where nothing else is said; a device that has its own
// gets copies. Keeps scratch memory of the device between calls: one thread a program, and always the same device.
class Program {
 public:
  virtual ~Program() = default;
  // In the order of the forward pass: the backward pass has the last one's gradient first.
  virtual const std::vector<VariableDecl>& variables() const = 0;
  // Gradients of the batch's mean loss. `ready` is called once a variable, in the order of the backward pass; *result
  // is set before. INVALID_ARGUMENT: an empty batch, another width than the model's, a label that is no class; `ready`
  // was not called then.
  //
  // With parameters and gradients in the device's memory, `ready` is called as soon as the device was asked for the
  // gradient: it is whole at a mark made then. Once all was asked for this waits for *result alone; the backward pass
  // may still run when it returns.
  virtual absl::Status Gradients(Device& device, const Batch& batch, MemoryOf values, ParameterSpans parameters,
                                 GradientSpans gradients, BatchResult* result, GradientReady ready) = 0;
  absl::Status Gradients(Device& device, const Batch& batch, ParameterSpans parameters, GradientSpans gradients,
                         BatchResult* result, GradientReady ready) {
    return Gradients(device, batch, MemoryOf::kHost, parameters, gradients, result, ready);
  }
  absl::Status Gradients(Device& device, const Batch& batch, ParameterSpans parameters, GradientSpans gradients,
                         BatchResult* result) {
    return Gradients(device, batch, parameters, gradients, result, [](size_t) {});
  }
  virtual absl::Status Evaluate(Device& device, const Batch& batch, ParameterSpans parameters, BatchResult* result) = 0;
};

struct ProgramOptions {
  std::string name = "mlp";  // mlp, softmax
  int64_t features = 0;      // width of an example
  int64_t classes = 0;
  std::vector<int64_t> hidden = {256};  // mlp: widths of the hidden layers
  uint64_t seed = 1;                    // of the initial values
};

// INVALID_ARGUMENT: an unknown name (with the nearest known one), or sizes that are not positive.
absl::StatusOr<std::unique_ptr<Program>> MakeProgram(const ProgramOptions& options);

}  // namespace basin
