// Attempts of a run that a batch system starts again: what the one before has left makes room for the next.
#pragma once

#include "absl/status/status.h"
#include "estimator/history/run_folder.h"

namespace basin {

// Moves logs, outputs, metrics and the plan to attempts/ATTEMPT/ below the run's folder, and makes the empty folders
// anew. Job, token, journal and record stay. Nobody writes the run's history meanwhile (SupervisorLock). Parts that are
// not there are passed over, so that it may be called again after a crash.
absl::Status SetAttemptAside(const RunFolder& folder, int attempt);

}  // namespace basin
