// Snapshots as they lie on a node, by content: BASE/snapshots/DIGEST/ is a tree that is whole, written once, and shared
// by runs. Beside it lies DIGEST.lock: who uses the snapshot holds it shared (flock), its time says when that was last.
//
//   BASE/snapshots/                0700
//     DIGEST/                      the tree, its files read-only; appears by a rename, whole and checked
//     DIGEST.lock
//     DIGEST.partial-XXXXXX/       being written, locked by its writer; once that is gone any pruning removes it
//
// Several processes may do all of this at once. All functions may be called from any thread; objects are for one at a
// time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/unique_fd.h"
#include "estimator/snapshot/beneath.h"
#include "estimator/snapshot/digest.h"
#include "estimator/snapshot/tree.h"

namespace basin {

// A snapshot that cannot be pruned as long as this lives.
class SnapshotUse final {
 public:
  SnapshotUse(SnapshotUse&&) = default;
  SnapshotUse& operator=(SnapshotUse&&) = default;
  const std::string& path() const { return path_; }  // BASE/snapshots/DIGEST

 private:
  friend absl::StatusOr<SnapshotUse> LockSnapshot(const std::string& base, const std::string& digest);
  SnapshotUse(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}
  std::string path_;
  UniqueFd lock_;
};

// Whether it is there now, without a lock: it may be pruned the next moment, so go on to UseSnapshot.
bool HaveSnapshot(const std::string& base, const std::string& digest);

// NOT_FOUND where it is not there; INVALID_ARGUMENT where the text is no digest.
absl::StatusOr<SnapshotUse> UseSnapshot(const std::string& base, const std::string& digest);

struct UnpackOptions {
  uint64_t max_entries = 200'000;
  uint64_t max_bytes = uint64_t{1} << 40;  // of all files together: what the sender has announced
  int keep = 20;                           // snapshots that PruneSnapshots leaves after one was added
};

// Takes a snapshot apart from a peer's messages, which are not trusted. After an error it takes nothing more; dropping
// it removes what was written.
class SnapshotUnpacker final {
 public:
  static absl::StatusOr<std::unique_ptr<SnapshotUnpacker>> Begin(const std::string& base, const std::string& digest,
                                                                 const UnpackOptions& options = {});
  ~SnapshotUnpacker();
  SnapshotUnpacker(const SnapshotUnpacker&) = delete;
  SnapshotUnpacker& operator=(const SnapshotUnpacker&) = delete;

  // In the order of SourceTree::entries, each below a folder that came before. INVALID_ARGUMENT for what is malformed
  // or out of order, or where bytes of the file before are missing.
  absl::Status AddEntry(const TreeEntry& entry);
  // Of the file that AddEntry named last, in order, at most its size together.
  absl::Status AddData(absl::string_view bytes);
  // DATA_LOSS where the digest is not the announced one. Otherwise the snapshot is there, on the disk, and in use;
  // where another process was faster, that one's is. Blocks while a disk is slow, and prunes.
  absl::StatusOr<SnapshotUse> Finish();

  // Finish in pieces, for who must not wait: CheckWhole, then syncfs(fd()) wherever that may block, then Publish, then
  // PruneSnapshots likewise. `fd` is a folder on the file system of the snapshot, open since before its first byte was
  // written, so that syncfs tells of every write that failed.
  absl::Status CheckWhole();
  int fd() const { return lock_.get(); }
  absl::StatusOr<SnapshotUse> Publish();
  // What was written stays where it is, for the next pruning to remove. Nothing else may be called after it.
  void Leave() { partial_.clear(); }

 private:
  SnapshotUnpacker(std::string base, std::string digest, const UnpackOptions& options, std::string partial,
                   UniqueFd lock, FolderBeneath folder);
  absl::Status Fail(absl::Status status);
  absl::Status CloseFile();

  const std::string base_;
  const std::string digest_;
  const UnpackOptions options_;
  std::string partial_;  // the path of the folder being written; empty once it was renamed
  UniqueFd lock_;
  FolderBeneath folder_;
  TreeDigester tree_;
  absl::Status failure_;
  std::string last_path_;
  absl::flat_hash_set<std::string> folders_;
  std::optional<TreeEntry> entry_;  // the file that is being written
  UniqueFd file_;
  uint64_t file_bytes_ = 0;
  Digester content_;
};

// Removes the snapshots that were not used the longest until `keep` are left (never one in use), and what writers that
// are gone have left. Returns how many snapshots. What cannot be removed is left alone.
int PruneSnapshots(const std::string& base, int keep);

struct StagedSnapshot {
  SourceTree tree;
  SnapshotUse use;  // tree.entries lie below use.path()
};

// Reads a source directory and puts it into BASE/snapshots, so that later edits do not reach the run: send the files
// from there. A directory that changes meanwhile is read once more; then FAILED_PRECONDITION names the file.
// `progress`, where given, is told the bytes copied so far.
absl::StatusOr<StagedSnapshot> StageSnapshot(const std::string& source_directory, const std::string& base,
                                             const TreeOptions& options,
                                             const std::function<void(uint64_t bytes)>& progress = nullptr);

}  // namespace basin
