// The file that --timeline names.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "worker/train/timeline.h"

namespace basin {

// Before a training: makes the folder, in which a file can be written then.
inline absl::Status MakeTimelineFolder(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, std::max<size_t>(slash, 1));
  BASIN_RETURN_IF_ERROR(MakeFolders(folder));
  if (access(folder.c_str(), W_OK | X_OK) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat("--timeline ", path, ": write to ", folder));
}

// After it, when all that is worth more has been written. `lines`: of each task (Timeline::EventLines).
inline absl::Status WriteTimeline(const std::string& path, const std::vector<std::string>& lines, uint64_t left_out) {
  BASIN_RETURN_IF_ERROR(WriteFileAtomically(path, Timeline::File(lines)));
  Info(absl::StrCat("wrote ", path,
                    left_out == 0 ? "" : absl::StrCat(", without the last ", left_out, " events of this task")));
  return absl::OkStatus();
}

}  // namespace basin
