// Labelled images of IDX folders, classified by a program of dense variables.
#include <cstdio>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "worker/evaluation_task.h"
#include "worker/rank_task.h"
#include "worker/train/local_training.h"
#include "worker/training_task.h"
#include "worker/workload.h"

namespace basin {
namespace {

class ImageWorkload final : public Workload {
 public:
  ImageWorkload(const TaskOptions& options, Device& device, std::unique_ptr<Program> program, Dataset test)
      : options_(options), device_(device), program_(std::move(program)), test_(std::move(test)) {}

  absl::StatusOr<uint64_t> LoadTraining() override {
    BASIN_ASSIGN_OR_RETURN(train_, Dataset::LoadIdxFolder(options_.data, "train"));
    return train_->count();
  }

  absl::Status Train(Client& client) override { return RunTrainingTask(client, *program_, device_, *train_, options_); }

  absl::Status Evaluate(Client& client) override {
    return RunEvaluationTask(client, *program_, device_, test_, options_);
  }

  absl::Status TrainWithoutPs() override {
    LocalOptions local;
    local.rule = options_.rule;
    local.schedule = options_.schedule;
    local.batch_size = options_.batch_size;
    local.epochs = options_.epochs;
    local.seed = options_.seed;
    const absl::Time start = absl::Now();
    BASIN_ASSIGN_OR_RETURN(const LocalResult result, TrainLocally(*program_, device_, *train_, test_, local));
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
    Info(absl::StrFormat("%d steps in %.1f s (%.0f examples/s)", result.steps, seconds,
                         static_cast<double>(train_->count()) * options_.epochs / seconds));
    std::printf("test loss %.4f\ntest accuracy %.4f\n", result.test_loss, result.test_accuracy);
    return absl::OkStatus();
  }

  absl::Status TrainInRanks(AllReduceGroup& group) override {
    return RunRankTask(group, *program_, device_, *train_, test_, options_);
  }

  absl::Status EvaluateFile(const std::string& path) override {
    return basin::EvaluateFile(*program_, device_, test_, path);
  }

 private:
  const TaskOptions& options_;
  Device& device_;
  const std::unique_ptr<Program> program_;
  const Dataset test_;
  std::optional<Dataset> train_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Workload>> MakeImageWorkload(const TaskOptions& options, Device& device) {
  if (options.data.empty()) {
    return absl::InvalidArgumentError(
        "--data is not given and BASIN_INPUT_DATA is not set; give the folder of the IDX files, such as "
        "/usr/share/datasets/fashion-mnist");
  }
  // The test part tells the data's width; it is small, and an evaluator needs it anyway.
  BASIN_ASSIGN_OR_RETURN(Dataset test, Dataset::LoadIdxFolder(options.data, "test"));
  ProgramOptions program_options;
  program_options.name = options.program;
  program_options.features = static_cast<int64_t>(test.width());
  program_options.classes = 10;
  program_options.hidden = options.hidden;
  program_options.seed = options.seed;
  BASIN_ASSIGN_OR_RETURN(auto program, MakeProgram(program_options));
  return std::make_unique<ImageWorkload>(options, device, std::move(program), std::move(test));
}

absl::StatusOr<std::unique_ptr<Workload>> MakeWorkload(const TaskOptions& options, Device& device) {
  return options.program == "wide_deep" ? MakeWideDeepWorkload(options, device) : MakeImageWorkload(options, device);
}

}  // namespace basin
