// How environments are built, with tools that the test brings along: what they are asked, and what is said where they
// are missing. environment_build_test.cc does it with the real ones.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "estimator/environment/build_environment.h"
#include "estimator/environment/installer.h"
#include "tests/estimator/snapshot_folders.h"

namespace basin {
namespace {

using absl::StatusCode;
using Lines = std::vector<std::string>;

// PATH is this folder's bin/, and nothing else, as long as it lives.
class ToolsTest : public testing::Test {
 protected:
  ToolsTest() : before_(std::getenv("PATH")) {
    std::filesystem::create_directory(scratch_.At("bin"));
    setenv("PATH", scratch_.At("bin").c_str(), 1);
  }
  ~ToolsTest() override { setenv("PATH", before_.c_str(), 1); }

  void Tool(const std::string& name, const std::string& script) {
    scratch_.Write("bin/" + name, absl::StrCat("#!/bin/sh\nPATH=/usr/bin:/bin\n", script), true);
  }
  // Remembers its words and its environment file, and makes a Python that answers.
  void Conda(const std::string& name) {
    Tool(name, absl::StrCat("if [ \"$1\" = --version ]; then echo 1.5.8; exit 0; fi\n", "printf '%s\\n' \"$@\" > ",
                            scratch_.At("words"), "\n", R"(while [ $# -gt 1 ]; do
  case "$1" in --prefix) prefix=$2;; --file) file=$2;; esac
  shift
done
echo "Linking python"
mkdir -p "$prefix/bin"
printf '#!/bin/sh\necho %s/bin/python\necho 3.9.1\n' "$prefix" > "$prefix/bin/python"
chmod +x "$prefix/bin/python"
cp "$file" )",
                            scratch_.At("file"), "\n"));
  }
  // A Python of this version, which makes virtual environments with a copy of itself.
  void Python3(const std::string& version) {
    Tool("python3", absl::StrCat(R"(case "$*" in
  *"-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python";;
  *"-m pip "*|*ensurepip*) ;;
  *) echo "$0"; echo )",
                                 version, ";;\nesac\n"));
  }
  absl::StatusOr<BuiltEnvironment> Build(const EnvironmentSpec& spec) {
    return BuildEnvironment(spec, scratch_.At("base"), [this](absl::string_view line) { said_.emplace_back(line); });
  }
  bool Said(const std::string& part) const {
    for (const std::string& line : said_) {
      if (absl::StrContains(line, part)) return true;
    }
    return false;
  }

  ScratchFolder scratch_;
  Lines said_;

 private:
  const std::string before_;
};

EnvironmentSpec Pip() {
  EnvironmentSpec spec;
  spec.kind = EnvironmentSpec::Kind::kPip;
  spec.requirements = {"numpy"};
  return spec;
}

EnvironmentSpec Conda() {
  EnvironmentSpec spec;
  spec.kind = EnvironmentSpec::Kind::kConda;
  spec.conda_file = "channels:\n  - conda-forge\ndependencies:\n  - python\n  - scikit-learn\n";
  return spec;
}

TEST_F(ToolsTest, MicromambaIsAskedFirst) {
  Conda("micromamba");
  Conda("conda");
  const auto built = Build(basin::Conda());
  ASSERT_TRUE(built.ok()) << built.status();
  const std::string prefix = scratch_.At("base/environments/" + EnvironmentName(basin::Conda()));
  EXPECT_EQ(built->prefix, prefix);
  EXPECT_EQ(built->python, prefix + "/bin/python");
  EXPECT_FALSE(built->reused);
  EXPECT_EQ(scratch_.Read("words"), absl::StrCat("create\n--yes\n--prefix\n", prefix, "\n--file\n", prefix, ".yml\n"));
  EXPECT_EQ(scratch_.Read("file"), basin::Conda().conda_file);
  EXPECT_TRUE(Said("Linking python"));
  const auto again = Build(basin::Conda());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->reused);
}

TEST_F(ToolsTest, MambaAndCondaMakeEnvironmentsTheirWay) {
  Conda("conda");
  Tool("mamba", "exit 1\n");  // there, but broken
  ASSERT_TRUE(Build(basin::Conda()).ok());
  EXPECT_TRUE(absl::StartsWith(scratch_.Read("words"), "env\ncreate\n--prefix\n")) << scratch_.Read("words");
}

TEST_F(ToolsTest, WithoutAnyCondaAllThreeAreNamed) {
  const absl::Status status = Build(basin::Conda()).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(status.message(), "micromamba, mamba or conda")) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "use pip_packages")) << status;
}

TEST_F(ToolsTest, WhatCondaSaysLastIsInTheError) {
  Tool("conda",
       "[ \"$1\" = --version ] && exit 0\nmkdir -p \"$4\"; echo noise; echo 'PackagesNotFoundError: no-such' >&2; exit "
       "3\n");
  const absl::Status status = Build(basin::Conda()).status();
  EXPECT_EQ(status.code(), StatusCode::kAborted);
  EXPECT_TRUE(
      absl::StrContains(status.message(), "conda failed with exit code 3\n  noise\n  PackagesNotFoundError: no-such"))
      << status;
  EXPECT_FALSE(std::filesystem::exists(scratch_.At("base/environments/" + EnvironmentName(basin::Conda()))));
}

TEST_F(ToolsTest, AHalfBuiltOneIsBuiltAnew) {
  Conda("micromamba");
  const std::string half = "base/environments/" + EnvironmentName(basin::Conda());
  scratch_.Write(half + "/bin/stale", "");
  const auto built = Build(basin::Conda());
  ASSERT_TRUE(built.ok()) << built.status();
  EXPECT_FALSE(built->reused);
  EXPECT_FALSE(scratch_.Has(half + "/bin/stale"));
}

TEST_F(ToolsTest, AnUpdatedPythonGetsAnEnvironmentOfItsOwn) {
  Python3("3.11.2");
  const auto before = Build(Pip());
  ASSERT_TRUE(before.ok()) << before.status();
  EXPECT_EQ(before->prefix, scratch_.At(absl::StrCat("base/environments/", EnvironmentName(Pip()), "-py3.11.2")));
  EXPECT_TRUE(Build(Pip())->reused);
  Python3("3.12.0");
  const auto after = Build(Pip());
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_FALSE(after->reused);
  EXPECT_NE(after->prefix, before->prefix);
  EXPECT_TRUE(std::filesystem::exists(before->python));  // runs may be using it
}

TEST_F(ToolsTest, WhatIsWholeIsNeverRemoved) {
  Conda("micromamba");
  const auto built = Build(basin::Conda());
  ASSERT_TRUE(built.ok()) << built.status();
  std::ofstream(built->prefix + "/in-use") << "by a running job";
  const auto expect_refused = [&](const std::string& part) {
    const absl::Status status = Build(basin::Conda()).status();
    EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), part)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), absl::StrCat("remove ", built->prefix))) << status;
    EXPECT_TRUE(std::filesystem::exists(built->prefix + "/in-use"));
  };
  std::ofstream(built->python) << "#!/bin/sh\necho fork: out of memory\nexit 1\n";
  expect_refused("out of memory");
  std::ofstream(built->python) << "#!/bin/sh\necho x\necho 3.10.0\n";
  expect_refused("built for Python 3.9.1, and finds 3.10.0");
  std::ofstream(built->prefix + "/basin-environment.json") << "[]";
  expect_refused("is not as Basin writes it");
}

TEST_F(ToolsTest, WithoutPythonTheFixIsNamed) {
  const absl::Status status = Build(Pip()).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(status.message(), "no python3 on PATH")) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "apt-get install python3 python3-venv")) << status;
}

TEST_F(ToolsTest, APythonWithoutVenvSaysWhatToInstall) {
  Tool("python3", R"(case "$3" in
  *ensurepip*) echo "ModuleNotFoundError: No module named 'ensurepip'" >&2; exit 1;;
esac
echo "$0"; echo 3.11.2
)");
  const absl::Status status = Build(Pip()).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(status.message(), "bin/python3 (3.11.2)")) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "No module named 'ensurepip'")) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "apt-get install python3-venv")) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "user_managed: true")) << status;
}

TEST_F(ToolsTest, NothingToInstallIsThePythonThatIsThere) {
  auto built = Build(EnvironmentSpec());
  ASSERT_TRUE(built.ok()) << built.status();
  EXPECT_EQ(built->python, "");  // there is none
  Tool("python3", "echo /opt/python/bin/python3.11; echo 3.11.2\n");
  built = Build(EnvironmentSpec());
  ASSERT_TRUE(built.ok()) << built.status();
  EXPECT_EQ(built->python, "/opt/python/bin/python3.11");
  EXPECT_EQ(built->prefix, "");
  EXPECT_FALSE(scratch_.Has("base"));
}

TEST_F(ToolsTest, ToolsDoNotSeeWhatWouldLeadThemAstray) {
  Tool("show", "env; read line || echo nothing to read; exit 7\n");
  setenv("PYTHONPATH", "/ours", 1);
  setenv("KEPT_FOR_TOOLS", "yes", 1);
  const auto outcome = RunInstaller({"show"}, [this](absl::string_view line) { said_.emplace_back(line); });
  unsetenv("PYTHONPATH");
  unsetenv("KEPT_FOR_TOOLS");
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(outcome->exit_code, 7);
  EXPECT_FALSE(Said("PYTHONPATH"));
  EXPECT_TRUE(Said("KEPT_FOR_TOOLS=yes"));
  EXPECT_TRUE(Said("PIP_NO_INPUT=1"));
  EXPECT_TRUE(Said("nothing to read"));
}

TEST_F(ToolsTest, OutputIsCutIntoLinesAndBounded) {
  Tool("bar", "printf 'one\\rtwo\\r\\n\\n'; head -c 100000 /dev/zero | tr '\\0' x; kill -9 $$\n");
  const auto outcome = RunInstaller({"bar"}, [this](absl::string_view line) { said_.emplace_back(line); });
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  ASSERT_EQ(said_.size(), 3u);
  EXPECT_EQ(said_[1], "two");
  EXPECT_EQ(said_[2].size(), 4096u);
  EXPECT_TRUE(absl::StartsWith(outcome->Ending(), "signal 9\n  one\n  two\n  xxx")) << outcome->Ending().substr(0, 40);
  EXPECT_EQ(RunInstaller({"no-such-tool"}, [](absl::string_view) {}).status().code(), StatusCode::kNotFound);
}

TEST(BuiltEnvironmentTest, TextAndBackIsTheSame) {
  const auto again =
      ParseBuiltEnvironment(BuiltEnvironmentToJson({"/base/environments/x", "/base/environments/x/bin/python", true}));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->prefix, "/base/environments/x");
  EXPECT_EQ(again->python, "/base/environments/x/bin/python");
  EXPECT_TRUE(again->reused);
  const absl::Status problem = ParseBuiltEnvironment(EnvironmentProblemToJson(absl::AbortedError("pip: no"))).status();
  EXPECT_EQ(problem.code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(problem.message(), "pip: no");
  for (const char* bad : {"", "[]", "{}", R"({"prefix": 1, "python": ""})"}) {
    EXPECT_EQ(ParseBuiltEnvironment(bad).status().code(), StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace basin
