// Which paths of a folder are left out, by the rules of gitignore(5), as git itself applies them. Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace basin {

// One pattern against one path; what `*`, `**`, `?`, `[...]` and `\` mean where '/' separates. Linear in the product of
// the lengths, whatever the pattern.
class IgnorePattern final {
 public:
  // A line of an ignore file without its line feed. `active` is false for an empty line and a comment.
  explicit IgnorePattern(absl::string_view line);

  bool active() const { return active_; }
  bool negated() const { return negated_; }  // "!": what it matches is taken in again
  // `path` is relative to the folder of the ignore file.
  bool Matches(absl::string_view path, bool is_folder) const;

 private:
  enum class Kind : unsigned char { kByte, kAnyByte, kSet, kStar, kDoubleStar, kNever };
  struct Token {
    Kind kind = Kind::kByte;
    unsigned char byte = 0;    // kByte
    bool skips_slash = false;  // kDoubleStar before a '/': both may stand for nothing
    int set = -1;              // kSet: index into sets_
  };
  struct ByteSet {
    bool has[256] = {};
  };
  void Compile(absl::string_view pattern);
  size_t CompileSet(absl::string_view pattern, size_t at);
  bool MatchesText(absl::string_view text) const;

  std::string prefix_;  // literal bytes before the first special one
  std::vector<Token> tokens_;
  std::vector<ByteSet> sets_;
  bool suffix_only_ = false;  // "*literal": suffix_ decides
  std::string suffix_;
  bool active_ = false;
  bool negated_ = false;
  bool folders_only_ = false;  // "name/"
  bool name_only_ = false;     // no '/' in it: matched with the last part of the path, in any folder
};

enum class IgnoreVerdict { kUnnamed, kIgnored, kKept };

// The rules of one ignore file, for the paths below its folder.
class IgnoreFile final {
 public:
  // Any bytes are accepted, as git does.
  explicit IgnoreFile(absl::string_view content);
  // The last line that matches decides; `line`, where given, gets it as it stands.
  IgnoreVerdict Judge(absl::string_view path, bool is_folder, std::string* line = nullptr) const;

 private:
  std::vector<IgnorePattern> patterns_;
  std::vector<std::string> lines_;  // of patterns_
};

// Which line of which ignore file decided.
struct IgnoreRule {
  std::string folder;  // of the ignore file, "" for the top
  std::string line;
};

// The rules on the way down a tree: the files of the folders that lead to a path, the deepest deciding first. A walker
// asks for each entry, enters only folders that are not ignored (so nothing below an ignored one comes back), and
// enters and leaves in the order of a depth-first walk.
class IgnoreRules final {
 public:
  // `folder` is "" for the top, else a path relative to it.
  void Enter(absl::string_view folder, absl::string_view ignore_file_content);
  void Leave();
  // `path` is relative to the top.
  bool Ignores(absl::string_view path, bool is_folder, IgnoreRule* rule = nullptr) const;

 private:
  struct Level {
    std::string folder;
    IgnoreFile file;
  };
  std::vector<Level> levels_;
};

}  // namespace basin
