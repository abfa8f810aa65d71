#include "estimator/environment/environment_spec.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "estimator/environment/requirements.h"
#include "tests/estimator/snapshot_folders.h"

namespace basin {
namespace {

using absl::StatusCode;
using Lines = std::vector<std::string>;

absl::StatusOr<Requirements> Read(const std::string& text, const std::map<std::string, std::string>& files = {},
                                  const std::string& name = "requirements.txt") {
  Requirements requirements;
  const absl::Status status = AddRequirements(
      text, name,
      [&](const std::string& path) -> absl::StatusOr<std::string> {
        const auto found = files.find(path);
        if (found == files.end()) return absl::NotFoundError(path + " does not exist");
        return found->second;
      },
      &requirements);
  if (!status.ok()) return status;
  return requirements;
}

std::string Refusal(const std::string& text, const std::map<std::string, std::string>& files = {}) {
  const auto read = Read(text, files);
  EXPECT_EQ(read.status().code(), StatusCode::kInvalidArgument) << text;
  return std::string(read.status().message());
}

TEST(RequirementsTest, CommentsGoAndContinuedLinesJoin) {
  const auto read = Read(
      "\xEF\xBB\xBF# all\r\nnumpy==1.24 # why\r\n\n  scipy \\\n  >=1.9\n--no-index\nx#y\nfoo --hash=sha256:0 "
      "\\\n--hash=sha256:1\n");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->lines,
            (Lines{"numpy==1.24", "scipy   >=1.9", "--no-index", "x#y", "foo --hash=sha256:0 --hash=sha256:1"}));
}

TEST(RequirementsTest, FilesThatAreNamedStandInPlace) {
  const auto read = Read("a\n-r sub/more.txt\n-c limits.txt\nz\n",
                         {{"deps/sub/more.txt", "b\n--requirement=deep.txt\n"},
                          {"deps/sub/deep.txt", "c\n"},
                          {"deps/limits.txt", "numpy<2\n"}},
                         "deps/all.txt");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->lines, (Lines{"a", "b", "c", "z"}));
  EXPECT_EQ(read->constraints, (Lines{"numpy<2"}));
  EXPECT_TRUE(
      absl::StrContains(Refusal("\n-r missing.txt"), "requirements.txt:2: -r missing.txt: missing.txt does not exist"));
  EXPECT_TRUE(absl::StrContains(Refusal("-r requirements.txt", {{"requirements.txt", "x"}}), "includes itself"));
  EXPECT_TRUE(absl::StrContains(Refusal("-r a", {{"a", "-r b"}, {"b", "-r a"}}), "a includes itself"));
  EXPECT_TRUE(absl::StrContains(Refusal("-r /etc/passwd"), "below source_directory"));
}

TEST(RequirementsTest, WhatOnlyTheFolderHasIsRefused) {
  for (const char* line : {"-e .", "--editable=./pkg", "./pkg", "pkg/", "../x.whl", "x-1.0-py3-none-any.whl",
                           "file:x.whl", "x @ file:x.whl", "-f wheels", "--find-links=./wheels"}) {
    EXPECT_TRUE(absl::StartsWith(Refusal(line), absl::StrCat("requirements.txt:1: ", line, ": "))) << line;
  }
  for (const char* line : {"/shared/x-1.0-py3-none-any.whl", "x @ https://h/x.whl", "git+https://h/x.git@v1",
                           "file:///shared/x.whl", "-f /shared/wheels", "--find-links https://h/wheels",
                           "--extra-index-url https://h/simple", "numpy[all]>=1 ; python_version<'3.12'"}) {
    EXPECT_TRUE(Read(line).ok()) << line << Read(line).status();
  }
}

EnvironmentSpec Spec(const Job& job) {
  const auto spec = ReadEnvironmentSpec(job);
  EXPECT_TRUE(spec.ok()) << spec.status();
  return spec.ok() ? *spec : EnvironmentSpec();
}

TEST(EnvironmentSpecTest, NothingAskedForIsNothingToBuild) {
  Job job;
  EXPECT_EQ(Spec(job).kind, EnvironmentSpec::Kind::kNone);
  EXPECT_EQ(EnvironmentName(Spec(job)), "none");
  job.packages.user_managed = true;
  job.framework_version = "2.15.1";
  EXPECT_EQ(Spec(job).kind, EnvironmentSpec::Kind::kNone);
}

TEST(EnvironmentSpecTest, PipPackagesFilesAndFrameworkJoin) {
  ScratchFolder source;
  source.Write("requirements.txt", "scipy\n");
  Job job;
  job.source_directory = source.path();
  job.packages.pip = {"numpy==1.24", "pandas"};
  job.packages.pip_requirements_file = "requirements.txt";
  job.framework_version = "2.15";
  EXPECT_EQ(Spec(job).requirements, (Lines{"tensorflow==2.15.*", "numpy==1.24", "pandas", "scipy"}));
  EXPECT_EQ(Spec(job).kind, EnvironmentSpec::Kind::kPip);
  job.framework_version = "2.15.1";
  EXPECT_EQ(Spec(job).requirements[0], "tensorflow==2.15.1");
  job.packages.pip_requirements_file = "none.txt";
  const absl::Status missing = ReadEnvironmentSpec(job).status();
  EXPECT_EQ(missing.code(), StatusCode::kNotFound);
  EXPECT_EQ(missing.message(), source.At("none.txt") + " does not exist");
}

TEST(EnvironmentSpecTest, TheNameIsOfTheContent) {
  Job job;
  job.packages.pip = {"numpy"};
  const std::string name = EnvironmentName(Spec(job));
  EXPECT_TRUE(absl::StartsWith(name, "pip-")) << name;
  EXPECT_EQ(name.size(), 20u);
  job.packages.pip = {"  numpy # the usual"};
  EXPECT_EQ(EnvironmentName(Spec(job)), name);
  job.packages.pip = {"numpy==1"};
  EXPECT_NE(EnvironmentName(Spec(job)), name);
  job.packages = {};
  job.packages.conda = {"numpy"};
  EXPECT_TRUE(absl::StartsWith(EnvironmentName(Spec(job)), "conda-"));
}

TEST(EnvironmentSpecTest, CondaPackagesBecomeAnEnvironmentFile) {
  Job job;
  job.packages.conda = {"scikit-learn"};
  EXPECT_EQ(Spec(job).conda_file, "channels:\n  - conda-forge\ndependencies:\n  - scikit-learn\n  - python\n");
  job.packages.conda = {"python=3.9", "scikit-learn"};
  job.packages.pip = {"keras"};
  EXPECT_EQ(Spec(job).conda_file,
            "channels:\n  - conda-forge\ndependencies:\n  - python=3.9\n  - scikit-learn\n  - pip\n  - pip:\n      - "
            "keras\n");
  job.packages.pip = {"-c https://h/limits.txt"};
  EXPECT_TRUE(ReadEnvironmentSpec(job).ok());
}

TEST(EnvironmentSpecTest, CondaFilesAreTakenOver) {
  ScratchFolder source;
  source.Write(
      "conda.yml",
      "# mine\nname: project\nprefix: /home/me/x\nchannels: [bioconda]\ndependencies:\n- python=3.8\n- pip\n- pip:\n"
      "  - -r more.txt\n  - azureml-defaults # old\nvariables: {A: b}\n");
  source.Write("more.txt", "horovod\n");
  Job job;
  job.source_directory = source.path();
  job.packages.conda_dependencies_file = "conda.yml";
  const std::string expected =
      "channels: [bioconda]\ndependencies:\n  - python=3.8\n  - pip\n  - pip:\n      - horovod\n      - "
      "azureml-defaults\n"
      "variables: {A: b}\n";
  EXPECT_EQ(Spec(job).conda_file, expected);
  job.packages.conda_dependencies_file.clear();
  job.packages.environment_definition = "conda.yml";
  EXPECT_EQ(Spec(job).conda_file, expected);
  for (const char* bad :
       {"numpy\nscipy\n", "dependencies: numpy\n", "name: x\n", "dependencies: [{npm: [x]}]\n", "a: [\n"}) {
    source.Write("conda.yml", bad);
    const absl::Status status = ReadEnvironmentSpec(job).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << bad;
    EXPECT_TRUE(absl::StartsWith(status.message(), "conda.yml: ")) << status;
  }
  source.Write("conda.yml", "dependencies: [{pip: ['-c limits.txt']}]\n");
  source.Write("limits.txt", "numpy<2\n");
  EXPECT_TRUE(absl::StrContains(ReadEnvironmentSpec(job).status().message(), "constraints (-c) cannot be used"));
}

TEST(EnvironmentSpecTest, TextAndBackIsTheSame) {
  EnvironmentSpec pip;
  pip.kind = EnvironmentSpec::Kind::kPip;
  pip.requirements = {"a==1", "b @ https://h/\xC3\xA4"};
  pip.constraints = {"c<2"};
  EnvironmentSpec conda;
  conda.kind = EnvironmentSpec::Kind::kConda;
  conda.conda_file = "dependencies:\n  - \"x\"\n";
  for (const EnvironmentSpec& spec : {EnvironmentSpec(), pip, conda}) {
    const auto again = ParseEnvironmentSpec(EnvironmentSpecToText(spec));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_TRUE(*again == spec);
  }
  for (const char* bad : {"", "[]", "{}", R"({"kind":"brew"})", R"({"kind":"pip"})", R"({"kind":"conda","file":1})",
                          R"({"kind":1})", R"({"kind":"pip","requirements":["a\nb"],"constraints":[]})",
                          R"({"kind":"pip","requirements":[1],"constraints":[]})"}) {
    EXPECT_EQ(ParseEnvironmentSpec(bad).status().code(), StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace basin
