// The states of a run as the estimator's users know them, and how a task ended. Pure values.
#pragma once

#include <string>
#include <vector>

namespace basin {

// Those from kCompleted on are final.
enum class RunPhase {
  kNotStarted,
  kStarting,      // agents are being reached
  kProvisioning,  // Basin's programs, inputs, the snapshot
  kPreparing,     // environment, ports, plan, the starts of the tasks
  kQueued,        // on targets that make a run wait; none does so yet
  kRunning,
  kFinalizing,  // the outcome is known; others are stopped, logs and outputs come in
  kCancelRequested,
  kNotResponding,  // a node is out of reach; it may return
  kCompleted,
  kFailed,
  kCanceled
};
// "Running".
const char* RunPhaseName(RunPhase phase);
// Of all, in the order above.
std::vector<std::string> RunPhaseNames();

struct TaskExit {
  int code = 0;
  int signal = 0;           // not 0: ended by that signal, and `code` means nothing
  bool port_taken = false;  // another process listens on its port
  bool ok() const { return code == 0 && signal == 0; }
  // "exited with code 3", "was ended by SIGKILL".
  std::string Text() const;
};

}  // namespace basin
