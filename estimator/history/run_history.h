// What a supervisor writes of a run while it goes on: journal, logs, metrics, outputs, record, page. Everything that
// comes from a node is resolved beneath the run's folder.
//
// A disk that is full stops nothing: the first failure of each kind (by status code) is told, and the run goes on. A
// file then ends where it could not be written further; Stored says where, and after a new connection it goes on from
// there. Room for the last records is kept from the beginning (the file .reserve), so that the end of the run can be
// written down all the same.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "estimator/history/run_folder.h"
#include "estimator/history/run_record.h"
#include "estimator/history/run_stream.h"

namespace basin {

// Not thread-safe. One a supervised run (hold SupervisorLock); after a takeover a new one goes on with the same folder.
class RunHistory {
 public:
  using StoredFile = basin::StoredFile;

  // The folder exists (RunFolder::Create). What an earlier one has left half written is repaired.
  static absl::StatusOr<std::unique_ptr<RunHistory>> Open(const RunFolder& folder);
  virtual ~RunHistory() = default;

  // Appends `{"time": ..., "event": EVENT, ...fields}` to journal.jsonl and syncs it. `fields_json`: an object, or "".
  // The events "run", "state" and "task" are Record's.
  virtual void Journal(absl::Time now, const std::string& event, const std::string& fields_json) = 0;
  // Stores a piece at its offset; a piece that is there already (after a takeover) changes nothing. A path or link that
  // leaves its folder is refused and told like a failed write. Not OK: the piece is not there. The caller need not tell
  // of it, but must not let the only copy go.
  virtual absl::Status Store(const FilePiece& piece) = 0;
  // How much of each file is stored: where the agent goes on after a new connection.
  virtual std::vector<StoredFile> Stored() const = 0;

  // Writes what has changed of the record: to the journal (synced) where a state or a task has, and run.json. The page
  // follows at most every few seconds. With a final state, which comes after the last Store: outputs get their final
  // places, and the page is written.
  virtual void Record(absl::Time now, const RunRecord& record) = 0;
  // As it is now, with folder, portal_url, metrics and history filled in. After Open on a run that was supervised
  // before: what is known of it.
  virtual const RunRecord& record() const = 0;
  // Due work of the page and the record's metrics; call it from the loop.
  virtual void OnTime(absl::Time now) = 0;
  virtual absl::Time NextDeadline() const = 0;

  // Whether somebody has removed the run's folder, or begun to: its journal is not there any more. From then on nothing
  // is written, and Store refuses. OnTime looks, once a second at most: the pings of a run's nodes wake its loop.
  virtual bool IsRemoved() const = 0;
  // The first failure to write, OK as long as there was none.
  virtual absl::Status health() const = 0;
  // How failures and the like are told; empty, as it is at first: Warn.
  virtual void TellBy(std::function<void(const std::string& line)> tell) = 0;
};

}  // namespace basin
