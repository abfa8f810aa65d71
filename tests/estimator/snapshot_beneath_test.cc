#include <fcntl.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "estimator/snapshot/beneath.h"
#include "estimator/snapshot/task_tree.h"
#include "tests/estimator/snapshot_folders.h"

namespace basin {
namespace {

using absl::StatusCode;

FolderBeneath Opened(const std::string& path, const BeneathLimits& limits = {}) {
  absl::StatusOr<FolderBeneath> folder = FolderBeneath::Open(path, limits);
  EXPECT_TRUE(folder.ok()) << folder.status();
  return *std::move(folder);
}

TEST(BeneathTest, PathsThatCouldLeaveAreRefusedByTheirForm) {
  for (const char* path : {"a", "a/b.txt", "...", "a/..b", ".hidden/x", "a b/\xC3\xA4"}) {
    EXPECT_TRUE(CheckPathBeneath(path).ok()) << path << CheckPathBeneath(path);
  }
  for (const std::string& path :
       {std::string(), std::string("/etc/passwd"), std::string(".."), std::string("a/../../b"), std::string("a/.."),
        std::string("./a"), std::string("a//b"), std::string("a/"), std::string("a\0b", 3), std::string(2000, 'x')}) {
    EXPECT_EQ(CheckPathBeneath(path).code(), StatusCode::kInvalidArgument) << path;
  }
  std::string deep = "a";
  for (int i = 0; i < 63; ++i) deep += "/a";
  EXPECT_TRUE(CheckPathBeneath(deep).ok());
  EXPECT_EQ(CheckPathBeneath(deep + "/a").code(), StatusCode::kInvalidArgument);
}

TEST(BeneathTest, MessagesShowHostilePathsHarmlessly) {
  const absl::Status status = CheckPathBeneath("a/../\x1b[2J\n");
  EXPECT_FALSE(absl::StrContains(status.message(), "\x1b")) << status;
  EXPECT_FALSE(absl::StrContains(status.message(), "\n")) << status;
}

TEST(BeneathTest, LinkTargetsStayInside) {
  EXPECT_TRUE(CheckLinkTarget("a", "b").ok());
  EXPECT_TRUE(CheckLinkTarget("a/b/c", "../../d/e").ok());
  EXPECT_TRUE(CheckLinkTarget("a/b", "./../c/").ok());
  for (const auto& [path, target] : std::vector<std::pair<std::string, std::string>>{
           {"a", "/etc/passwd"}, {"a", ".."}, {"a/b", "../../c"}, {"a/b", "c/../d"}, {"a", ""}, {"a", "./../b"}}) {
    EXPECT_EQ(CheckLinkTarget(path, target).code(), StatusCode::kInvalidArgument) << path << " -> " << target;
  }
}

TEST(BeneathTest, FilesAreMadeWithTheirFolders) {
  ScratchFolder scratch;
  FolderBeneath folder = Opened(scratch.path());
  const auto file = folder.Create("a/b/run.sh", true);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(folder.Append(*file, "a/b/run.sh", "one ").ok());
  EXPECT_TRUE(folder.Append(*file, "a/b/run.sh", "two").ok());
  EXPECT_EQ(scratch.Read("a/b/run.sh"), "one two");
  EXPECT_EQ(access(scratch.At("a/b/run.sh").c_str(), X_OK), 0);
  EXPECT_EQ(folder.Create("a/b/run.sh", true).status().code(), StatusCode::kAlreadyExists);
}

TEST(BeneathTest, NothingIsWrittenThroughALink) {
  ScratchFolder outside, scratch;
  outside.Write("file", "theirs");
  scratch.Link("folder", outside.path());
  scratch.Link("file", outside.At("file"));
  scratch.Write("inside/x", "x");
  scratch.Link("near", "inside");  // also one that stays inside
  FolderBeneath folder = Opened(scratch.path());
  for (const char* path : {"folder/new", "file", "near/x", "folder/a/b"}) {
    EXPECT_EQ(folder.WriteAt(path, 0, "mine").code(), StatusCode::kFailedPrecondition) << path;
    EXPECT_EQ(folder.Truncate(path, 0).code(), StatusCode::kFailedPrecondition) << path;
    EXPECT_EQ(folder.OpenToRead(path).status().code(), StatusCode::kFailedPrecondition) << path;
  }
  EXPECT_EQ(folder.Create("folder/new", false).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(folder.Create("file", false).status().code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(folder.MakeFolder("folder/new").code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(folder.MakeLink("folder/new", "x").code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(outside.Read("file"), "theirs");
  EXPECT_FALSE(outside.Has("new"));
  EXPECT_EQ(folder.MakeLink("deep/link", "../../etc").code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(folder.MakeLink("deep/link", "../inside/x").ok());
  EXPECT_EQ(scratch.Read("deep/link"), "x");
}

TEST(BeneathTest, StreamsAreWrittenAtTheirOffsets) {
  ScratchFolder scratch;
  FolderBeneath folder = Opened(scratch.path());
  EXPECT_TRUE(folder.WriteAt("logs/w.txt", 0, "hello ").ok());
  EXPECT_TRUE(folder.WriteAt("logs/w.txt", 6, "world").ok());
  EXPECT_TRUE(folder.WriteAt("logs/w.txt", 3, "lo w").ok());  // a repeat
  EXPECT_EQ(scratch.Read("logs/w.txt"), "hello world");
  const absl::Status hole = folder.WriteAt("logs/w.txt", 12, "x");
  EXPECT_EQ(hole.code(), StatusCode::kOutOfRange);
  EXPECT_TRUE(absl::StrContains(hole.message(), "only 11")) << hole;
  EXPECT_EQ(folder.WriteAt("logs/new.txt", 1, "x").code(), StatusCode::kOutOfRange);
  EXPECT_EQ(folder.WriteAt("logs/w.txt", ~uint64_t{0}, "x").code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(folder.Truncate("logs/w.txt", 5).ok());
  EXPECT_EQ(scratch.Read("logs/w.txt"), "hello");
  EXPECT_EQ(folder.Truncate("logs/w.txt", 6).code(), StatusCode::kOutOfRange);
  EXPECT_TRUE(folder.WriteAt("empty", 0, "").ok());
  EXPECT_EQ(folder.Look("empty")->bytes, 0u);
  EXPECT_EQ(folder.WriteAt("logs", 0, "x").code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(folder.WriteAt("empty/x", 0, "x").code(), StatusCode::kFailedPrecondition);
}

TEST(BeneathTest, PipesNeitherBlockNorPass) {
  ScratchFolder scratch;
  ASSERT_EQ(mkfifo(scratch.At("pipe").c_str(), 0600), 0);
  FolderBeneath folder = Opened(scratch.path());
  EXPECT_FALSE(folder.WriteAt("pipe", 0, "x").ok());
  EXPECT_EQ(folder.OpenToRead("pipe").status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(folder.Look("pipe")->kind, BeneathFacts::Kind::kOther);
}

TEST(BeneathTest, LimitsHoldBeforeAnythingChanges) {
  ScratchFolder scratch;
  BeneathLimits limits;
  limits.max_entries = 3;
  limits.max_file_bytes = 8;
  limits.max_total_bytes = 12;
  FolderBeneath folder = Opened(scratch.path(), limits);
  EXPECT_TRUE(folder.WriteAt("a", 0, "12345678").ok());
  EXPECT_EQ(folder.WriteAt("a", 8, "9").code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(folder.WriteAt("a", 0, "abcdefgh").ok());  // grows by nothing
  EXPECT_TRUE(folder.WriteAt("b", 0, "1234").ok());
  EXPECT_EQ(folder.WriteAt("b", 4, "5").code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(scratch.Read("b"), "1234");
  EXPECT_TRUE(folder.MakeFolder("c").ok());
  EXPECT_TRUE(folder.MakeFolder("c").ok());
  EXPECT_EQ(folder.MakeFolder("d").code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(folder.WriteAt("c/e", 0, "").code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(folder.MakeLink("c/f", "e").code(), StatusCode::kResourceExhausted);
  EXPECT_FALSE(scratch.Has("d"));
  EXPECT_FALSE(scratch.Has("c/e"));
}

TEST(BeneathTest, ModesFollowThePeersWord) {
  ScratchFolder scratch;
  scratch.Write("tool", "#!/bin/sh\n");
  FolderBeneath folder = Opened(scratch.path());
  EXPECT_TRUE(folder.SetExecutable("tool", true).ok());
  EXPECT_EQ(access(scratch.At("tool").c_str(), X_OK), 0);
  EXPECT_TRUE(folder.SetExecutable("tool", false).ok());
  struct stat info;
  ASSERT_EQ(stat(scratch.At("tool").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0644u);
}

TEST(BeneathTest, LooksTellKindsAndSizes) {
  ScratchFolder scratch;
  scratch.Write("d/file", "1234");
  scratch.Link("link", "d/file");
  FolderBeneath folder = Opened(scratch.path());
  EXPECT_EQ(folder.Look("d/file")->kind, BeneathFacts::Kind::kFile);
  EXPECT_EQ(folder.Look("d/file")->bytes, 4u);
  EXPECT_EQ(folder.Look("d")->kind, BeneathFacts::Kind::kFolder);
  EXPECT_EQ(folder.Look("link")->kind, BeneathFacts::Kind::kLink);
  EXPECT_EQ(folder.Look("nothing").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(FolderBeneath::Open(scratch.At("nothing")).status().code(), StatusCode::kNotFound);
}

TEST(BeneathTest, RemovalFollowsNoLink) {
  ScratchFolder outside, scratch;
  outside.Write("kept", "x");
  scratch.Write("tree/a/b", "x");
  scratch.Link("tree/out", outside.path());
  EXPECT_TRUE(RemoveTree(scratch.At("tree")).ok());
  EXPECT_FALSE(scratch.Has("tree"));
  EXPECT_TRUE(outside.Has("kept"));
  EXPECT_TRUE(RemoveTree(scratch.At("tree")).ok());
  EXPECT_TRUE(RemoveTree(scratch.At("no/such/thing")).ok());
  EXPECT_EQ(RemoveTree("..").code(), StatusCode::kInvalidArgument);
}

TEST(BeneathTest, TreesDeeperThanDescriptorsAreRemoved) {
  ScratchFolder scratch;
  ASSERT_EQ(mkdir(scratch.At("deep").c_str(), 0755), 0);
  UniqueFd at(open(scratch.At("deep").c_str(), O_RDONLY | O_DIRECTORY));
  for (int i = 0; i < 3000; ++i) {
    ASSERT_EQ(mkdirat(at.get(), "d", 0755), 0);
    at = UniqueFd(openat(at.get(), "d", O_RDONLY | O_DIRECTORY));
    ASSERT_GE(at.get(), 0);
  }
  EXPECT_TRUE(RemoveTree(scratch.At("deep")).ok());
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path()));
}

TEST(BeneathTest, FoldersWithoutRightsAreRemoved) {
  ScratchFolder scratch;
  scratch.Write("tree/locked/file", "x");
  chmod(scratch.At("tree/locked").c_str(), 0);
  EXPECT_TRUE(RemoveTree(scratch.At("tree")).ok());
  EXPECT_FALSE(scratch.Has("tree"));
}

}  // namespace
}  // namespace basin
