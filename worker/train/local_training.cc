#include "worker/train/local_training.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/rules/apply.h"

namespace basin {
namespace {

constexpr uint64_t kEvaluationRows = 1000;

std::vector<absl::Span<const float>> ReadSpans(const std::vector<std::vector<float>>& buffers) {
  std::vector<absl::Span<const float>> spans;
  for (const std::vector<float>& buffer : buffers) spans.emplace_back(buffer.data(), buffer.size());
  return spans;
}

// A variable's slots, by number.
struct Slots {
  std::vector<std::vector<float>> slots;
};

}  // namespace

std::vector<std::vector<float>> InitialParameters(const Program& program) {
  std::vector<std::vector<float>> parameters;
  for (const VariableDecl& variable : program.variables()) {
    parameters.emplace_back(variable.elements());
    Fill(variable.init, FansOf(variable.shape), 0, absl::MakeSpan(parameters.back()));
  }
  return parameters;
}

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
  result.parameters = InitialParameters(program);
  std::vector<std::vector<float>> gradients;
  std::vector<absl::Span<float>> gradient_spans;
  std::vector<Slots> trained;
  for (const std::vector<float>& parameters : result.parameters) {
    gradients.emplace_back(parameters.size());
    Slots variable;
    for (int slot = 0; slot < SlotCount(options.rule.kind); ++slot)
      variable.slots.emplace_back(parameters.size(), SlotInitialValue(options.rule, slot));
    trained.push_back(std::move(variable));
  }
  for (std::vector<float>& gradient : gradients) gradient_spans.push_back(absl::MakeSpan(gradient));
  BatchBuffer buffer;
  for (uint32_t epoch = 0; epoch < options.epochs; ++epoch) {
    const std::vector<uint32_t> order = Permutation(train.count(), options.seed, epoch);
    double loss_sum = 0;
    uint64_t batches = 0;
    for (uint64_t begin = 0; begin < train.count(); begin += options.batch_size) {
      const uint64_t rows = std::min(options.batch_size, train.count() - begin);
      BatchResult batch;
      BASIN_RETURN_IF_ERROR(program.Gradients(device,
                                              buffer.Gather(train, absl::MakeConstSpan(order).subspan(begin, rows)),
                                              ReadSpans(result.parameters), gradient_spans, &batch));
      if (!std::isfinite(batch.loss)) {
        return absl::AbortedError(absl::StrCat("the loss is ", batch.loss, " at step ", result.steps + 1,
                                               ": training has diverged; try a smaller learning rate"));
      }
      const double progress =
          (epoch + static_cast<double>(begin) / static_cast<double>(train.count())) / options.epochs;
      const float rate = RateAt(options.schedule, options.rule.learning_rate, progress);
      loss_sum += batch.loss;
      ++batches;
      ++result.steps;
      for (size_t i = 0; i < gradients.size(); ++i) {
        ApplyArguments apply;
        apply.gradient = gradients[i];
        apply.parameters_in = result.parameters[i];
        apply.parameters_out = absl::MakeSpan(result.parameters[i]);
        for (size_t slot = 0; slot < trained[i].slots.size(); ++slot) {
          apply.slots_in[slot] = trained[i].slots[slot];
          apply.slots_out[slot] = absl::MakeSpan(trained[i].slots[slot]);
        }
        apply.step = result.steps;
        apply.learning_rate = rate;
        Apply(options.rule, apply);
      }
    }
    result.loss_per_epoch.push_back(loss_sum / static_cast<double>(batches));
  }
  BASIN_ASSIGN_OR_RETURN(const BatchResult evaluated, EvaluateAll(program, device, test, result.parameters));
  result.test_loss = evaluated.loss;
  result.test_accuracy = static_cast<double>(evaluated.correct) / static_cast<double>(test.count());
  return result;
}

}  // namespace basin
