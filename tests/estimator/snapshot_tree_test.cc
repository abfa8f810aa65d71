#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "estimator/snapshot/left_out.h"
#include "estimator/snapshot/tree.h"
#include "estimator/snapshot/tree_limit.h"
#include "tests/estimator/snapshot_folders.h"

namespace basin {
namespace {

using absl::StatusCode;

std::vector<std::string> Paths(const SourceTree& tree) {
  std::vector<std::string> paths;
  for (const TreeEntry& entry : tree.entries) paths.push_back(entry.path);
  return paths;
}

SourceTree Tree(const std::string& path, const TreeOptions& options = {}) {
  absl::StatusOr<SourceTree> tree = ReadTree(path, options);
  EXPECT_TRUE(tree.ok()) << tree.status();
  return tree.ok() ? *std::move(tree) : SourceTree();
}

TEST(DigestTest, IsBlake2bAsOthersMakeIt) {
  // printf 'abc' | b2sum -l 256; b2sum -l 256 < /dev/null
  EXPECT_EQ(DigestOf("abc"), "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
  EXPECT_EQ(DigestOf(""), "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
  Digester first;
  first.Add("a");
  Digester second = first;
  first.Add("bc");
  EXPECT_EQ(first.Finish(), DigestOf("abc"));
  EXPECT_EQ(second.Finish(), DigestOf("a"));
  EXPECT_TRUE(CheckDigest(DigestOf("x")).ok());
  for (const std::string& bad :
       {std::string(), std::string("../../x"), std::string(64, 'g'), std::string(63, 'a'), std::string(64, 'A')}) {
    EXPECT_EQ(CheckDigest(bad).code(), StatusCode::kInvalidArgument) << bad;
  }
}

TEST(SourceTreeTest, HoldsFoldersFilesAndLinksInOrder) {
  ScratchFolder source;
  source.Write("train.py", "print(1)\n");
  source.Write("lib/run.sh", "#!/bin/sh\n", true);
  source.Write("lib.txt", "x");
  source.Link("lib/up.py", "../train.py");
  std::filesystem::create_directory(source.At("empty"));
  const SourceTree tree = Tree(source.path());
  EXPECT_EQ(Paths(tree), (std::vector<std::string>{"empty", "lib", "lib.txt", "lib/run.sh", "lib/up.py", "train.py"}));
  EXPECT_EQ(tree.files, 3u);
  EXPECT_EQ(tree.bytes, 20u);
  EXPECT_TRUE(tree.entries[3].executable);
  EXPECT_FALSE(tree.entries[5].executable);
  EXPECT_EQ(tree.entries[4].kind, TreeEntry::Kind::kLink);
  EXPECT_EQ(tree.entries[4].target, "../train.py");
  EXPECT_EQ(tree.entries[5].content, DigestOf("print(1)\n"));
  EXPECT_EQ(tree.digest.size(), 64u);
}

TEST(SourceTreeTest, TheDigestIsOfPathsModesAndContents) {
  ScratchFolder a, b;
  for (const ScratchFolder* folder : {&a, &b}) {
    folder->Write("x/one", "1");
    folder->Write("two", "2");
    folder->Link("three", "two");
  }
  const std::string digest = Tree(a.path()).digest;
  EXPECT_EQ(Tree(b.path()).digest, digest);
  b.Write("two", "3");
  EXPECT_NE(Tree(b.path()).digest, digest);
  b.Write("two", "2", true);
  EXPECT_NE(Tree(b.path()).digest, digest);
  b.Write("two", "2");
  EXPECT_EQ(Tree(b.path()).digest, digest);
  std::filesystem::create_directory(b.At("empty"));
  EXPECT_NE(Tree(b.path()).digest, digest);
  std::filesystem::remove(b.At("empty"));
  std::filesystem::remove(b.At("three"));
  b.Link("three", "x");
  EXPECT_NE(Tree(b.path()).digest, digest);
  std::filesystem::remove(b.At("three"));
  b.Write("three", "two");
  EXPECT_NE(Tree(b.path()).digest, digest);
}

TEST(SourceTreeTest, LeavesOutWhatTheIgnoreFileNames) {
  ScratchFolder source;
  source.Write(".gitignore", "*.pyc\n");
  source.Write("a/.gitignore", "!kept.pyc\nlocal\n");
  source.Write("a/kept.pyc", "");
  source.Write("a/local", "");
  source.Write("a/other.pyc", "");
  source.Write("data/big", "");
  source.Write(".git/config", "");
  source.Write("sub/.git", "gitdir: elsewhere");
  EXPECT_EQ(Paths(Tree(source.path())),
            (std::vector<std::string>{".gitignore", "a", "a/.gitignore", "a/kept.pyc", "data", "data/big", "sub"}));
  // One of these replaces all .gitignore files; the first of the two wins.
  source.Write(".amlignore", "data/\n");
  SourceTree tree = Tree(source.path());
  EXPECT_EQ(tree.ignore_file, ".amlignore");
  EXPECT_EQ(Paths(tree), (std::vector<std::string>{".amlignore", ".gitignore", "a", "a/.gitignore", "a/kept.pyc",
                                                   "a/local", "a/other.pyc", "sub"}));
  source.Write(".basinignore", "a\n!a/kept.pyc\n");
  tree = Tree(source.path());
  EXPECT_EQ(tree.ignore_file, ".basinignore");
  EXPECT_EQ(Paths(tree),
            (std::vector<std::string>{".amlignore", ".basinignore", ".gitignore", "data", "data/big", "sub"}));
}

TEST(SourceTreeTest, WhatAnEarlierRunHasLeftIsNoPartOfTheNext) {
  ScratchFolder source;
  source.Write("train.py", "");
  source.Write("outputs/model.h5", "of an earlier run");
  source.Write("logs/note.txt", "");
  source.Write("src/outputs/layer.py", "");
  const SourceTree tree = Tree(source.path());
  EXPECT_EQ(Paths(tree), (std::vector<std::string>{"src", "src/outputs", "src/outputs/layer.py", "train.py"}));
  EXPECT_EQ(tree.of_runs, (std::vector<std::string>{"logs", "outputs"}));
  EXPECT_EQ(LeftOutAsOfRuns(source.path()), tree.of_runs);
  source.Write(".gitignore", "/logs/\n");  // who leaves them out need not be told
  EXPECT_EQ(Tree(source.path()).of_runs, (std::vector<std::string>{"outputs"}));
  EXPECT_EQ(LeftOutAsOfRuns(source.path()), (std::vector<std::string>{"outputs"}));
  EXPECT_TRUE(LeftOutAsOfRuns(source.At("not there")).empty());
}

TEST(SourceTreeTest, TheFolderOfRunsIsNeverPartOfIt) {
  ScratchFolder source;
  source.Write("train.py", "");
  source.Write("my runs/default/r1/run.json", "");
  TreeOptions options;
  options.never = {source.At("./my runs"), source.At("not there")};
  EXPECT_EQ(Paths(Tree(source.path(), options)), (std::vector<std::string>{"train.py"}));
}

TEST(SourceTreeTest, LinksThatLeadOutsideAreRefusedByName) {
  for (const char* target : {"/etc/passwd", "../secret", "x/../../.."}) {
    ScratchFolder source;
    source.Write("x/file", "");
    source.Link("out", target);
    const absl::Status status = ReadTree(source.path()).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << target;
    EXPECT_TRUE(absl::StrContains(status.message(), "\"out\"")) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), target)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), ".basinignore")) << status;
    source.Write(".basinignore", "out\n");
    EXPECT_TRUE(ReadTree(source.path()).ok());
  }
}

TEST(SourceTreeTest, WhatIsNoFileIsRefusedByName) {
  ScratchFolder source;
  ASSERT_EQ(mkfifo(source.At("queue").c_str(), 0600), 0);
  absl::Status status = ReadTree(source.path()).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(status.message(), "queue is a pipe")) << status;
  unlink(source.At("queue").c_str());
  source.Write("bad\xff", "");
  status = ReadTree(source.path()).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(status.message(), "not UTF-8")) << status;
  EXPECT_EQ(ReadTree(source.At("nothing")).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ReadTree("/proc/self/status").status().code(), StatusCode::kFailedPrecondition);
}

// A file that has a size and no blocks.
void Sparse(const ScratchFolder& folder, const std::string& name, uint64_t bytes) {
  folder.Write(name, "");
  ASSERT_EQ(truncate(folder.At(name).c_str(), static_cast<off_t>(bytes)), 0);
}

TEST(SourceTreeTest, TooMuchNamesTheLargestFoldersAndWhereToWriteThem) {
  ScratchFolder source;
  Sparse(source, "data/train.bin", uint64_t{40'000'000'000});
  Sparse(source, "old/model", uint64_t{900'000'000});
  Sparse(source, "train.py", 1000);
  TreeOptions options;
  options.shown = ".";
  absl::Status status = ReadTree(source.path(), options).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(
      status.message(),
      "snapshot of . is 41 GB (data/ 40 GB, old/ 900 MB); the limit is 300 MB (snapshot_limit_mb): add data/, old/ to "
      ".basinignore or name them under inputs");
  options.limit_mb = 1000;
  status = ReadTree(source.path(), options).status();
  EXPECT_TRUE(absl::EndsWith(status.message(), "add data/ to .basinignore or name it under inputs")) << status;
  source.Write(".gitignore", "*.pyc\n");
  status = ReadTree(source.path(), options).status();
  EXPECT_TRUE(absl::StrContains(status.message(), "add data/ to .gitignore (or to a .basinignore, which then replaces"))
      << status;
  source.Write(".amlignore", "data\n");
  EXPECT_TRUE(absl::StrContains(ReadTree(source.path()).status().message(), "add old/ to .amlignore"));
  source.Write(".amlignore", "data\nold\n");
  EXPECT_TRUE(ReadTree(source.path()).ok());
}

TEST(LeftOutTest, NamesTheLineThatLeavesAFileOut) {
  ScratchFolder source;
  source.Write("src/train.py", "");
  EXPECT_TRUE(CheckIsKept(source.path(), "src/train.py").ok());
  source.Write(".gitignore", "# none\n*.pyc\n");
  source.Write("src/.gitignore", "train.*\n");
  EXPECT_EQ(CheckIsKept(source.path(), "src/train.py").message(),
            "src/train.py does not reach the nodes: src/.gitignore leaves out src/train.py by its line \"train.*\"; "
            "remove that line, or add a .basinignore, which then replaces .gitignore");
  source.Write(".gitignore", "/src\n");
  EXPECT_TRUE(absl::StrContains(CheckIsKept(source.path(), "src/train.py").message(),
                                ": .gitignore leaves out src/ by its line \"/src\"; "));
  source.Write(".amlignore", "*.py\n!train.py\n");
  EXPECT_TRUE(CheckIsKept(source.path(), "src/train.py").ok());
  source.Write(".basinignore", "*.py\n");
  const absl::Status status = CheckIsKept(source.path(), "src/train.py");
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::EndsWith(status.message(), "by its line \"*.py\"; remove that line, or move the file")) << status;
  EXPECT_FALSE(CheckIsKept(source.path(), ".git/train.py").ok());
}

TEST(SourceTreeTest, TooManyFilesAreCounted) {
  ScratchFolder source;
  for (int i = 0; i < 30; ++i) source.Write(absl::StrCat("images/", i, ".png"), "");
  TreeOptions options;
  options.shown = ".";
  options.max_entries = 20;
  const absl::Status status = ReadTree(source.path(), options).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(status.message(), "more than 20 files and folders (images/ at least 19): add images/"))
      << status;
}

TEST(SourceTreeTest, TheLargestFolderIsTheOneThatHoldsNearlyAll) {
  const auto file = [](const std::string& path, uint64_t bytes) {
    TreeEntry entry;
    entry.path = path;
    entry.bytes = bytes;
    return entry;
  };
  const std::vector<TreeShare> shares =
      LargestShares({file("src/deep/data/a", 500), file("src/deep/data/b", 450), file("src/main.py", 20),
                     file("model.bin", 300), file("tiny", 1)},
                    3);
  ASSERT_EQ(shares.size(), 2u);
  EXPECT_EQ(shares[0].path, "src/deep/data/");
  EXPECT_EQ(shares[0].bytes, 950u);
  EXPECT_EQ(shares[1].path, "model.bin");
}

TEST(SourceTreeTest, SizesReadAsPeopleWriteThem) {
  EXPECT_EQ(ShowBytes(310), "310 bytes");
  EXPECT_EQ(ShowBytes(1000), "1 kB");
  EXPECT_EQ(ShowBytes(9'640'000), "9.6 MB");
  EXPECT_EQ(ShowBytes(999'999), "1 MB");
  EXPECT_EQ(ShowBytes(41'000'000'000), "41 GB");
}

TEST(SourceTreeTest, AFileThatChangesOnceIsReadAgain) {
  ScratchFolder source;
  source.Write("log", std::string(1'000'000, 'a'));
  TreeOptions options;
  bool changed = false;
  options.on_read = [&](const std::string& path, uint64_t) {
    if (path == "log" && !changed) source.Write("log", std::string(1'000'001, 'b'));
    changed = true;
  };
  const SourceTree tree = Tree(source.path(), options);
  ASSERT_EQ(tree.entries.size(), 1u);
  EXPECT_EQ(tree.entries[0].content, DigestOf(std::string(1'000'001, 'b')));
  EXPECT_EQ(tree.bytes, 1'000'001u);
}

TEST(SourceTreeTest, AFileThatGoesOnChangingIsNamed) {
  ScratchFolder source;
  source.Write("a.txt", "");
  source.Write("log", "0");
  TreeOptions options;
  int writes = 0;
  options.on_read = [&](const std::string&, uint64_t) { source.Write("log", std::string(++writes + 1, 'x')); };
  const absl::Status status = ReadTree(source.path(), options).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(status.message(), ": log: it changed while it was read")) << status;
  EXPECT_GE(writes, 2);  // it was read once more
}

}  // namespace
}  // namespace basin
