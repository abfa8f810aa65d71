// Wide & deep (Cheng et al., "Wide & deep learning for recommender systems", DLRS 2016): the logit of the label is the
// sum of a weight for each feature and cross that the example has (wide), and of a multi-layer perceptron over the
// numbers and an embedding of each category (deep). Weights and embeddings are rows of tables. It knows nothing of
// where the parameters lie: see wide_deep_parameters.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/device/device.h"
#include "common/rules/initializer.h"
#include "common/rules/rule_spec.h"
#include "worker/train/feature_data.h"
#include "worker/train/program.h"

namespace basin {

struct TableDecl {
  std::string name;
  uint32_t dim = 1;
  InitSpec init;
  RuleSpec rule;
};

struct WideDeepOptions {
  std::vector<int64_t> hidden = {64, 32};
  uint32_t embedding_dim = 8;
  uint64_t seed = 1;  // of the initial values
  RuleSpec wide_rule;
  RuleSpec embedding_rule;
};

// One buffer a variable and one a table: parameters of a batch, or gradients for them.
struct WideDeepValues {
  std::vector<std::vector<float>> dense;  // by variable
  std::vector<std::vector<float>> rows;   // by table: [keys of the batch, dim]
};

// What a step on a device reads and where it writes, all in the device's memory. Rows of tables are by example there,
// as often as they stand in the batch.
struct WideDeepStep {
  int64_t rows = 0;
  const float* numeric = nullptr;     // [rows, numeric columns]
  const uint8_t* labels = nullptr;    // [rows]
  const float* weights = nullptr;     // [rows], of each the sum of its rows of the table "wide"
  const float* embeddings = nullptr;  // [categories, rows, dim]
  ParameterSpans parameters;          // of the variables
  GradientSpans gradients;
  float* weights_gradient = nullptr;     // [rows], of each of a row's weights
  float* embeddings_gradient = nullptr;  // as embeddings
};

// Keeps scratch memory of the device between calls: one thread a model, and always the same device.
class WideDeep final {
 public:
  // INVALID_ARGUMENT: a width or dim that is not positive, a wrong rule.
  static absl::StatusOr<WideDeep> Make(const FeatureSchema& schema, const WideDeepOptions& options);

  // "wide/bias", "wide/numeric" where there are numeric columns, then kernel and bias of each layer.
  const std::vector<VariableDecl>& variables() const { return variables_; }
  // "wide", then "embedding/CATEGORY" for each, in the order of FeatureBatch::tables.
  const std::vector<TableDecl>& tables() const { return tables_; }

  uint64_t seed() const { return seed_; }

  // Sizes *values for a batch's keys, by table. What its buffers hold is left or zeros.
  void Resize(const std::vector<TableKeys>& keys, WideDeepValues* values) const;

  struct Result {
    double loss = 0;       // mean over the rows
    uint64_t correct = 0;  // rows on the label's side of one half
  };
  // Gradients of the batch's mean loss, of each row of a table once. Sizes `gradients`. Batch, parameters and gradients
  // are in host memory; a device that has its own gets copies of what the deep part needs. REQUIRES: the batch is of
  // the model's schema and not empty, `parameters` is sized for it.
  absl::StatusOr<Result> Gradients(Device& device, const FeatureBatch& batch, const WideDeepValues& parameters,
                                   WideDeepValues* gradients);
  struct StepResult {
    Result result;
    uint64_t weights_made = 0, embeddings_made = 0;  // marks of the device behind their gradients
  };
  // The same with all of it in the device's memory. `ready` is told of each variable, the last one first, as soon as
  // the device was asked for its gradient. Once all was asked for this waits for the loss alone; the backward pass may
  // still run when it returns.
  absl::StatusOr<StepResult> Gradients(Device& device, const WideDeepStep& step, GradientReady ready);
  // Appends each row's logit.
  absl::StatusOr<Result> Score(Device& device, const FeatureBatch& batch, const WideDeepValues& parameters,
                               std::vector<float>* logits);

 private:
  WideDeep() = default;
  size_t layers() const { return widths_.size() - 1; }
  bool has_numeric() const { return numeric_ > 0; }
  // Of layer's kernel among variables_; its bias follows.
  size_t Kernel(size_t layer) const { return (has_numeric() ? 2 : 1) + 2 * layer; }
  // Gathers the deep part's input and the wide part's sums, and brings all that the passes read to the device.
  absl::Status Bring(Device& device, const FeatureBatch& batch, const WideDeepValues& parameters);
  // Leaves the logits in outputs_.back().
  absl::Status Forward(Device& device, int64_t rows);
  // Writes the variables' gradients, and the input's to `input_delta`. `ready` as in Gradients.
  absl::Status Backward(Device& device, int64_t rows, const float* logits_delta, float* input_delta,
                        GradientReady ready);
  Result ResultOf(int64_t rows) const { return {loss_.loss_sum / static_cast<double>(rows), loss_.correct}; }

  uint64_t seed_ = 0;
  int64_t deep_numeric_ = 0;  // of numeric_ columns, the first ones
  int64_t numeric_ = 0, features_ = 0, categories_ = 0;
  int64_t dim_ = 0;              // of an embedding
  std::vector<int64_t> widths_;  // of the deep part: input, hidden layers, 1
  std::vector<VariableDecl> variables_;
  std::vector<TableDecl> tables_;
  // In host memory.
  std::vector<float> input_;         // [rows, widths_[0]]: numbers, then embeddings
  std::vector<float> wide_;          // [rows]: of each row the sum of its features' weights
  std::vector<float> logits_delta_;  // [rows]
  std::vector<float> input_delta_;   // as input_
  // Copies of what is in host memory.
  DeviceInput<float> input_copy_, numeric_copy_, wide_copy_;
  DeviceInput<uint8_t> labels_copy_;
  std::vector<DeviceInput<float>> parameters_copy_;  // by variable
  std::vector<DeviceOutput<float>> gradients_copy_;  // by variable
  DeviceOutput<float> logits_delta_copy_, input_delta_copy_;
  // What the passes read, and where they write the variables' gradients.
  const float* input_there_ = nullptr;
  const float* numeric_there_ = nullptr;
  const float* wide_there_ = nullptr;
  const uint8_t* labels_there_ = nullptr;
  std::vector<const float*> parameters_there_;  // by variable
  std::vector<float*> gradients_there_;         // by variable
  // In the device's memory.
  std::vector<DeviceVector<float>> outputs_, deltas_;  // by layer, [rows, its width]; no delta of the last
  DeviceVector<float> joined_input_, joined_delta_;    // of a WideDeepStep
  Device::LossResult loss_;
};

}  // namespace basin
