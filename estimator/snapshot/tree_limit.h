// What a snapshot that is too large is told: which folders to leave out, and where to write them. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "estimator/snapshot/tree.h"

namespace basin {

// A folder ("data/") or a file of the tree with the bytes in it.
struct TreeShare {
  std::string path;
  uint64_t bytes = 0;
};

// At most `count`, the largest first, none below a hundredth of the whole. Of the top level, but where one folder in a
// folder is nearly all of it (nine tenths), that one stands instead.
std::vector<TreeShare> LargestShares(const std::vector<TreeEntry>& entries, size_t count);

// `snapshot of . is 41 GB (data/ 40 GB); the limit is 300 MB (snapshot_limit_mb): add data/ to .basinignore or name it
// under inputs`. INVALID_ARGUMENT: trying again is no use.
absl::Status TooLarge(const SourceTree& tree, const std::string& shown, int64_t limit_mb);

// The same for their number, `entries` being what was seen until then.
absl::Status TooMany(const SourceTree& tree, const std::string& shown, uint64_t max_entries);

}  // namespace basin
