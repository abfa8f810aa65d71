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

// What stays on its node: all of it is counted, and as much is named as fits into a message.
class LeftOut final {
 public:
  // "odd?name (its name is not UTF-8)"; `stands_for` so many.
  void Add(std::string what, uint64_t stands_for = 1);
  // The names of another, each behind `prefix`.
  void AddAll(const LeftOut& other, const std::string& prefix);
  const std::vector<std::string>& names() const { return names_; }
  uint64_t count() const { return count_; }

 private:
  std::vector<std::string> names_;
  size_t bytes_ = 0;  // of names_
  uint64_t count_ = 0;
};

struct FolderListing {
  std::vector<ListedFile> files;  // by the bytes of their paths
  LeftOut left_out;               // what could not be taken in
  bool is_cut = false;            // there is more than `max_entries`
};

struct ListFolderOptions {
  size_t max_entries = 0;  // looks at so many at most: files, folders, and what cannot be taken in
  // Beyond them, files are counted, and are left_out as one line: up to a million entries more, at some µs each.
  bool counts_the_rest = false;
};

// Of `folder` (a path below the tree). An absent one is empty. Files with names of IsTemporaryName are no outputs.
FolderListing ListFolder(const FolderBeneath& tree, const std::string& folder, const ListFolderOptions& options);

}  // namespace basin
