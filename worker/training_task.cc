#include "worker/training_task.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "worker/declare_rules.h"
#include "worker/model_file.h"
#include "worker/ps_dense_parameters.h"
#include "worker/timeline_file.h"
#include "worker/train/program_trainer.h"
#include "worker/training_progress.h"

namespace basin {
namespace {

class ProgramLoop {
 public:
  ProgramLoop(Client& client, Program& program, Device& device, const Dataset& train, const TaskOptions& options,
              const std::vector<std::pair<std::string, Variable>>& variables)
      : client_(client),
        train_(train),
        options_(options),
        timeline_(client.index()),
        parameters_(client, device, program.variables(), variables, options.pipeline,
                    options.timeline.empty() ? nullptr : &timeline_),
        trainer_(program, device, train, parameters_, options.pipeline,
                 options.timeline.empty() ? nullptr : &timeline_) {}

  absl::Status Run() {
    BASIN_RETURN_IF_ERROR(parameters_.Start());
    while (true) {
      Result<InputPiece> piece = client_.NextInput("train");
      if (!piece.ok()) return ToAbslStatus(piece.status());
      if (piece->end()) break;
      BASIN_RETURN_IF_ERROR(TrainOn(*piece));
      const absl::Status done = ToAbslStatus(piece->Done());
      // A lease that was lost (this process was silent for too long) has gone to another worker; that one counts it.
      if (done.code() == absl::StatusCode::kAborted) {
        Warn(done.message());
      } else if (!done.ok()) {
        return done;
      }
    }
    return trainer_.Settle();
  }
  absl::Status WriteTimelineFile() const {
    if (options_.timeline.empty()) return absl::OkStatus();
    return WriteTimeline(options_.timeline, {timeline_.EventLines(absl::StrCat(client_.role(), " ", client_.index()))},
                         timeline_.left_out());
  }
  const TrainingProgress& progress() const { return progress_; }

 private:
  absl::Status TrainOn(const InputPiece& piece) {
    if (!order_ || order_->first != piece.epoch()) {
      order_.emplace(piece.epoch(), Permutation(train_.count(), options_.seed, piece.epoch()));
    }
    const std::vector<uint32_t>& order = order_->second;
    for (uint64_t begin = piece.begin(); begin < piece.end_item() && !client_.run_state().stop;
         begin += options_.batch_size) {
      const uint64_t end = std::min(begin + options_.batch_size, piece.end_item());
      // By the place of these examples in the whole input, so that all workers are at the same point of the schedule.
      const double progress =
          (piece.epoch() + static_cast<double>(begin) / static_cast<double>(train_.count())) / options_.epochs;
      BASIN_ASSIGN_OR_RETURN(const BatchResult result,
                             trainer_.Step(absl::MakeConstSpan(order).subspan(begin, end - begin),
                                           RateAt(options_.schedule, options_.rule.learning_rate, progress)));
      progress_.Add(result.loss, end - begin);
      BASIN_RETURN_IF_ERROR(
          ToAbslStatus(client_.Step({{"loss", progress_.loss()}, {"examples_per_s", progress_.examples_per_s()}})));
    }
    return absl::OkStatus();
  }

  Client& client_;
  const Dataset& train_;
  const TaskOptions& options_;
  Timeline timeline_;
  PsDenseParameters parameters_;
  ProgramTrainer trainer_;
  std::optional<std::pair<uint32_t, std::vector<uint32_t>>> order_;  // of the epoch
  TrainingProgress progress_;
};

}  // namespace

Result<std::vector<std::pair<std::string, Variable>>> DeclareProgram(Client& client, const Program& program,
                                                                     const TaskOptions& options, uint64_t examples) {
  Model model;
  std::vector<std::pair<std::string, Variable>> variables;
  for (const VariableDecl& declared : program.variables()) {
    const Initializer initializer = options.init_from.empty() ? ToInitializer(declared.init) : Assigned();
    variables.emplace_back(declared.name, model.Dense(declared.name, declared.shape, initializer));
  }
  model.SetRule(ToRule(options.rule));
  model.AddInput("train", examples, options.batch_size * options.piece_batches, options.epochs, options.seed);
  model.SetMaxSteps(options.max_steps);
  if (Status status = client.Declare(model); !status.ok()) return status;
  return variables;
}

namespace {

// From the declared model to the one that is written.
absl::Status TrainDeclared(ProgramLoop& loop, Client& client, const TaskOptions& options,
                           const std::vector<std::pair<std::string, Variable>>& variables) {
  if (client.is_chief() && !options.init_from.empty()) {
    BASIN_RETURN_IF_ERROR(AssignFromFile(client, variables, options.init_from));
    Info(absl::StrCat("parameters start from ", options.init_from, "; the rule's slots start afresh"));
  }
  BASIN_RETURN_IF_ERROR(loop.Run());
  Info(loop.progress().Sentence());
  if (client.is_chief() && !options.outputs.empty()) {
    BASIN_RETURN_IF_ERROR(MakeFolders(options.outputs));
    const std::string path = absl::StrCat(options.outputs, "/model.safetensors");
    BASIN_RETURN_IF_ERROR(ExportModel(client, variables, path, options.program));
    Info(absl::StrCat("wrote ", path));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunTrainingTask(Client& client, Program& program, Device& device, const Dataset& train,
                             const TaskOptions& options) {
  if (!options.timeline.empty()) BASIN_RETURN_IF_ERROR(MakeTimelineFolder(options.timeline));
  auto variables = DeclareProgram(client, program, options, train.count());
  if (!variables.ok()) return ToAbslStatus(variables.status());
  ProgramLoop loop(client, program, device, train, options, *variables);
  const absl::Status trained = TrainDeclared(loop, client, options, *variables);
  if (!trained.ok()) {
    // The run's end tells the others why: they may wait for what the chief does not do any more, such as the first
    // values of --init-from. What went wrong here is what main reports.
    if (client.is_chief()) (void)client.Finish(std::string(trained.message()));
    return trained;
  }
  BASIN_RETURN_IF_ERROR(ToAbslStatus(client.Finish()));
  return loop.WriteTimelineFile();
}

}  // namespace basin
