// The files of a run that come from its nodes: which place in the run's folder each has, and how much of it is there.
//
//   task's log          logs/<role>-<i>.txt
//   its ./logs/PATH     logs/PATH of the chief, logs/<role>-<i>/PATH of others (and of the chief, where PATH is a name
//                       that the run itself uses)
//   its metrics         metrics/<role>-<i>.jsonl
//   its ./outputs/PATH  outputs/PATH of the chief; of others outputs/by-task/<role>-<i>/PATH, and at the end of the run
//                       outputs/PATH where that is free (tasks in order), so that the place depends on no timing
//   agents' texts       logs/PATH
//
// A file of outputs has its name once it is whole; until then PATH.basin-partial. files.jsonl remembers which file came
// from where, so that a supervisor that takes over knows what it has.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "estimator/history/line_file.h"
#include "estimator/history/run_folder.h"
#include "estimator/history/run_stream.h"
#include "estimator/snapshot/beneath.h"

namespace basin {

// Not thread-safe.
class StoredFiles {
 public:
  static absl::StatusOr<std::unique_ptr<StoredFiles>> Open(const RunFolder& folder);

  // What of the piece was new and is stored now: its end, mostly all of it. OK and empty where all was there.
  // OUT_OF_RANGE where bytes before it are missing, INVALID_ARGUMENT for a path or link that leaves its folder.
  absl::StatusOr<absl::string_view> Store(const FilePiece& piece);
  // Each file with how much of it is there.
  std::vector<StoredFile> All() const;
  // At the end of the run: the outputs of tasks other than the chief get their short names where these are free.
  absl::Status PutOutputsInPlace();

 private:
  struct Key {
    RunStream stream;
    TaskId task;
    std::string path;
    auto operator<=>(const Key&) const = default;
  };
  struct Place {
    std::string path;  // below the run's folder
    uint64_t bytes = 0;
    bool whole = false;    // of outputs: all of it is there
    bool movable = false;  // of outputs: it waits for its short name
  };
  StoredFiles(FolderBeneath folder, LineFile index) : folder_(std::move(folder)), index_(std::move(index)) {}

  static Key KeyOf(const FilePiece& piece);
  absl::StatusOr<Place*> PlaceFor(const FilePiece& piece);
  absl::Status Remember(const Key& key, const Place& place);
  absl::Status Recall(const std::string& path);
  absl::Status Finish(const FilePiece& piece, Place& place);
  absl::Status StoreLink(const FilePiece& piece, Place& place);
  absl::Status Rename(const std::string& from, const std::string& to);

  FolderBeneath folder_;
  LineFile index_;
  std::map<Key, Place> places_;
};

}  // namespace basin
