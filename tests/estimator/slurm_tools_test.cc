// Slurm's programs called, with programs of the test in their place.
#include "estimator/launch/slurm_tools.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "estimator/launch/slurm_allocation.h"

namespace basin {
namespace {

// sbatch and scancel of these words, first on PATH.
class SlurmToolsTest : public ::testing::Test {
 protected:
  SlurmToolsTest() : path_(getenv("PATH")) {
    std::filesystem::create_directories(folder_);
    setenv("PATH", absl::StrCat(folder_, ":", path_).c_str(), 1);
  }
  ~SlurmToolsTest() override {
    setenv("PATH", path_.c_str(), 1);
    std::filesystem::remove_all(folder_);
  }
  void Tool(const std::string& name, const std::string& script) {
    ASSERT_TRUE(
        WriteFileAtomically(absl::StrCat(folder_, "/", name), absl::StrCat("#!/bin/sh\n", script, "\n"), 0700).ok());
  }
  const std::string path_;
  const std::string folder_ = absl::StrCat(testing::TempDir(), "/basin_slurm_tools_", getpid());
};

TEST_F(SlurmToolsTest, AJobOnAnotherClusterIsCanceledAndNamed) {
  Tool("sbatch", "echo '12;other'");
  Tool("scancel", "echo \"$*\" >\"$(dirname \"$0\")/canceled\"");
  const absl::Status status = SubmitToSlurm("script").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(status.message(), "to the cluster other (SLURM_CLUSTERS)")) << status;
  EXPECT_EQ(*ReadFile(folder_ + "/canceled", 1000), "--clusters=other 12\n");
}

TEST_F(SlurmToolsTest, WhatTheAllocationAroundIsTheNewJobIsNot) {
  Tool("sbatch", "echo \"1${SLURM_RESTART_COUNT:-0}${SLURM_HET_SIZE:-0}\"");
  setenv("SLURM_RESTART_COUNT", "3", 1);
  setenv("SLURM_HET_SIZE", "2", 1);
  EXPECT_EQ(*SubmitToSlurm("script"), "100");
}

TEST_F(SlurmToolsTest, AHeterogeneousAllocationIsRefusedByName) {
  Tool("scontrol", "echo h0; echo h1");
  std::map<std::string, std::string> variables = {{"SLURM_JOB_ID", "7"}, {"SLURM_JOB_NODELIST", "h[0-1]"}};
  const EnvironmentVariable variable = [&variables](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional<std::string>(found->second);
  };
  Target target;
  ASSERT_TRUE(EnterAllocation(variable, &target).ok());
  EXPECT_EQ(target.nodes.size(), 2u);
  variables["SLURM_HET_SIZE"] = "2";
  const absl::Status status = EnterAllocation(variable, &target);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(status.message(), "Slurm's job 7 is a heterogeneous one of 2 components")) << status;
}

TEST_F(SlurmToolsTest, SbatchVariablesOfTheEnvironmentDoNotBeatTheJob) {
  Tool("sbatch", "env >\"$(dirname \"$0\")/seen\"; echo 1");
  setenv("SBATCH_PARTITION", "mine=a", 1);
  setenv("SBATCH_REQUEUE", "", 1);
  testing::internal::CaptureStderr();
  EXPECT_EQ(*SubmitToSlurm("script"), "1");
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_TRUE(absl::StrContains(said, "sbatch is called without SBATCH_PARTITION, SBATCH_REQUEUE of the environment"))
      << said;
  EXPECT_FALSE(absl::StrContains(*ReadFile(folder_ + "/seen", 1 << 20), "SBATCH_"));
  EXPECT_STREQ(getenv("SBATCH_PARTITION"), "mine=a");
  EXPECT_STREQ(getenv("SBATCH_REQUEUE"), "");
  unsetenv("SBATCH_PARTITION");
  unsetenv("SBATCH_REQUEUE");
  testing::internal::CaptureStderr();
  EXPECT_EQ(*SubmitToSlurm("script"), "1");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace basin
