#include "worker/rank_task.h"

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/host_name.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "worker/client/metrics_file.h"
#include "worker/model_file.h"
#include "worker/timeline_file.h"
#include "worker/train/all_reduce_training.h"
#include "worker/train/local_training.h"
#include "worker/train/timeline.h"
#include "worker/training_progress.h"

namespace basin {
namespace {

absl::StatusOr<AllReduceOptions> OptionsFrom(const TaskOptions& task, const Program& program, uint32_t rank) {
  AllReduceOptions options;
  options.rule = task.rule;
  options.schedule = task.schedule;
  options.batch_size = task.batch_size;
  options.epochs = task.epochs;
  options.max_steps = task.max_steps;
  options.seed = task.seed;
  options.fusion_bytes = task.mpi.fusion_bytes;
  options.has_initial = !task.init_from.empty();
  if (options.has_initial && rank == 0) {
    BASIN_ASSIGN_OR_RETURN(options.initial, ReadModel(program.variables(), task.init_from));
    Info(absl::StrCat("parameters start from ", task.init_from, "; the rule's slots start afresh"));
  }
  return options;
}

absl::Status WriteResults(Program& program, Device& device, const Dataset& test, const TaskOptions& options,
                          const AllReduceResult& result, MetricsFile* metrics) {
  BASIN_ASSIGN_OR_RETURN(const BatchResult evaluated, EvaluateAll(program, device, test, result.parameters));
  const double accuracy = static_cast<double>(evaluated.correct) / static_cast<double>(test.count());
  if (metrics != nullptr) {
    metrics->Add("test_loss", evaluated.loss, result.steps, absl::Now());
    metrics->Add("test_accuracy", accuracy, result.steps, absl::Now());
  }
  if (!options.outputs.empty()) {
    BASIN_RETURN_IF_ERROR(MakeFolders(options.outputs));
    const std::string path = absl::StrCat(options.outputs, "/model.safetensors");
    BASIN_RETURN_IF_ERROR(WriteModel(program.variables(), result.parameters, path, options.program));
    Info(absl::StrCat("wrote ", path));
    BASIN_RETURN_IF_ERROR(
        WriteFileAtomically(absl::StrCat(options.outputs, "/evaluation.json"),
                            absl::StrFormat("{\"test_accuracy\": %.6f, \"test_loss\": %.6f, \"global_step\": %d}\n",
                                            accuracy, evaluated.loss, result.steps)));
  }
  std::printf("test loss %.4f\ntest accuracy %.4f\n", evaluated.loss, accuracy);
  std::fflush(stdout);  // MPI may end the process without it
  return absl::OkStatus();
}

}  // namespace

absl::Status RunRankTask(AllReduceGroup& group, Program& program, Device& device, const Dataset& train,
                         const Dataset& test, const TaskOptions& options) {
  const bool has_timeline = !options.timeline.empty();
  if (has_timeline && group.rank() == 0) BASIN_RETURN_IF_ERROR(MakeTimelineFolder(options.timeline));
  BASIN_ASSIGN_OR_RETURN(const AllReduceOptions all_reduce, OptionsFrom(options, program, group.rank()));
  std::unique_ptr<MetricsFile> metrics;
  if (!options.metrics_file.empty()) {
    metrics = std::make_unique<MetricsFile>(options.metrics_file, [](const std::string& line) { Warn(line); });
  }
  Timeline timeline(group.rank());
  TrainingProgress progress;
  const auto after_step = [&](uint64_t step, const BatchResult& result, uint64_t examples) {
    if (examples > 0) progress.Add(result.loss, examples);
    if (metrics == nullptr) return;
    metrics->Add("loss", progress.loss(), step, absl::Now());
    metrics->Add("examples_per_s", progress.examples_per_s(), step, absl::Now());
  };
  const auto after_epoch = [&](uint32_t epoch, uint64_t steps, double loss) {
    if (group.rank() == 0) {
      Info(
          absl::StrFormat("epoch %d of %d, step %d: loss %.4f over all ranks", epoch + 1, options.epochs, steps, loss));
    }
  };
  BASIN_ASSIGN_OR_RETURN(const AllReduceResult result,
                         TrainByAllReduce(program, device, train, all_reduce, group, has_timeline ? &timeline : nullptr,
                                          after_step, after_epoch));
  Info(progress.Sentence());
  absl::StatusOr<std::vector<std::string>> lines;
  if (has_timeline) {
    lines = group.Gather(timeline.EventLines(absl::StrCat("rank ", group.rank(), " on ", HostName())));
  }
  // Whatever has become of the timelines: rank 0 says it, and the other ranks must not end its work.
  if (group.rank() != 0) return absl::OkStatus();
  BASIN_RETURN_IF_ERROR(WriteResults(program, device, test, options, result, metrics.get()));
  if (!has_timeline) return absl::OkStatus();
  BASIN_RETURN_IF_ERROR(lines.status());
  return WriteTimeline(options.timeline, *lines, timeline.left_out());
}

}  // namespace basin
