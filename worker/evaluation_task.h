// The evaluator's part of a run: reads the parameters while they are trained and reports how good they are.
#pragma once

#include "absl/status/status.h"
#include "basin/client.h"
#include "common/device/device.h"
#include "worker/task_options.h"
#include "worker/train/dataset.h"
#include "worker/train/program.h"

namespace basin {

// Until the chief has ended the run; then once more, writing evaluation.json to options.outputs.
absl::Status RunEvaluationTask(Client& client, Program& program, Device& device, const Dataset& test,
                               const TaskOptions& options);

// Without parameter servers: a model file's loss and accuracy on `test`, printed.
absl::Status EvaluateFile(Program& program, Device& device, const Dataset& test, const std::string& path);

}  // namespace basin
