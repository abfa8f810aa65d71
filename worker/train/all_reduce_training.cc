#include "worker/train/all_reduce_training.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/checksum.h"
#include "common/base/status_macros.h"
#include "worker/train/all_reduce_parameters.h"
#include "worker/train/program_trainer.h"

namespace basin {
namespace {

absl::string_view Bytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

// What must be the same in all ranks, a line each.
std::string Settings(const Program& program, const Dataset& train, const AllReduceOptions& options) {
  std::string text =
      absl::StrCat("rule ", ToText(options.rule), "\nschedule ", static_cast<int>(options.schedule), "\nbatches of ",
                   options.batch_size, " examples\n", options.epochs, " epochs\n", options.max_steps,
                   " steps at most\nseed ", options.seed, "\nbuffers of ", options.fusion_bytes, " bytes\n",
                   options.has_initial ? "" : "not ", "started from a model file");
  for (const VariableDecl& variable : program.variables()) {
    absl::StrAppend(&text, "\nvariable ", variable.name, " [", absl::StrJoin(variable.shape, ", "), "], seed ",
                    variable.init.seed);
  }
  absl::StrAppend(&text, "\n", train.count(), " training examples, checksum ",
                  absl::Hex(Crc32c(train.features(0), train.count() * train.width()), absl::kZeroPad8),
                  absl::Hex(Crc32c(train.labels(), train.count()), absl::kZeroPad8));
  return text;
}

// Ranks apply the same sums, as far as the MPI library gives all of them the same bits.
absl::Status CheckStillTheSame(AllReduceGroup& group, const std::vector<std::vector<float>>& parameters,
                               uint64_t steps) {
  std::string text;
  for (size_t i = 0; i < parameters.size(); ++i) {
    absl::StrAppend(&text, i == 0 ? "" : "\n", "variable ", i, " with checksum ",
                    absl::Hex(Crc32c(parameters[i].data(), parameters[i].size() * sizeof(float)), absl::kZeroPad8));
  }
  const absl::Status same = CheckSame(group, absl::StrCat("the parameters after step ", steps), text);
  if (same.code() != absl::StatusCode::kInvalidArgument) return same;
  return absl::InternalError(absl::StrCat(same.message(),
                                          ": the MPI library gave the ranks different sums of the same gradients; "
                                          "choose another of its algorithms for all-reduce"));
}

absl::Status TakeInitial(AllReduceGroup& group, const AllReduceOptions& options,
                         std::vector<std::vector<float>>& parameters) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    std::string bytes;
    if (group.rank() == 0) bytes = std::string(Bytes(options.initial[i]));
    BASIN_RETURN_IF_ERROR(group.Broadcast(&bytes));
    if (bytes.size() != parameters[i].size() * sizeof(float)) {
      return absl::InternalError(absl::StrCat("rank 0 sent ", bytes.size(), " bytes for variable ", i, ", expected ",
                                              parameters[i].size() * sizeof(float)));
    }
    std::memcpy(parameters[i].data(), bytes.data(), bytes.size());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<AllReduceResult> TrainByAllReduce(Program& program, Device& device, const Dataset& train,
                                                 const AllReduceOptions& options, AllReduceGroup& group,
                                                 Timeline* timeline, const AfterStep& after_step,
                                                 const AfterEpoch& after_epoch) {
  BASIN_RETURN_IF_ERROR(Validate(options.rule));
  if (options.batch_size < 1 || options.epochs < 1) {
    return absl::InvalidArgumentError(absl::StrCat("batches of ", options.batch_size, " examples, ", options.epochs,
                                                   " epochs; both must be at least 1"));
  }
  BASIN_RETURN_IF_ERROR(CheckSame(group, "the settings", Settings(program, train, options)));
  if (timeline != nullptr) timeline->StartClock();  // the ranks have just heard of each other
  AllReduceParameters parameters(program.variables(), options.rule, options.fusion_bytes, group, timeline);
  if (options.has_initial) BASIN_RETURN_IF_ERROR(TakeInitial(group, options, parameters.values()));
  ProgramTrainer trainer(program, device, train, parameters, /*pipeline=*/false, timeline);

  AllReduceResult result;
  const uint64_t count = train.count(), ranks = group.size(), together = options.batch_size * ranks;
  const auto more = [&] { return options.max_steps == 0 || result.steps < options.max_steps; };
  for (uint32_t epoch = 0; epoch < options.epochs && more(); ++epoch) {
    const std::vector<uint32_t> order = Permutation(count, options.seed, epoch);
    double loss_sum = 0;
    uint64_t batches = 0;
    for (uint64_t begin = 0; begin < count && more(); begin += together) {
      // What is left at the end of an epoch is shared out evenly; a rank may get none of it.
      const uint64_t rows = std::min(together, count - begin);
      const uint64_t from = rows * group.rank() / ranks, to = rows * (group.rank() + 1) / ranks;
      const double progress = (epoch + static_cast<double>(begin) / static_cast<double>(count)) / options.epochs;
      parameters.SetShare(static_cast<double>(to - from) / static_cast<double>(rows));
      BASIN_ASSIGN_OR_RETURN(const BatchResult batch,
                             trainer.Step(absl::MakeConstSpan(order).subspan(begin + from, to - from),
                                          RateAt(options.schedule, options.rule.learning_rate, progress)));
      if (batches > 0) loss_sum += parameters.mean_loss();  // of the step before, which has been waited for
      ++batches;
      ++result.steps;
      after_step(result.steps, batch, to - from);
    }
    BASIN_RETURN_IF_ERROR(trainer.Settle());
    loss_sum += parameters.mean_loss();
    result.loss_per_epoch.push_back(loss_sum / static_cast<double>(batches));
    BASIN_RETURN_IF_ERROR(CheckStillTheSame(group, parameters.values(), result.steps));
    after_epoch(epoch, result.steps, result.loss_per_epoch.back());
  }
  result.parameters = std::move(parameters.values());
  return result;
}

}  // namespace basin
