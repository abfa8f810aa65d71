#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/files.h"
#include "common/base/text.h"
#include "estimator/agent/folder_listing.h"
#include "estimator/agent/node_folder.h"
#include "estimator/agent/programs.h"
#include "estimator/agent/task_command.h"

namespace basin {
namespace {

namespace fs = std::filesystem;

class TemporaryFolder {
 public:
  TemporaryFolder() {
    char name[] = "/tmp/basin_agent_unit_XXXXXX";
    path_ = mkdtemp(name);
  }
  ~TemporaryFolder() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  std::string Write(const std::string& name, const std::string& content, bool executable = false) const {
    const std::string path = absl::StrCat(path_, "/", name);
    fs::create_directories(fs::path(path).parent_path());
    std::ofstream(path) << content;
    if (executable) chmod(path.c_str(), 0755);
    return path;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TaskSurroundings Around() {
  TaskSurroundings around;
  around.paths = {"/basin/bin", "/node/tasks/worker-0", "/node/token"};
  around.programs = {"/basin/bin", "/basin/lib/libbasin.so", "/basin/python"};
  around.metrics_file = "/node/metrics/worker-0.jsonl";
  return around;
}

std::string ValueOf(const Environment& environment, const std::string& name) {
  for (const auto& [known, value] : environment) {
    if (known == name) return value;
  }
  return "(unset)";
}

void Set(agent::StartTask* request, const std::string& name, const std::string& value) {
  agent::Variable* variable = request->add_environment();
  variable->set_name(name);
  variable->set_value(value);
}

TEST(TaskEnvironmentTest, WhatBelongsToAnotherStartIsNotInherited) {
  const char* const variables[] = {"PATH=/usr/bin",
                                   "SSH_CLIENT=1",
                                   "SSH_AUTH_SOCK=/x",
                                   "TF_CONFIG={}",
                                   "BASIN_RANK=3",
                                   "BASIN_INPUT_DATA=/d",
                                   "AZUREML_DATAREFERENCE_data=/d",
                                   "HOME=/h",
                                   "BASIN_CACHE=/c",
                                   "EMPTY=",
                                   "A=b=c",
                                   nullptr};
  EXPECT_EQ(absl::StrJoin(EnvironmentLines(InheritedEnvironment(variables)), " "),
            "A=b=c BASIN_CACHE=/c EMPTY= HOME=/h PATH=/usr/bin");
}

TEST(TaskEnvironmentTest, TheRequestWinsOverTheInheritedAndTheNodeOverBoth) {
  agent::StartTask request;
  Set(&request, "HOME", "{task}/home");
  Set(&request, "BASIN_RUN_DIR", "/wrong");
  Set(&request, "PYTHONPATH", "/mine");
  const Environment made = TaskEnvironment({{"HOME", "/h"}, {"PATH", "/usr/bin"}, {"KEPT", "1"}}, request, Around());
  EXPECT_EQ(ValueOf(made, "HOME"), "/node/tasks/worker-0/home");
  EXPECT_EQ(ValueOf(made, "KEPT"), "1");
  EXPECT_EQ(ValueOf(made, "BASIN_RUN_DIR"), "/node/tasks/worker-0");
  EXPECT_EQ(ValueOf(made, "BASIN_METRICS_FILE"), "/node/metrics/worker-0.jsonl");
  EXPECT_EQ(ValueOf(made, "BASIN_LIBRARY"), "/basin/lib/libbasin.so");
  EXPECT_EQ(ValueOf(made, "PATH"), "/basin/bin:/usr/bin");
  EXPECT_EQ(ValueOf(made, "PYTHONPATH"), "/basin/python:/mine");
  EXPECT_EQ(ValueOf(made, "VIRTUAL_ENV"), "(unset)");
}

TEST(TaskEnvironmentTest, TheRunsEnvironmentComesAfterBasinsPrograms) {
  TaskSurroundings around = Around();
  around.environment_prefix = "/cache/environments/pip-1";
  Environment made = TaskEnvironment({{"PATH", "/usr/bin"}, {"PYTHONHOME", "/other"}}, {}, around);
  EXPECT_EQ(ValueOf(made, "PATH"), "/basin/bin:/cache/environments/pip-1/bin:/usr/bin");
  EXPECT_EQ(ValueOf(made, "VIRTUAL_ENV"), "/cache/environments/pip-1");
  EXPECT_EQ(ValueOf(made, "PYTHONHOME"), "(unset)");
  around.is_conda = true;
  made = TaskEnvironment({}, {}, around);
  EXPECT_EQ(ValueOf(made, "CONDA_PREFIX"), "/cache/environments/pip-1");
  EXPECT_EQ(ValueOf(made, "VIRTUAL_ENV"), "(unset)");
}

TEST(TaskWordsTest, PlaceholdersListenerAndSetup) {
  agent::StartTask request;
  request.add_argv("{programs}/basin-ps");
  request.add_argv("--token-file={token}");
  request.set_port(2222);
  request.set_takes_listener(true);
  EXPECT_EQ(absl::StrJoin(TaskWords(request, Around()), " "),
            "/basin/bin/basin-ps --token-file=/node/token --listen-fd 5");
  request.set_takes_listener(false);
  request.add_setup("module load x");
  request.add_setup("export {task}");  // a shell's braces are its own
  const std::vector<std::string> words = TaskWords(request, Around());
  ASSERT_EQ(words.size(), 7u);
  EXPECT_EQ(words[0] + words[1] + words[3], "bash-cbash");
  EXPECT_EQ(words[4], "module load x\nexport {task}");
  EXPECT_EQ(words[5], "/basin/bin/basin-ps");
}

// Runs `setup`, then a script that prints "ran" and its environment. Returns what is printed, and the end.
std::string RunSetup(const std::vector<std::string>& setup) {
  const TemporaryFolder folder;
  agent::StartTask request;
  for (const std::string& line : setup) request.add_setup(line);
  for (const char* word : {"bash", "-c", "echo ran \"$@\" $ADDED; env | grep basin_", "bash", "one", "two words"}) {
    request.add_argv(word);
  }
  std::vector<std::string> words = TaskWords(request, Around());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const std::string path = folder.path() + "/said";
  const pid_t pid = fork();
  if (pid == 0) {
    const int out = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(out, 1);
    dup2(out, 2);
    execvp(argv[0], argv.data());
    _exit(126);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return absl::StrCat(*ReadFile(path), "code ", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

TEST(TaskWordsTest, TheScriptRunsInTheShellOfItsSetup) {
  EXPECT_EQ(RunSetup({"set -a", "ADDED=from-setup", "if true", "then cd /", "fi", "false || true"}),
            "ran one two words from-setup\ncode 1");  // of grep: nothing of basin's own is left
}

TEST(TaskWordsTest, ASetupThatEndsTheTaskNamesItsLine) {
  const auto ended = [](const char* what, const char* line, int code) {
    return absl::StrCat("basin: setup line ", what, ", before its script: ", line, "\ncode ", code);
  };
  EXPECT_EQ(RunSetup({"true", "false", "true"}), ended("2 ended the task with code 1", "false", 1));
  EXPECT_EQ(RunSetup({"exit 0"}), ended("1 ended the task", "exit 0", 1));
  EXPECT_EQ(RunSetup({"f() {\n return 3\n}", "", "f"}), ended("5 ended the task with code 3", "f", 3));
  EXPECT_EQ(RunSetup({"true", "(exit 4)", "true"}), ended("2 ended the task with code 4", "(exit 4)", 4));
  EXPECT_EQ(RunSetup({"if true", "then exit 7", "fi"}), ended("2 ended the task with code 7", "then exit 7", 7));
  const std::string unset = RunSetup({"true", "set -u", "echo $none_such"});
  EXPECT_TRUE(absl::EndsWith(unset, ended("3 ended the task with code 1", "echo $none_such", 1))) << unset;
  const std::string syntax = RunSetup({"true", "foo ( bar"});
  EXPECT_TRUE(absl::StrContains(syntax, "\nbasin: setup cannot be run: line 2: syntax error near")) << syntax;
  EXPECT_TRUE(absl::EndsWith(syntax, "\ncode 2")) << syntax;
}

TEST(TaskWordsTest, TheEndOfALogTellsOfTheSetup) {
  EXPECT_EQ(SetupProblem("x\nbasin: setup line 2 ended the task, before its script: exit 0\n"),
            "setup line 2 ended the task, before its script: exit 0");
  EXPECT_EQ(SetupProblem("basin: setup line 1 ended\nthe script's own\n"), "");
  EXPECT_EQ(SetupProblem(""), "");
}

TEST(FindTaskProgramTest, LooksAlongThePathOfTheTaskAndInItsTree) {
  const TemporaryFolder folder;
  const std::string program = folder.Write("bin/tool", "#!/bin/sh\n", true);
  folder.Write("bin/plain", "text");
  const Environment environment = {{"PATH", absl::StrCat("/nowhere:", folder.path(), "/bin")}};
  EXPECT_EQ(*FindTaskProgram("tool", environment, folder.path()), program);
  EXPECT_EQ(*FindTaskProgram("bin/tool", environment, folder.path()), folder.path() + "/bin/tool");
  EXPECT_EQ(*FindTaskProgram(program, environment, "/"), program);
  auto none = FindTaskProgram("plain", environment, folder.path());
  EXPECT_TRUE(
      absl::StrContains(none.status().message(), absl::StrCat("program plain is not on this node's PATH (/nowhere:")))
      << none.status();
  none = FindTaskProgram("./bin/plain", environment, folder.path());
  EXPECT_TRUE(absl::StrContains(none.status().message(), "cannot be executed; chmod +x")) << none.status();
  none = FindTaskProgram("./gone", environment, folder.path());
  EXPECT_TRUE(absl::StrContains(none.status().message(), "./gone is not there")) << none.status();
}

TEST(FindTaskProgramTest, AnInterpreterThatIsMissingIsNamed) {
  const TemporaryFolder folder;
  const Environment environment = {{"PATH", "/usr/bin:/bin"}};
  const auto problem = [&](const std::string& first_line) {
    folder.Write("script", first_line + "\n", true);
    return std::string(FindTaskProgram("./script", environment, folder.path()).status().message());
  };
  EXPECT_EQ(problem("#!/bin/bash -e"), "");
  EXPECT_EQ(problem("#!/usr/bin/env bash"), "");
  EXPECT_EQ(problem("#!/usr/bin/env -S bash -e"), "");
  EXPECT_EQ(problem("no script"), "");
  EXPECT_TRUE(absl::StrContains(problem("#!/usr/bin/env no-such-python"), "program no-such-python is not on"));
  EXPECT_TRUE(absl::StrContains(problem("#! /opt/none/python"), "interpreter /opt/none/python"));
  EXPECT_TRUE(absl::StrContains(problem("#!/bin/bash\r"), "carriage return"));
}

TEST(FilesTest, TheTailOfALogIsItsLastBytes) {
  const TemporaryFolder folder;
  folder.Write("log", "one\ntwo\nthree\n");
  const std::string path = folder.path() + "/log";
  EXPECT_EQ(*ReadTail(path, 6), "three\n");
  EXPECT_EQ(*ReadTail(path, 1000), "one\ntwo\nthree\n");
  EXPECT_TRUE(absl::IsNotFound(ReadTail(path + "x", 6).status()));
}

TEST(TextTest, OnlyWellFormedTextIsUtf8) {
  for (const char* good : {"", "plain", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xed\x9f\xbf"}) {
    EXPECT_TRUE(IsUtf8(good)) << good;
  }
  // Cut, a lone follower, longer than need be, half of a pair, beyond the last.
  for (const char* bad :
       {"a\xc3", "\x80", "\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff"}) {
    EXPECT_FALSE(IsUtf8(bad)) << bad;
  }
}

TEST(FolderListingTest, FoldersCountToo) {
  const TemporaryFolder folder;
  for (int i = 0; i < 50; ++i) fs::create_directories(absl::StrCat(folder.path(), "/outputs/", i, "/empty"));
  const auto tree = FolderBeneath::Open(folder.path());
  EXPECT_FALSE(ListFolder(*tree, "outputs", {.max_entries = 100}).is_cut);
  const FolderListing listing = ListFolder(*tree, "outputs", {.max_entries = 99});
  EXPECT_TRUE(listing.is_cut);
  EXPECT_TRUE(listing.files.empty());
}

TEST(FolderListingTest, OddNamesAndKindsAreToldApart) {
  const TemporaryFolder folder;
  folder.Write("outputs/b/inner", "12345", true);
  folder.Write("outputs/a", "");
  folder.Write("outputs/bad\xff", "x");
  folder.Write("outputs/new\nline", "x");
  fs::create_symlink("b/inner", folder.path() + "/outputs/link");
  fs::create_directory_symlink("/etc", folder.path() + "/outputs/etc");
  ASSERT_EQ(mkfifo((folder.path() + "/outputs/pipe").c_str(), 0600), 0);
  const auto tree = FolderBeneath::Open(folder.path());
  const FolderListing listing = ListFolder(*tree, "outputs", {.max_entries = 100});
  std::string shown;
  for (const ListedFile& file : listing.files) {
    absl::StrAppend(&shown, file.path, " ", static_cast<int>(file.kind), " ", file.bytes, " ", file.executable, " ",
                    file.target, "\n");
  }
  EXPECT_EQ(shown, "a 0 0 0 \nb/inner 0 5 1 \netc 1 0 0 /etc\nlink 1 0 0 b/inner\npipe 2 0 0 \n");
  EXPECT_EQ(listing.left_out.count(), 2u);
  EXPECT_EQ(listing.left_out.names().size(), 2u);
  EXPECT_FALSE(listing.is_cut);
  EXPECT_TRUE(ListFolder(*tree, "outputs", {.max_entries = 3}).is_cut);
  EXPECT_FALSE(ListFolder(*tree, "outputs", {.max_entries = 8}).is_cut);  // one of the 7 names is a folder with an 8th
  EXPECT_TRUE(ListFolder(*tree, "outputs", {.max_entries = 7}).is_cut);
  EXPECT_TRUE(ListFolder(*tree, "absent", {.max_entries = 3}).files.empty());
  EXPECT_TRUE(ListFolder(*tree, "outputs/etc", {.max_entries = 3}).files.empty());  // not followed
}

TEST(FolderListingTest, WhatAKilledWriterHasLeftIsNoOutput) {
  const TemporaryFolder folder;
  folder.Write("outputs/model.safetensors", "old");
  folder.Write("outputs/.model.safetensors.basin-tmp.4711", "half");
  folder.Write("outputs/deep/.evaluation.json.basin-tmp.4711", "{");
  folder.Write("outputs/.hidden", "the script's own");
  const FolderListing listing = ListFolder(*FolderBeneath::Open(folder.path()), "outputs", {.max_entries = 100});
  ASSERT_EQ(listing.files.size(), 2u);
  EXPECT_EQ(listing.files[0].path, ".hidden");
  EXPECT_EQ(listing.files[1].path, "model.safetensors");
  EXPECT_EQ(listing.left_out.count(), 0u);
}

TEST(FolderListingTest, AllThatIsLeftOutIsCountedAndTheFirstNamed) {
  const TemporaryFolder folder;
  for (int i = 0; i < 700; ++i) folder.Write(absl::StrCat("outputs/odd\xff", i), "");
  for (int i = 0; i < 300; ++i) folder.Write(absl::StrCat("outputs/deep/er/", i), "");
  const auto tree = FolderBeneath::Open(folder.path());
  FolderListing listing = ListFolder(*tree, "outputs", {.max_entries = 2000, .counts_the_rest = true});
  EXPECT_EQ(listing.left_out.count(), 700u);
  EXPECT_EQ(listing.left_out.names().size(), 500u);
  EXPECT_FALSE(listing.is_cut);
  listing = ListFolder(*tree, "outputs", {.max_entries = 150, .counts_the_rest = true});
  EXPECT_TRUE(listing.is_cut);
  EXPECT_EQ(listing.files.size() + listing.left_out.count(), 1000u) << "folders are no files";
  LeftOut more;
  more.Add("one", 3);
  more.AddAll(listing.left_out, "worker-0/outputs/");
  EXPECT_EQ(more.count(), 3 + listing.left_out.count());
  EXPECT_TRUE(absl::StartsWith(more.names()[1], "worker-0/outputs/odd?")) << more.names()[1];
}

TEST(ProgramsTest, BundlesAndBuildFoldersAreUnderstood) {
  const TemporaryFolder folder;
  folder.Write("bundle/bin/basin", "");
  folder.Write("bundle/lib/libbasin.so", "");
  folder.Write("bundle/python/basin/__init__.py", "");
  const Programs bundle = FindPrograms(folder.path() + "/bundle/bin/basin");
  EXPECT_EQ(bundle.folder, folder.path() + "/bundle/bin");
  EXPECT_EQ(bundle.library, folder.path() + "/bundle/lib/libbasin.so");
  EXPECT_EQ(bundle.python, folder.path() + "/bundle/python");
  folder.Write("source/build/release/bin/basin", "");
  folder.Write("source/build/release/CMakeCache.txt", "");
  folder.Write("source/python/basin/__init__.py", "");
  const Programs build = FindPrograms(folder.path() + "/source/build/release/bin/basin");
  EXPECT_EQ(build.python, folder.path() + "/source/python");
  EXPECT_EQ(build.library, "");
}

TEST(NodeFolderTest, RunIdsThatCouldLeadElsewhereAreRefused) {
  for (const std::string bad : {"", ".", "..", "a/b", "-x", ".hidden", "a b", "a\n"})
    EXPECT_FALSE(CheckRunId(bad).ok()) << bad;
  EXPECT_FALSE(CheckRunId(std::string(200, 'a')).ok());
  EXPECT_TRUE(CheckRunId("exp_1764370000_ab12.x").ok());
}

TEST(NodeFolderTest, TheBaseIsChosenInOrder) {
  EXPECT_EQ(*ChooseBase("/named", "/cache", "/xdg", "/home/u"), "/named");
  EXPECT_EQ(*ChooseBase("~/basin", "/cache", "/xdg", "/home/u"), "/home/u/basin");
  EXPECT_EQ(*ChooseBase("", "/cache", "/xdg", "/home/u"), "/cache");
  EXPECT_EQ(*ChooseBase("", "", "/xdg", "/home/u"), "/xdg/basin");
  EXPECT_EQ(*ChooseBase("", "", "", "/home/u"), "/home/u/.cache/basin");
  EXPECT_FALSE(ChooseBase("", "", "", "").ok());
  EXPECT_FALSE(ChooseBase("~/x", "/cache", "", "").ok());
}

TEST(NodeFolderTest, ABaseThatOthersMayWriteIsRefused) {
  const TemporaryFolder folder;
  chmod(folder.path().c_str(), 0777);
  EXPECT_EQ(MakeNodeFolder(folder.path(), "run", 0).status().code(), absl::StatusCode::kPermissionDenied);
  chmod(folder.path().c_str(), 01777);  // as /tmp
  EXPECT_TRUE(MakeNodeFolder(folder.path(), "run", 0).ok());
}

}  // namespace
}  // namespace basin
