// A folder below which paths from a peer that is not trusted are resolved, by the kernel (openat2, RESOLVE_BENEATH): a
// node's agent writes what a supervisor sends into one, and a supervisor what the agents send. No path leaves the
// folder, none leads through a link, and sizes and counts are bounded.
//
// Paths are relative, '/' between parts, no part empty, "." or "..", no NUL byte. INVALID_ARGUMENT naming the path
// otherwise, and FAILED_PRECONDITION where a part of it turns out to be a link or a file. RESOURCE_EXHAUSTED where a
// limit would be passed: nothing was changed then. UNIMPLEMENTED where the kernel has no openat2 (before Linux 5.6).
// Other failures carry errno's canonical code, the path and what was tried.
//
// One thread at a time. Links of the folder never move while it is in use (nothing here renames); see CheckLinkTarget.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/unique_fd.h"

namespace basin {

struct BeneathLimits {
  size_t max_path_bytes = 1024;                  // of a path, and of a link's target
  size_t max_parts = 64;                         // a/b/c has 3
  uint64_t max_entries = 200'000;                // made through this object: files, folders, links
  uint64_t max_file_bytes = uint64_t{1} << 40;   // how large one file may become
  uint64_t max_total_bytes = uint64_t{1} << 40;  // by how much all files together may grow through this object
};

struct BeneathFacts {
  enum class Kind { kFile, kFolder, kLink, kOther };
  Kind kind = Kind::kFile;
  uint64_t bytes = 0;  // of a file
};

// The form of a path, without looking at any file.
absl::Status CheckPathBeneath(absl::string_view path, const BeneathLimits& limits = {});

// Whether a link at `path` with this target can only ever point inside, whatever else lies there: the target is
// relative, and ".." stands in it only at the beginning, at most as often as `path` has folders. (After a name, ".."
// would be taken from where that name leads if it is itself a link, so a look at the text could not tell.)
// INVALID_ARGUMENT otherwise.
absl::Status CheckLinkTarget(absl::string_view path, absl::string_view target, const BeneathLimits& limits = {});

class FolderBeneath final {
 public:
  // `path` itself is trusted, and followed if it is a link. NOT_FOUND where it is not there.
  static absl::StatusOr<FolderBeneath> Open(const std::string& path, const BeneathLimits& limits = {});
  FolderBeneath(FolderBeneath&&) = default;
  FolderBeneath& operator=(FolderBeneath&&) = default;

  // mkdir -p; OK where the folder is there. New ones have mode 0755, less the umask.
  absl::Status MakeFolder(absl::string_view path);

  // A file that must not be there yet (ALREADY_EXISTS), with the folders above it; mode 0644 or 0755, less the umask.
  // Write to it through Append alone, so that the limits hold.
  absl::StatusOr<UniqueFd> Create(absl::string_view path, bool executable);
  // Writes all bytes at the end of a file opened by Create. `path` is for messages.
  absl::Status Append(const UniqueFd& file, absl::string_view path, absl::string_view bytes);

  // For streams of files: writes at `offset`, making the file and its folders where they are missing. The offset is at
  // most the file's size (OUT_OF_RANGE, telling the size: no holes); what is there already is written over, so a repeat
  // after a cut changes nothing.
  absl::Status WriteAt(absl::string_view path, uint64_t offset, absl::string_view bytes);
  // Cuts the file to `bytes`, which is at most its size; makes an empty one for 0 where there is none.
  absl::Status Truncate(absl::string_view path, uint64_t bytes);
  absl::Status SetExecutable(absl::string_view path, bool executable);

  // A link whose target passes CheckLinkTarget, with the folders above it. ALREADY_EXISTS where something is there.
  absl::Status MakeLink(absl::string_view path, absl::string_view target);

  // A file for reading; a link is not followed, and a pipe or device is refused.
  absl::StatusOr<UniqueFd> OpenToRead(absl::string_view path) const;
  // Of the path itself, a link not followed. NOT_FOUND where there is nothing.
  absl::StatusOr<BeneathFacts> Look(absl::string_view path) const;

  const std::string& path() const { return path_; }
  int fd() const { return folder_.get(); }

 private:
  FolderBeneath(std::string path, UniqueFd folder, const BeneathLimits& limits);
  absl::StatusOr<UniqueFd> OpenBeneath(absl::string_view path, int flags, int mode) const;
  absl::StatusOr<UniqueFd> OpenParent(absl::string_view path, bool make, std::string* name);
  absl::StatusOr<UniqueFd> OpenOrCreate(absl::string_view path);
  absl::Status CountEntry(absl::string_view path);
  absl::Status CountGrowth(absl::string_view path, uint64_t size, uint64_t new_size);

  std::string path_;
  UniqueFd folder_;
  BeneathLimits limits_;
  uint64_t entries_ = 0;
  uint64_t bytes_ = 0;
};

// Removes `name` below the open folder, with all that is below it, following no link. OK where there is nothing.
// `shown` is the path for messages.
absl::Status RemoveTreeAt(int folder, const std::string& name, const std::string& shown);

}  // namespace basin
