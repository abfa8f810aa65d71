#include "worker/wide_deep_task.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "worker/device_wide_deep_trainer.h"
#include "worker/model_file.h"
#include "worker/ps_wide_deep_parameters.h"
#include "worker/train/dataset.h"
#include "worker/train/wide_deep_training.h"
#include "worker/training_progress.h"
#include "worker/wide_deep_file.h"

namespace basin {
namespace {

class WideDeepLoop {
 public:
  WideDeepLoop(Client& client, WideDeepTrainer& trainer, const FeatureData& data, const TaskOptions& options)
      : client_(client), trainer_(trainer), data_(data), options_(options) {}

  absl::Status Run() {
    while (true) {
      Result<InputPiece> piece = client_.NextInput("train");
      if (!piece.ok()) return ToAbslStatus(piece.status());
      if (piece->end()) return absl::OkStatus();
      BASIN_RETURN_IF_ERROR(TrainOn(*piece));
      const absl::Status done = ToAbslStatus(piece->Done());
      // A lease that was lost (this process was silent for too long) has gone to another worker; that one counts it.
      if (done.code() == absl::StatusCode::kAborted) {
        Warn(done.message());
      } else if (!done.ok()) {
        return done;
      }
    }
  }
  const TrainingProgress& progress() const { return progress_; }

 private:
  absl::Status TrainOn(const InputPiece& piece) {
    const uint64_t count = data_.train().count();
    if (!order_ || order_->first != piece.epoch()) {
      order_.emplace(piece.epoch(), Permutation(count, options_.seed, piece.epoch()));
    }
    const absl::Span<const uint32_t> order = order_->second;
    for (uint64_t begin = piece.begin(); begin < piece.end_item() && !client_.run_state().stop;
         begin += options_.batch_size) {
      const uint64_t end = std::min(begin + options_.batch_size, piece.end_item());
      // By the place of these examples in the whole input, so that all workers are at the same point of the schedule.
      const double progress =
          (piece.epoch() + static_cast<double>(begin) / static_cast<double>(count)) / options_.epochs;
      BASIN_RETURN_IF_ERROR(
          Report(trainer_.Feed(order.subspan(begin, end - begin), RateAt(options_.schedule, 1, progress))));
    }
    // A piece counts when all of its steps are done.
    return Report(trainer_.Drain());
  }

  absl::Status Report(const absl::StatusOr<WideDeepTrainer::Step>& step) {
    if (!step.ok() || step->examples == 0) return step.status();
    progress_.Add(step->loss, step->examples);
    return ToAbslStatus(client_.Step({{"loss", progress_.loss()}, {"examples_per_s", progress_.examples_per_s()}}));
  }

  Client& client_;
  WideDeepTrainer& trainer_;
  const FeatureData& data_;
  const TaskOptions& options_;
  std::optional<std::pair<uint32_t, std::vector<uint32_t>>> order_;  // of the epoch
  TrainingProgress progress_;
};

absl::StatusOr<std::unique_ptr<WideDeepTrainer>> MakeTrainer(Client& client, WideDeep& model, Device& device,
                                                             PsWideDeepParameters& parameters, const FeatureData& data,
                                                             const TaskOptions& options) {
  if (device.is_host()) return std::make_unique<HostWideDeepTrainer>(model, device, parameters, data);
  auto trainer =
      std::make_unique<DeviceWideDeepTrainer>(client, model, device, parameters, data, options.rule.learning_rate);
  BASIN_RETURN_IF_ERROR(trainer->Start());
  return trainer;
}

absl::Status TrainDeclared(Client& client, WideDeep& model, Device& device, PsWideDeepParameters& parameters,
                           const FeatureData& data, const TaskOptions& options) {
  BASIN_ASSIGN_OR_RETURN(const std::unique_ptr<WideDeepTrainer> trainer,
                         MakeTrainer(client, model, device, parameters, data, options));
  WideDeepLoop loop(client, *trainer, data, options);
  BASIN_RETURN_IF_ERROR(loop.Run());
  Info(loop.progress().Sentence());
  if (client.is_chief() && !options.outputs.empty()) {
    BASIN_RETURN_IF_ERROR(MakeFolders(options.outputs));
    const std::string path = absl::StrCat(options.outputs, "/model.safetensors");
    BASIN_RETURN_IF_ERROR(WriteWideDeep(model, parameters, data, path));
    Info(absl::StrCat("wrote ", path));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunWideDeepTraining(Client& client, WideDeep& model, Device& device, const FeatureData& data,
                                 const TaskOptions& options) {
  BASIN_ASSIGN_OR_RETURN(PsWideDeepParameters parameters,
                         PsWideDeepParameters::Declare(client, model, options, data.train().count()));
  const absl::Status trained = TrainDeclared(client, model, device, parameters, data, options);
  if (!trained.ok()) {
    // The run's end tells the others why. What went wrong here is what main reports.
    if (client.is_chief()) (void)client.Finish(std::string(trained.message()));
    return trained;
  }
  return ToAbslStatus(client.Finish());
}

absl::Status RunWideDeepEvaluation(Client& client, WideDeep& model, Device& device, const FeatureData& data,
                                   const TaskOptions& options) {
  BASIN_ASSIGN_OR_RETURN(PsWideDeepParameters parameters,
                         PsWideDeepParameters::Declare(client, model, options, data.train().count()));
  const NumericScale scale = data.TrainScale();
  WideDeepEvaluation now;
  const auto evaluate = [&](absl::string_view when) -> absl::Status {
    BASIN_ASSIGN_OR_RETURN(now, EvaluateWideDeep(model, device, parameters, data, data.test(), scale));
    Info(absl::StrFormat("%sstep %d: test loss %.4f, test accuracy %.4f, test AUC %.4f", when,
                         client.run_state().global_step, now.loss, now.accuracy, now.auc));
    return ToAbslStatus(client.Step({{"test_loss", now.loss}, {"test_accuracy", now.accuracy}, {"test_auc", now.auc}}));
  };
  absl::Status waited;
  do {
    BASIN_RETURN_IF_ERROR(evaluate(""));
    waited = ToAbslStatus(client.WaitFinished(std::chrono::duration<double>(options.evaluate_every_s)));
  } while (waited.code() == absl::StatusCode::kDeadlineExceeded);
  BASIN_RETURN_IF_ERROR(waited);
  BASIN_RETURN_IF_ERROR(evaluate("at the end, "));
  if (!options.outputs.empty()) {
    BASIN_RETURN_IF_ERROR(MakeFolders(options.outputs));
    BASIN_RETURN_IF_ERROR(WriteFileAtomically(
        absl::StrCat(options.outputs, "/evaluation.json"),
        absl::StrFormat("{\"test_accuracy\": %.6f, \"test_loss\": %.6f, \"test_auc\": %.6f, \"global_step\": %d}\n",
                        now.accuracy, now.loss, now.auc, client.run_state().global_step)));
  }
  return ToAbslStatus(client.Finish());
}

}  // namespace basin
