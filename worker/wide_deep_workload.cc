// Wide & deep on the examples of a CSV file.
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "worker/train/wide_deep_training.h"
#include "worker/workload.h"

namespace basin {
namespace {

constexpr size_t kMaxSchemaBytes = size_t{1} << 20;

class WideDeepWorkload final : public Workload {
 public:
  WideDeepWorkload(const TaskOptions& options, Device& device, FeatureData data, WideDeep model)
      : options_(options), device_(device), data_(std::move(data)), model_(std::move(model)) {}

  absl::StatusOr<uint64_t> LoadTraining() override { return data_.train().count(); }

  absl::Status Train(Client&) override { return absl::UnimplementedError("wide_deep trains with --no-ps alone"); }
  absl::Status Evaluate(Client&) override { return absl::UnimplementedError("wide_deep trains with --no-ps alone"); }

  absl::Status TrainWithoutPs() override {
    WideDeepTrainingOptions local;
    local.schedule = options_.schedule;
    local.batch_size = options_.batch_size;
    local.epochs = options_.epochs;
    local.max_steps = options_.max_steps;
    local.seed = options_.seed;
    LocalWideDeepParameters parameters(model_, options_.rule);
    const absl::Time start = absl::Now();
    BASIN_ASSIGN_OR_RETURN(const std::vector<double> losses,
                           TrainWideDeepLocally(model_, device_, parameters, data_, local));
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
    for (size_t epoch = 0; epoch < losses.size(); ++epoch) {
      Info(absl::StrFormat("epoch %d: loss %.4f", epoch + 1, losses[epoch]));
    }
    Info(absl::StrFormat("trained in %.1f s (%.0f examples/s)", seconds,
                         static_cast<double>(data_.train().count()) * options_.epochs / seconds));
    return PrintEvaluation(parameters, data_.TrainScale());
  }

  absl::Status EvaluateFile(const std::string&) override {
    return absl::UnimplementedError("no model file of wide_deep can be read yet");
  }

 private:
  absl::Status PrintEvaluation(WideDeepParameters& parameters, const NumericScale& scale) {
    BASIN_ASSIGN_OR_RETURN(const WideDeepEvaluation evaluation,
                           EvaluateWideDeep(model_, device_, parameters, data_, data_.test(), scale));
    std::printf("test loss %.4f\ntest accuracy %.4f\ntest AUC %.4f\n", evaluation.loss, evaluation.accuracy,
                evaluation.auc);
    return absl::OkStatus();
  }

  const TaskOptions& options_;
  Device& device_;
  const FeatureData data_;
  WideDeep model_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Workload>> MakeWideDeepWorkload(const TaskOptions& options, Device& device) {
  if (options.data.empty()) {
    return absl::InvalidArgumentError("--data is not given and BASIN_INPUT_DATA is not set; give the CSV file");
  }
  if (options.wide_deep.schema.empty()) {
    return absl::InvalidArgumentError(
        "--schema is not given and BASIN_INPUT_SCHEMA is not set; give the YAML file that says what the CSV file's "
        "columns mean, such as examples/03_flights/schema.yaml");
  }
  BASIN_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.wide_deep.schema, kMaxSchemaBytes));
  BASIN_ASSIGN_OR_RETURN(const FeatureSchema schema, ParseFeatureSchema(text, options.wide_deep.schema));
  WideDeepOptions model_options;
  model_options.hidden = options.hidden;
  model_options.embedding_dim = options.wide_deep.embedding_dim;
  model_options.seed = options.seed;
  model_options.wide_rule = options.wide_deep.wide_rule;
  model_options.embedding_rule = options.wide_deep.embedding_rule;
  BASIN_ASSIGN_OR_RETURN(WideDeep model, WideDeep::Make(schema, model_options));
  BASIN_ASSIGN_OR_RETURN(FeatureData data, FeatureData::Load(options.data, schema));
  Info(absl::StrCat(options.data, ": ", data.train().count(), " examples to train on, ", data.test().count(),
                    " for the test, ", data.without_label(), " left out for want of a label"));
  return std::make_unique<WideDeepWorkload>(options, device, std::move(data), std::move(model));
}

}  // namespace basin
