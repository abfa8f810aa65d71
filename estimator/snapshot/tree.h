// What of a source directory reaches the nodes: a sorted list of folders, files and links, and the digest that names
// it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "estimator/snapshot/digest.h"

namespace basin {

struct TreeEntry {
  enum class Kind { kFolder, kFile, kLink };
  std::string path;  // relative, '/' between parts, UTF-8
  Kind kind = Kind::kFile;
  bool executable = false;  // kFile: the owner may execute it
  uint64_t bytes = 0;       // kFile
  std::string target;       // kLink: relative, and inside (CheckLinkTarget)
  std::string content;      // kFile: the digest of its bytes. ReadTree fills it in, an unpacker does not need it
};

struct SourceTree {
  std::string root;
  std::vector<TreeEntry> entries;  // by the bytes of their paths, so a folder comes before what is in it
  uint64_t files = 0;
  uint64_t bytes = 0;
  std::string digest;
  std::string ignore_file;  // what decided: ".basinignore", ".amlignore", ".gitignore", or empty
  std::vector<std::string>
      of_runs;  // "outputs" and "logs" of the top folder, where they stand there and are not ignored
};

struct TreeOptions {
  int64_t limit_mb = 300;  // of 10^6 bytes; the field snapshot_limit_mb
  uint64_t max_entries = 200'000;
  // Absolute paths that are never part of a snapshot where they lie inside: the folder of runs, the cache.
  std::vector<std::string> never;
  // What messages call the directory; empty: its path.
  std::string shown;
  // Told how much of a file was read for its digest, after each piece of it.
  std::function<void(const std::string& path, uint64_t bytes)> on_read;
};

// Walks, then reads each file once for its digest. Left out: what the ignore file names (.basinignore, else .amlignore,
// of the top folder; else every .gitignore), everything named .git, options.never, and the top folder's `outputs` and
// `logs`: what lies there at a run's end is taken for what the run has made. NOT_FOUND where there is no such
// directory. INVALID_ARGUMENT naming the path for a link that is absolute or leads outside, for a socket, pipe or
// device, for a name that is not UTF-8, and for too much: it names the three largest folders and where to write them.
// FAILED_PRECONDITION naming a file that goes on changing while it is read.
absl::StatusOr<SourceTree> ReadTree(const std::string& source_directory, const TreeOptions& options = {});

// SourceTree::of_runs alone, without walking further. Empty where the directory cannot be read.
std::vector<std::string> LeftOutAsOfRuns(const std::string& source_directory);

// The digest of a tree, entry by entry in order; both ends make it from what they hold.
class TreeDigester final {
 public:
  // Entries in order; of a file, `content` is the digest of its bytes.
  void Add(const TreeEntry& entry);
  std::string Finish();

 private:
  Digester digester_;
};

// "41 GB", "9.6 GB", "12 MB", "310 bytes": as people read sizes, in powers of 1000.
std::string ShowBytes(uint64_t bytes);

}  // namespace basin
