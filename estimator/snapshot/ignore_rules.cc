#include "estimator/snapshot/ignore_rules.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace basin {
namespace {

constexpr absl::string_view kSpecial = "*?[\\";  // what a pattern does not mean literally

// Trailing spaces go, unless a backslash stands before.
absl::string_view WithoutTrailingSpaces(absl::string_view line) {
  size_t end = 0;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\\') {
      if (++i == line.size()) return line;
      end = i + 1;
    } else if (line[i] != ' ') {
      end = i + 1;
    }
  }
  return line.substr(0, end);
}

bool InRange(int c, int first, int last) { return c >= first && c <= last; }

// The classes of [:name:], for ASCII, as git has them: its spaces are four.
bool InClass(absl::string_view name, int c, bool* known) {
  const bool upper = InRange(c, 'A', 'Z'), lower = InRange(c, 'a', 'z'), digit = InRange(c, '0', '9');
  const bool alnum = upper || lower || digit, graph = InRange(c, 0x21, 0x7e);
  const bool space = c == ' ' || c == '\t' || c == '\n' || c == '\r';
  *known = true;
  if (name == "alnum") return alnum;
  if (name == "alpha") return upper || lower;
  if (name == "blank") return c == ' ' || c == '\t';
  if (name == "cntrl") return c < 0x20 || c == 0x7f;
  if (name == "digit") return digit;
  if (name == "graph") return graph;
  if (name == "lower") return lower;
  if (name == "print") return graph || c == ' ';
  if (name == "punct") return graph && !alnum;
  if (name == "space") return space;
  if (name == "upper") return upper;
  if (name == "xdigit") return digit || InRange(c, 'A', 'F') || InRange(c, 'a', 'f');
  *known = false;
  return false;
}

}  // namespace

IgnorePattern::IgnorePattern(absl::string_view line) {
  line = line.substr(0, line.find('\0'));
  if (line.empty() || line[0] == '#') return;
  absl::ConsumeSuffix(&line, "\r");
  line = WithoutTrailingSpaces(line);
  if (line.empty()) return;
  active_ = true;
  negated_ = absl::ConsumePrefix(&line, "!");
  folders_only_ = absl::ConsumeSuffix(&line, "/");
  name_only_ = line.find('/') == absl::string_view::npos;
  if (!name_only_) absl::ConsumePrefix(&line, "/");
  const size_t literal = std::min(line.find_first_of(kSpecial), line.size());
  if (name_only_ && !line.empty() && line[0] == '*' && line.find_first_of(kSpecial, 1) == absl::string_view::npos) {
    suffix_only_ = true;
    suffix_ = std::string(line.substr(1));
    return;
  }
  prefix_ = std::string(line.substr(0, literal));
  Compile(line.substr(literal));
}

// What follows the literal prefix. A `**` at its very beginning counts as one after a '/', whatever the prefix ends
// with: so git has it ("a**/b" matches "ab" and "ax/b").
void IgnorePattern::Compile(absl::string_view pattern) {
  size_t at = 0;
  const auto there = [&](size_t i) { return i < pattern.size() ? pattern[i] : '\0'; };
  while (at < pattern.size()) {
    const char c = pattern[at];
    Token token;
    if (c == '*') {
      const size_t begin = at;
      while (there(at) == '*') ++at;
      const bool after_slash = begin == 0 || pattern[begin - 1] == '/';
      const bool before_slash = at == pattern.size() || there(at) == '/' || (there(at) == '\\' && there(at + 1) == '/');
      token.kind = at - begin >= 2 && after_slash && before_slash ? Kind::kDoubleStar : Kind::kStar;
      token.skips_slash = token.kind == Kind::kDoubleStar && there(at) == '/';
      tokens_.push_back(token);
      continue;
    }
    if (c == '[') {
      at = CompileSet(pattern, at + 1);
      continue;
    }
    if (c == '?') {
      token.kind = Kind::kAnyByte;
    } else if (c == '\\') {
      ++at;
      // A backslash at the end stands for nothing that could be in a path.
      token.kind = at < pattern.size() ? Kind::kByte : Kind::kNever;
      token.byte = static_cast<unsigned char>(there(at));
    } else {
      token.byte = static_cast<unsigned char>(c);
    }
    tokens_.push_back(token);
    ++at;
  }
}

// `at` is behind the '['. Returns the place behind the ']'. A set without its end, or with a class that does not exist,
// never matches.
size_t IgnorePattern::CompileSet(absl::string_view pattern, size_t at) {
  const auto there = [&](size_t i) { return i < pattern.size() ? static_cast<unsigned char>(pattern[i]) : 0; };
  Token token;
  token.kind = Kind::kNever;
  const auto never = [&] {
    tokens_.push_back(token);
    return pattern.size();
  };
  ByteSet set;
  const bool negated = there(at) == '!' || there(at) == '^';
  if (negated) ++at;
  int before = 0;  // the byte that a '-' would make a range of; 0: none
  // The first byte is a member even if it is ']'.
  for (bool first = true; first || there(at) != ']'; first = false) {
    int c = there(at);
    if (c == 0) return never();
    if (c == '\\') {
      c = there(++at);
      if (c == 0) return never();
      set.has[c] = true;
      before = c;
    } else if (c == '-' && before != 0 && there(at + 1) != 0 && there(at + 1) != ']') {
      c = there(++at);
      if (c == '\\') c = there(++at);
      if (c == 0) return never();
      for (int member = before; member <= c; ++member) set.has[member] = true;
      before = 0;
    } else if (c == '[' && there(at + 1) == ':') {
      const size_t begin = at + 2;
      const size_t end = pattern.find(']', begin);
      if (end == absl::string_view::npos) return never();
      if (end > begin && pattern[end - 1] == ':') {
        bool known = false;
        const absl::string_view name = pattern.substr(begin, end - 1 - begin);
        for (int member = 1; member < 128; ++member) {
          if (InClass(name, member, &known)) set.has[member] = true;
        }
        if (!known) return never();
        at = end;
        before = 0;
      } else {
        set.has[int{'['}] = true;  // no class after all
        before = '[';
      }
    } else {
      set.has[c] = true;
      before = c;
    }
    ++at;
  }
  if (negated) {
    for (bool& member : set.has) member = !member;
  }
  token.kind = Kind::kSet;
  token.set = static_cast<int>(sets_.size());
  sets_.push_back(set);
  tokens_.push_back(token);
  return at + 1;
}

// All places of the pattern that the text may have reached are followed at once, so no pattern takes longer than the
// product of the two lengths.
bool IgnorePattern::MatchesText(absl::string_view text) const {
  // How a place of the pattern was reached: a `**` that has taken something can no longer stand for nothing, and so not
  // take the '/' behind it along.
  enum Reached : char { kNot, kWithin, kFresh };
  const size_t count = tokens_.size();
  std::vector<Reached> reached(count + 1, kNot), next(count + 1, kNot);
  const auto skip_stars = [&](std::vector<Reached>& places) {
    for (size_t i = 0; i < count; ++i) {
      if (places[i] == kNot) continue;
      if (tokens_[i].kind == Kind::kStar || tokens_[i].kind == Kind::kDoubleStar) places[i + 1] = kFresh;
      if (tokens_[i].skips_slash && places[i] == kFresh) places[i + 2] = kFresh;
    }
  };
  reached[0] = kFresh;
  skip_stars(reached);
  for (const char c : text) {
    const unsigned char byte = static_cast<unsigned char>(c);
    std::fill(next.begin(), next.end(), kNot);
    bool any = false;
    for (size_t i = 0; i < count; ++i) {
      if (reached[i] == kNot) continue;
      const Token& token = tokens_[i];
      const bool stays = token.kind == Kind::kDoubleStar || (token.kind == Kind::kStar && byte != '/');
      const bool passes = (token.kind == Kind::kByte && byte == token.byte) ||
                          (token.kind == Kind::kAnyByte && byte != '/') ||
                          (token.kind == Kind::kSet && byte != '/' && sets_[token.set].has[byte]);
      if (stays && next[i] == kNot) next[i] = kWithin;
      if (passes) next[i + 1] = kFresh;
      any |= stays || passes;
    }
    if (!any) return false;
    skip_stars(next);
    reached.swap(next);
  }
  return reached[count] != kNot;
}

bool IgnorePattern::Matches(absl::string_view path, bool is_folder) const {
  if (!active_ || (folders_only_ && !is_folder)) return false;
  absl::string_view text = path;
  if (name_only_) {
    const size_t slash = path.rfind('/');
    if (slash != absl::string_view::npos) text = path.substr(slash + 1);
  }
  if (suffix_only_) return absl::EndsWith(text, suffix_);
  if (!absl::ConsumePrefix(&text, prefix_)) return false;
  if (tokens_.empty()) return text.empty() && !prefix_.empty();
  return MatchesText(text);
}

IgnoreFile::IgnoreFile(absl::string_view content) {
  absl::ConsumePrefix(&content, "\xEF\xBB\xBF");
  while (!content.empty()) {
    const size_t end = std::min(content.find('\n'), content.size());
    IgnorePattern pattern(content.substr(0, end));
    if (pattern.active()) {
      patterns_.push_back(std::move(pattern));
      lines_.emplace_back(absl::StripSuffix(content.substr(0, end), "\r"));
    }
    content.remove_prefix(std::min(end + 1, content.size()));
  }
}

IgnoreVerdict IgnoreFile::Judge(absl::string_view path, bool is_folder, std::string* line) const {
  for (size_t i = patterns_.size(); i-- > 0;) {
    if (!patterns_[i].Matches(path, is_folder)) continue;
    if (line != nullptr) *line = lines_[i];
    return patterns_[i].negated() ? IgnoreVerdict::kKept : IgnoreVerdict::kIgnored;
  }
  return IgnoreVerdict::kUnnamed;
}

void IgnoreRules::Enter(absl::string_view folder, absl::string_view ignore_file_content) {
  levels_.push_back({std::string(folder), IgnoreFile(ignore_file_content)});
}

void IgnoreRules::Leave() { levels_.pop_back(); }

bool IgnoreRules::Ignores(absl::string_view path, bool is_folder, IgnoreRule* rule) const {
  for (auto level = levels_.rbegin(); level != levels_.rend(); ++level) {
    absl::string_view below = path;
    if (!level->folder.empty() && !(absl::ConsumePrefix(&below, level->folder) && absl::ConsumePrefix(&below, "/")))
      continue;
    const IgnoreVerdict verdict = level->file.Judge(below, is_folder, rule == nullptr ? nullptr : &rule->line);
    if (rule != nullptr) rule->folder = level->folder;
    if (verdict != IgnoreVerdict::kUnnamed) return verdict == IgnoreVerdict::kIgnored;
  }
  return false;
}

}  // namespace basin
