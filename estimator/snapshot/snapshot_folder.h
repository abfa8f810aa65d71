// The folder of snapshots on a node: its names, its locks, and what is read from a source directory into it. For
// unpack.cc and its kin; everybody else includes unpack.h.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "estimator/snapshot/unpack.h"

namespace basin {

inline constexpr absl::string_view kPartialMark = ".partial-";
inline constexpr absl::string_view kLockMark = ".lock";

std::string SnapshotsFolder(const std::string& base);
std::string SnapshotPath(const std::string& base, const std::string& digest);

// Whether what was opened still has this name.
bool IsStillAt(const UniqueFd& fd, const std::string& path);

// Holds the lock of the snapshot shared, whether it is there or not, and notes the time. `digest` is one.
absl::StatusOr<SnapshotUse> LockSnapshot(const std::string& base, const std::string& digest);

// The tree from its root into the snapshots. ABORTED, naming the file, where one is no longer what the tree says.
absl::StatusOr<SnapshotUse> CopyIntoSnapshots(const SourceTree& tree, const std::string& base,
                                              const std::function<void(uint64_t bytes)>& progress);

}  // namespace basin
