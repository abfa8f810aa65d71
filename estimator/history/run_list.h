// All runs of a folder of runs, newest first. The folders are the truth; an SQLite file beside them (per user and host)
// spares reading each. It is a cache: missing, damaged, old or wrong, it is made anew, and the answer is the same.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "estimator/history/read_run.h"
#include "estimator/history/run_record.h"

namespace basin {

struct RunQuery {
  std::string experiment;  // empty: all
  std::string state;       // as shown, "Running"; empty: all
  size_t limit = 0;        // 0: all
};

struct ListedRun {
  RunRecord record;
  ShownState shown;
};

struct RunListing {
  std::vector<ListedRun> runs;
  // Folders of runs and experiments that cannot be read, or whose record is damaged: what the query asks for may be
  // among them. Not that of a run which is being made.
  std::vector<std::string> damaged;
};

// Empty where `runs` does not exist; an error where it cannot be read. `index`: path of the SQLite file; empty: without
// one.
absl::StatusOr<RunListing> ListRuns(const std::string& runs, const std::string& index, const RunQuery& query);

// EXPERIMENT/ID of each run, in the order of names; nothing of a run is read.
struct RunName {
  std::string experiment;
  std::string run_id;
  auto operator<=>(const RunName&) const = default;
};
// Empty where `runs` does not exist; an error where it cannot be read. An experiment that cannot be is left out, and
// named in *unreadable.
absl::StatusOr<std::vector<RunName>> RunNames(const std::string& runs, const std::string& experiment = "",
                                              std::vector<std::string>* unreadable = nullptr);

// The run that the user means: its id, a unique prefix of one, EXPERIMENT/ID (or a prefix of ID), or `latest` (also
// EXPERIMENT/latest). NOT_FOUND and INVALID_ARGUMENT name the runs that come near. *passed_over: where `latest` may
// not be the newest, since the record of a newer one is damaged, what is wrong with each of those and what to do.
absl::StatusOr<RunFolder> FindRun(const std::string& runs, const std::string& index, const std::string& text,
                                  std::vector<std::string>* passed_over);

}  // namespace basin
