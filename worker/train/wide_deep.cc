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
  return model;
}

void WideDeep::Resize(const std::vector<TableKeys>& keys, WideDeepValues* values) const {
  BASIN_CHECK(keys.size() == tables_.size());
  values->dense.resize(variables_.size());
  for (size_t i = 0; i < variables_.size(); ++i) values->dense[i].resize(variables_[i].elements());
  values->rows.resize(tables_.size());
  for (size_t i = 0; i < tables_.size(); ++i) values->rows[i].resize(keys[i].keys.size() * tables_[i].dim);
}

void WideDeep::Forward(Device& device, const FeatureBatch& batch, const WideDeepValues& parameters) {
  const auto rows = static_cast<size_t>(batch.rows);
  const auto width = static_cast<size_t>(widths_[0]), dim = static_cast<size_t>(dim_),
             numeric = static_cast<size_t>(numeric_);
  input_.resize(rows * width);
  for (size_t row = 0; row < rows; ++row) {
    float* at = input_.data() + row * width;
    at = std::copy_n(batch.numeric.data() + row * numeric, deep_numeric_, at);
    for (size_t table = 1; table < tables_.size(); ++table) {
      at = std::copy_n(parameters.rows[table].data() + batch.tables[table].at[row] * dim, dim, at);
    }
  }
  for (size_t layer = 0; layer < layers(); ++layer) {
    const int64_t in = widths_[layer], out = widths_[layer + 1];
    outputs_[layer].resize(rows * static_cast<size_t>(out));
    float* output = outputs_[layer].data();
    device.Gemm(Transpose::kNo, Transpose::kNo, batch.rows, out, in, 1,
                layer == 0 ? input_.data() : outputs_[layer - 1].data(), parameters.dense[Kernel(layer)].data(), 0,
                output);
    device.AddBias(batch.rows, out, parameters.dense[Kernel(layer) + 1].data(), output);
    if (layer + 1 < layers()) device.Relu(batch.rows * out, output);
  }
  float* logits = outputs_.back().data();
  if (has_numeric()) {
    device.Gemm(Transpose::kNo, Transpose::kNo, batch.rows, 1, numeric_, 1, batch.numeric.data(),
                parameters.dense[1].data(), 1, logits);
  }
  device.AddBias(batch.rows, 1, parameters.dense[0].data(), logits);
  const std::vector<uint32_t>& wide = batch.tables[0].at;
  const auto features = static_cast<size_t>(features_);
  for (size_t row = 0; row < rows; ++row) {
    for (size_t i = row * features; i < (row + 1) * features; ++i) logits[row] += parameters.rows[0][wide[i]];
  }
}

WideDeep::Result WideDeep::Score(Device& device, const FeatureBatch& batch, const WideDeepValues& parameters,
                                 std::vector<float>* logits) {
  Forward(device, batch, parameters);
  const std::vector<float>& outputs = outputs_.back();
  logits->insert(logits->end(), outputs.begin(), outputs.end());
  const Device::LossResult loss = device.SigmoidCrossEntropy(batch.rows, outputs.data(), batch.labels.data(), nullptr);
  return {loss.loss_sum / static_cast<double>(batch.rows), loss.correct};
}

WideDeep::Result WideDeep::Gradients(Device& device, const FeatureBatch& batch, const WideDeepValues& parameters,
                                     WideDeepValues* gradients) {
  Forward(device, batch, parameters);
  Resize(batch.tables, gradients);
  const auto rows = static_cast<size_t>(batch.rows), features = static_cast<size_t>(features_);
  deltas_.back().resize(rows);
  float* logit_delta = deltas_.back().data();
  const Device::LossResult loss =
      device.SigmoidCrossEntropy(batch.rows, outputs_.back().data(), batch.labels.data(), logit_delta);

  device.ColumnSums(batch.rows, 1, logit_delta, gradients->dense[0].data());
  if (has_numeric()) {
    device.Gemm(Transpose::kYes, Transpose::kNo, numeric_, 1, batch.rows, 1, batch.numeric.data(), logit_delta, 0,
                gradients->dense[1].data());
  }
  std::vector<float>& weights = gradients->rows[0];
  std::fill(weights.begin(), weights.end(), 0.0f);
  const std::vector<uint32_t>& wide = batch.tables[0].at;
  for (size_t row = 0; row < rows; ++row) {
    for (size_t i = row * features; i < (row + 1) * features; ++i) weights[wide[i]] += logit_delta[row];
  }

  for (size_t layer = layers(); layer-- > 0;) {
    const int64_t in = widths_[layer], out = widths_[layer + 1];
    const float* delta = deltas_[layer].data();
    device.Gemm(Transpose::kYes, Transpose::kNo, in, out, batch.rows, 1,
                layer == 0 ? input_.data() : outputs_[layer - 1].data(), delta, 0,
                gradients->dense[Kernel(layer)].data());
    device.ColumnSums(batch.rows, out, delta, gradients->dense[Kernel(layer) + 1].data());
    std::vector<float>& before = layer == 0 ? input_delta_ : deltas_[layer - 1];
    before.resize(rows * static_cast<size_t>(in));
    device.Gemm(Transpose::kNo, Transpose::kYes, batch.rows, in, out, 1, delta, parameters.dense[Kernel(layer)].data(),
                0, before.data());
    if (layer > 0) device.ReluBackward(batch.rows * in, outputs_[layer - 1].data(), before.data());
  }

  // Each row of an embedding gets the sum of what its examples want of it.
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
  return {loss.loss_sum / static_cast<double>(batch.rows), loss.correct};
}

}  // namespace basin
