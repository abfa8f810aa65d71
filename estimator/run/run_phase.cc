#include "estimator/run/run_phase.h"

#include <string.h>

#include "absl/strings/str_cat.h"

namespace basin {

const char* RunPhaseName(RunPhase phase) {
  switch (phase) {
    case RunPhase::kNotStarted:
      return "NotStarted";
    case RunPhase::kStarting:
      return "Starting";
    case RunPhase::kProvisioning:
      return "Provisioning";
    case RunPhase::kPreparing:
      return "Preparing";
    case RunPhase::kQueued:
      return "Queued";
    case RunPhase::kRunning:
      return "Running";
    case RunPhase::kFinalizing:
      return "Finalizing";
    case RunPhase::kCancelRequested:
      return "CancelRequested";
    case RunPhase::kNotResponding:
      return "NotResponding";
    case RunPhase::kCompleted:
      return "Completed";
    case RunPhase::kFailed:
      return "Failed";
    case RunPhase::kCanceled:
      return "Canceled";
  }
  return "Unknown";
}

std::vector<std::string> RunPhaseNames() {
  std::vector<std::string> names;
  for (int i = 0; i <= static_cast<int>(RunPhase::kCanceled); ++i)
    names.push_back(RunPhaseName(static_cast<RunPhase>(i)));
  return names;
}

std::string TaskExit::Text() const {
  if (signal == 0) return absl::StrCat("exited with code ", code);
  const char* name = sigabbrev_np(signal);
  return name != nullptr ? absl::StrCat("was ended by SIG", name) : absl::StrCat("was ended by signal ", signal);
}

}  // namespace basin
