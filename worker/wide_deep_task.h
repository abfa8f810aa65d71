// The parts of a run that trains wide & deep: chief and workers, and the evaluator.
#pragma once

#include "absl/status/status.h"
#include "basin/client.h"
#include "common/device/device.h"
#include "worker/task_options.h"
#include "worker/train/feature_data.h"
#include "worker/train/wide_deep.h"

namespace basin {

// Declares, takes input pieces, computes and pushes; the chief writes the model and ends the run.
absl::Status RunWideDeepTraining(Client& client, WideDeep& model, Device& device, const FeatureData& data,
                                 const TaskOptions& options);

// Until the chief has ended the run; then once more, writing evaluation.json to options.outputs.
absl::Status RunWideDeepEvaluation(Client& client, WideDeep& model, Device& device, const FeatureData& data,
                                   const TaskOptions& options);

}  // namespace basin
