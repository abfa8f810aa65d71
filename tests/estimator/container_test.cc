// What podman, docker and apptainer are told, without any of them.
#include "estimator/container/container.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/files.h"
#include "estimator/agent/task_container.h"
#include "estimator/container/image_place.h"
#include "estimator/container/in_container.h"
#include "estimator/container/prepare_image.h"
#include "estimator/container/removal.h"

namespace basin {
namespace {

using Words = std::vector<std::string>;

bool Has(const Words& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

NodeImage ImageOf(ContainerEngine engine) {
  return {engine, absl::StrCat("/usr/bin/", Name(engine)), "0123456789abcdef", "0123456789ab", "version 1", false};
}

ContainerRequest Request() {
  ContainerRequest request;
  request.image = "a/b:1";
  return request;
}

ContainedCommand Command() {
  ContainedCommand command;
  command.name = "basin-r1-0-worker-0-1";
  command.run_id = "r1";
  command.argv = {"python3", "/runs/t/train.py", "--rate", "0.1"};
  command.environment = {{"PASSWORD", "it's s3cret"}, {"PATH", "/mine"}};
  command.path = {"/programs/bin", "/env/bin"};
  command.python_path = {"/programs/python"};
  command.folder = "/runs/t";
  command.home = "/runs/home";
  command.mounts = {{"/runs", false}, {"/data", true}};
  return command;
}

constexpr uid_t kUid = 1234;

ContainerUser User() {
  ContainerUser user = {kUid, 100, {100, 27}, 0027};
  user.open_files = {1024, 4096};
  return user;
}

EngineCommand Made(const NodeImage& image, const ContainerRequest& request = Request()) {
  const absl::StatusOr<EngineCommand> made = InContainer(image, request, User(), Command());
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *made : EngineCommand();
}

TEST(ContainerTest, PodmanRunsWithTheNodesNetworkProcessesAndSharedMemory) {
  EXPECT_EQ(Made(ImageOf(ContainerEngine::kPodman)).argv, (Words{"/usr/bin/podman",
                                                                 "run",
                                                                 "--rm",
                                                                 "--interactive",
                                                                 "--name",
                                                                 "basin-r1-0-worker-0-1",
                                                                 "--label",
                                                                 "basin.run=r1",
                                                                 "--pull=never",
                                                                 "--log-driver=none",
                                                                 "--network=host",
                                                                 "--pid=host",
                                                                 "--security-opt=label=disable",
                                                                 "--pids-limit=-1",
                                                                 "--ulimit=nofile=1024:4096",
                                                                 "--ulimit=nproc=-1:-1",
                                                                 "--ipc=host",
                                                                 "--user=1234:100",
                                                                 "--mount",
                                                                 "type=bind,source=/runs,target=/runs",
                                                                 "--mount",
                                                                 "type=bind,source=/data,target=/data,readonly",
                                                                 "--workdir=/runs/t",
                                                                 "--entrypoint=/bin/sh",
                                                                 "0123456789abcdef",
                                                                 "-c",
                                                                 "eval \"$(cat)\"",
                                                                 "sh",
                                                                 "python3",
                                                                 "/runs/t/train.py",
                                                                 "--rate",
                                                                 "0.1"}));
}

TEST(ContainerTest, DockerIsToldTheUsersGroups) {
  EXPECT_EQ(Made(ImageOf(ContainerEngine::kDocker)).argv, (Words{"/usr/bin/docker",
                                                                 "run",
                                                                 "--rm",
                                                                 "--interactive",
                                                                 "--name",
                                                                 "basin-r1-0-worker-0-1",
                                                                 "--label",
                                                                 "basin.run=r1",
                                                                 "--pull=never",
                                                                 "--log-driver=none",
                                                                 "--network=host",
                                                                 "--pid=host",
                                                                 "--security-opt=label=disable",
                                                                 "--pids-limit=-1",
                                                                 "--ulimit=nofile=1024:4096",
                                                                 "--ulimit=nproc=-1:-1",
                                                                 "--ipc=host",
                                                                 "--user=1234:100",
                                                                 "--group-add=100",
                                                                 "--group-add=27",
                                                                 "--mount",
                                                                 "type=bind,source=/runs,target=/runs",
                                                                 "--mount",
                                                                 "type=bind,source=/data,target=/data,readonly",
                                                                 "--workdir=/runs/t",
                                                                 "--entrypoint=/bin/sh",
                                                                 "0123456789abcdef",
                                                                 "-c",
                                                                 "eval \"$(cat)\"",
                                                                 "sh",
                                                                 "python3",
                                                                 "/runs/t/train.py",
                                                                 "--rate",
                                                                 "0.1"}));
}

TEST(ContainerTest, ApptainerHasTheNodesNetworkBySelfAndNeedsNoRemoval) {
  const EngineCommand made = Made(ImageOf(ContainerEngine::kApptainer));
  EXPECT_EQ(made.argv, (Words{"/usr/bin/apptainer", "exec", "--cleanenv", "--no-home", "--pwd", "/runs/t", "--bind",
                              "/runs:/runs", "--bind", "/data:/data:ro", "0123456789abcdef", "/bin/sh", "-c",
                              "eval \"$(cat)\"", "sh", "python3", "/runs/t/train.py", "--rate", "0.1"}));
  EXPECT_EQ(made.remove, Words());
}

TEST(ContainerTest, EnginesThatBelongToTheUserKeepTheUser) {
  NodeImage podman = ImageOf(ContainerEngine::kPodman);
  podman.is_rootless = true;
  EXPECT_TRUE(Has(Made(podman).argv, "--userns=keep-id"));
  EXPECT_TRUE(Has(Made(podman).argv, "--user=1234:100"));
  // Its root is the user outside.
  NodeImage docker = ImageOf(ContainerEngine::kDocker);
  docker.is_rootless = true;
  EXPECT_TRUE(Has(Made(docker).argv, "--user=0:0"));
  EXPECT_FALSE(absl::StrContains(absl::StrJoin(Made(docker).argv, " "), "--group-add"));
}

TEST(ContainerTest, GpusAndSharedMemoryAreAskedForInEachEnginesWords) {
  ContainerRequest request = Request();
  request.gpus = true;
  EXPECT_TRUE(Has(Made(ImageOf(ContainerEngine::kPodman), request).argv, "--device=nvidia.com/gpu=all"));
  EXPECT_TRUE(Has(Made(ImageOf(ContainerEngine::kDocker), request).argv, "--gpus=all"));
  EXPECT_TRUE(Has(Made(ImageOf(ContainerEngine::kApptainer), request).argv, "--nv"));
  request.shm_bytes = 2147483648;
  for (const ContainerEngine engine : {ContainerEngine::kPodman, ContainerEngine::kDocker}) {
    EXPECT_TRUE(Has(Made(ImageOf(engine), request).argv, "--shm-size=2147483648"));
    EXPECT_FALSE(Has(Made(ImageOf(engine), request).argv, "--ipc=host"));
  }
  const auto apptainer = InContainer(ImageOf(ContainerEngine::kApptainer), request, User(), Command());
  EXPECT_TRUE(absl::StrContains(std::string(apptainer.status().message()), "shm_size: apptainer gives"))
      << std::string(apptainer.status().message());
}

TEST(ContainerTest, TheTargetsFlagsStandWhereTheyBelong) {
  ContainerRequest request = Request();
  request.settings.engine_options = {"--storage-driver", "vfs"};
  request.settings.options = {"--cgroups=no-conmon"};
  const std::vector<std::string> argv = Made(ImageOf(ContainerEngine::kPodman), request).argv;
  EXPECT_EQ(std::vector<std::string>(argv.begin(), argv.begin() + 4),
            (Words{"/usr/bin/podman", "--storage-driver", "vfs", "run"}));
  const std::string text = absl::StrJoin(argv, " ");
  EXPECT_TRUE(absl::StrContains(text, "--workdir=/runs/t --cgroups=no-conmon --entrypoint=/bin/sh 0123456789abcdef"))
      << text;
  EXPECT_EQ(Made(ImageOf(ContainerEngine::kPodman), request).remove,
            (Words{"/usr/bin/podman", "--storage-driver", "vfs", "rm", "--force", "--ignore", "--time=0",
                   "basin-r1-0-worker-0-1"}));
  EXPECT_EQ(Made(ImageOf(ContainerEngine::kDocker), request).remove,
            (Words{"/usr/bin/docker", "--storage-driver", "vfs", "rm", "--force", "basin-r1-0-worker-0-1"}));
}

TEST(ContainerTest, NoVariableStandsOnTheCommandLine) {
  for (const ContainerEngine engine :
       {ContainerEngine::kPodman, ContainerEngine::kDocker, ContainerEngine::kApptainer}) {
    const EngineCommand made = Made(ImageOf(engine));
    EXPECT_FALSE(absl::StrContains(absl::StrJoin(made.argv, " "), "s3cret"));
    EXPECT_TRUE(absl::StrContains(made.input, "s3cret")) << made.input;
  }
}

TEST(ContainerTest, PathsThatAnEngineWouldMisreadAreRefused) {
  ContainedCommand command = Command();
  command.mounts = {{"/data/a,b", true}};
  const auto podman = InContainer(ImageOf(ContainerEngine::kPodman), Request(), User(), command);
  EXPECT_EQ(podman.status().message(),
            "/data/a,b has a character that podman does not take in a mount's path (,\"); rename it");
  command.mounts = {{"/data/a:b", true}};
  EXPECT_TRUE(InContainer(ImageOf(ContainerEngine::kPodman), Request(), User(), command).ok());
  EXPECT_FALSE(InContainer(ImageOf(ContainerEngine::kApptainer), Request(), User(), command).ok());
  command.mounts = {{"/", true}};
  EXPECT_FALSE(InContainer(ImageOf(ContainerEngine::kPodman), Request(), User(), command).ok());
}

// The script, as a shell in a container would run it: what it prints, and its exit code.
std::string RunScript(const ContainedCommand& command, const std::string& before, int* code,
                      const std::string& shell = "/bin/sh") {
  ContainedCommand all = command;
  const absl::StatusOr<EngineCommand> made = InContainer(ImageOf(ContainerEngine::kApptainer), Request(), User(), all);
  EXPECT_TRUE(made.ok()) << made.status();
  const std::string path = absl::StrCat(testing::TempDir(), "/container_test_", getpid(), ".sh");
  EXPECT_TRUE(WriteFileAtomically(path, made->input, 0600).ok());
  std::string line = absl::StrCat(before, " ", shell, " -c 'eval \"$(cat)\"' sh");
  for (const std::string& word : command.argv) absl::StrAppend(&line, " '", word, "'");
  absl::StrAppend(&line, " <", path, " 2>&1");
  FILE* pipe = popen(line.c_str(), "r");
  std::string text;
  char buffer[4096];
  for (size_t got; (got = fread(buffer, 1, sizeof buffer, pipe)) > 0;) text.append(buffer, got);
  const int status = pclose(pipe);
  *code = WEXITSTATUS(status);
  unlink(path.c_str());
  return text;
}

TEST(ContainerTest, TheShellSetsVariablesOfAnyContentAndBecomesTheCommand) {
  ContainedCommand command = Command();
  command.environment = {
      {"A", "it's \"x\" $HOME `id`\nsecond line\\"}, {"azureml.b", "c d"}, {"PATH", "/usr/bin:/bin"}};
  command.path = {"/programs", "/env/bin"};
  command.argv = {"/bin/sh", "-c",
                  "printf \"%s|\" \"$A\" \"$PATH\" \"$PYTHONPATH\" \"$1\"; tr \"\\\\0\" \"\\\\n\" </proc/$$/environ | "
                  "grep azureml; umask; cat; exit 7",
                  "sh", "a  b"};
  int code = 0;
  EXPECT_EQ(RunScript(command, "PYTHONPATH=/image", &code),
            "it's \"x\" $HOME `id`\nsecond line\\|/programs:/env/bin:/usr/bin:/bin|/programs/python:/image|a  b|"
            "azureml.b=c d\n0027\n");
  EXPECT_EQ(code, 7);
}

TEST(ContainerTest, NamesThatShellsKeepForThemselvesReachTheCommandToo) {
  ContainedCommand command = Command();
  command.environment = {{"UID", "7"}, {"PATH", "/usr/bin:/bin"}, {"SHELLOPTS", "x"}, {"RANDOM", "8"}};
  command.argv = {"env"};
  for (const char* shell : {"/bin/sh", "/bin/bash --posix"}) {  // as bash is where it is /bin/sh
    int code = 0;
    const std::string text = RunScript(command, "", &code, shell);
    EXPECT_EQ(code, 0) << shell << ": " << text;
    for (const char* line : {"UID=7\n", "SHELLOPTS=x\n", "RANDOM=8\n"})
      EXPECT_TRUE(absl::StrContains(text, line)) << text;
  }
}

TEST(ContainerTest, AMissingProgramIsNamedWithTheImage) {
  ContainedCommand command = Command();
  command.environment = {};
  command.argv = {"no-such-python", "x"};
  int code = 0;
  EXPECT_EQ(
      RunScript(command, "", &code),
      "basin: image a/b:1 has no program no-such-python that can be run; install it in the image, or name another "
      "one in custom_docker_image\n");
  EXPECT_EQ(code, 127);
}

TEST(ContainerTest, AHomeThatCannotBeWrittenIsReplaced) {
  ContainedCommand command = Command();
  command.argv = {"/bin/sh", "-c", "echo $HOME"};
  int code = 0;
  EXPECT_EQ(RunScript(command, "env -u HOME", &code), "/runs/home\n");
  EXPECT_EQ(RunScript(command, "HOME=/not/there", &code), "/runs/home\n");
  EXPECT_EQ(RunScript(command, "HOME=/tmp", &code), "/tmp\n");
}

// A PATH of its own, with a shell and what the test puts there.
class EngineTest : public testing::Test {
 protected:
  EngineTest() : before_(getenv("PATH")) {
    std::filesystem::create_directories(folder_);
    std::filesystem::create_symlink("/bin/sh", folder_ + "/sh");
    setenv("PATH", folder_.c_str(), 1);
  }
  ~EngineTest() override {
    setenv("PATH", before_.c_str(), 1);
    std::filesystem::remove_all(folder_);
  }

  std::string Problem(std::vector<ContainerEngine> engines) {
    ContainerRequest request;
    request.image = "a/b";
    request.settings.engines = std::move(engines);
    const auto image = PrepareImage(request, folder_, [](absl::string_view) {});
    EXPECT_EQ(image.status().code(), absl::StatusCode::kFailedPrecondition) << image.status();
    return std::string(image.status().message());
  }

  const std::string before_;
  const std::string folder_ = testing::TempDir() + "/basin_engine_test_" + std::to_string(getpid());
};

TEST_F(EngineTest, TheEngineThatWasAskedForIsAdvised) {
  const std::pair<ContainerEngine, const char*> rows[] = {
      {ContainerEngine::kPodman, "install podman (Debian: apt-get install podman)"},
      {ContainerEngine::kDocker, "install docker (Debian: apt-get install docker.io)"},
      {ContainerEngine::kApptainer, "install apptainer (packages: github.com/apptainer/apptainer/releases)"}};
  for (const auto& [engine, advice] : rows) {
    EXPECT_EQ(Problem({engine}),
              absl::StrCat("there is no ", Name(engine), " on PATH, which image a/b needs", kNextStep, advice,
                           ", name another in the target's container_engine, or remove ", "custom_docker_image"));
  }
}

TEST_F(EngineTest, WhatABrokenEngineSaysIsOneLine) {
  const std::string docker = folder_ + "/docker";
  ASSERT_TRUE(
      WriteFileAtomically(docker, "#!/bin/sh\necho Client:\necho '  Cannot connect to the daemon'\nexit 1\n", 0700)
          .ok());
  EXPECT_EQ(
      Problem({ContainerEngine::kDocker}),
      absl::StrCat("docker (", docker, ") does not work: exit code 1; Client:; Cannot connect to the daemon", kNextStep,
                   "start its daemon there, and let this user use it (group docker), or name another engine in ",
                   "the target's container_engine"));
}

TEST(ContainerTest, ShortNamesAreReadAsDockerReadsThem) {
  EXPECT_EQ(FullImageName("python:3.11"), "docker.io/library/python:3.11");
  EXPECT_EQ(FullImageName("continuumio/miniconda"), "docker.io/continuumio/miniconda");
  EXPECT_EQ(FullImageName("localhost/a:1"), "localhost/a:1");
  EXPECT_EQ(FullImageName("registry:5000/a"), "registry:5000/a");
  EXPECT_EQ(FullImageName("nvcr.io/nvidia/pytorch:24.01-py3"), "nvcr.io/nvidia/pytorch:24.01-py3");
}

TEST(ContainerTest, PatternsAreSeenByTheFolderAboveThem) {
  EXPECT_EQ(MountFor("/data/clicks/*.parquet"), "/data/clicks");
  EXPECT_EQ(MountFor("/data/2[0-9]/a/b"), "/data");
  EXPECT_EQ(MountFor("/data/a.csv"), "/data/a.csv");
  EXPECT_EQ(MountFor("/data/"), "/data");
  EXPECT_EQ(MountFor("/*.csv"), "/");
}

TEST(ContainerTest, PathsOfRequirementsAreFound) {
  EXPECT_EQ(PathsIn({"numpy==1.2", "/w/a-1.whl", "-f /wheels", "--find-links=/more", "b @ file:///w/b.whl ; x > '1'",
                     "c @ https://h/c.whl", "-f/close"}),
            (Words{"/w/a-1.whl", "/wheels", "/more", "/w/b.whl", "/close"}));
}

TEST(ContainerTest, ARequestIsWrittenAndReadBack) {
  ContainerRequest request = Request();
  request.settings.engines = {ContainerEngine::kDocker};
  request.settings.engine_options = {"--context", "a b"};
  request.settings.options = {"--cpus=2"};
  request.shm_bytes = 7;
  request.gpus = true;
  request.paths = {"/data/*.csv"};
  const auto read = ParseContainerRequest(ContainerRequestToText(request));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, request);
  for (const char* wrong : {"", "{}", "[]", "{\"image\": \"a\"}"}) EXPECT_FALSE(ParseContainerRequest(wrong).ok());

  NodeImage image = ImageOf(ContainerEngine::kApptainer);
  image.is_rootless = true;
  EXPECT_EQ(ParseNodeImage(NodeImageToJson(image)).value_or(NodeImage()), image);
  EXPECT_FALSE(ParseNodeImage("{}").ok());
}

TEST(ContainerTest, ProgramsAmongOthersAreMountedFileByFile) {
  Programs programs;
  programs.folder = "/opt/basin/bin";
  programs.library = "/opt/basin/lib/libbasin.so";
  programs.python = "/opt/basin/python";
  EXPECT_EQ(ProgramMounts(programs),
            (std::vector<ContainerMount>{ContainerMount{"/opt/basin/bin", true}, ContainerMount{"/opt/basin/lib", true},
                                         ContainerMount{"/opt/basin/python", true}}));
  // A folder of the system must not hide the image's own.
  programs = Programs();
  programs.folder = "/usr/bin";
  for (const ContainerMount& mount : ProgramMounts(programs)) {
    EXPECT_TRUE(absl::StartsWith(mount.path, "/usr/bin/basin")) << mount.path;
  }
}

TEST(ContainerTest, NotedRemovalsAreCarriedOutUntilTheySucceed) {
  std::string folder = absl::StrCat(testing::TempDir(), "/removals-XXXXXX");
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string notes = absl::StrCat(folder, "/notes"), trace = absl::StrCat(folder, "/trace");
  EXPECT_FALSE(HasNoted(notes));
  RemoveNoted(notes, absl::Seconds(1));
  ASSERT_TRUE(NoteRemoval(notes, "a", {"/bin/sh", "-c", "echo a >>\"$0\"", trace}).ok());
  ASSERT_TRUE(NoteRemoval(notes, "b", {"/bin/sh", "-c", "echo b >>\"$0\"; exit 3", trace}).ok());
  ASSERT_TRUE(NoteRemoval(notes, "c", {"/bin/sh", "-c", "echo c >>\"$0\"", trace}).ok());
  ForgetRemoval(notes, "c");
  EXPECT_TRUE(HasNoted(notes));
  testing::internal::CaptureStderr();
  RemoveNoted(notes, absl::Seconds(60));
  RemoveNoted(notes, absl::Seconds(60));
  EXPECT_TRUE(
      absl::StrContains(testing::internal::GetCapturedStderr(), "container b may be left: it failed with exit code 3"));
  EXPECT_EQ(ReadFile(trace).value_or(""), "a\nb\nb\n");
  EXPECT_TRUE(HasNoted(notes));
  ForgetRemovals(notes);
  EXPECT_FALSE(HasNoted(notes));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace basin
