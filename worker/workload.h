// A built-in program with the data it learns from: what basin-worker does in each of its roles.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "basin/client.h"
#include "common/device/device.h"
#include "worker/task_options.h"
#include "worker/train/all_reduce_group.h"

namespace basin {

class Workload {
 public:
  virtual ~Workload() = default;
  // Before Train and TrainWithoutPs: reads what only they need. How many examples there are to train on.
  virtual absl::StatusOr<uint64_t> LoadTraining() = 0;
  // The chief's and the workers' part of a run.
  virtual absl::Status Train(Client& client) = 0;
  // The evaluator's part: reads the parameters while they are trained.
  virtual absl::Status Evaluate(Client& client) = 0;
  // The reference that a cluster is compared with: the same program, rules and batches in this process alone. Prints
  // how good the model is on the test part.
  virtual absl::Status TrainWithoutPs() = 0;
  // A rank's part of a run without parameter servers. Rank 0 writes the model and prints how good it is.
  virtual absl::Status TrainInRanks(AllReduceGroup& group) = 0;
  // Prints how good a model file is on the test part.
  virtual absl::Status EvaluateFile(const std::string& path) = 0;
};

// Programs "mlp" and "softmax" on IDX folders, and "wide_deep" on CSV files. Reads the test part. `options` and
// `device` must outlive it. INVALID_ARGUMENT names an unknown program, or flags that are missing or do not fit.
absl::StatusOr<std::unique_ptr<Workload>> MakeWorkload(const TaskOptions& options, Device& device);

absl::StatusOr<std::unique_ptr<Workload>> MakeImageWorkload(const TaskOptions& options, Device& device);
absl::StatusOr<std::unique_ptr<Workload>> MakeWideDeepWorkload(const TaskOptions& options, Device& device);

}  // namespace basin
