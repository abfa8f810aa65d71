#include "worker/training_task.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "worker/declare_rules.h"
#include "worker/model_file.h"
#include "worker/training_progress.h"

namespace basin {
namespace {

// One set of the program's parameters, or of gradients for them. Gradients are `pushed`: they lie in memory that a
// server of the same host reads without a copy. (What is pulled is copied anyway, and ordinary memory may have huge
// pages.)
struct Values {
  Values(const std::vector<VariableDecl>& variables, bool pushed) {
    for (const VariableDecl& variable : variables) {
      const size_t elements = variable.elements(), bytes = elements * sizeof(float);
      buffers.emplace_back(static_cast<float*>(pushed ? basin_allocate(bytes) : std::calloc(elements, sizeof(float))),
                           pushed ? &basin_deallocate : &std::free);
      BASIN_CHECK(buffers.back() != nullptr || elements == 0);
      read.emplace_back(buffers.back().get(), elements);
      write.emplace_back(buffers.back().get(), elements);
    }
  }
  std::vector<std::unique_ptr<float, void (*)(void*)>> buffers;
  std::vector<absl::Span<const float>> read;
  std::vector<absl::Span<float>> write;
};

class TrainingLoop {
 public:
  TrainingLoop(Client& client, Program& program, Device& device, const Dataset& train, const TaskOptions& options,
               const std::vector<std::pair<std::string, Variable>>& variables)
      : client_(client),
        program_(program),
        device_(device),
        train_(train),
        options_(options),
        gradients_(program.variables(), /*pushed=*/true),
        parameters_{Values(program.variables(), /*pushed=*/false), Values(program.variables(), /*pushed=*/false)} {
    for (size_t i = 0; i < variables.size(); ++i) {
      push_.emplace_back(variables[i].second, gradients_.read[i].data(), gradients_.read[i].size());
      for (Values& set : parameters_) {
        pull_[&set - parameters_].emplace_back(variables[i].second, set.write[i].data(), set.write[i].size());
      }
    }
  }

  absl::Status Run() {
    BASIN_RETURN_IF_ERROR(ToAbslStatus(client_.Pull(pull_[current_]).Wait()));
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
    return Settle();
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
      if (options_.schedule != Schedule::kConstant) {
        BASIN_RETURN_IF_ERROR(
            ToAbslStatus(client_.SetLearningRate(RateAt(options_.schedule, options_.rule.learning_rate, progress))));
      }
      BASIN_RETURN_IF_ERROR(Step(absl::MakeConstSpan(order).subspan(begin, end - begin)));
    }
    return absl::OkStatus();
  }

  // The push before, and the pull behind it, are under way while this batch is gathered; with --pipeline also while its
  // gradients are computed, on the parameters at hand.
  absl::Status Step(absl::Span<const uint32_t> examples) {
    const Batch batch = batch_.Gather(train_, examples);
    if (!options_.pipeline) BASIN_RETURN_IF_ERROR(Settle());
    BatchResult result;
    BASIN_RETURN_IF_ERROR(program_.Gradients(device_, batch, parameters_[current_].read, gradients_.write, &result));
    if (!std::isfinite(result.loss)) {
      return absl::AbortedError(absl::StrCat("the loss is ", result.loss, " at step ", progress_.steps() + 1,
                                             ": training has diverged; try a smaller --learning-rate"));
    }
    BASIN_RETURN_IF_ERROR(Settle());
    under_way_.emplace(client_.PushPull(push_, pull_[1 - current_]));
    progress_.Add(result.loss, examples.size());
    return ToAbslStatus(client_.Step({{"loss", progress_.loss()}, {"examples_per_s", progress_.examples_per_s()}}));
  }

  // Waits for the push under way; what it pulled becomes current.
  absl::Status Settle() {
    if (!under_way_) return absl::OkStatus();
    BASIN_RETURN_IF_ERROR(ToAbslStatus(under_way_->Wait()));
    under_way_.reset();
    current_ = 1 - current_;
    if (progress_.steps() == 1) Info(absl::StrFormat("first step, after %.3f s in the loop", progress_.seconds()));
    return absl::OkStatus();
  }

  Client& client_;
  Program& program_;
  Device& device_;
  const Dataset& train_;
  const TaskOptions& options_;
  Values gradients_;
  Values parameters_[2];
  int current_ = 0;
  std::vector<Source> push_;
  std::vector<Target> pull_[2];
  std::optional<Call> under_way_;
  BatchBuffer batch_;
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
absl::Status TrainDeclared(Client& client, Program& program, Device& device, const Dataset& train,
                           const TaskOptions& options, const std::vector<std::pair<std::string, Variable>>& variables) {
  if (client.is_chief() && !options.init_from.empty()) {
    BASIN_RETURN_IF_ERROR(AssignFromFile(client, variables, options.init_from));
    Info(absl::StrCat("parameters start from ", options.init_from, "; the rule's slots start afresh"));
  }
  TrainingLoop loop(client, program, device, train, options, variables);
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
  auto variables = DeclareProgram(client, program, options, train.count());
  if (!variables.ok()) return ToAbslStatus(variables.status());
  const absl::Status trained = TrainDeclared(client, program, device, train, options, *variables);
  if (!trained.ok()) {
    // The run's end tells the others why: they may wait for what the chief does not do any more, such as the first
    // values of --init-from. What went wrong here is what main reports.
    if (client.is_chief()) (void)client.Finish(std::string(trained.message()));
    return trained;
  }
  return ToAbslStatus(client.Finish());
}

}  // namespace basin
