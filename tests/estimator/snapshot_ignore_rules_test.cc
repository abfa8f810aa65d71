#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "estimator/snapshot/ignore_rules.h"
#include "tests/estimator/snapshot_folders.h"

namespace basin {
namespace {

bool Ignored(const std::string& content, const std::string& path, bool is_folder = false) {
  return IgnoreFile(content).Judge(path, is_folder) == IgnoreVerdict::kIgnored;
}

TEST(IgnoreRulesTest, NamesWithoutASlashMatchInAnyFolder) {
  EXPECT_TRUE(Ignored("*.pyc", "a/b/c.pyc"));
  EXPECT_TRUE(Ignored("data", "a/data"));
  EXPECT_FALSE(Ignored("data", "a/data.txt"));
  EXPECT_FALSE(Ignored("*.pyc", "c.pyc.txt"));
}

TEST(IgnoreRulesTest, ASlashAnchors) {
  EXPECT_TRUE(Ignored("/data", "data"));
  EXPECT_FALSE(Ignored("/data", "a/data"));
  EXPECT_TRUE(Ignored("a/data", "a/data"));
  EXPECT_FALSE(Ignored("a/data", "b/a/data"));
}

TEST(IgnoreRulesTest, ATrailingSlashMeansFolders) {
  EXPECT_TRUE(Ignored("data/", "x/data", true));
  EXPECT_FALSE(Ignored("data/", "x/data", false));
}

TEST(IgnoreRulesTest, TwoStarsCrossFolders) {
  EXPECT_TRUE(Ignored("**/x", "x"));
  EXPECT_TRUE(Ignored("**/x/y", "a/b/x/y"));
  EXPECT_TRUE(Ignored("a/**/b", "a/b"));
  EXPECT_TRUE(Ignored("a/**/b", "a/x/y/b"));
  EXPECT_TRUE(Ignored("a/**", "a/x/y"));
  EXPECT_FALSE(Ignored("a/**", "a", true));
  EXPECT_FALSE(Ignored("a/*", "a/x/y"));
}

TEST(IgnoreRulesTest, TheLastMatchDecides) {
  EXPECT_FALSE(Ignored("*.log\n!keep.log\n", "keep.log"));
  EXPECT_TRUE(Ignored("!keep.log\n*.log\n", "keep.log"));
  EXPECT_EQ(IgnoreFile("*.log\n!keep.log\n").Judge("keep.log", false), IgnoreVerdict::kKept);
  EXPECT_EQ(IgnoreFile("*.log\n").Judge("other", false), IgnoreVerdict::kUnnamed);
}

TEST(IgnoreRulesTest, LinesAreTrimmedAndEscaped) {
  EXPECT_TRUE(Ignored("\xEF\xBB\xBFname\r\n", "name"));
  EXPECT_TRUE(Ignored("name   \n", "name"));
  EXPECT_TRUE(Ignored("name\\ \n", "name "));
  EXPECT_FALSE(Ignored("# name\n", "# name"));
  EXPECT_TRUE(Ignored("\\#name\n", "#name"));
  EXPECT_TRUE(Ignored("\\!name\n", "!name"));
  EXPECT_TRUE(Ignored("\\*\n", "*"));
  EXPECT_FALSE(Ignored("\\*\n", "x"));
  EXPECT_FALSE(Ignored("name\\", "name"));
}

TEST(IgnoreRulesTest, SetsHaveRangesClassesAndNegation) {
  EXPECT_TRUE(Ignored("[a-c]", "b"));
  EXPECT_FALSE(Ignored("[!a-c]", "b"));
  EXPECT_FALSE(Ignored("[^a-c]", "b"));
  EXPECT_TRUE(Ignored("[]-]", "]"));
  EXPECT_TRUE(Ignored("[[:digit:]]x", "7x"));
  EXPECT_FALSE(Ignored("[[:nothing:]]", ":"));
  EXPECT_FALSE(Ignored("[a", "[a"));
  EXPECT_FALSE(Ignored("a[!x]b", "a/b"));
}

TEST(IgnoreRulesTest, TheDeepestFileDecidesForWhatIsBelowIt) {
  IgnoreRules rules;
  rules.Enter("", "*.txt\n!top.txt\n");
  rules.Enter("a/b", "!kept.txt\n/only\n");
  EXPECT_FALSE(rules.Ignores("a/b/kept.txt", false));
  EXPECT_TRUE(rules.Ignores("a/b/other.txt", false));
  EXPECT_TRUE(rules.Ignores("a/b/only", false));
  EXPECT_FALSE(rules.Ignores("a/b/c/only", false));
  EXPECT_FALSE(rules.Ignores("only", false));
  EXPECT_TRUE(rules.Ignores("a/bkept.txt", false));
  rules.Leave();
  EXPECT_TRUE(rules.Ignores("a/b/kept.txt", false));
}

TEST(IgnoreRulesTest, HostilePatternsEndSoon) {
  // By backtracking, this would take longer than the universe has.
  std::string pattern, text(900, 'a');
  for (int i = 0; i < 200; ++i) pattern += "*a**/?";
  EXPECT_FALSE(Ignored(pattern, text + "/b"));
  pattern.clear();
  for (int i = 0; i < 300; ++i) pattern += "a*";
  EXPECT_FALSE(Ignored(pattern + "b", text));
}

// ---- beside git ----

constexpr const char* kPatterns[] = {
    "a",
    "*.txt",
    "/a",
    "a/",
    "/a/",
    "a/b",
    "a/*",
    "a/**",
    "**/b",
    "**/b/c",
    "a/**/c",
    "!a",
    "!a/b",
    "!*.txt",
    "!/a/b/",
    "*",
    "**",
    "/*",
    "!/*/",
    "*/",
    "!*/",
    "?",
    "??",
    "[ab]",
    "[!ab]",
    "[^a]",
    "[a-c]*",
    "*.[ot]xt",
    "[[:alpha:]]",
    "[[:digit:]]*",
    "[]a]",
    "[]-]",
    "[a-]",
    "[-a]",
    "[!]a]",
    "[a",
    "[[:x:]]",
    "[[:alpha:]",
    "[\\]]",
    "[a-\\c]",
    "\\a",
    "\\!x",
    "\\#x",
    "#x",
    "!x",
    "!!x",
    "a ",
    "a\\ ",
    "a \\ ",
    " a",
    "\ta",
    "a\t",
    "a\\",
    "a\r",
    "a**/c",
    "a**b",
    "**a",
    "a**",
    "a/**b/c",
    "***/c",
    "a/***/c",
    "a**/",
    "b**/c",
    "*b/c",
    "*/c",
    "*/*/c",
    "**/**/c",
    "**/*.txt",
    "a/b/**/*.txt",
    "/**/c",
    "/**",
    "//a",
    "a//b",
    "/",
    "!",
    "!/",
    "\\/a",
    "a\\/b",
    "a/**\\/c",
    "a/b/",
    "!a/b/c",
    "!b/",
    "b/**",
    "!b/**",
    "[[:space:]]a",
    "[[:punct:]]x",
    "[a/b]c",
    "a[/]b",
    "a?b",
    "a[!x]b",
    "*a*b*",
    "*[a-z]",
    "x*",
    "*x",
    "[[:upper:][:digit:]]",
    "\xC3\xA4",
    "?\xA4",
    "[\xC3]*",
    "**.txt",
    "*.t*t",
    "\\*.txt",
    "a.\\txt",
    "/a/b/../c",
    "./a",
    "a/.",
    "[:alpha:]",
    "[[.a.]]",
    "[--a]",
    "[a-c-e]",
    "[z-a]",
    "[\\a-c]",
    "[]",
    "[!]",
    "[",
    "\\",
    "[[:alpha:]-z]",
    "**/",
};

constexpr const char* kFiles[] = {
    "a",   "b.txt", "x",   "#x",      "!x",      "c",           " a",    "a ",    "-",       "]",       "A1",
    "d/a", "d/b/c", "d/c", "d/x.txt", "e/a/b/c", "e/a/b/x.txt", "e/a/c", "e/b/c", "e/b/a/c", "e/.t",    "\xC3\xA4",
    "f/a", "f/b",   "ab",  "ax/b",    "ax/c",    "7",           "*.txt", "a\\",   "h/a/a/b", "h/a b/c", "h/aXb",
};
// The same tree again with folders of the names that are files above.
constexpr const char* kOtherFiles[] = {
    "a/a", "a/b/c", "a/b/x.txt", "a/c",   "a/d/c", "a/d/e/c",    "a/b.txt/c", "b/a", "b/c", "b/b/c", "x/a",
    "c/c", "b.txt", "ac",        "axb/c", "a a/c", "\xC3\xA4/a", "a/[a",      "[a",  "[]",  ":",
};

// Paths below `root` that a walk by the rules leaves in, files and links only.
void Walk(const ScratchFolder& scratch, const std::string& path, IgnoreRules& rules, std::set<std::string>& kept) {
  const std::string file = path.empty() ? ".gitignore" : absl::StrCat(path, "/.gitignore");
  const bool entered = scratch.Has(file);
  if (entered) rules.Enter(path, scratch.Read(file));
  for (const auto& entry : std::filesystem::directory_iterator(path.empty() ? scratch.path() : scratch.At(path))) {
    const std::string name = entry.path().filename().string();
    const std::string below = path.empty() ? name : absl::StrCat(path, "/", name);
    const bool is_folder = !entry.is_symlink() && entry.is_directory();
    if (name == ".git" || rules.Ignores(below, is_folder)) continue;
    if (is_folder) {
      Walk(scratch, below, rules, kept);
    } else {
      kept.insert(below);
    }
  }
  if (entered) rules.Leave();
}

std::string Printed(const std::string& command) {
  FILE* pipe = popen(command.c_str(), "r");
  std::string output;
  char buffer[4096];
  while (const size_t got = fread(buffer, 1, sizeof(buffer), pipe)) output.append(buffer, got);
  EXPECT_EQ(pclose(pipe), 0) << command;
  return output;
}

TEST(IgnoreRulesTest, GitKeepsTheSameFiles) {
  constexpr int kTrees = 400;
  ScratchFolder scratch;
  std::mt19937 random(20240607);
  const auto below = [&](size_t count) { return static_cast<size_t>(random() % count); };
  const auto made_up = [&] {
    constexpr absl::string_view kBytes = "aabbc**?//[]!-\\.x ";
    std::string pattern;
    for (size_t i = 0, count = 1 + below(9); i < count; ++i) pattern += kBytes[below(kBytes.size())];
    return pattern;
  };
  const auto some_patterns = [&](size_t most) {
    std::string text;
    for (size_t i = 0, count = 1 + below(most); i < count; ++i) {
      const std::string pattern = below(3) == 0 ? made_up() : kPatterns[below(std::size(kPatterns))];
      absl::StrAppend(&text, pattern, below(8) == 0 ? "\r\n" : "\n");
    }
    if (below(10) == 0) text.pop_back();
    return text;
  };
  for (int i = 0; i < kTrees; ++i) {
    const std::string tree = absl::StrCat("tree", i);
    // A name is a file in one tree and a folder in another.
    if (i % 2 == 0) {
      for (const char* file : kFiles) scratch.Write(absl::StrCat(tree, "/", file), "");
    } else {
      for (const char* file : kOtherFiles) scratch.Write(absl::StrCat(tree, "/", file), "");
    }
    scratch.Link(absl::StrCat(tree, "/link"), "b");
    // Each pattern alone once, then by chance several, and in several folders.
    const size_t alone = static_cast<size_t>(i) / 2;
    scratch.Write(absl::StrCat(tree, "/.gitignore"),
                  alone < std::size(kPatterns) ? absl::StrCat(kPatterns[alone], "\n") : some_patterns(6));
    if (alone < std::size(kPatterns)) continue;
    for (const char* folder : {"d", "e/a", "a", "a/b", "h"}) {
      if (below(2) == 0 && scratch.Has(absl::StrCat(tree, "/", folder)) &&
          std::filesystem::is_directory(scratch.At(absl::StrCat(tree, "/", folder)))) {
        scratch.Write(absl::StrCat(tree, "/", folder, "/.gitignore"), some_patterns(3));
      }
    }
  }
  const std::string git =
      absl::StrCat("GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 git -c core.excludesFile=/dev/null -C '",
                   scratch.path(), "' ");
  Printed(git + "init -q");
  const std::string listed = Printed(git + "ls-files -z --others --exclude-per-directory=.gitignore");
  std::set<std::string> gits = absl::StrSplit(listed, '\0', absl::SkipEmpty());
  std::set<std::string> ours;
  IgnoreRules rules;
  Walk(scratch, "", rules, ours);
  ASSERT_GT(gits.size(), 1000u);
  int shown = 0;
  for (int i = 0; i < kTrees; ++i) {
    const std::string tree = absl::StrCat("tree", i, "/");
    std::set<std::string> theirs_of, ours_of;
    for (const std::string& path : gits)
      if (path.rfind(tree, 0) == 0) theirs_of.insert(path);
    for (const std::string& path : ours)
      if (path.rfind(tree, 0) == 0) ours_of.insert(path);
    if (theirs_of == ours_of) continue;
    std::vector<std::string> differ;
    std::set_symmetric_difference(theirs_of.begin(), theirs_of.end(), ours_of.begin(), ours_of.end(),
                                  std::back_inserter(differ));
    ADD_FAILURE() << tree << ": " << absl::StrJoin(differ, " | ") << "\n--- .gitignore\n"
                  << scratch.Read(tree + ".gitignore");
    if (++shown == 10) break;
  }
  // And one by one: what check-ignore says of each file.
  const std::string said = Printed(git + "ls-files -z --others | " + git + "check-ignore --no-index --stdin -z");
  const std::set<std::string> ignored = absl::StrSplit(said, '\0', absl::SkipEmpty());
  for (const std::string& path : ignored) EXPECT_EQ(ours.count(path), 0u) << path;
  for (const std::string& path : ours) EXPECT_EQ(ignored.count(path), 0u) << path;
}

}  // namespace
}  // namespace basin
