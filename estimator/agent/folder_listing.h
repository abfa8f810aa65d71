// What lies below a folder of a task's tree: no link is followed, and what a script made there, however odd, is
// bounded.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "estimator/snapshot/beneath.h"

namespace basin {

struct ListedFile {
  enum class Kind { kFile, kLink, kOther };  // kOther: a socket, pipe or device
  std::string path;                          // relative to the listed folder
  Kind kind = Kind::kFile;
  uint64_t bytes = 0;       // kFile
  bool executable = false;  // kFile
  std::string target;       // kLink
};

struct FolderListing {
  std::vector<ListedFile> files;  // by the bytes of their paths
  // What could not be taken in, each with the reason in brackets: "odd?name (its name is not UTF-8)".
  std::vector<std::string> left_out;
  bool is_cut = false;  // there is more than `max_entries`
};

// Of `folder` (a path below the tree). An absent one is empty. Looks at `max_entries` at most: files, folders, and what
// cannot be taken in.
FolderListing ListFolder(const FolderBeneath& tree, const std::string& folder, size_t max_entries);

}  // namespace basin
