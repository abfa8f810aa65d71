#include "worker/train/wide_deep.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/random.h"
#include "common/base/status_macros.h"

namespace basin {
namespace {

// Half-width of an embedding's uniform initial values: Keras' default for embeddings.
constexpr float kEmbeddingInit = 0.05f;
constexpr uint32_t kMaxDim = 4096;  // as the servers bound a table's rows

}  // namespace

absl::StatusOr<WideDeep> WideDeep::Make(const FeatureSchema& schema, const WideDeepOptions& options) {
  if (options.embedding_dim < 1 || options.embedding_dim > kMaxDim) {
    return absl::InvalidArgumentError(
        absl::StrCat("embeddings of ", options.embedding_dim, " numbers; expected 1 to ", kMaxDim));
  }
  BASIN_RETURN_IF_ERROR(Validate(options.wide_rule));
  BASIN_RETURN_IF_ERROR(Validate(options.embedding_rule));
  WideDeep model;
  model.seed_ = options.seed;
  model.numeric_ = static_cast<int64_t>(schema.numeric.size());
  model.features_ = static_cast<int64_t>(schema.features());
  model.categories_ = static_cast<int64_t>(schema.categories.size());
  model.dim_ = options.embedding_dim;
  model.deep_numeric_ = model.numeric_ - static_cast<int64_t>(schema.wide_only);
  model.widths_.push_back(model.deep_numeric_ + model.categories_ * model.dim_);
  for (const int64_t width : options.hidden) {
    if (width < 1) return absl::InvalidArgumentError(absl::StrCat("a hidden layer of width ", width, "; at least 1"));
    model.widths_.push_back(width);
  }
  model.widths_.push_back(1);

  const InitSpec zeros = {InitKind::kZeros, 0, 0, 0};
  uint64_t stream = 0;  // of the seed: one a variable or table
  const auto seed = [&] { return RandomAt(options.seed, stream++); };
  model.variables_.push_back({"wide/bias", {1}, zeros});
  if (model.has_numeric()) model.variables_.push_back({"wide/numeric", {model.numeric_, 1}, zeros});
  for (size_t layer = 0; layer < model.layers(); ++layer) {
    const std::string name = layer + 1 == model.layers() ? "deep/logit/" : absl::StrCat("deep/hidden", layer, "/");
    model.variables_.push_back({absl::StrCat(name, "kernel"),
                                {model.widths_[layer], model.widths_[layer + 1]},
                                {InitKind::kGlorotUniform, 0, 0, seed()}});
    model.variables_.push_back({absl::StrCat(name, "bias"), {model.widths_[layer + 1]}, zeros});
  }
  model.tables_.push_back({"wide", 1, zeros, options.wide_rule});
  for (const FeatureSchema::Category& category : schema.categories) {
    model.tables_.push_back({absl::StrCat("embedding/", category.name),
                             options.embedding_dim,
                             {InitKind::kUniform, -kEmbeddingInit, kEmbeddingInit, seed()},
                             options.embedding_rule});
  }
  model.outputs_.resize(model.layers());
  model.deltas_.resize(model.layers());
  model.parameters_copy_.resize(model.variables_.size());
  model.gradients_copy_.resize(model.variables_.size());
  model.parameters_there_.resize(model.variables_.size());
  model.gradients_there_.resize(model.variables_.size());
  return model;
}

void WideDeep::Resize(const std::vector<TableKeys>& keys, WideDeepValues* values) const {
  BASIN_CHECK(keys.size() == tables_.size());
  values->dense.resize(variables_.size());
  for (size_t i = 0; i < variables_.size(); ++i) values->dense[i].resize(variables_[i].elements());
  values->rows.resize(tables_.size());
  for (size_t i = 0; i < tables_.size(); ++i) values->rows[i].resize(keys[i].keys.size() * tables_[i].dim);
}

absl::Status WideDeep::Bring(Device& device, const FeatureBatch& batch, const WideDeepValues& parameters) {
  const auto rows = static_cast<size_t>(batch.rows);
  const auto width = static_cast<size_t>(widths_[0]), dim = static_cast<size_t>(dim_),
             numeric = static_cast<size_t>(numeric_), features = static_cast<size_t>(features_);
  input_.resize(rows * width);
  wide_.resize(rows);
  for (size_t row = 0; row < rows; ++row) {
    float* at = input_.data() + row * width;
    at = std::copy_n(batch.numeric.data() + row * numeric, deep_numeric_, at);
    for (size_t table = 1; table < tables_.size(); ++table) {
      at = std::copy_n(parameters.rows[table].data() + batch.tables[table].at[row] * dim, dim, at);
    }
    float sum = 0;
    for (size_t i = row * features; i < (row + 1) * features; ++i) sum += parameters.rows[0][batch.tables[0].at[i]];
    wide_[row] = sum;
  }
  BASIN_ASSIGN_OR_RETURN(input_there_, input_copy_.Bring(device, input_.data(), input_.size()));
  BASIN_ASSIGN_OR_RETURN(labels_there_, labels_copy_.Bring(device, batch.labels.data(), rows));
  for (size_t i = 0; i < variables_.size(); ++i) {
    const std::vector<float>& values = parameters.dense[i];
    BASIN_ASSIGN_OR_RETURN(parameters_there_[i], parameters_copy_[i].Bring(device, values.data(), values.size()));
  }
  BASIN_ASSIGN_OR_RETURN(numeric_there_, numeric_copy_.Bring(device, batch.numeric.data(), rows * numeric));
  BASIN_ASSIGN_OR_RETURN(wide_there_, wide_copy_.Bring(device, wide_.data(), rows));
  return absl::OkStatus();
}

absl::Status WideDeep::Forward(Device& device, int64_t rows) {
  for (size_t layer = 0; layer < layers(); ++layer) {
    const int64_t in = widths_[layer], out = widths_[layer + 1];
    BASIN_RETURN_IF_ERROR(outputs_[layer].Resize(device, static_cast<size_t>(rows * out)));
    float* output = outputs_[layer].data();
    device.Gemm(Transpose::kNo, Transpose::kNo, rows, out, in, 1,
                layer == 0 ? input_there_ : outputs_[layer - 1].data(), parameters_there_[Kernel(layer)], 0, output);
    device.AddBias(rows, out, parameters_there_[Kernel(layer) + 1], output);
    if (layer + 1 < layers()) device.Relu(rows * out, output);
  }
  float* logits = outputs_.back().data();
  if (has_numeric()) {
    device.Gemm(Transpose::kNo, Transpose::kNo, rows, 1, numeric_, 1, numeric_there_, parameters_there_[1], 1, logits);
  }
  device.AddBias(rows, 1, parameters_there_[0], logits);
  device.AddBias(1, rows, wide_there_, logits);
  return absl::OkStatus();
}

absl::Status WideDeep::Backward(Device& device, int64_t rows, const float* logits_delta, float* input_delta,
                                GradientReady ready) {
  const float* delta = logits_delta;
  for (size_t layer = layers(); layer-- > 0;) {
    const int64_t in = widths_[layer], out = widths_[layer + 1];
    const size_t kernel = Kernel(layer), bias = kernel + 1;
    device.ColumnSums(rows, out, delta, gradients_there_[bias]);
    ready(bias);
    device.Gemm(Transpose::kYes, Transpose::kNo, in, out, rows, 1,
                layer == 0 ? input_there_ : outputs_[layer - 1].data(), delta, 0, gradients_there_[kernel]);
    ready(kernel);
    float* before = input_delta;
    if (layer > 0) {
      BASIN_RETURN_IF_ERROR(deltas_[layer - 1].Resize(device, static_cast<size_t>(rows * in)));
      before = deltas_[layer - 1].data();
    }
    device.Gemm(Transpose::kNo, Transpose::kYes, rows, in, out, 1, delta, parameters_there_[kernel], 0, before);
    if (layer > 0) device.ReluBackward(rows * in, outputs_[layer - 1].data(), before);
    delta = before;
  }
  if (has_numeric()) {
    device.Gemm(Transpose::kYes, Transpose::kNo, numeric_, 1, rows, 1, numeric_there_, logits_delta, 0,
                gradients_there_[1]);
    ready(1);
  }
  device.ColumnSums(rows, 1, logits_delta, gradients_there_[0]);
  ready(0);
  return absl::OkStatus();
}

absl::StatusOr<WideDeep::Result> WideDeep::Score(Device& device, const FeatureBatch& batch,
                                                 const WideDeepValues& parameters, std::vector<float>* logits) {
  BASIN_RETURN_IF_ERROR(Bring(device, batch, parameters));
  BASIN_RETURN_IF_ERROR(Forward(device, batch.rows));
  device.SigmoidCrossEntropy(batch.rows, outputs_.back().data(), labels_there_, nullptr, &loss_);
  const size_t before = logits->size(), rows = static_cast<size_t>(batch.rows);
  logits->resize(before + rows);
  device.CopyOut(logits->data() + before, outputs_.back().data(), rows * sizeof(float));
  BASIN_RETURN_IF_ERROR(device.Finish());
  return ResultOf(batch.rows);
}

absl::StatusOr<WideDeep::StepResult> WideDeep::Gradients(Device& device, const WideDeepStep& step,
                                                         GradientReady ready) {
  const int64_t rows = step.rows, width = widths_[0];
  BASIN_RETURN_IF_ERROR(joined_input_.Resize(device, static_cast<size_t>(rows * width)));
  BASIN_RETURN_IF_ERROR(joined_delta_.Resize(device, static_cast<size_t>(rows * width)));
  std::vector<Device::ColumnCopy> join = {{step.numeric, numeric_, joined_input_.data(), width, deep_numeric_}}, split;
  for (int64_t category = 0; category < categories_; ++category) {
    const int64_t table = category * rows * dim_, column = deep_numeric_ + category * dim_;
    join.push_back({step.embeddings + table, dim_, joined_input_.data() + column, width, dim_});
    split.push_back({joined_delta_.data() + column, width, step.embeddings_gradient + table, dim_, dim_});
  }
  device.CopyColumns(rows, join);
  input_there_ = joined_input_.data();
  numeric_there_ = step.numeric;
  wide_there_ = step.weights;
  for (size_t i = 0; i < variables_.size(); ++i) {
    parameters_there_[i] = step.parameters[i].data();
    gradients_there_[i] = step.gradients[i].data();
  }
  BASIN_RETURN_IF_ERROR(Forward(device, rows));
  device.SigmoidCrossEntropy(rows, outputs_.back().data(), step.labels, step.weights_gradient, &loss_);
  StepResult made;
  made.weights_made = device.Mark();
  BASIN_RETURN_IF_ERROR(Backward(device, rows, step.weights_gradient, joined_delta_.data(), ready));
  device.CopyColumns(rows, split);
  made.embeddings_made = device.Mark();
  BASIN_RETURN_IF_ERROR(device.WaitFor(made.weights_made));
  made.result = ResultOf(rows);
  return made;
}

absl::StatusOr<WideDeep::Result> WideDeep::Gradients(Device& device, const FeatureBatch& batch,
                                                     const WideDeepValues& parameters, WideDeepValues* gradients) {
  BASIN_RETURN_IF_ERROR(Bring(device, batch, parameters));
  BASIN_RETURN_IF_ERROR(Forward(device, batch.rows));
  Resize(batch.tables, gradients);
  const auto rows = static_cast<size_t>(batch.rows), features = static_cast<size_t>(features_);
  logits_delta_.resize(rows);
  input_delta_.resize(input_.size());
  BASIN_ASSIGN_OR_RETURN(float* const logits_delta, logits_delta_copy_.Place(device, logits_delta_.data(), rows));
  BASIN_ASSIGN_OR_RETURN(float* const input_delta,
                         input_delta_copy_.Place(device, input_delta_.data(), input_delta_.size()));
  for (size_t i = 0; i < variables_.size(); ++i) {
    std::vector<float>& values = gradients->dense[i];
    BASIN_ASSIGN_OR_RETURN(gradients_there_[i], gradients_copy_[i].Place(device, values.data(), values.size()));
  }
  device.SigmoidCrossEntropy(batch.rows, outputs_.back().data(), labels_there_, logits_delta, &loss_);
  logits_delta_copy_.Fetch(device);
  BASIN_RETURN_IF_ERROR(Backward(device, batch.rows, logits_delta, input_delta, [](size_t) {}));
  input_delta_copy_.Fetch(device);
  for (DeviceOutput<float>& gradient : gradients_copy_) gradient.Fetch(device);
  BASIN_RETURN_IF_ERROR(device.Finish());

  // Each row of a table gets the sum of what its examples want of it.
  std::vector<float>& weights = gradients->rows[0];
  std::fill(weights.begin(), weights.end(), 0.0f);
  const std::vector<uint32_t>& wide = batch.tables[0].at;
  for (size_t row = 0; row < rows; ++row) {
    for (size_t i = row * features; i < (row + 1) * features; ++i) weights[wide[i]] += logits_delta_[row];
  }
  const auto width = static_cast<size_t>(widths_[0]), dim = static_cast<size_t>(dim_);
  for (size_t table = 1; table < tables_.size(); ++table) {
    std::vector<float>& sums = gradients->rows[table];
    std::fill(sums.begin(), sums.end(), 0.0f);
    const size_t column = static_cast<size_t>(deep_numeric_) + (table - 1) * dim;
    for (size_t row = 0; row < rows; ++row) {
      const float* from = input_delta_.data() + row * width + column;
      float* to = sums.data() + batch.tables[table].at[row] * dim;
      for (size_t i = 0; i < dim; ++i) to[i] += from[i];
    }
  }
  return ResultOf(batch.rows);
}

}  // namespace basin
