#include "worker/train/wide_deep_training.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "worker/train/auc.h"
#include "worker/train/dataset.h"

namespace basin {
namespace {

constexpr uint64_t kRowsAtOnce = 4096;

}  // namespace

absl::StatusOr<WideDeepTrainer::Step> WideDeepTrainer::Feed(absl::Span<const uint32_t> examples, float rate_factor) {
  const Taken next = {taken_ ? (taken_->place + 1) % kPlaces : 0, examples.size(), rate_factor};
  BASIN_RETURN_IF_ERROR(Gather(next.place, examples));
  return Advance(next);
}

absl::StatusOr<WideDeepTrainer::Step> WideDeepTrainer::Drain() {
  BASIN_ASSIGN_OR_RETURN(const Step step, Advance(std::nullopt));
  BASIN_RETURN_IF_ERROR(Settle());
  return step;
}

absl::StatusOr<WideDeepTrainer::Step> WideDeepTrainer::Advance(std::optional<Taken> next) {
  Step step;
  const std::optional<Taken> pushed = std::exchange(taken_, std::nullopt);
  if (pushed) {
    BASIN_ASSIGN_OR_RETURN(step.loss, Compute(pushed->place));
    step.examples = pushed->examples;
    ++steps_;
    if (!std::isfinite(step.loss)) {
      return absl::AbortedError(
          absl::StrCat("the loss is ", step.loss, " at step ", steps_,
                       ": training has diverged; try a smaller --learning-rate, or smaller ones of "
                       "--wide-learning-rate and --embedding-learning-rate"));
    }
  }
  BASIN_RETURN_IF_ERROR(StartUpdate(pushed ? &*pushed : nullptr, next ? &*next : nullptr));
  taken_ = next;
  return step;
}

absl::Status HostWideDeepTrainer::Gather(int place, absl::Span<const uint32_t> examples) {
  batcher_.Gather(data_.train(), examples, &batches_[place]);
  return absl::OkStatus();
}

absl::StatusOr<double> HostWideDeepTrainer::Compute(int place) {
  BASIN_RETURN_IF_ERROR(parameters_.Settle());
  BASIN_ASSIGN_OR_RETURN(const WideDeep::Result result,
                         model_.Gradients(device_, batches_[place], values_, &gradients_));
  return result.loss;
}

absl::Status HostWideDeepTrainer::StartUpdate(const Taken* pushed, const Taken* pulled) {
  if (pushed != nullptr) {
    BASIN_RETURN_IF_ERROR(parameters_.StartPush(batches_[pushed->place].tables, gradients_, pushed->rate_factor));
  }
  if (pulled == nullptr) return absl::OkStatus();
  const std::vector<TableKeys>& keys = batches_[pulled->place].tables;
  model_.Resize(keys, &values_);
  return parameters_.StartPull(keys, &values_);
}

absl::StatusOr<WideDeepEvaluation> EvaluateWideDeep(WideDeep& model, Device& device, WideDeepParameters& parameters,
                                                    const FeatureData& data, const FeatureData::Part& part,
                                                    const NumericScale& scale) {
  std::vector<uint32_t> order(part.count());
  std::iota(order.begin(), order.end(), 0);
  FeatureBatcher batcher(data, scale);
  FeatureBatch batch;
  WideDeepValues values;
  std::vector<float> logits;
  double loss_sum = 0;
  uint64_t correct = 0;
  for (uint64_t begin = 0; begin < part.count(); begin += kRowsAtOnce) {
    batcher.Gather(part, absl::MakeConstSpan(order).subspan(begin, kRowsAtOnce), &batch);
    model.Resize(batch.tables, &values);
    BASIN_RETURN_IF_ERROR(parameters.StartPull(batch.tables, &values));
    BASIN_RETURN_IF_ERROR(parameters.Settle());
    BASIN_ASSIGN_OR_RETURN(const WideDeep::Result result, model.Score(device, batch, values, &logits));
    loss_sum += result.loss * static_cast<double>(batch.rows);
    correct += result.correct;
  }
  const auto count = static_cast<double>(part.count());
  if (!std::isfinite(loss_sum)) {
    return absl::AbortedError(absl::StrCat("the loss over the examples is ", loss_sum, ": training has diverged"));
  }
  return WideDeepEvaluation{loss_sum / count, Auc(logits, part.labels), static_cast<double>(correct) / count};
}

absl::StatusOr<WideDeepTrained> TrainWideDeepLocally(WideDeep& model, Device& device,
                                                     LocalWideDeepParameters& parameters, const FeatureData& data,
                                                     const WideDeepTrainingOptions& options) {
  if (options.batch_size < 1 || options.epochs < 1) {
    return absl::InvalidArgumentError(absl::StrCat("batches of ", options.batch_size, " examples, ", options.epochs,
                                                   " epochs; both must be at least 1"));
  }
  HostWideDeepTrainer trainer(model, device, parameters, data);
  const uint64_t count = data.train().count();
  WideDeepTrained trained;
  double loss_sum = 0;
  const auto add = [&](const absl::StatusOr<WideDeepTrainer::Step>& step) {
    if (!step.ok() || step->examples == 0) return step.status();
    loss_sum += step->loss;
    trained.examples += step->examples;
    ++trained.steps;
    return absl::OkStatus();
  };
  uint64_t taken = 0;  // batches
  for (uint32_t epoch = 0; epoch < options.epochs && (options.max_steps == 0 || taken < options.max_steps); ++epoch) {
    const std::vector<uint32_t> order = Permutation(count, options.seed, epoch);
    const uint64_t steps_before = trained.steps;
    loss_sum = 0;
    for (uint64_t begin = 0; begin < count && (options.max_steps == 0 || taken < options.max_steps);
         begin += options.batch_size, ++taken) {
      const double progress = (epoch + static_cast<double>(begin) / static_cast<double>(count)) / options.epochs;
      BASIN_RETURN_IF_ERROR(add(trainer.Feed(absl::MakeConstSpan(order).subspan(begin, options.batch_size),
                                             RateAt(options.schedule, 1, progress))));
    }
    BASIN_RETURN_IF_ERROR(add(trainer.Drain()));
    trained.loss_per_epoch.push_back(loss_sum / static_cast<double>(trained.steps - steps_before));
  }
  return trained;
}

}  // namespace basin
