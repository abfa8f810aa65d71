#include "estimator/job/job_checks.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/exit_code.h"
#include "common/base/files.h"

namespace basin {
namespace {

class JobFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string made = testing::TempDir() + "job-files-XXXXXX";
    ASSERT_NE(mkdtemp(made.data()), nullptr);
    folder_ = made;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, int mode = 0644) {
    std::filesystem::create_directories(std::filesystem::path(folder_ + "/" + name).parent_path());
    ASSERT_TRUE(WriteFileAtomically(folder_ + "/" + name, "text\n", mode).ok());
    ASSERT_EQ(chmod((folder_ + "/" + name).c_str(), static_cast<mode_t>(mode)), 0);
  }

  absl::Status Check(const std::string& text) {
    JobOverrides overrides;
    overrides.base_folder = folder_;
    const auto job = ParseJob(text, "job.yaml", overrides);
    return job.ok() ? CheckJobFiles(*job) : job.status();
  }

  void ExpectRefused(const std::string& text, const std::string& expected) {
    const absl::Status status = Check(text);
    ASSERT_FALSE(status.ok()) << text;
    EXPECT_TRUE(absl::StrContains(status.message(), expected)) << status;
    EXPECT_EQ(ExitCodeFor(status), kExitUsage);
  }

  std::string folder_;
};

TEST_F(JobFilesTest, AFileThatIsNotThereIsNamedAsItWasLookedFor) {
  Write("src/train.py");
  EXPECT_TRUE(Check("source_directory: src\nentry_script: train.py\n").ok());
  ExpectRefused("source_directory: src\nentry_script: trian.py\n",
                absl::StrCat("entry_script: ", folder_, "/src/trian.py does not exist"));
  ExpectRefused("source_directory: source\nentry_script: train.py\n",
                absl::StrCat("source_directory: ", folder_, "/source does not exist"));
  ExpectRefused("source_directory: src/train.py\nentry_script: train.py\n", "is no folder");
  ExpectRefused("entry_script: src\n", absl::StrCat(folder_, "/src is no file"));
  for (const char* field : {"pip_requirements_file", "conda_dependencies_file", "environment_definition"}) {
    const std::string job = absl::StrCat("source_directory: src\nentry_script: train.py\n", field, ": packages.txt\n");
    ExpectRefused(job, absl::StrCat(field, ": ", folder_, "/src/packages.txt does not exist"));
  }
  Write("src/packages.txt");
  EXPECT_TRUE(Check("source_directory: src\nentry_script: train.py\npip_requirements_file_path: packages.txt\n").ok());
}

TEST_F(JobFilesTest, AScriptWithoutAnInterpreterMustBeExecutable) {
  Write("run.sh");
  Write("program", 0755);
  Write("notes.txt");
  EXPECT_TRUE(Check("entry_script: run.sh\n").ok());
  EXPECT_TRUE(Check("entry_script: program\n").ok());
  ExpectRefused("entry_script: notes.txt\n",
                absl::StrCat("entry_script: ", folder_, "/notes.txt cannot be run: it is not executable"));
}

TEST_F(JobFilesTest, ABuiltInProgramNeedsNoFile) { EXPECT_TRUE(Check("entry_script: basin:mlp\n").ok()); }

TEST(CheckTargetTest, MoreNodesThanMachinesAreRefused) {
  Job job;
  EXPECT_TRUE(CheckTarget(job, 1).ok());
  job.node_count = 2;
  EXPECT_TRUE(CheckTarget(job, 2).ok());
  const absl::Status one = CheckTarget(job, 1);
  EXPECT_TRUE(
      absl::StrContains(one.message(), "node_count: 2 nodes are asked for, but the target local has one machine"))
      << one;
  EXPECT_EQ(ExitCodeFor(one), kExitUsage);
  job.compute_target = "lab";
  job.node_count = 5;
  const absl::Status three = CheckTarget(job, 3);
  EXPECT_TRUE(absl::StrContains(three.message(), "the target lab has 3 machines; set node_count: 3")) << three;
}

TEST(UnknownOverrideTest, SaysWhatCanBeChanged) {
  const absl::Status status = UnknownOverride("--node_count");
  for (const char* part : {"--node_count", "script_params", "inputs", "target"}) {
    EXPECT_TRUE(absl::StrContains(status.message(), part)) << status;
  }
  EXPECT_EQ(ExitCodeFor(status), kExitUsage);
}

}  // namespace
}  // namespace basin
