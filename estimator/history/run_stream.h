// Pieces of files as they come from the nodes: agent.proto's FileChunk in the run's own words.
#pragma once

#include <cstdint>
#include <string>

#include "cluster_spec/cluster_spec.h"

namespace basin {

enum class RunStream { kLog, kScriptLog, kMetrics, kOutput, kAgent };

// One piece of a file of a task.
struct FilePiece {
  RunStream stream = RunStream::kLog;
  TaskId task;            // not of kAgent
  bool is_chief = false;  // its script logs and outputs go to logs/ and outputs/ themselves
  std::string path;       // kScriptLog, kOutput, kAgent: below the task's logs/, outputs/, the run's logs/
  uint64_t offset = 0;
  std::string data;
  bool last = false;  // kOutput: the file ends with this piece
  bool executable = false;
  std::string link_target;  // kOutput: a link instead of data
};

struct StoredFile {
  RunStream stream = RunStream::kLog;
  TaskId task;
  std::string path;
  uint64_t bytes = 0;
};

}  // namespace basin
