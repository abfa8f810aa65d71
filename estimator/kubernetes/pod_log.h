// What a pod prints: its task's output as it is, and between it lines of its agent, each from the byte 0x1e to the end
// of the line. So `kubectl logs` shows people what they expect, and a supervisor more: what the task does, its metrics,
// its ./logs. Pure.
//
//   \x1eBASIN pod VERSION            the first line of a pod
//   \x1eBASIN agent                  its agent knows it: from now on another may take over
//   \x1eBASIN state TEXT             "preparing: the environment is built"
//   \x1eBASIN started PID
//   \x1eBASIN exited CODE SIGNAL TEXT    TEXT: why it could not be started, or empty
//   \x1eBASIN ending                 the cluster ends the pod (SIGTERM), whatever its task does
//   \x1eBASIN gone                   nothing of the task is left, and all that it printed stands above
//   \x1eBASIN refused CODE TEXT      the pod cannot do its task; CODE as of `basin submit`
//   \x1eBASIN kept TEXT              after "gone" with outputs: claim: where they lie, empty where there are none, or
//   why not \x1eBASIN log OFFSET             the byte of the task's output that comes next \x1eBASIN chunk BASE64 a
//   FileChunk: metrics, ./logs, the environment's log
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "estimator/agent/messages.h"
#include "estimator/run/run_phase.h"

namespace basin {

// Before the reason, in the text of a `kept` line.
inline constexpr char kNotKept[] = "not kept: ";

// Backslashes and line ends are escaped, so that it stays one line.
std::string PodLine(absl::string_view word, absl::string_view text = "");
std::string PodChunkLine(const agent::FileChunk& chunk);

struct PodEvent {
  enum Kind { kPod, kAgent, kState, kStarted, kExited, kEnding, kGone, kRefused, kKept, kLog, kChunk };
  Kind kind = kLog;
  std::string text;     // kPod: the version; kState, kExited, kRefused, kKept; kLog: bytes of the output
  uint64_t offset = 0;  // kLog: of the first of them
  int number = 0;       // kStarted: pid; kRefused: exit code
  TaskExit exit;        // kExited
  agent::FileChunk chunk;
};

// Reads it from the beginning; what a cluster has cut away from there (logs are rotated) is noticed.
class PodLogReader final {
 public:
  // Bytes that follow those before; lines may be cut anywhere.
  std::vector<PodEvent> Take(absl::string_view bytes);
  // Bytes of the output that were there before what this reader was given: nothing is known of them.
  bool begins_late() const { return begins_late_; }

 private:
  void TakeLine(const std::string& line, std::vector<PodEvent>* events);
  void TakeLog(absl::string_view bytes, std::vector<PodEvent>* events);

  std::string rest_;  // a line of the agent that has not ended
  uint64_t offset_ = 0;
  bool knows_offset_ = false;  // after the first `pod` or `log` line
  bool begins_late_ = false;
};

}  // namespace basin
