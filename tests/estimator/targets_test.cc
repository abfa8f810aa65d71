#include <gtest/gtest.h>
#include <unistd.h>
#include <zstd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "estimator/launch/bundle.h"
#include "estimator/launch/find_target.h"
#include "estimator/launch/ssh_command.h"
#include "estimator/launch/targets_file.h"

namespace basin {
namespace {

TEST(TargetsFileTest, EveryFieldIsRead) {
  const auto targets = ParseTargets(R"(lab:
  kind: ssh
  nodes: [h0, ann@h1:2022, {name: h2, address: 10.0.0.7, user: bob, port: 22}]
  folder: /scratch/basin
  programs: /opt/basin/bin
  bundle: basin.tar.zst
  ssh_config: /etc/ssh/lab.conf
  shared_folders: [/data, /home]
  lease_seconds: 20
  detach_grace_seconds: 60
  ping_seconds: 2
)",
                                    "/here/targets.yaml");
  ASSERT_TRUE(targets.ok()) << targets.status();
  ASSERT_EQ(targets->size(), 1u);
  const Target& lab = targets->front();
  EXPECT_EQ(lab.name, "lab");
  EXPECT_EQ(lab.source, "/here/targets.yaml");
  ASSERT_EQ(lab.nodes.size(), 3u);
  EXPECT_EQ(lab.nodes[0].address, "h0");
  EXPECT_EQ(lab.nodes[1].user, "ann");
  EXPECT_EQ(lab.nodes[1].name, "h1");
  EXPECT_EQ(lab.nodes[1].ssh_port, 2022);
  EXPECT_EQ(lab.nodes[2].address, "10.0.0.7");
  EXPECT_EQ(lab.folder, "/scratch/basin");
  EXPECT_EQ(lab.programs, "/opt/basin/bin");
  EXPECT_EQ(lab.bundle, "/here/basin.tar.zst");  // a path of this machine, from where the file lies
  EXPECT_EQ(lab.ssh_config, "/etc/ssh/lab.conf");
  EXPECT_EQ(absl::StrJoin(lab.shared_folders, " "), "/data /home");
  EXPECT_EQ(lab.lease, absl::Seconds(20));
  EXPECT_EQ(lab.detach_grace, absl::Seconds(60));
  EXPECT_EQ(lab.ping, absl::Seconds(2));
}

TEST(TargetsFileTest, WhatIsWrongIsNamedWithItsPlace) {
  const std::pair<const char*, const char*> rows[] = {
      {"lab: {nodes: [h0], foldr: /x}", "t.yaml:1:20: unknown field \"lab.foldr\"; did you mean \"folder\"?"},
      {"lab: {kind: ssh}", "target lab needs its machines: nodes: [h0, h1]"},
      {"lab:\n  nodes: []", "t.yaml:2:3: lab.nodes: target lab needs its machines: nodes: [h0, h1]; found none"},
      {"lab: {nodes: h0}", "lab.nodes: target lab needs its machines: nodes: [h0, h1]; found \"h0\""},
      {"lab: {nodes: [h0, h0]}", "h0 is listed twice"},
      {"lab: {nodes: [\"-oProxyCommand=x\"]}", "\"-oProxyCommand=x\" is no host"},
      {"lab: {nodes: [\"h0:70000\"]}", "is no host"},
      {"lab: {nodes: [{name: h0, adress: x}]}", "did you mean \"address\"?"},
      {"lab: {kind: slurm, nodes: [h0]}", "lab.nodes: is not of kind: slurm"},
      {"lab: {kind: mpi, nodes: [h0]}",
       "not \"mpi\"; set distributed_backend: mpi in the job; write kind: ssh, slurm,"},
      {"lab: {kind: docker, nodes: [h0]}",
       "not \"docker\"; set custom_docker_image in the job, and container_engine: docker in the target; write kind:"},
      {"lab: {nodes: [h0], programs: build/bin}", "found \"build/bin\"; write its whole path"},
      {"lab: {nodes: [h0], container_engine: []}", "container_engine: names no engine; write podman, docker or"},
      {"here: {kind: local, container_engine: ''}", "container_engine: names no engine"},
      {"lab: {kind: shh, nodes: [h0]}", "unknown kind \"shh\""},
      {"local: {nodes: [h0]}", "the target local is this machine"},
      {"\"a b\": {nodes: [h0]}", "a target's name has letters"},
      {"lab: {nodes: [h0], shared_folders: [data]}", "expected absolute paths"},
      {"lab: {nodes: [h0], lease_seconds: 6, ping_seconds: 5}",
       "the lease must hold at least two pings: lease_seconds is 6, ping_seconds 5; set lease_seconds to 10 or more"},
      {"lab: [h0", "t.yaml:"}};
  for (const auto& [text, expected] : rows) {
    const auto targets = ParseTargets(text, "t.yaml");
    ASSERT_FALSE(targets.ok()) << text;
    EXPECT_TRUE(absl::StrContains(targets.status().message(), expected)) << text << "\n" << targets.status();
  }
}

TEST(TargetsFileTest, HostsOfTheCommandLineAreATarget) {
  const auto target = TargetOfHosts("h0,ann@h1:2022,[fe80::1]:22");
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_EQ(target->nodes.size(), 3u);
  EXPECT_EQ(target->nodes[1].user, "ann");
  EXPECT_EQ(target->nodes[2].name, "fe80::1");
  for (const char* wrong : {"", "h0,", "h0,h0", "a b", "h0:x", "@h0", "h0;reboot"}) {
    EXPECT_FALSE(TargetOfHosts(wrong).ok()) << wrong;
  }
}

TEST(TargetsFileTest, ARecordedTargetIsReadBack) {
  const auto targets = ParseTargets(
      "lab: {nodes: [ann@h0:2022, {name: h1, address: a1}], folder: /x, shared_folders: [/data], ping_seconds: 3}",
      "/t/targets.yaml");
  ASSERT_TRUE(targets.ok());
  const auto back = ParseTargetJson(TargetToJson(targets->front()));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(TargetToJson(*back), TargetToJson(targets->front()));
}

class FindTargetTest : public testing::Test {
 protected:
  FindTargetTest() {
    std::filesystem::create_directories(folder_);
    sources_ = {folder_ + "/user.yaml", folder_ + "/project.yaml", ""};
  }
  ~FindTargetTest() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
  const std::string folder_ = testing::TempDir() + "/basin_targets_test_" + std::to_string(getpid());
  TargetSources sources_;
};

TEST_F(FindTargetTest, TheProjectsFileWinsOverTheUsersAndTheGivenOneOverBoth) {
  Write(sources_.user_file, "lab: {nodes: [user]}\nhome: {nodes: [h]}\n");
  Write(sources_.project_file, "lab: {nodes: [project]}\n");
  EXPECT_EQ(FindTarget("lab", sources_)->nodes[0].name, "project");
  EXPECT_EQ(FindTarget("home", sources_)->nodes[0].name, "h");
  sources_.given_file = folder_ + "/given.yaml";
  const auto missing = FindTarget("lab", sources_);
  ASSERT_FALSE(missing.ok());  // it was named, so it must be there
  EXPECT_TRUE(absl::StartsWith(missing.status().message(), absl::StrCat("--targets ", sources_.given_file, ": ")) &&
              absl::StrContains(missing.status().message(), "correct the path, or leave --targets out"))
      << missing.status();
  Write(sources_.given_file, "lab: {nodes: [given]}\n");
  EXPECT_EQ(FindTarget("lab", sources_)->nodes[0].name, "given");
}

TEST_F(FindTargetTest, AnUnknownTargetNamesTheKnownOnes) {
  Write(sources_.user_file, "cluster: {nodes: [h0]}\n");
  const auto found = FindTarget("clustr", sources_);
  ASSERT_FALSE(found.ok());
  EXPECT_TRUE(absl::StrContains(found.status().message(), "did you mean \"cluster\"? known: local, cluster"))
      << found.status();
}

TEST_F(FindTargetTest, LocalNeedsNoFile) {
  Write(sources_.user_file, "this is: [no targets file");
  EXPECT_TRUE(FindTarget("local", sources_).ok());
}

TEST(SshCommandTest, HostKeysAreNeverWaved) {
  Target target;
  target.ssh_config = "/x/config";
  const std::string words = absl::StrJoin(SshCommand(target, {"h0", "h0", "ann", 2022}, "true"), " ");
  EXPECT_FALSE(absl::StrContains(words, "StrictHostKeyChecking"));
  EXPECT_TRUE(absl::StrContains(words, "-o BatchMode=yes")) << words;
  EXPECT_TRUE(absl::StrContains(words, "-F /x/config -p 2022 -- ann@h0 true")) << words;
}

TEST(SshCommandTest, AnOlderOrOtherSystemIsNamedWithOurs) {
  const NodeSystem ours = {"x86_64", "glibc 2.36"};
  EXPECT_EQ(WhyNotRunnable(ours, ParseProgramsMissing("hello\nBASIN-NONE x86_64 glibc 2.36\n")), "");
  EXPECT_EQ(WhyNotRunnable(ours, ParseProgramsMissing("BASIN-NONE x86_64 glibc 2.41\n")), "");
  for (const auto& [text, theirs] : {std::pair("BASIN-NONE aarch64 glibc 2.36\n", "aarch64 with glibc 2.36"),
                                     std::pair("BASIN-NONE x86_64 glibc 2.9\n", "x86_64 with glibc 2.9"),
                                     std::pair("BASIN-NONE x86_64 none\n", "x86_64 with no glibc")}) {
    const std::string why = WhyNotRunnable(ours, ParseProgramsMissing(text));
    EXPECT_TRUE(absl::StrContains(why, "for x86_64 with glibc 2.36")) << why;
    EXPECT_TRUE(absl::StrContains(why, theirs)) << why;
  }
}

TEST(SshCommandTest, ComplaintsSayWhatToDo) {
  const TargetNode node = {"h1", "h1", "ann", 0};
  const std::pair<const char*, const char*> rows[] = {
      {"@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@\nHost key verification failed.\n", "ssh-keygen -R h1"},
      {"No ED25519 host key is known for h1 and you have requested strict checking.\nHost key verification failed.\n",
       "look at it once: ssh ann@h1"},
      {"ann@h1: Permission denied (publickey).\n", "try: ssh ann@h1"},
      {"ssh: Could not resolve hostname h1: Name or service not known\n", "correct its name"},
      {"ssh: connect to host h1 port 22: Connection refused\r\n", "no sshd listens there"},
      {"ssh: connect to host h1 port 22: Connection timed out\r\n", "is it up"},
      {"ssh: connect to host h1 port 22: No route to host\r\n", "is it up"},
      {"ssh: connect to host h1 port 22: Network is unreachable\r\n", "is it up"},
      {"Connection timed out during banner exchange\r\nConnection to 10.0.0.7 port 22 timed out\r\n", "is it up"},
      {"Timeout, server h1 not responding.\r\n", "is it up"},
      {"kex_exchange_identification: Connection closed by remote host\r\n", "sshd's log"},
      {"something new\n", "try the same by hand: ssh ann@h1 -v"},
      {"", "try the same by hand: ssh ann@h1 -v"}};
  for (const auto& [errors, advice] : rows) {
    const SshAdvice said = SshComplaint(node, {kSshFailed, errors, "", false});
    EXPECT_TRUE(absl::StrContains(said.fix, advice)) << said.fix;
    EXPECT_TRUE(absl::StartsWith(said.found, "ssh: ")) << said.found;
    EXPECT_FALSE(absl::StartsWith(said.found, "ssh: ssh")) << said.found;
  }
}

TEST(SshCommandTest, WhatTheNodeSaysIsNotTakenForSshsWords) {
  const TargetNode node = {"h1", "h1", "ann", 0};
  const SshAdvice agent = SshComplaint(node, {1, "mkdir: cannot create directory: Permission denied\n", "", false});
  EXPECT_EQ(agent.found,
            "no agent answered over ssh ann@h1; it said: mkdir: cannot create directory: Permission denied");
  EXPECT_EQ(agent.fix, "");
  const SshAdvice mail = SshComplaint(node, {0, "", "This account is for mail only.\n", false});
  EXPECT_TRUE(absl::StrContains(mail.found, "its shell printed: This account is for mail only.")) << mail.found;
  const SshAdvice programs = SshComplaint(node, {1, "mkdir: cannot create directory: Permission denied\n", "", true});
  EXPECT_TRUE(absl::StartsWith(programs.found, "Basin's programs could not be stored there; it said: mkdir"))
      << programs.found;
}

// What the shell makes of a script, by way of one word that any login shell must pass on.
std::string Ran(const std::string& script) {
  FILE* pipe = popen(ForAnyShell(script).c_str(), "r");
  std::string out;
  for (int c; (c = std::fgetc(pipe)) != EOF;) out.push_back(static_cast<char>(c));
  pclose(pipe);
  return out;
}

TEST(SshCommandTest, AScriptReachesShWhole) {
  EXPECT_EQ(Ran("printf '%s\\n' \"it's\" 'a\\b' '$HOME' '!x' '100%' '@012' \"two  blanks\"\nprintf %s end\n"),
            "it's\na\\b\n$HOME\n!x\n100%\n@012\ntwo  blanks\nend");
}

class ProgramsOnTheNodeTest : public testing::Test {
 protected:
  ProgramsOnTheNodeTest() {
    std::filesystem::create_directories(folder_ + "/pack/basin-9/bin");
    Program(folder_ + "/pack/basin-9/bin/basin");
    EXPECT_EQ(std::system(absl::StrCat("tar -c -f ", folder_, "/archive.tar -C ", folder_, "/pack basin-9").c_str()),
              0);
    target_.folder = folder_ + "/base";
  }
  ~ProgramsOnTheNodeTest() override { std::filesystem::remove_all(folder_); }
  // One that says its version, and otherwise where it lies.
  static void Program(const std::string& path) {
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path) << "#!/bin/sh\n[ \"$1\" = --version ] && echo basin 9.9.9 || echo ran \"$0\"\n";
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  }
  std::string Archive() {
    std::ifstream file(folder_ + "/archive.tar", std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // As the sender gives it: what the archive is unpacked to, and what marks its end.
  std::string Sent() {
    const std::string archive = Archive();
    std::string packed(ZSTD_compressBound(archive.size()), '\0');
    packed.resize(ZSTD_compress(packed.data(), packed.size(), archive.data(), archive.size(), 1));
    std::ofstream(folder_ + "/archive.tar.zst", std::ios::binary) << packed;
    Bundle bundle;
    bundle.path = folder_ + "/archive.tar.zst";
    auto source = OpenBundle(bundle);
    EXPECT_TRUE(source.ok()) << source.status();
    std::string all;
    while (true) {
      const auto piece = (*source)->Next();
      EXPECT_TRUE(piece.ok()) << piece.status();
      if (!piece.ok() || piece->empty()) return all;
      all += *piece;
    }
  }
  std::string Stored(const std::string& bytes) {
    std::ofstream(folder_ + "/input", std::ios::binary) << bytes;
    return Ran(absl::StrCat("exec < ", folder_, "/input 2>&1\n", StoreProgramsScript(target_, "9.9.9-abcd")));
  }
  std::string Found(const std::string& sent) {
    return Ran("PATH=/usr/bin:/bin\n" + RunBasinScript(target_, "9.9.9", sent, {"agent"}));
  }
  const std::string folder_ = testing::TempDir() + "/basin_programs_test_" + std::to_string(getpid());
  Target target_;
};

TEST_F(ProgramsOnTheNodeTest, AWholeArchiveIsStoredAndRuns) {
  EXPECT_EQ(Stored(Sent()), "BASIN-STORED\n");
  const std::string ran = absl::StrCat("ran ", target_.folder, "/programs/9.9.9-abcd/bin/basin\n");
  EXPECT_EQ(Found("9.9.9-abcd"), ran);
  EXPECT_EQ(Found(""), ran);  // also for whoever no longer has the archive
  EXPECT_TRUE(absl::StartsWith(Found("9.9.9-ffff"), "BASIN-NONE"));
}

TEST_F(ProgramsOnTheNodeTest, AnArchiveThatWasCutBetweenTwoFilesIsNotStored) {
  const std::string sent = Sent();
  for (const size_t size : {Archive().size(), size_t{2048}, size_t{1024}}) {
    ASSERT_LT(size, sent.size());
    EXPECT_EQ(Stored(sent.substr(0, size)), "basin: the archive came in part only\n") << size;
    EXPECT_TRUE(absl::StartsWith(Found("9.9.9-abcd"), "BASIN-NONE"));
  }
}

TEST_F(ProgramsOnTheNodeTest, ProgramsMayBeNamedFromTheHomeThere) {
  Program(folder_ + "/home/it's mine/basin");
  target_.programs = "~/it's mine";
  EXPECT_EQ(Ran(absl::StrCat("HOME=", folder_, "/home\n", RunBasinScript(target_, "9.9.9", "", {"agent"}))),
            absl::StrCat("ran ", folder_, "/home/it's mine/basin\n"));
}

TEST(SshCommandTest, ANodeWithoutBasinSaysSo) {
  Target target;
  target.folder = "/not there/basin's";
  const std::string out =
      Ran("PATH=/usr/bin:/bin\n" + RunBasinScript(target, "9.9.9", "9.9.9-abcd", {"agent", "--run", "x"}));
  EXPECT_TRUE(absl::StartsWith(out, "BASIN-NONE x86_64 glibc ")) << out;
}

}  // namespace
}  // namespace basin
