#include "worker/device_wide_deep_trainer.h"

#include "common/base/status_macros.h"
#include "worker/model_file.h"

namespace basin {

DeviceWideDeepTrainer::DeviceWideDeepTrainer(Client& client, WideDeep& model, Device& device,
                                             const PsWideDeepParameters& declared, const FeatureData& data,
                                             float learning_rate)
    : client_(client),
      model_(model),
      device_(device),
      tables_(declared.tables()),
      data_(data),
      learning_rate_(learning_rate),
      scale_(data.TrainScale()),
      dense_(client, device, model.variables(), declared.variables(), /*pipeline=*/false, /*timeline=*/nullptr),
      batches_{{data, scale_, device}, {data, scale_, device}, {data, scale_, device}} {}

absl::Status DeviceWideDeepTrainer::Gather(int place, absl::Span<const uint32_t> examples) {
  return batches_[place].Gather(data_.train(), examples);
}

absl::StatusOr<double> DeviceWideDeepTrainer::Compute(int place) {
  const DeviceFeatureBatch& batch = batches_[place];
  BASIN_RETURN_IF_ERROR(SettleFor(batch));
  BASIN_RETURN_IF_ERROR(weights_gradient_.Resize(device_, weights_.size()));
  BASIN_RETURN_IF_ERROR(embeddings_gradient_.Resize(device_, embeddings_.size()));
  const WideDeepStep step = {.rows = static_cast<int64_t>(batch.rows()),
                             .numeric = batch.numeric(),
                             .labels = batch.labels(),
                             .weights = weights_.data(),
                             .embeddings = embeddings_.data(),
                             .parameters = dense_.parameters(),
                             .gradients = dense_.gradients(),
                             .weights_gradient = weights_gradient_.data(),
                             .embeddings_gradient = embeddings_gradient_.data()};
  BASIN_ASSIGN_OR_RETURN(computed_,
                         model_.Gradients(device_, step, [this](size_t variable) { dense_.Ready(variable); }));
  // Nothing is pushed that was computed on rows of a call that failed. They are done: the device waited for them.
  BASIN_RETURN_IF_ERROR(Settle());
  return computed_.result.loss;
}

// Behind the forward pass that `pushed` has had, weights_ and embeddings_ are free for what is pulled.
absl::Status DeviceWideDeepTrainer::StartUpdate(const Taken* pushed, const Taken* pulled) {
  if (pushed == nullptr) computed_.weights_made = computed_.embeddings_made = device_.Mark();
  const auto set_rate = [&](const TableDecl& table) {
    return ToAbslStatus(client_.SetLearningRate(table.rule.learning_rate * pushed->rate_factor));
  };
  // Pushes in the order of the backward pass, each table's pull behind its push.
  if (pushed != nullptr) {
    BASIN_RETURN_IF_ERROR(set_rate(model_.tables()[0]));
    BASIN_RETURN_IF_ERROR(StartWeights(batches_[pushed->place], weights_gradient_.data(), nullptr));
  }
  if (pulled != nullptr) {
    const DeviceFeatureBatch& batch = batches_[pulled->place];
    BASIN_RETURN_IF_ERROR(weights_.Resize(device_, batch.rows()));
    BASIN_RETURN_IF_ERROR(StartWeights(batch, nullptr, weights_.data()));
  }
  if (pushed != nullptr) {
    BASIN_RETURN_IF_ERROR(dense_.StartUpdate(computed_.result.loss, learning_rate_ * pushed->rate_factor));
    BASIN_RETURN_IF_ERROR(set_rate(model_.tables()[1]));  // embeddings have one rule
    BASIN_RETURN_IF_ERROR(StartEmbeddings(batches_[pushed->place], embeddings_gradient_.data(), nullptr));
  }
  if (pulled != nullptr) {
    const DeviceFeatureBatch& batch = batches_[pulled->place];
    BASIN_RETURN_IF_ERROR(embeddings_.Resize(device_, (tables_.size() - 1) * batch.rows() * tables_[1].dim));
    BASIN_RETURN_IF_ERROR(StartEmbeddings(batch, nullptr, embeddings_.data()));
  }
  return absl::OkStatus();
}

absl::Status DeviceWideDeepTrainer::StartWeights(const DeviceFeatureBatch& batch, const float* push, float* pull) {
  const Location there = Location::Cuda(device_.number());
  return StartRows({{.table = &tables_[0],
                     .keys = batch.weight_keys(),
                     .count = batch.rows() * batch.features(),
                     .push = push,
                     .pull = pull,
                     .bags = batch.bags().data(),
                     .bag_count = batch.rows(),
                     .pooling = Pooling::kSum,
                     .location = there,
                     .keys_location = there}},
                   computed_.weights_made);
}

absl::Status DeviceWideDeepTrainer::StartEmbeddings(const DeviceFeatureBatch& batch, const float* push, float* pull) {
  const Location there = Location::Cuda(device_.number());
  std::vector<Rows> rows;
  for (size_t category = 0; category + 1 < tables_.size(); ++category) {
    const Table& table = tables_[category + 1];
    const size_t at = category * batch.rows() * table.dim;
    rows.push_back({.table = &table,
                    .keys = batch.embedding_keys(category),
                    .count = batch.rows(),
                    .push = push == nullptr ? nullptr : push + at,
                    .pull = pull == nullptr ? nullptr : pull + at,
                    .location = there,
                    .keys_location = there});
  }
  return StartRows(rows, computed_.embeddings_made);
}

absl::Status DeviceWideDeepTrainer::StartRows(const std::vector<Rows>& rows, uint64_t behind) {
  BASIN_ASSIGN_OR_RETURN(const void* const stream, device_.StreamAt(behind));
  under_way_.push_back(client_.Start(rows, Stream::Cuda(stream)));
  return absl::OkStatus();
}

// As ProgramTrainer::SettleFor, which says why the CPU waits.
absl::Status DeviceWideDeepTrainer::SettleFor(const DeviceFeatureBatch& batch) {
  if (sizes_.insert(batch.rows()).second) return Settle();
  for (Call& call : under_way_) BASIN_RETURN_IF_ERROR(ToAbslStatus(call.OrderBefore(Stream::Cuda(device_.stream()))));
  return dense_.SettleInOrder();
}

absl::Status DeviceWideDeepTrainer::Settle() {
  absl::Status first = dense_.Settle();
  for (Call& call : under_way_) first.Update(ToAbslStatus(call.Wait()));
  under_way_.clear();
  return first;
}

}  // namespace basin
