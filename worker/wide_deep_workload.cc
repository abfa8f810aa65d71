// Wide & deep on the examples of a CSV file.
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "worker/train/wide_deep_training.h"
#include "worker/wide_deep_file.h"
#include "worker/wide_deep_task.h"
#include "worker/workload.h"

namespace basin {
namespace {

constexpr size_t kMaxSchemaBytes = size_t{1} << 20;

absl::Status NotInRanks() {
  return absl::UnimplementedError(
      "--backend mpi: program wide_deep has its weights and embeddings in tables, whose rows come into being on "
      "parameter servers; set distributed_backend: ps (--backend ps)");
}

WideDeepOptions ModelOptions(const TaskOptions& options) {
  WideDeepOptions of_model;
  of_model.hidden = options.hidden;
  of_model.embedding_dim = options.wide_deep.embedding_dim;
  of_model.seed = options.seed;
  of_model.wide_rule = options.wide_deep.wide_rule;
  of_model.embedding_rule = options.wide_deep.embedding_rule;
  return of_model;
}

class WideDeepWorkload final : public Workload {
 public:
  WideDeepWorkload(const TaskOptions& options, Device& device, FeatureData data, WideDeep model)
      : options_(options), device_(device), data_(std::move(data)), model_(std::move(model)) {}

  // The file holds both parts, so it has been read.
  absl::StatusOr<uint64_t> LoadTraining() override { return data_.train().count(); }

  absl::Status Train(Client& client) override { return RunWideDeepTraining(client, model_, device_, data_, options_); }

  absl::Status Evaluate(Client& client) override {
    return RunWideDeepEvaluation(client, model_, device_, data_, options_);
  }

  absl::Status TrainWithoutPs() override {
    WideDeepTrainingOptions local;
    local.schedule = options_.schedule;
    local.batch_size = options_.batch_size;
    local.epochs = options_.epochs;
    local.max_steps = options_.max_steps;
    local.seed = options_.seed;
    LocalWideDeepParameters parameters(model_, options_.rule);
    const absl::Time start = absl::Now();
    BASIN_ASSIGN_OR_RETURN(const WideDeepTrained trained,
                           TrainWideDeepLocally(model_, device_, parameters, data_, local));
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
    for (size_t epoch = 0; epoch < trained.loss_per_epoch.size(); ++epoch) {
      Info(absl::StrFormat("epoch %d: loss %.4f", epoch + 1, trained.loss_per_epoch[epoch]));
    }
    Info(absl::StrFormat("%d steps, %d examples in %.1f s (%.0f examples/s)", trained.steps, trained.examples, seconds,
                         static_cast<double>(trained.examples) / seconds));
    if (!options_.outputs.empty()) {
      BASIN_RETURN_IF_ERROR(MakeFolders(options_.outputs));
      const std::string path = absl::StrCat(options_.outputs, "/model.safetensors");
      BASIN_RETURN_IF_ERROR(WriteWideDeep(model_, parameters, data_, path));
      Info(absl::StrCat("wrote ", path));
    }
    return PrintEvaluation(model_, parameters, data_.TrainScale());
  }

  absl::Status TrainInRanks(AllReduceGroup&) override { return NotInRanks(); }

  absl::Status EvaluateFile(const std::string& path) override {
    BASIN_ASSIGN_OR_RETURN(LoadedWideDeep loaded, ReadWideDeep(data_.schema(), ModelOptions(options_), path));
    return PrintEvaluation(loaded.model, *loaded.parameters, loaded.scale);
  }

 private:
  absl::Status PrintEvaluation(WideDeep& model, WideDeepParameters& parameters, const NumericScale& scale) {
    BASIN_ASSIGN_OR_RETURN(const WideDeepEvaluation evaluation,
                           EvaluateWideDeep(model, device_, parameters, data_, data_.test(), scale));
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
  if (options.backend == TrainingBackend::kMpi) return NotInRanks();
  if (options.data.empty()) {
    return absl::InvalidArgumentError("--data is not given and BASIN_INPUT_DATA is not set; give the CSV file");
  }
  if (options.wide_deep.schema.empty()) {
    return absl::InvalidArgumentError(
        "--schema is not given and BASIN_INPUT_SCHEMA is not set; give the YAML file that says what the CSV file's "
        "columns mean, such as examples/03_flights/schema.yaml");
  }
  if (!options.init_from.empty()) {
    return absl::UnimplementedError(
        "--init-from: program wide_deep cannot start from a model file, since rows of tables cannot be assigned yet; "
        "leave it out");
  }
  if (options.pipeline) {
    return absl::UnimplementedError(
        "--pipeline: program wide_deep cannot compute on rows that are a push older; leave it out");
  }
  BASIN_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.wide_deep.schema, kMaxSchemaBytes));
  BASIN_ASSIGN_OR_RETURN(const FeatureSchema schema, ParseFeatureSchema(text, options.wide_deep.schema));
  BASIN_ASSIGN_OR_RETURN(WideDeep model, WideDeep::Make(schema, ModelOptions(options)));
  BASIN_ASSIGN_OR_RETURN(FeatureData data, FeatureData::Load(options.data, schema));
  Info(absl::StrCat(options.data, ": ", data.train().count(), " examples to train on, ", data.test().count(),
                    " for the test, ", data.without_label(), " left out for want of a label"));
  return std::make_unique<WideDeepWorkload>(options, device, std::move(data), std::move(model));
}

}  // namespace basin
