// A run whose supervisor is gone, read back from its folder, so that another supervisor goes on with it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "estimator/history/run_folder.h"
#include "estimator/run/supervisor.h"

namespace basin {

// Of the journal's last event "supervisor", which each supervisor writes before it does anything.
struct SupervisorNote {
  uint64_t epoch = 0;
  std::string host;
  int pid = 0;
  bool detached = false;
  Target target;
  std::string version = BASIN_VERSION;  // of Basin; empty in a note of a version that did not write it
  // When the tasks had last been started, all of them; infinite future where they never were.
  absl::Time begun = absl::InfiniteFuture();
};

// INVALID_ARGUMENT where the lines tell of no supervisor. Pure.
absl::StatusOr<SupervisorNote> ReadSupervisorNote(absl::string_view journal);
// The fields of that event.
std::string SupervisorNoteToJson(const SupervisorNote& note);
std::string ThisHost();

// From job.json, plan.json and the journal. `environment_spec` and secrets are missing: the tasks have started already,
// or the run is ended. FAILED_PRECONDITION where it is over, where its supervisor is on another host or was of another
// version of Basin (whose agents would not speak with us): that is named.
absl::StatusOr<SupervisedRun> ReadRunToTakeOver(const RunFolder& folder, SupervisorNote* note);

}  // namespace basin
