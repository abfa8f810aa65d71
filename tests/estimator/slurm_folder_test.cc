// What a run under Slurm keeps in its folder: its submission, and what attempts before have left.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "estimator/history/attempts.h"
#include "estimator/history/run_folder.h"
#include "estimator/run/submission.h"

namespace basin {
namespace {

class SlurmFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "slurm_folder_test";
    std::filesystem::remove_all(path_);
    folder_ = std::make_unique<RunFolder>(path_ + "/runs/e/r");
    ASSERT_TRUE(folder_->Create().ok());
  }
  void TearDown() override { std::filesystem::remove_all(path_); }
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_->path() + "/" + name, std::ios::app) << text;
  }
  bool Exists(const std::string& name) { return std::filesystem::exists(folder_->path() + "/" + name); }

  std::string path_;
  std::unique_ptr<RunFolder> folder_;
};

TEST_F(SlurmFolderTest, AttemptIsSetAsideOnce) {
  Write("logs/worker-0.txt", "one");
  Write("metrics.jsonl", "{}\n");
  Write("job.json", "{}");
  ASSERT_TRUE(SetAttemptAside(*folder_, 1).ok());
  EXPECT_TRUE(Exists("attempts/1/logs/worker-0.txt"));
  EXPECT_TRUE(Exists("attempts/1/metrics.jsonl"));
  EXPECT_TRUE(Exists("job.json"));
  EXPECT_FALSE(Exists("logs/worker-0.txt"));
  // As after a crash in the middle.
  ASSERT_TRUE(SetAttemptAside(*folder_, 1).ok());
  EXPECT_TRUE(Exists("attempts/1/logs/worker-0.txt"));
  Write("logs/worker-0.txt", "two");
  ASSERT_TRUE(SetAttemptAside(*folder_, 2).ok());
  EXPECT_TRUE(Exists("attempts/2/logs/worker-0.txt"));
}

TEST_F(SlurmFolderTest, SubmissionComesBack) {
  EXPECT_FALSE(ReadSubmission(*folder_).ok());
  Submission submission;
  submission.target.name = "big";
  submission.target.kind = TargetKind::kSlurm;
  submission.environment_spec = "pip\nnumpy\n";
  submission.program = "/opt/basin";
  ASSERT_TRUE(WriteSubmission(*folder_, submission).ok());
  const auto again = ReadSubmission(*folder_);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->target.kind, TargetKind::kSlurm);
  EXPECT_EQ(again->environment_spec, submission.environment_spec);
  EXPECT_EQ(again->program, submission.program);
  EXPECT_EQ(BatchJobOf(*folder_), "");
  Write("journal.jsonl", "{\"event\": \"slurm\", \"job\": \"12\"}\n");
  EXPECT_EQ(BatchJobOf(*folder_), "12");
  EXPECT_FALSE(HasBegun(*folder_));
  Write("journal.jsonl", "{\"event\": \"supervisor\"}\n");
  EXPECT_TRUE(HasBegun(*folder_));
}

}  // namespace
}  // namespace basin
