// Copies of what a run has left, to where somebody wants it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace basin {

struct CopiedFiles {
  uint64_t files = 0;
  uint64_t bytes = 0;
  // "blake2b-256:<hex>": of a file its content's; of a folder that of its files' paths and digests, sorted by path.
  std::string checksum;
  std::vector<std::string> not_whole;  // left out: files of outputs of which only a part has come
};

struct CopyOptions {
  bool owner_only = false;  // 0600 and 0700; otherwise as the umask says
  bool sync = false;
};

// Copies a file, or a folder with all below it, from below `root` to `to`. A file at `to` is replaced once the copy is
// whole; a folder at `to` takes the copy's files in. Links are followed as long as they lead to files below `root`;
// others are refused (PERMISSION_DENIED). NOT_FOUND where `path` is not there, FAILED_PRECONDITION where it names a
// file that has not come whole. An error where a part could not be read: what was copied before it stays at `to`.
absl::StatusOr<CopiedFiles> CopyFrom(const std::string& root, const std::string& path, const std::string& to,
                                     const CopyOptions& options = {});

// Paths of the files in some folders of a run, below the run's folder, sorted: what is shown as its files.
absl::StatusOr<std::vector<std::string>> FilesOfRun(const std::string& run_folder);

// Where in the run's folder `path` is: itself, or below outputs/ as scripts know it. INVALID_ARGUMENT for a path that
// is not below it or names the run's secret; FAILED_PRECONDITION for a file of which only a part has come; NOT_FOUND
// names the files that there are.
absl::StatusOr<std::string> PathInRun(const std::string& run_folder, const std::string& path);

}  // namespace basin
