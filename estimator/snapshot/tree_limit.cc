#include "estimator/snapshot/tree_limit.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace basin {
namespace {

// Bytes by the parts directly in `folder` ("" or "a/b/").
std::vector<TreeShare> SharesIn(const std::vector<TreeEntry>& entries, const std::string& folder) {
  std::map<std::string, uint64_t> bytes;
  for (const TreeEntry& entry : entries) {
    if (entry.kind != TreeEntry::Kind::kFile || entry.path.compare(0, folder.size(), folder) != 0) continue;
    const size_t slash = entry.path.find('/', folder.size());
    bytes[entry.path.substr(0, slash == std::string::npos ? slash : slash + 1)] += entry.bytes;
  }
  std::vector<TreeShare> shares;
  for (const auto& [path, sum] : bytes) shares.push_back({path, sum});
  std::stable_sort(shares.begin(), shares.end(), [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  return shares;
}

// Where it is advised to write what is to be left out.
std::string IgnoreFileToName(const SourceTree& tree) {
  if (tree.ignore_file == ".gitignore") return ".gitignore (or to a .basinignore, which then replaces .gitignore)";
  return tree.ignore_file.empty() ? ".basinignore" : tree.ignore_file;
}

}  // namespace

std::string ShowBytes(uint64_t bytes) {
  constexpr const char* kUnits[] = {"bytes", "kB", "MB", "GB", "TB", "PB", "EB"};
  if (bytes < 1000) return absl::StrCat(bytes, " bytes");
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 999.5 && unit < 6) {
    value /= 1000;
    ++unit;
  }
  std::string text = value < 9.95 ? absl::StrFormat("%.1f", value) : absl::StrFormat("%.0f", value);
  if (text.size() == 3 && text[1] == '.' && text[2] == '0') text.resize(1);
  return absl::StrCat(text, " ", kUnits[unit]);
}

std::vector<TreeShare> LargestShares(const std::vector<TreeEntry>& entries, size_t count) {
  uint64_t total = 0;
  for (const TreeEntry& entry : entries) total += entry.bytes;
  std::vector<TreeShare> shares = SharesIn(entries, "");
  if (shares.size() > count) shares.resize(count);
  while (shares.size() > 1 && shares.back().bytes < total / 100) shares.pop_back();
  for (TreeShare& share : shares) {
    while (share.path.back() == '/') {
      const std::vector<TreeShare> inside = SharesIn(entries, share.path);
      if (inside.empty() || inside[0].path.back() != '/' || inside[0].bytes < share.bytes / 10 * 9) break;
      share = inside[0];
    }
  }
  return shares;
}

absl::Status TooLarge(const SourceTree& tree, const std::string& shown, int64_t limit_mb) {
  const uint64_t limit = static_cast<uint64_t>(limit_mb) * 1'000'000;
  std::vector<std::string> largest, advised;
  uint64_t rest = tree.bytes;
  for (const TreeShare& share : LargestShares(tree.entries, 3)) {
    largest.push_back(absl::StrCat(share.path, " ", ShowBytes(share.bytes)));
    if (rest > limit) advised.push_back(share.path);
    rest -= share.bytes;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("snapshot of ", shown, " is ", ShowBytes(tree.bytes), " (", absl::StrJoin(largest, ", "),
                   "); the limit is ", ShowBytes(limit), " (snapshot_limit_mb): add ", absl::StrJoin(advised, ", "),
                   " to ", IgnoreFileToName(tree), " or name ", advised.size() == 1 ? "it" : "them", " under inputs"));
}

absl::Status TooMany(const SourceTree& tree, const std::string& shown, uint64_t max_entries) {
  std::map<std::string, uint64_t> counts;
  for (const TreeEntry& entry : tree.entries) {
    const size_t slash = entry.path.find('/');
    if (slash != std::string::npos) ++counts[entry.path.substr(0, slash + 1)];
  }
  const auto most =
      std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  const std::string folder = most == counts.end() ? "what the run does not need" : most->first;
  return absl::InvalidArgumentError(
      absl::StrCat("snapshot of ", shown, " has more than ", max_entries, " files and folders",
                   most == counts.end() ? "" : absl::StrCat(" (", folder, " at least ", most->second, ")"), ": add ",
                   folder, " to ", IgnoreFileToName(tree), ", or pack the files into one"));
}

}  // namespace basin
