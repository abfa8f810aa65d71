#include <gtest/gtest.h>

#include <string>

#include "estimator/snapshot/task_tree.h"
#include "estimator/snapshot/unpack.h"
#include "tests/estimator/snapshot_folders.h"

namespace basin {
namespace {

TEST(TaskTreeTest, IsTheTasksOwn) {
  ScratchFolder source, base;
  source.Write("train.py", "print(1)\n");
  source.Write("bin/tool", "#!/bin/sh\n", true);
  source.Link("bin/main", "../train.py");
  std::filesystem::create_directory(source.At("empty"));
  const auto staged = StageSnapshot(source.path(), base.path(), {});
  ASSERT_TRUE(staged.ok()) << staged.status();
  for (const char* task : {"tasks/worker-0", "tasks/worker-1"}) {
    const absl::Status made = MakeTaskTree(staged->use.path(), base.At(task));
    ASSERT_TRUE(made.ok()) << made;
    EXPECT_EQ(ReadTree(base.At(task))->digest, staged->tree.digest);
    EXPECT_EQ(base.Read(std::string(task) + "/bin/main"), "print(1)\n");
  }
  // Two tasks rewrite the same file; neither the other nor the snapshot sees it.
  base.Write("tasks/worker-0/train.py", "zero");
  base.Write("tasks/worker-1/bin/main", "one");
  EXPECT_EQ(base.Read("tasks/worker-0/train.py"), "zero");
  EXPECT_EQ(base.Read("tasks/worker-1/train.py"), "one");
  EXPECT_EQ(ReadTree(staged->use.path())->digest, staged->tree.digest);
  struct stat info;
  ASSERT_EQ(stat(base.At("tasks/worker-0/train.py").c_str(), &info), 0);
  EXPECT_EQ(info.st_nlink, 1u);
  EXPECT_EQ(info.st_mode & 0200, 0200u);
}

TEST(TaskTreeTest, BeginsInAnEmptyFolder) {
  ScratchFolder base;
  base.Write("from/a", "a");
  std::filesystem::create_directory(base.At("fresh"));
  EXPECT_TRUE(MakeTaskTree(base.At("from"), base.At("fresh")).ok());
  const absl::Status again = MakeTaskTree(base.At("from"), base.At("fresh"));
  EXPECT_EQ(again.code(), absl::StatusCode::kAlreadyExists) << again;
  EXPECT_EQ(MakeTaskTree(base.At("nothing"), base.At("other")).code(), absl::StatusCode::kNotFound);
}

TEST(TaskTreeTest, LargeFilesAreWhole) {
  ScratchFolder base;
  std::string content;
  for (int i = 0; i < 1'000'000; ++i) content += std::to_string(i);
  base.Write("from/large", content);
  ASSERT_TRUE(MakeTaskTree(base.At("from"), base.At("to")).ok());
  EXPECT_TRUE(base.Read("to/large") == content);
  EXPECT_TRUE(RemoveTree(base.At("to")).ok());
  EXPECT_FALSE(base.Has("to"));
}

TEST(TaskTreeTest, CrossesFilesystems) {
  if (access("/dev/shm", W_OK) != 0) GTEST_SKIP() << "no second filesystem";
  ScratchFolder base;
  base.Write("from/d/a", "across");
  std::string other = "/dev/shm/basin-test-XXXXXX";
  ASSERT_NE(mkdtemp(other.data()), nullptr);
  EXPECT_TRUE(MakeTaskTree(base.At("from"), other + "/task").ok());
  std::ifstream file(other + "/task/d/a");
  std::string found;
  file >> found;
  EXPECT_EQ(found, "across");
  EXPECT_TRUE(RemoveTree(other).ok());
}

}  // namespace
}  // namespace basin
