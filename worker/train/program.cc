// Softmax regression is a multi-layer perceptron without hidden layers, so one class is both.
#include "worker/train/program.h"

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
  }

  const std::vector<VariableDecl>& variables() const override { return variables_; }

  absl::Status Evaluate(Device& device, const Batch& batch, ParameterSpans parameters, BatchResult* result) override {
    BASIN_RETURN_IF_ERROR(CheckBatch(batch));
    Forward(device, batch, parameters);
    TakeResult(device.SoftmaxCrossEntropy(batch.rows, widths_.back(), outputs_.back().data(), batch.labels, nullptr),
               batch, result);
    return absl::OkStatus();
  }

  absl::Status Gradients(Device& device, const Batch& batch, ParameterSpans parameters, GradientSpans gradients,
                         BatchResult* result) override {
    BASIN_RETURN_IF_ERROR(CheckBatch(batch));
    Forward(device, batch, parameters);
    const int64_t rows = batch.rows;
    deltas_.back().resize(static_cast<size_t>(rows * widths_.back()));
    TakeResult(
        device.SoftmaxCrossEntropy(rows, widths_.back(), outputs_.back().data(), batch.labels, deltas_.back().data()),
        batch, result);
    for (size_t layer = layers(); layer-- > 0;) {
      const int64_t in = widths_[layer], out = widths_[layer + 1];
      const float* input = layer == 0 ? batch.features : outputs_[layer - 1].data();
      const float* delta = deltas_[layer].data();
      device.Gemm(Transpose::kYes, Transpose::kNo, in, out, rows, 1, input, delta, 0, gradients[2 * layer].data());
      device.ColumnSums(rows, out, delta, gradients[2 * layer + 1].data());
      if (layer == 0) break;
      deltas_[layer - 1].resize(static_cast<size_t>(rows * in));
      device.Gemm(Transpose::kNo, Transpose::kYes, rows, in, out, 1, delta, parameters[2 * layer].data(), 0,
                  deltas_[layer - 1].data());
      device.ReluBackward(rows * in, outputs_[layer - 1].data(), deltas_[layer - 1].data());
    }
    return absl::OkStatus();
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

  void Forward(Device& device, const Batch& batch, ParameterSpans parameters) {
    for (size_t layer = 0; layer < layers(); ++layer) {
      const int64_t in = widths_[layer], out = widths_[layer + 1];
      outputs_[layer].resize(static_cast<size_t>(batch.rows * out));
      float* output = outputs_[layer].data();
      device.Gemm(Transpose::kNo, Transpose::kNo, batch.rows, out, in, 1,
                  layer == 0 ? batch.features : outputs_[layer - 1].data(), parameters[2 * layer].data(), 0, output);
      device.AddBias(batch.rows, out, parameters[2 * layer + 1].data(), output);
      if (layer + 1 < layers()) device.Relu(batch.rows * out, output);
    }
  }

  static void TakeResult(const Device::LossResult& loss, const Batch& batch, BatchResult* result) {
    *result = {loss.loss_sum / static_cast<double>(batch.rows), loss.correct};
  }

  const std::vector<int64_t> widths_;  // features, hidden layers, classes
  std::vector<VariableDecl> variables_;
  std::vector<std::vector<float>> outputs_, deltas_;  // by layer, [rows, its width]
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
