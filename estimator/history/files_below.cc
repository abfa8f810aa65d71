#include "estimator/history/files_below.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"

namespace basin {

namespace fs = std::filesystem;

namespace {

constexpr int kAttempts = 5;

std::error_code List(const std::string& folder, std::vector<FileBelow>* files) {
  files->clear();
  std::error_code error;
  fs::recursive_directory_iterator entries(folder, error);
  while (!error && entries != fs::recursive_directory_iterator()) {
    std::error_code gone;  // at this moment
    const bool is_link = entries->is_symlink(gone);
    const bool is_temporary = IsTemporaryName(entries->path().filename().string());
    if (!is_temporary && (is_link || entries->is_regular_file(gone))) {
      const uintmax_t bytes = is_link ? 0 : entries->file_size(gone);
      files->push_back({entries->path().lexically_relative(folder).string(), gone ? 0 : uint64_t{bytes}});
    }
    entries.increment(error);
  }
  return error;
}

}  // namespace

absl::StatusOr<std::vector<FileBelow>> FilesBelow(const std::string& folder) {
  std::vector<FileBelow> files;
  std::error_code error, gone;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    error = List(folder, &files);
    // A folder below it that goes at this moment: the next look does not see it any more.
    if (error != std::errc::no_such_file_or_directory || !fs::exists(folder, gone)) break;
  }
  if (error == std::errc::no_such_file_or_directory && !fs::exists(folder, gone)) return std::vector<FileBelow>();
  if (error) return ErrnoStatus(error.value(), absl::StrCat("list the files of ", folder));
  std::sort(files.begin(), files.end(), [](const FileBelow& a, const FileBelow& b) { return a.path < b.path; });
  return files;
}

}  // namespace basin
