// Folders that are made, or removed, beside the place where they count: whoever looks there sees all of one or nothing.
// What a crash has left aside is known by its name, and by that nobody holds it (flock). Where a file system has no
// such locks on folders, as NFS, it stays.
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/unique_fd.h"

namespace basin {

// A new folder (0700) in `folder`, named PREFIX and a random number, and held until it goes out of scope; what is there
// under its name then is removed.
class FolderAside final {
 public:
  static absl::StatusOr<FolderAside> Make(const std::string& folder, absl::string_view prefix);
  FolderAside(FolderAside&& other) noexcept : path_(std::exchange(other.path_, "")), held_(std::move(other.held_)) {}
  FolderAside& operator=(FolderAside&&) = delete;
  ~FolderAside();
  const std::string& path() const { return path_; }

 private:
  FolderAside(std::string path, UniqueFd held) : path_(std::move(path)), held_(std::move(held)) {}
  std::string path_;
  UniqueFd held_;
};

// Gone from `place` at once, then removed with all that is below it.
absl::Status RemoveByWayOf(const std::string& aside, const std::string& place);

// Removes the folders in `folder` whose names begin with `prefix` and that nobody holds.
void PruneAsides(const std::string& folder, absl::string_view prefix);

}  // namespace basin
