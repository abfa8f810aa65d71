// What the flags of basin-worker say, once checked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/rules/rule_spec.h"
#include "worker/train/schedule.h"

namespace basin {

// Of the program wide_deep alone.
struct WideDeepFlags {
  std::string schema;  // file; what the columns mean
  uint32_t embedding_dim = 8;
  RuleSpec wide_rule;
  RuleSpec embedding_rule;
};

enum class TrainingBackend { kPs, kMpi };

// Of the backend mpi alone.
struct MpiFlags {
  uint64_t fusion_bytes = uint64_t{64} << 10;  // of a buffer of gradients
  bool progress_thread = false;
};

struct TaskOptions {
  TrainingBackend backend = TrainingBackend::kPs;
  std::string program = "mlp";
  std::vector<int64_t> hidden = {256};
  std::string data;
  RuleSpec rule;
  Schedule schedule = Schedule::kConstant;
  uint32_t epochs = 10;
  uint64_t batch_size = 128;
  uint64_t piece_batches = 10;  // batches a leased piece of the input
  uint64_t max_steps = 0;       // of all workers together; 0: no limit
  uint64_t seed = 1;
  bool pipeline = false;  // compute while the push before is under way: hides the network, on parameters a push older
  std::string outputs;    // folder; empty: nothing is written
  std::string init_from;  // a safetensors file; empty: the program's initial values
  double evaluate_every_s = 2;
  std::string timeline;      // file of Chrome trace events; empty: none
  std::string metrics_file;  // of a task without a client: mpi
  MpiFlags mpi;
  WideDeepFlags wide_deep;
};

}  // namespace basin
