// The files of a folder.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace basin {

struct FileBelow {
  std::string path;    // from the folder
  uint64_t bytes = 0;  // 0 of a link
};

// Regular files and links below `folder`, sorted by path, but temporary ones (IsTemporaryName); folders that are links
// are not entered. Empty where there is no such folder; an error where part of it could not be looked into.
absl::StatusOr<std::vector<FileBelow>> FilesBelow(const std::string& folder);

// A file of outputs that has not come whole has this at the end of its name.
inline constexpr char kPartialSuffix[] = ".basin-partial";

}  // namespace basin
