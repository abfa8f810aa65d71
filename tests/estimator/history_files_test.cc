// The files of a run: listed, and copied to where somebody wants them.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/cleanup/cleanup.h"
#include "common/base/files.h"
#include "estimator/history/aside.h"
#include "estimator/history/copy_files.h"
#include "estimator/history/files_below.h"
#include "tests/format/temporary_folder.h"

namespace basin {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> PathsOf(const std::vector<FileBelow>& files) {
  std::vector<std::string> paths;
  for (const FileBelow& file : files) paths.push_back(file.path);
  return paths;
}

TEST(HistoryFilesTest, FilesAndLinksAreListedByPath) {
  const TemporaryFolder folder;
  EXPECT_TRUE(FilesBelow(folder / "missing")->empty());
  fs::create_directories(folder / "b/deep");
  std::ofstream(folder / "b/deep/two") << "22";
  std::ofstream(folder / "b.txt") << "1";
  fs::create_directory_symlink("b", folder / "link");
  const auto files = FilesBelow(folder.path());
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(PathsOf(*files), (std::vector<std::string>{"b.txt", "b/deep/two", "link"}));
  EXPECT_EQ((*files)[1].bytes, 2u);
}

TEST(HistoryFilesTest, WhatAKilledWriterHasLeftIsNeitherListedNorCopied) {
  const TemporaryFolder run, target;
  fs::create_directories(run / "outputs/model");
  std::ofstream(run / "outputs/model/net.bin") << "whole";
  std::ofstream(TemporaryPathFor(run / "outputs/model/net.bin")) << "who";
  std::ofstream(TemporaryPathFor(run / "outputs/evaluation.json")) << "{";
  EXPECT_EQ(*FilesOfRun(run.path()), std::vector<std::string>{"outputs/model/net.bin"});
  const auto copied = CopyFrom(run.path(), "outputs", target / "copy");
  ASSERT_TRUE(copied.ok()) << copied.status();
  EXPECT_EQ(copied->files, 1);
  EXPECT_EQ(PathsOf(*FilesBelow(target.path())), std::vector<std::string>{"copy/model/net.bin"});
  EXPECT_EQ(std::distance(fs::directory_iterator(target / "copy"), fs::directory_iterator()), 1);
}

TEST(HistoryFilesTest, AFolderThatCannotBeReadIsNoEmptyFolder) {
  const TemporaryFolder run, target;
  ASSERT_EQ(chmod(run.path().c_str(), 0755), 0);
  fs::create_directories(run / "outputs/closed");
  std::ofstream(run / "outputs/a") << "a";
  fs::permissions(run / "outputs/closed", fs::perms::none);
  const absl::Cleanup open = [&run] { fs::permissions(run / "outputs/closed", fs::perms::owner_all); };
  // Root may look into every folder.
  const uid_t user = geteuid();
  constexpr uid_t kNobody = 65534;
  if (user == 0) {
    ASSERT_EQ(chmod(target.path().c_str(), 0777), 0);
    ASSERT_EQ(seteuid(kNobody), 0);
  }
  const auto files = FilesOfRun(run.path());
  const auto copied = CopyFrom(run.path(), "outputs", target / "copy");
  ASSERT_EQ(seteuid(user), 0);
  EXPECT_TRUE(absl::IsPermissionDenied(files.status())) << files.status();
  EXPECT_TRUE(absl::IsPermissionDenied(copied.status())) << copied.status();
  EXPECT_FALSE(fs::exists(target / "copy"));
}

TEST(HistoryFilesTest, AFolderAsideIsMadeAlsoWhereNoneCanBeHeld) {
  const TemporaryFolder folder;
  // In place of a file system without locks on folders: none can be opened.
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none = {0, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  auto aside = FolderAside::Make(folder.path(), ".new-");
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_TRUE(aside.ok()) << aside.status();
  EXPECT_EQ(folder.Names(), std::vector<std::string>{fs::path(aside->path()).filename().string()});
  aside = absl::CancelledError();
  EXPECT_EQ(folder.Names(), std::vector<std::string>{});
}

}  // namespace
}  // namespace basin
