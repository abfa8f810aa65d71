// The chief's and the workers' part of a run: declare, take input pieces, compute, push; the chief writes the model and
// ends the run.
#pragma once

#include "absl/status/status.h"
#include "basin/client.h"
#include "common/device/device.h"
#include "worker/task_options.h"
#include "worker/train/dataset.h"
#include "worker/train/program.h"

namespace basin {

// Declares the program's variables, the rule, and the input "train" of `examples` examples.
// Returns the variables in the program's order.
Result<std::vector<std::pair<std::string, Variable>>> DeclareProgram(Client& client, const Program& program,
                                                                     const TaskOptions& options, uint64_t examples);

absl::Status RunTrainingTask(Client& client, Program& program, Device& device, const Dataset& train,
                             const TaskOptions& options);

}  // namespace basin
