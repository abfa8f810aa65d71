#include "estimator/agent/shared_memory_folder.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace basin {
namespace {

namespace fs = std::filesystem;

class SharedMemoryFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "/shared-memory-XXXXXX";
    ASSERT_NE(mkdtemp(path.data()), nullptr);
    place_ = path;
  }
  void TearDown() override { fs::remove_all(place_); }
  size_t Count() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(place_), fs::directory_iterator()));
  }
  std::string place_;
};

TEST_F(SharedMemoryFolderTest, IsThisUsersAloneAndGoesWithAllInIt) {
  {
    const auto folder = SharedMemoryFolder::Make(place_);
    ASSERT_TRUE(folder.ok()) << folder.status();
    EXPECT_EQ(fs::status(folder->path()).permissions(), fs::perms::owner_all);
    fs::create_directories(folder->path() + "/deep");
    std::ofstream(folder->path() + "/deep/segment") << "bytes";
  }
  EXPECT_EQ(Count(), 0u);
}

TEST_F(SharedMemoryFolderTest, OneThatIsInUseIsLeftAlone) {
  const auto first = SharedMemoryFolder::Make(place_);
  const auto second = SharedMemoryFolder::Make(place_);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_NE(first->path(), second->path());
  EXPECT_EQ(Count(), 2u);
}

TEST_F(SharedMemoryFolderTest, WhatAKilledProcessHasLeftGoesWithTheNext) {
  const pid_t child = fork();
  if (child == 0) {
    const auto folder = SharedMemoryFolder::Make(place_);
    kill(getpid(), SIGKILL);
  }
  waitpid(child, nullptr, 0);
  ASSERT_EQ(Count(), 1u);
  const auto folder = SharedMemoryFolder::Make(place_);
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_EQ(Count(), 1u);
}

}  // namespace
}  // namespace basin
