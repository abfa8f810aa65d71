// A task's own tree of a snapshot, in which it may write whatever it likes.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace basin {

// Copies the tree `from` (SnapshotUse::path; trusted) into `task_folder`, which is made where it is missing and must be
// empty (ALREADY_EXISTS). Files are cloned (FICLONE) where the filesystem can, which costs no space, else copied: never
// hard-linked, for a script that rewrites one of its own files would write into the snapshot of every later run, and
// read-only links would only stop one that is not root. Files are writable for their owner; links stay links; times are
// those of the copy. On an error the folder holds a part; remove it.
absl::Status MakeTaskTree(const std::string& from, const std::string& task_folder);

// Removes a folder with all that is below it, following no link. OK where there is nothing.
absl::Status RemoveTree(const std::string& path);

}  // namespace basin
