#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "estimator/snapshot/unpack.h"
#include "tests/estimator/snapshot_folders.h"

namespace basin {
namespace {

using absl::StatusCode;

TreeEntry Folder(const std::string& path) {
  TreeEntry entry;
  entry.path = path;
  entry.kind = TreeEntry::Kind::kFolder;
  return entry;
}
TreeEntry File(const std::string& path, const std::string& content, bool executable = false) {
  TreeEntry entry;
  entry.path = path;
  entry.bytes = content.size();
  entry.content = DigestOf(content);
  entry.executable = executable;
  return entry;
}
TreeEntry LinkTo(const std::string& path, const std::string& target) {
  TreeEntry entry;
  entry.path = path;
  entry.kind = TreeEntry::Kind::kLink;
  entry.target = target;
  return entry;
}
std::string DigestOfEntries(const std::vector<TreeEntry>& entries) {
  TreeDigester digester;
  for (const TreeEntry& entry : entries) digester.Add(entry);
  return digester.Finish();
}

std::unique_ptr<SnapshotUnpacker> Begun(const std::string& base, const std::string& digest,
                                        const UnpackOptions& options = {}) {
  auto unpacker = SnapshotUnpacker::Begin(base, digest, options);
  EXPECT_TRUE(unpacker.ok()) << unpacker.status();
  return *std::move(unpacker);
}

std::vector<std::string> NamesIn(const std::string& path) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

// A snapshot of one file with this content.
std::string Add(const std::string& base, const std::string& content, int keep = 20) {
  const std::vector<TreeEntry> entries = {File("f", content)};
  const std::string digest = DigestOfEntries(entries);
  UnpackOptions options;
  options.keep = keep;
  auto unpacker = Begun(base, digest, options);
  EXPECT_TRUE(unpacker->AddEntry(entries[0]).ok());
  EXPECT_TRUE(unpacker->AddData(content).ok());
  const auto use = unpacker->Finish();
  EXPECT_TRUE(use.ok()) << use.status();
  return digest;
}

TEST(SnapshotTest, AppearsWholeAndIsReadOnly) {
  ScratchFolder base;
  const std::vector<TreeEntry> entries = {Folder("lib"), File("lib/run.sh", "#!/bin/sh\n", true),
                                          LinkTo("lib/up", "../t.py"), File("t.py", "print(1)")};
  const std::string digest = DigestOfEntries(entries);
  auto unpacker = Begun(base.path(), digest);
  EXPECT_TRUE(unpacker->AddEntry(entries[0]).ok());
  EXPECT_TRUE(unpacker->AddEntry(entries[1]).ok());
  EXPECT_TRUE(unpacker->AddData("#!/bin").ok());
  EXPECT_TRUE(unpacker->AddData("/sh\n").ok());
  EXPECT_TRUE(unpacker->AddEntry(entries[2]).ok());
  EXPECT_TRUE(unpacker->AddEntry(entries[3]).ok());
  EXPECT_TRUE(unpacker->AddData("print(1)").ok());
  EXPECT_FALSE(HaveSnapshot(base.path(), digest));
  EXPECT_EQ(UseSnapshot(base.path(), digest).status().code(), StatusCode::kNotFound);
  const auto use = unpacker->Finish();
  ASSERT_TRUE(use.ok()) << use.status();
  EXPECT_TRUE(HaveSnapshot(base.path(), digest));
  EXPECT_EQ(use->path(), base.At("snapshots/" + digest));
  const std::string below = "snapshots/" + digest + "/";
  EXPECT_EQ(base.Read(below + "lib/up"), "print(1)");
  struct stat info;
  ASSERT_EQ(stat(base.At(below + "lib/run.sh").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0555u);
  ASSERT_EQ(stat(base.At(below + "t.py").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0444u);
  ASSERT_EQ(stat(base.At("snapshots").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  unpacker.reset();
  EXPECT_EQ(NamesIn(base.At("snapshots")), (std::vector<std::string>{digest, digest + ".lock"}));
}

TEST(SnapshotTest, WrongContentsNeverGetTheName) {
  ScratchFolder base;
  const std::vector<TreeEntry> entries = {File("f", "right")};
  const std::string digest = DigestOfEntries(entries);
  auto unpacker = Begun(base.path(), digest);
  EXPECT_TRUE(unpacker->AddEntry(entries[0]).ok());
  EXPECT_TRUE(unpacker->AddData("wrong").ok());
  const absl::Status status = unpacker->Finish().status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status;
  EXPECT_FALSE(unpacker->Finish().ok());
  unpacker.reset();
  EXPECT_FALSE(HaveSnapshot(base.path(), digest));
  EXPECT_TRUE(NamesIn(base.At("snapshots")).empty());
}

TEST(SnapshotTest, ACutInTheMiddleLeavesNothing) {
  ScratchFolder base;
  const std::vector<TreeEntry> entries = {Folder("a"), File("a/f", "12345")};
  auto unpacker = Begun(base.path(), DigestOfEntries(entries));
  EXPECT_TRUE(unpacker->AddEntry(entries[0]).ok());
  EXPECT_TRUE(unpacker->AddEntry(entries[1]).ok());
  EXPECT_TRUE(unpacker->AddData("123").ok());
  EXPECT_EQ(NamesIn(base.At("snapshots")).size(), 1u);
  unpacker.reset();
  EXPECT_TRUE(NamesIn(base.At("snapshots")).empty());
}

TEST(SnapshotTest, HostileMessagesAreRefused) {
  ScratchFolder base;
  const std::string digest = DigestOf("any");
  EXPECT_EQ(SnapshotUnpacker::Begin(base.path(), "../../evil").status().code(), StatusCode::kInvalidArgument);
  EXPECT_FALSE(HaveSnapshot(base.path(), ".."));
  EXPECT_EQ(UseSnapshot(base.path(), "..").status().code(), StatusCode::kInvalidArgument);
  const auto refused = [&](const std::vector<TreeEntry>& entries) {
    auto unpacker = Begun(base.path(), digest);
    absl::Status status;
    for (const TreeEntry& entry : entries) {
      if (status = unpacker->AddEntry(entry); !status.ok()) break;
    }
    // After an error nothing more is taken.
    EXPECT_EQ(unpacker->AddEntry(Folder("zzz")), status);
    EXPECT_EQ(unpacker->Finish().status(), status);
    return status.code();
  };
  EXPECT_EQ(refused({File("../evil", "")}), StatusCode::kInvalidArgument);
  EXPECT_EQ(refused({File("/etc/evil", "")}), StatusCode::kInvalidArgument);
  EXPECT_EQ(refused({Folder("b"), Folder("a")}), StatusCode::kInvalidArgument);
  EXPECT_EQ(refused({Folder("a"), Folder("a")}), StatusCode::kInvalidArgument);
  EXPECT_EQ(refused({File("a/b", "")}), StatusCode::kInvalidArgument);
  EXPECT_EQ(refused({LinkTo("a", "/etc")}), StatusCode::kInvalidArgument);
  EXPECT_EQ(refused({LinkTo("a", "..")}), StatusCode::kInvalidArgument);
  EXPECT_EQ(refused({LinkTo("a", "b"), File("a/x", "")}), StatusCode::kInvalidArgument);
  EXPECT_EQ(refused({File("a", "1"), Folder("b")}), StatusCode::kInvalidArgument);  // a byte is missing
  auto unpacker = Begun(base.path(), digest);
  EXPECT_EQ(unpacker->AddData("x").code(), StatusCode::kInvalidArgument);
  unpacker = Begun(base.path(), digest);
  EXPECT_TRUE(unpacker->AddEntry(File("a", "12")).ok());
  EXPECT_EQ(unpacker->AddData("123").code(), StatusCode::kInvalidArgument);
  unpacker.reset();
  EXPECT_TRUE(NamesIn(base.At("snapshots")).empty());
}

TEST(SnapshotTest, CountsAndSizesAreBounded) {
  ScratchFolder base;
  UnpackOptions options;
  options.max_entries = 2;
  options.max_bytes = 4;
  auto unpacker = Begun(base.path(), DigestOf("any"), options);
  EXPECT_TRUE(unpacker->AddEntry(File("a", "12345")).ok());
  EXPECT_EQ(unpacker->AddData("12345").code(), StatusCode::kResourceExhausted);
  unpacker = Begun(base.path(), DigestOf("any"), options);
  EXPECT_TRUE(unpacker->AddEntry(Folder("a")).ok());
  EXPECT_TRUE(unpacker->AddEntry(Folder("b")).ok());
  EXPECT_EQ(unpacker->AddEntry(Folder("c")).code(), StatusCode::kResourceExhausted);
}

TEST(SnapshotTest, TwoAtOnceBothEndWithTheSame) {
  ScratchFolder base;
  const std::vector<TreeEntry> entries = {File("f", "x")};
  const std::string digest = DigestOfEntries(entries);
  auto first = Begun(base.path(), digest), second = Begun(base.path(), digest);
  for (const auto& unpacker : {first.get(), second.get()}) {
    EXPECT_TRUE(unpacker->AddEntry(entries[0]).ok());
    EXPECT_TRUE(unpacker->AddData("x").ok());
  }
  const auto one = first->Finish(), two = second->Finish();
  ASSERT_TRUE(one.ok() && two.ok()) << one.status() << two.status();
  EXPECT_EQ(one->path(), two->path());
  first.reset();
  second.reset();
  EXPECT_EQ(NamesIn(base.At("snapshots")), (std::vector<std::string>{digest, digest + ".lock"}));
  EXPECT_EQ(base.Read("snapshots/" + digest + "/f"), "x");
}

TEST(SnapshotTest, ManyAtOnceWithPruningStayWhole) {
  ScratchFolder base;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 8; ++i) {
        const std::string content = std::to_string((t + i) % 5);
        const std::vector<TreeEntry> entries = {File("f", content)};
        UnpackOptions options;
        options.keep = 1;
        auto unpacker = Begun(base.path(), DigestOfEntries(entries), options);
        EXPECT_TRUE(unpacker->AddEntry(entries[0]).ok());
        EXPECT_TRUE(unpacker->AddData(content).ok());
        const auto use = unpacker->Finish();
        ASSERT_TRUE(use.ok()) << use.status();
        std::ifstream file(use->path() + "/f");
        std::string found;
        file >> found;
        EXPECT_EQ(found, content);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(PruneSnapshots(base.path(), 0) >= 1, true);
  EXPECT_TRUE(NamesIn(base.At("snapshots")).empty());
}

TEST(SnapshotTest, PruningKeepsTheNewestByUseAndThoseInUse) {
  ScratchFolder base;
  const std::string a = Add(base.path(), "a"), b = Add(base.path(), "b"), c = Add(base.path(), "c");
  const auto set_used = [&](const std::string& digest, time_t when) {
    const timespec times[2] = {{when, 0}, {when, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, base.At("snapshots/" + digest + ".lock").c_str(), times, 0), 0);
  };
  set_used(a, 1000);
  set_used(b, 2000);
  set_used(c, 3000);
  EXPECT_TRUE(UseSnapshot(base.path(), a).ok());  // used now, so b is the oldest
  EXPECT_EQ(PruneSnapshots(base.path(), 2), 1);
  EXPECT_TRUE(HaveSnapshot(base.path(), a));
  EXPECT_FALSE(HaveSnapshot(base.path(), b));
  EXPECT_TRUE(HaveSnapshot(base.path(), c));
  {
    const auto use = UseSnapshot(base.path(), c);
    ASSERT_TRUE(use.ok());
    EXPECT_EQ(PruneSnapshots(base.path(), 0), 1);
    EXPECT_TRUE(HaveSnapshot(base.path(), c));
  }
  EXPECT_EQ(PruneSnapshots(base.path(), 0), 1);
  EXPECT_TRUE(NamesIn(base.At("snapshots")).empty());
  EXPECT_EQ(PruneSnapshots(base.At("nothing"), 0), 0);
}

TEST(SnapshotTest, AddingOneTooManyPrunes) {
  ScratchFolder base;
  for (int i = 0; i < 5; ++i) Add(base.path(), std::to_string(i), 3);
  EXPECT_EQ(NamesIn(base.At("snapshots")).size(), 6u);
}

TEST(SnapshotTest, WhatAKilledWriterLeftIsPrunedAndALivingOnesIsNot) {
  ScratchFolder base;
  const std::string digest = DigestOf("any");
  const pid_t child = fork();
  if (child == 0) {
    auto unpacker = SnapshotUnpacker::Begin(base.path(), digest);
    if (!unpacker.ok() || !(*unpacker)->AddEntry(File("f", "")).ok()) _exit(1);
    raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  ASSERT_EQ(NamesIn(base.At("snapshots")).size(), 1u);
  auto living = Begun(base.path(), digest);
  PruneSnapshots(base.path(), 20);
  EXPECT_EQ(NamesIn(base.At("snapshots")).size(), 1u);
  EXPECT_TRUE(living->AddEntry(File("f", "")).ok());
}

TEST(SnapshotTest, AFullDiskLeavesNothingAndSaysSo) {
  ScratchFolder base;
  if (mount("none", base.path().c_str(), "tmpfs", 0, "size=64k") != 0) GTEST_SKIP() << "needs the right to mount";
  absl::Cleanup unmount = [&] { umount(base.path().c_str()); };
  const std::string content(1 << 20, 'x');
  {
    const std::vector<TreeEntry> entries = {File("f", content)};
    auto unpacker = Begun(base.path(), DigestOfEntries(entries));
    EXPECT_TRUE(unpacker->AddEntry(entries[0]).ok());
    const absl::Status status = unpacker->AddData(content);
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), "No space left on device")) << status;
    unpacker.reset();
    EXPECT_TRUE(NamesIn(base.At("snapshots")).empty());
    Add(base.path(), "small");  // there is room again
  }
}

TEST(StageSnapshotTest, LaterEditsDoNotReachIt) {
  ScratchFolder source, base;
  source.Write("train.py", "first");
  source.Write("lib/run.sh", "#!/bin/sh\n", true);
  uint64_t copied = 0;
  const auto staged = StageSnapshot(source.path(), base.path(), {}, [&](uint64_t bytes) { copied = bytes; });
  ASSERT_TRUE(staged.ok()) << staged.status();
  EXPECT_EQ(copied, 15u);
  EXPECT_TRUE(HaveSnapshot(base.path(), staged->tree.digest));
  source.Write("train.py", "second");
  EXPECT_EQ(base.Read("snapshots/" + staged->tree.digest + "/train.py"), "first");
  // What is there is not copied again, and reads as the same tree.
  copied = 0;
  source.Write("train.py", "first");
  const auto again = StageSnapshot(source.path(), base.path(), {}, [&](uint64_t bytes) { copied = bytes; });
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(copied, 0u);
  EXPECT_EQ(again->use.path(), staged->use.path());
  EXPECT_EQ(ReadTree(staged->use.path())->digest, staged->tree.digest);
}

TEST(StageSnapshotTest, AFileThatChangesBetweenReadingAndCopying) {
  ScratchFolder source, base;
  source.Write("a", "1");
  source.Write("b", "1");
  // The first file's copy is the moment after everything was read.
  int edits = 0, most = 1;
  const auto edit = [&](uint64_t bytes) {
    if (bytes == 1 && edits < most) source.Write("b", std::string(1, static_cast<char>('2' + edits++)));
  };
  const auto once = StageSnapshot(source.path(), base.path(), {}, edit);
  ASSERT_TRUE(once.ok()) << once.status();
  EXPECT_EQ(base.Read("snapshots/" + once->tree.digest + "/b"), "2");
  most = 100;
  const absl::Status always = StageSnapshot(source.path(), base.path(), {}, edit).status();
  // The first attempt found the tree in place, so nothing was copied and nothing could be edited.
  EXPECT_TRUE(always.ok()) << always;
  source.Write("a", "2");
  const absl::Status never = StageSnapshot(source.path(), base.path(), {}, edit).status();
  EXPECT_EQ(never.code(), StatusCode::kFailedPrecondition) << never;
  EXPECT_TRUE(absl::StrContains(never.message(), "b changed while it was copied")) << never;
  EXPECT_EQ(NamesIn(base.At("snapshots")).size(), 2u);
}

}  // namespace
}  // namespace basin
