#include "worker/train/local_training.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "worker/train/dense_parameters.h"
#include "worker/train/dense_update.h"
#include "worker/train/program_trainer.h"

namespace basin {
namespace {

constexpr uint64_t kEvaluationRows = 1000;

std::vector<absl::Span<const float>> ReadSpans(const std::vector<std::vector<float>>& buffers) {
  std::vector<absl::Span<const float>> spans;
  for (const std::vector<float>& buffer : buffers) spans.emplace_back(buffer.data(), buffer.size());
  return spans;
}

class LocalDenseParameters final : public DenseParameters {
 public:
  LocalDenseParameters(const std::vector<VariableDecl>& variables, const RuleSpec& rule) : update_(variables, rule) {
    for (const std::vector<float>& parameters : update_.parameters()) gradients_.emplace_back(parameters.size());
    for (std::vector<float>& gradient : gradients_) spans_.push_back(absl::MakeSpan(gradient));
  }

  ParameterSpans parameters() const override { return update_.spans(); }
  GradientSpans gradients() override { return spans_; }
  void Ready(size_t) override {}
  absl::Status StartUpdate(double loss, float learning_rate) override {
    BASIN_RETURN_IF_ERROR(CheckLoss(loss, ++steps_));
    for (size_t i = 0; i < gradients_.size(); ++i) update_.Apply(i, gradients_[i], steps_, learning_rate);
    return absl::OkStatus();
  }
  absl::Status Settle() override { return absl::OkStatus(); }
  std::vector<std::vector<float>>& values() { return update_.parameters(); }

 private:
  DenseUpdate update_;
  std::vector<std::vector<float>> gradients_;
  std::vector<absl::Span<float>> spans_;
  uint64_t steps_ = 0;
};

}  // namespace

absl::StatusOr<BatchResult> EvaluateAll(Program& program, Device& device, const Dataset& data,
                                        const std::vector<std::vector<float>>& parameters) {
  std::vector<uint32_t> order(data.count());
  std::iota(order.begin(), order.end(), 0);
  const std::vector<absl::Span<const float>> spans = ReadSpans(parameters);
  BatchBuffer buffer;
  double loss_sum = 0;
  BatchResult all;
  for (uint64_t begin = 0; begin < data.count(); begin += kEvaluationRows) {
    const uint64_t rows = std::min(kEvaluationRows, data.count() - begin);
    BatchResult part;
    BASIN_RETURN_IF_ERROR(
        program.Evaluate(device, buffer.Gather(data, absl::MakeConstSpan(order).subspan(begin, rows)), spans, &part));
    loss_sum += part.loss * static_cast<double>(rows);
    all.correct += part.correct;
  }
  all.loss = loss_sum / static_cast<double>(data.count());
  return all;
}

absl::StatusOr<LocalResult> TrainLocally(Program& program, Device& device, const Dataset& train, const Dataset& test,
                                         const LocalOptions& options) {
  BASIN_RETURN_IF_ERROR(Validate(options.rule));
  if (options.batch_size < 1 || options.epochs < 1) {
    return absl::InvalidArgumentError(absl::StrCat("batches of ", options.batch_size, " examples, ", options.epochs,
                                                   " epochs; both must be at least 1"));
  }
  LocalResult result;
  LocalDenseParameters parameters(program.variables(), options.rule);
  ProgramTrainer trainer(program, device, train, parameters, /*pipeline=*/false, /*timeline=*/nullptr);
  for (uint32_t epoch = 0; epoch < options.epochs; ++epoch) {
    const std::vector<uint32_t> order = Permutation(train.count(), options.seed, epoch);
    double loss_sum = 0;
    uint64_t batches = 0;
    for (uint64_t begin = 0; begin < train.count(); begin += options.batch_size) {
      const uint64_t rows = std::min(options.batch_size, train.count() - begin);
      const double progress =
          (epoch + static_cast<double>(begin) / static_cast<double>(train.count())) / options.epochs;
      BASIN_ASSIGN_OR_RETURN(const BatchResult batch,
                             trainer.Step(absl::MakeConstSpan(order).subspan(begin, rows),
                                          RateAt(options.schedule, options.rule.learning_rate, progress)));
      loss_sum += batch.loss;
      ++batches;
      ++result.steps;
    }
    result.loss_per_epoch.push_back(loss_sum / static_cast<double>(batches));
  }
  result.parameters = std::move(parameters.values());
  BASIN_ASSIGN_OR_RETURN(const BatchResult evaluated, EvaluateAll(program, device, test, result.parameters));
  result.test_loss = evaluated.loss;
  result.test_accuracy = static_cast<double>(evaluated.correct) / static_cast<double>(test.count());
  return result;
}

}  // namespace basin
