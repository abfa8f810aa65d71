// Reading what is known of a run, whatever became of the one who wrote it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "estimator/history/run_folder.h"
#include "estimator/history/run_record.h"

namespace basin {

// From run.json, or put together from journal.jsonl where run.json is missing, unreadable or behind it. NOT_FOUND where
// `folder` holds no run. folder and portal_url are those of where it lies now.
absl::StatusOr<RunRecord> ReadRun(const RunFolder& folder);

// Of the lines of a journal alone; lines that are torn or unknown are passed over. The run's id is empty where nothing
// of a record is in there. Pure.
RunRecord RecordFromJournal(absl::string_view lines);

// A node's folder that was not removed, because what lies there could not be brought into the run's.
struct KeptFolder {
  std::string host;
  std::string folder;
  bool is_local = false;  // on the machine that supervised
};
// What the journal tells of them; each once.
std::vector<KeptFolder> KeptFolders(const RunFolder& folder);

struct ShownState {
  std::string name;    // as RunPhaseName
  std::string advice;  // one sentence, where something is to be done
};
// The state for people: a run that has neither ended nor waits in a queue, and that nobody supervises, is
// NotResponding.
ShownState StateToShow(const RunRecord& record, bool is_supervised);

}  // namespace basin
