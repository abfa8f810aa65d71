// Softmax regression is a multi-layer perceptron without hidden layers, so one class is both.
#include "worker/train/program.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/nearest.h"
#include "common/base/random.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

// y = x W + b, with ReLU between layers and softmax cross entropy at the end. Backward: dW = x^T dy, db = column sums
// of dy, dx = dy W^T (Goodfellow, Bengio, Courville, "Deep Learning", 2016, algorithm 6.4).
class Perceptron final : public Program {
 public:
  Perceptron(std::vector<int64_t> widths, std::vector<std::string> names, uint64_t seed) : widths_(std::move(widths)) {
    for (size_t layer = 0; layer + 1 < widths_.size(); ++layer) {
      variables_.push_back({absl::StrCat(names[layer], "kernel"),
                            {widths_[layer], widths_[layer + 1]},
                            {InitKind::kGlorotUniform, 0, 0, RandomAt(seed, layer)}});
      variables_.push_back({absl::StrCat(names[layer], "bias"), {widths_[layer + 1]}, {InitKind::kZeros, 0, 0, 0}});
    }
    outputs_.resize(layers());
    deltas_.resize(layers());
    parameters_.resize(variables_.size());
    gradients_there_.resize(variables_.size());
    parameters_there_.resize(variables_.size());
  }

  const std::vector<VariableDecl>& variables() const override { return variables_; }

  absl::Status Evaluate(Device& device, const Batch& batch, ParameterSpans parameters, BatchResult* result) override {
    BASIN_RETURN_IF_ERROR(CheckBatch(batch));
    BASIN_RETURN_IF_ERROR(Forward(device, batch, MemoryOf::kHost, parameters));
    device.SoftmaxCrossEntropy(batch.rows, widths_.back(), outputs_.back().data(), labels_there_, nullptr, &loss_);
    BASIN_RETURN_IF_ERROR(device.Finish());
    TakeResult(batch, result);
    return absl::OkStatus();
  }

  absl::Status Gradients(Device& device, const Batch& batch, MemoryOf values, ParameterSpans parameters,
                         GradientSpans gradients, BatchResult* result, GradientReady ready) override {
    BASIN_RETURN_IF_ERROR(CheckBatch(batch));
    BASIN_RETURN_IF_ERROR(Forward(device, batch, values, parameters));
    const int64_t rows = batch.rows;
    const bool stay = values == MemoryOf::kDevice;
    BASIN_RETURN_IF_ERROR(deltas_.back().Resize(device, static_cast<size_t>(rows * widths_.back())));
    device.SoftmaxCrossEntropy(rows, widths_.back(), outputs_.back().data(), labels_there_, deltas_.back().data(),
                               &loss_);
    const uint64_t loss_made = device.Mark();
    // On the host a gradient is whole when the call that makes it returns. A device is given all its work first, and
    // gradients are told as they arrive, unless they stay there.
    std::vector<std::pair<size_t, uint64_t>> under_way;
    const auto tell = [&](size_t variable) {
      TakeResult(batch, result);
      ready(variable);
    };
    const auto made = [&](size_t variable) {
      if (stay) return ready(variable);
      if (device.is_host()) return tell(variable);
      gradients_there_[variable].Fetch(device);
      under_way.emplace_back(variable, device.Mark());
    };
    const auto place = [&](size_t variable) -> absl::StatusOr<float*> {
      const absl::Span<float> gradient = gradients[variable];
      if (stay) return gradient.data();
      return gradients_there_[variable].Place(device, gradient.data(), gradient.size());
    };
    for (size_t layer = layers(); layer-- > 0;) {
      const int64_t in = widths_[layer], out = widths_[layer + 1];
      const float* input = layer == 0 ? features_there_ : outputs_[layer - 1].data();
      const float* delta = deltas_[layer].data();
      const size_t kernel = 2 * layer, bias = kernel + 1;
      BASIN_ASSIGN_OR_RETURN(float* const bias_gradient, place(bias));
      device.ColumnSums(rows, out, delta, bias_gradient);
      made(bias);
      BASIN_ASSIGN_OR_RETURN(float* const kernel_gradient, place(kernel));
      device.Gemm(Transpose::kYes, Transpose::kNo, in, out, rows, 1, input, delta, 0, kernel_gradient);
      made(kernel);
      if (layer == 0) break;
      BASIN_RETURN_IF_ERROR(deltas_[layer - 1].Resize(device, static_cast<size_t>(rows * in)));
      device.Gemm(Transpose::kNo, Transpose::kYes, rows, in, out, 1, delta, parameters_there_[kernel], 0,
                  deltas_[layer - 1].data());
      device.ReluBackward(rows * in, outputs_[layer - 1].data(), deltas_[layer - 1].data());
    }
    if (stay) {
      BASIN_RETURN_IF_ERROR(device.WaitFor(loss_made));
      TakeResult(batch, result);
      return absl::OkStatus();
    }
    for (const auto& [variable, mark] : under_way) {
      BASIN_RETURN_IF_ERROR(device.WaitFor(mark));
      tell(variable);
    }
    return device.Finish();
  }

 private:
  size_t layers() const { return widths_.size() - 1; }

  absl::Status CheckBatch(const Batch& batch) const {
    if (batch.rows < 1) return absl::InvalidArgumentError("the batch is empty");
    if (batch.width != widths_.front()) {
      return absl::InvalidArgumentError(absl::StrCat("the batch has examples of ", batch.width,
                                                     " numbers, the model takes ", widths_.front(),
                                                     "; is it the data that the model was made for?"));
    }
    for (int64_t row = 0; row < batch.rows; ++row) {
      if (batch.labels[row] < widths_.back()) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("label ", batch.labels[row], " of row ", row, ": expected 0 to ", widths_.back() - 1));
    }
    return absl::OkStatus();
  }

  absl::Status Forward(Device& device, const Batch& batch, MemoryOf values, ParameterSpans parameters) {
    const auto rows = static_cast<size_t>(batch.rows);
    BASIN_ASSIGN_OR_RETURN(features_there_,
                           features_.Bring(device, batch.features, rows * static_cast<size_t>(batch.width)));
    BASIN_ASSIGN_OR_RETURN(labels_there_, labels_.Bring(device, batch.labels, rows));
    for (size_t i = 0; i < parameters.size(); ++i) {
      parameters_there_[i] = parameters[i].data();
      if (values == MemoryOf::kDevice) continue;
      BASIN_ASSIGN_OR_RETURN(parameters_there_[i],
                             parameters_[i].Bring(device, parameters[i].data(), parameters[i].size()));
    }
    for (size_t layer = 0; layer < layers(); ++layer) {
      const int64_t in = widths_[layer], out = widths_[layer + 1];
      BASIN_RETURN_IF_ERROR(outputs_[layer].Resize(device, rows * static_cast<size_t>(out)));
      float* output = outputs_[layer].data();
      device.Gemm(Transpose::kNo, Transpose::kNo, batch.rows, out, in, 1,
                  layer == 0 ? features_there_ : outputs_[layer - 1].data(), parameters_there_[2 * layer], 0, output);
      device.AddBias(batch.rows, out, parameters_there_[2 * layer + 1], output);
      if (layer + 1 < layers()) device.Relu(batch.rows * out, output);
    }
    return absl::OkStatus();
  }

  void TakeResult(const Batch& batch, BatchResult* result) const {
    *result = {loss_.loss_sum / static_cast<double>(batch.rows), loss_.correct};
  }

  const std::vector<int64_t> widths_;  // features, hidden layers, classes
  std::vector<VariableDecl> variables_;
  std::vector<DeviceVector<float>> outputs_, deltas_;  // by layer, [rows, its width]
  // What is in host memory, and where the device has it.
  DeviceInput<float> features_;
  DeviceInput<uint8_t> labels_;
  std::vector<DeviceInput<float>> parameters_;        // by variable
  std::vector<DeviceOutput<float>> gradients_there_;  // by variable
  const float* features_there_ = nullptr;
  const uint8_t* labels_there_ = nullptr;
  std::vector<const float*> parameters_there_;
  Device::LossResult loss_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Program>> MakeProgram(const ProgramOptions& options) {
  if (options.features < 1 || options.classes < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.features, " features and ", options.classes, " classes; both must be at least 1"));
  }
  std::vector<int64_t> widths = {options.features};
  std::vector<std::string> names;
  if (options.name == "mlp") {
    for (const int64_t width : options.hidden) {
      if (width < 1)
        return absl::InvalidArgumentError(absl::StrCat("a hidden layer of width ", width, "; it must be at least 1"));
      names.push_back(absl::StrCat("hidden", widths.size() - 1, "/"));
      widths.push_back(width);
    }
    names.push_back("logits/");
  } else if (options.name == "softmax") {
    names.push_back("");
  } else {
    const std::optional<std::string> nearest = Nearest(options.name, {"mlp", "softmax"});
    return absl::InvalidArgumentError(
        absl::StrCat("program \"", options.name, "\" is unknown; ",
                     nearest ? absl::StrCat("did you mean ", *nearest, "?") : "there are mlp and softmax"));
  }
  widths.push_back(options.classes);
  return std::make_unique<Perceptron>(std::move(widths), std::move(names), options.seed);
}

}  // namespace basin
