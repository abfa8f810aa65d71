#include "estimator/history/attempts.h"

#include <sys/stat.h>

#include <cerrno>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"

namespace basin {

absl::Status SetAttemptAside(const RunFolder& folder, int attempt) {
  namespace fs = std::filesystem;
  const std::string to = absl::StrCat(folder.path(), "/attempts/", attempt);
  BASIN_RETURN_IF_ERROR(MakeFolders(to, 0700));
  for (const char* name : {"logs", "outputs", "metrics", "metrics.jsonl", "files.jsonl", "plan.json"}) {
    const std::string from = absl::StrCat(folder.path(), "/", name);
    std::error_code error;
    const fs::file_status there = fs::symlink_status(from, error);
    if (there.type() == fs::file_type::not_found) continue;
    // After a crash the folders have been made anew already, and are empty.
    if (fs::is_directory(there) && fs::is_empty(from, error) && fs::exists(absl::StrCat(to, "/", name), error))
      continue;
    fs::rename(from, absl::StrCat(to, "/", name), error);
    if (error) return ErrnoStatus(error.value(), absl::StrCat("set ", from, " aside"));
  }
  for (const char* name : {"logs", "outputs"}) {
    const std::string made = absl::StrCat(folder.path(), "/", name);
    if (mkdir(made.c_str(), 0700) != 0 && errno != EEXIST) return ErrnoStatus(errno, absl::StrCat("make ", made));
  }
  return absl::OkStatus();
}

}  // namespace basin
