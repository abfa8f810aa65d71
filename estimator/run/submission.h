// What `basin submit` leaves in a run's folder for a supervisor that starts later and elsewhere: in a batch job.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "estimator/history/run_folder.h"
#include "estimator/launch/target.h"

namespace basin {

struct Submission {
  Target target;
  std::string environment_spec;  // empty: nothing is prepared
  std::string program;           // basin, on every node
};

// submission.json. Errors name the file.
absl::Status WriteSubmission(const RunFolder& folder, const Submission& submission);
absl::StatusOr<Submission> ReadSubmission(const RunFolder& folder);

// Folder in which the snapshot waits (StageSnapshot's base); removed when the run is over.
std::string StagedFolder(const RunFolder& folder);

// The number of the batch job that was last submitted for the run, by its journal's events "slurm"; empty where there
// is none.
std::string BatchJobOf(const RunFolder& folder);
// Whether the journal tells of a supervisor that began after that.
bool HasBegun(const RunFolder& folder);

}  // namespace basin
