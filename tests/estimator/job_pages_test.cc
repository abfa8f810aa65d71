// The documentation shows job files. Each is tried: the wrong ones of docs/errors.md get the message that stands there,
// the others are accepted.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "common/base/exit_code.h"
#include "common/base/files.h"
#include "estimator/job/job_checks.h"
#include "estimator/job/job_fields.h"
#include "estimator/job/plan.h"

namespace basin {
namespace {

constexpr char kShownFolder[] = "/home/me/project";

struct Example {
  std::string job;
  std::string message;
};

// The fenced blocks of a section (empty: of the page), a job and its message in turn.
std::vector<Example> ExamplesOf(const std::string& page, absl::string_view section) {
  std::vector<Example> examples;
  std::string* block = nullptr;
  bool in_section = section.empty();
  for (const absl::string_view line : absl::StrSplit(page, '\n')) {
    if (absl::StartsWith(line, "## ") && !section.empty()) in_section = absl::StartsWith(line.substr(3), section);
    if (!in_section) continue;
    if (line == "```yaml") {
      examples.emplace_back();
      block = &examples.back().job;
    } else if (line == "```text") {
      block = &examples.back().message;
    } else if (line == "```") {
      block = nullptr;
    } else if (block != nullptr) {
      absl::StrAppend(block, line, "\n");
    }
  }
  return examples;
}

// As `basin submit` does on a target of one machine.
absl::Status Try(const std::string& text, const std::string& folder) {
  JobOverrides overrides;
  overrides.base_folder = folder;
  const auto job = ParseJob(text, "job.yaml", overrides);
  if (!job.ok()) return job.status();
  if (const absl::Status files = CheckJobFiles(*job); !files.ok()) return files;
  if (const absl::Status target = CheckTarget(*job, 1); !target.ok()) return target;
  NodeFacts node;
  node.host = "localhost";
  node.gpu_problem = "no NVIDIA driver is loaded";
  node.free_ports = {2222, 2223, 2224};
  return MakePlan(*job, {"run", {node}}).status();
}

std::string Page(const std::string& name) {
  const char* source = std::getenv("BASIN_SOURCE_DIR");
  EXPECT_NE(source, nullptr) << "run this test by ctest";
  const auto page = ReadFile(absl::StrCat(source == nullptr ? "." : source, "/docs/", name));
  EXPECT_TRUE(page.ok()) << page.status();
  return page.ok() ? *page : "";
}

TEST(JobPagesTest, JobFilesThatAreShownAreAccepted) {
  int tried = 0;
  for (const char* name : {"containers.md", "estimator.md", "migrating_from_azureml.md", "mpi.md", "slurm.md",
                           "targets.md", "tensorflow.md"}) {
    for (const Example& example : ExamplesOf(Page(name), "")) {
      if (!absl::StrContains(example.job, "entry_script")) continue;  // a line to add to another
      const auto job = ParseJob(example.job, name);
      EXPECT_TRUE(job.ok()) << job.status() << "\n" << example.job;
      EXPECT_TRUE(!job.ok() || job->warnings.empty()) << example.job;
      ++tried;
    }
  }
  EXPECT_GE(tried, 5);
}

// A field is in the page, or the page is wrong.
TEST(JobPagesTest, EachFieldIsInTheTables) {
  const std::string page = Page("estimator.md");
  for (const std::string& field : KnownJobFields()) {
    if (field == "training" || field == "network") continue;  // their members are
    EXPECT_TRUE(absl::StrContains(page, absl::StrCat("`", field, "`"))) << field;
  }
}

TEST(JobPagesTest, EachWrongJobFileGetsTheMessageOfThePage) {
  std::string folder = testing::TempDir() + "job-errors-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  for (const char* name : {"/train.py", "/notes.txt"}) {
    ASSERT_TRUE(WriteFileAtomically(absl::StrCat(folder, name), "x\n", 0644).ok());
  }
  const std::vector<Example> examples = ExamplesOf(Page("errors.md"), "Wrong job files");
  EXPECT_GE(examples.size(), 20u);
  for (const Example& example : examples) {
    const absl::Status status = Try(example.job, folder);
    EXPECT_EQ(ExitCodeFor(status), kExitUsage) << example.job;
    EXPECT_EQ(absl::StrCat("basin: error: ", absl::StrReplaceAll(status.message(), {{folder, kShownFolder}}), "\n"),
              example.message)
        << example.job;
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace basin
