#include "worker/evaluation_task.h"

#include <chrono>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "worker/model_file.h"
#include "worker/train/local_training.h"

namespace basin {
namespace {

absl::Status CheckModel(const std::vector<std::pair<std::string, Variable>>& learned, const Program& program) {
  const auto& variables = program.variables();
  bool same = learned.size() == variables.size();
  for (size_t i = 0; same && i < variables.size(); ++i)
    same = learned[i].first == variables[i].name && learned[i].second.shape == variables[i].shape;
  if (same) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "the run trains another model than this evaluator was told of; give it the workers' --program and --hidden");
}

struct Evaluation {
  double loss = 0, accuracy = 0;
};

absl::StatusOr<Evaluation> EvaluateOnce(Client& client, Program& program, Device& device, const Dataset& test,
                                        const std::vector<Target>& targets,
                                        const std::vector<std::vector<float>>& parameters) {
  BASIN_RETURN_IF_ERROR(ToAbslStatus(client.Pull(targets).Wait()));
  BASIN_ASSIGN_OR_RETURN(const BatchResult result, EvaluateAll(program, device, test, parameters));
  return Evaluation{result.loss, static_cast<double>(result.correct) / static_cast<double>(test.count())};
}

}  // namespace

absl::Status RunEvaluationTask(Client& client, Program& program, Device& device, const Dataset& test,
                               const TaskOptions& options) {
  auto variables = client.Learn();
  if (!variables.ok()) return ToAbslStatus(variables.status());
  BASIN_RETURN_IF_ERROR(CheckModel(*variables, program));
  std::vector<std::vector<float>> parameters;
  for (const VariableDecl& variable : program.variables()) parameters.emplace_back(variable.elements());
  std::vector<Target> targets;
  for (size_t i = 0; i < variables->size(); ++i) targets.emplace_back((*variables)[i].second, parameters[i]);

  absl::Status waited;
  do {
    BASIN_ASSIGN_OR_RETURN(const Evaluation evaluation,
                           EvaluateOnce(client, program, device, test, targets, parameters));
    Info(absl::StrFormat("step %d: test loss %.4f, test accuracy %.4f", client.run_state().global_step, evaluation.loss,
                         evaluation.accuracy));
    BASIN_RETURN_IF_ERROR(
        ToAbslStatus(client.Step({{"test_loss", evaluation.loss}, {"test_accuracy", evaluation.accuracy}})));
    waited = ToAbslStatus(client.WaitFinished(std::chrono::duration<double>(options.evaluate_every_s)));
  } while (waited.code() == absl::StatusCode::kDeadlineExceeded);
  BASIN_RETURN_IF_ERROR(waited);
  BASIN_ASSIGN_OR_RETURN(const Evaluation evaluation, EvaluateOnce(client, program, device, test, targets, parameters));
  const uint64_t step = client.run_state().global_step;
  BASIN_RETURN_IF_ERROR(
      ToAbslStatus(client.Step({{"test_loss", evaluation.loss}, {"test_accuracy", evaluation.accuracy}})));
  Info(absl::StrFormat("at the end, step %d: test loss %.4f, test accuracy %.4f", step, evaluation.loss,
                       evaluation.accuracy));
  if (!options.outputs.empty()) {
    BASIN_RETURN_IF_ERROR(MakeFolders(options.outputs));
    BASIN_RETURN_IF_ERROR(
        WriteFileAtomically(absl::StrCat(options.outputs, "/evaluation.json"),
                            absl::StrFormat("{\"test_accuracy\": %.6f, \"test_loss\": %.6f, \"global_step\": %d}\n",
                                            evaluation.accuracy, evaluation.loss, step)));
  }
  return ToAbslStatus(client.Finish());
}

absl::Status EvaluateFile(Program& program, Device& device, const Dataset& test, const std::string& path) {
  BASIN_ASSIGN_OR_RETURN(const auto parameters, ReadModel(program.variables(), path));
  BASIN_ASSIGN_OR_RETURN(const BatchResult result, EvaluateAll(program, device, test, parameters));
  std::printf("test loss %.4f\ntest accuracy %.4f\n", result.loss,
              static_cast<double>(result.correct) / static_cast<double>(test.count()));
  return absl::OkStatus();
}

}  // namespace basin
