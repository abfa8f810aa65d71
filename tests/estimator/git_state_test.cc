// What git tells of a source directory, asked of repositories made here.
#include "estimator/history/git_state.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "tests/format/temporary_folder.h"

namespace basin {
namespace {

using State = std::map<std::string, std::string>;

TEST(RepositoryAddressTest, UserAndPasswordAreCutOutOfAddresses) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"https://github.com/acme/net.git", "https://github.com/acme/net.git"},
      {"https://user:secret@github.com/acme/net.git", "https://github.com/acme/net.git"},
      {"https://token@github.com/acme/net.git", "https://github.com/acme/net.git"},
      {"https://user:se/cr@et@host/a.git", "https://host/a.git"},
      {"https://user:p@ss@host:8443/a.git", "https://host:8443/a.git"},
      {"https://host/a@b/net.git", "https://host/a@b/net.git"},
      {"https://user@host/a@b/net.git", "https://host/a@b/net.git"},
      {"https://host/net.git?access_token=secret#secret", "https://host/net.git"},
      {"ssh://git@host:22/acme/net.git", "ssh://host:22/acme/net.git"},
      {"git@github.com:acme/net.git", "github.com:acme/net.git"},
      {"host:acme/net@v1.git", "host:acme/net@v1.git"},
      {"/srv/git/net.git", "/srv/git/net.git"},
      {"../net@2.git", "../net@2.git"},
      {"ext::sh -c 'echo secret'", "ext::..."},
      {"", ""},
  };
  for (const auto& [url, expected] : cases) EXPECT_EQ(WithoutSecrets(url), expected) << url;
}

class GitStateTest : public testing::Test {
 protected:
  void SetUp() override {
    if (std::system("git --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "there is no git";
    // Nothing of the user's own settings, and no repository around the folder.
    setenv("HOME", folder_.path().c_str(), 1);
    setenv("XDG_CONFIG_HOME", folder_.path().c_str(), 1);
    setenv("GIT_CEILING_DIRECTORIES", folder_.path().c_str(), 1);
    std::filesystem::create_directories(source_);
  }
  // With time enough on a loaded machine.
  static State StateOf(const std::string& folder) { return GitState(folder, absl::Minutes(5)); }
  void Git(const std::string& arguments) const {
    ASSERT_EQ(std::system(absl::StrCat("cd ", source_, " && git -c user.name=A -c user.email=a@b ", arguments,
                                       " > /dev/null 2>&1")
                              .c_str()),
              0)
        << arguments;
  }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(absl::StrCat(source_, "/", name)) << text;
  }
  TemporaryFolder folder_;
  const std::string source_ = folder_ / "source";
};

TEST_F(GitStateTest, NothingIsRecordedWithoutARepository) {
  EXPECT_EQ(StateOf(source_), State());
  EXPECT_EQ(StateOf(folder_ / "not there"), State());
}

TEST_F(GitStateTest, RepositoryBranchCommitAndWhetherItIsDirty) {
  Git("init -b topic/x");
  EXPECT_EQ(StateOf(source_), (State{{"azureml.git.branch", "topic/x"}, {"azureml.git.dirty", "False"}}))
      << "a repository without a commit";
  Write("train.py", "1");
  Git("add . ");
  Git("commit -m first");
  Git("remote add upstream https://me:secret@host/up.git");
  State state = StateOf(source_);
  EXPECT_EQ(state["azureml.git.repository_uri"], "https://host/up.git") << "the first remote, where there is no origin";
  Git("remote add origin git@host:acme/net.git");
  std::filesystem::create_directories(source_ + "/deep/er");
  state = StateOf(source_ + "/deep/er");
  EXPECT_EQ(state["azureml.git.repository_uri"], "host:acme/net.git");
  EXPECT_EQ(state["azureml.git.branch"], "topic/x");
  EXPECT_EQ(state["azureml.git.commit"].size(), 40u);
  EXPECT_EQ(state["azureml.git.dirty"], "False");
  Write("new.py", "2");
  EXPECT_EQ(StateOf(source_)["azureml.git.dirty"], "True") << "a file that git does not know reaches the run as well";
  Git("add .");
  Git("commit -m second");
  Write("train.py", "changed");
  EXPECT_EQ(StateOf(source_)["azureml.git.dirty"], "True");
  Git("checkout --detach");
  EXPECT_EQ(StateOf(source_).count("azureml.git.branch"), 0u);
  EXPECT_EQ(StateOf(source_).count("azureml.git.commit"), 1u);
}

TEST_F(GitStateTest, AnotherRepositoryInTheEnvironmentMisleadsNobody) {
  Git("init -b main");
  setenv("GIT_DIR", "/nonexistent", 1);
  EXPECT_EQ(StateOf(source_)["azureml.git.branch"], "main");
  unsetenv("GIT_DIR");
}

TEST_F(GitStateTest, AGitThatHangsIsEndedAndOneThatIsMissingIsNone) {
  const std::string path = std::getenv("PATH");
  const std::string bin = folder_ / "bin";
  std::filesystem::create_directories(bin);
  std::ofstream(bin + "/git") << "#!/bin/sh\nexec sleep 1000\n";
  chmod((bin + "/git").c_str(), 0755);
  setenv("PATH", absl::StrCat(bin, ":", path).c_str(), 1);
  EXPECT_EQ(GitState(source_, absl::Milliseconds(300)), State());
  std::filesystem::remove(bin + "/git");
  setenv("PATH", bin.c_str(), 1);
  EXPECT_EQ(StateOf(source_), State());
  setenv("PATH", path.c_str(), 1);
}

}  // namespace
}  // namespace basin
