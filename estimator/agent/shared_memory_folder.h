// A folder of a run's own in the node's /dev/shm: what mpirun, its daemons and the ranks keep in shared memory is gone
// with it, however they end, and two agents on one machine do not meet there.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace basin {

class SharedMemoryFolder final {
 public:
  // Makes one below `place`, where only this user may enter; those that agents which were killed have left there go
  // first.
  static absl::StatusOr<SharedMemoryFolder> Make(const std::string& place = "/dev/shm");
  SharedMemoryFolder(SharedMemoryFolder&& other) noexcept;
  SharedMemoryFolder& operator=(SharedMemoryFolder&&) = delete;
  // Removes it with all in it.
  ~SharedMemoryFolder();

  const std::string& path() const { return path_; }

 private:
  SharedMemoryFolder() = default;
  std::string path_;  // empty: moved from
  UniqueFd lock_;     // held for as long as the folder is used
};

}  // namespace basin
