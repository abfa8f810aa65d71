// One rank of `basin exec`, from meeting the others to the end of its task.
#pragma once

#include "absl/status/statusor.h"
#include "estimator/exec/exec_options.h"

namespace basin {

// What an end of a rank is: the program's exit code. An error is one that nobody has told yet.
//
// Rank 0 brings all together, tells them who is where, hears how their tasks end, and ends the launch: with 0 when
// training is over, otherwise with one line that names the first failure. Every rank then ends with the exit code of
// the task that failed first, so that whichever of them a launcher looks at says the same.
absl::StatusOr<int> RunExecRank(const ExecOptions& options);

// The two sides of it. `signals` is a signalfd of TERM, INT and HUP.
absl::StatusOr<int> RunFirstRank(const ExecOptions& options, int signals);
absl::StatusOr<int> RunOtherRank(const ExecOptions& options, int signals);

// The name of a signal that has come; empty: none.
std::string TakeSignal(int signals);

}  // namespace basin
