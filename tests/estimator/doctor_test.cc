// What the doctor makes of what it saw on the nodes, without nodes.
#include "estimator/launch/doctor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace basin {
namespace {

constexpr char kVersion[] = "1.2.0";

// Three nodes, h0 to h2 at 10.0.0.1 to 10.0.0.3, where all is well.
class DoctorTest : public testing::Test {
 protected:
  DoctorTest() { Make(3); }

  void Make(int nodes) {
    target_ = Target();
    target_.name = "lab";
    target_.kind = TargetKind::kSsh;
    for (int i = 0; i < nodes; ++i) target_.nodes.push_back({Name(i), Name(i), "", 0});
    needs_ = UsualNeeds(nodes);
    visits_.assign(nodes, {});
    for (int i = 0; i < nodes; ++i) {
      NodeVisit& visit = visits_[i];
      visit.hello = {kVersion,          Name(i), "x86_64", "glibc 2.36", 0, "no NVIDIA driver is loaded",
                     uint64_t{4} << 30, 65536};
      visit.looked = true;
      for (int j = 0; j < nodes; ++j) visit.look.resolved.push_back({Name(j), {Ip(j)}, ""});
      visit.look.ports = {2222, 2223, 2224, 2225};
      visit.look.ports_note = absl::StrCat("ports are held on ", Ip(i));
    }
    for (const auto& [from, to] : PairsToTry(nodes)) {
      for (const int port : visits_[to].look.ports) {
        visits_[from].reached.push_back({to, port, Ip(to), DoctorReach::kAnswered, ""});
      }
    }
  }
  static std::string Name(int i) { return absl::StrCat("h", i); }
  static std::string Ip(int i) { return absl::StrCat("10.0.0.", i + 1); }

  std::vector<DoctorFinding> Findings() const { return Diagnose(target_, needs_, bundle_, kVersion, visits_); }
  // Those that are not ok, as "STATE NODE CHECK".
  std::vector<std::string> Bad() const {
    std::vector<std::string> bad;
    for (const DoctorFinding& one : Findings()) {
      EXPECT_EQ(one.fix.empty(), one.state == DoctorState::kOk) << one.check << ": " << one.found;
      if (one.state != DoctorState::kOk) {
        bad.push_back(absl::StrCat(DoctorStateName(one.state), " ", one.node, " ", one.check));
      }
    }
    return bad;
  }
  DoctorFinding The(const std::string& node, const std::string& check) const {
    std::vector<DoctorFinding> found;
    for (const DoctorFinding& one : Findings()) {
      if (one.node == node && one.check == check) found.push_back(one);
    }
    EXPECT_EQ(found.size(), 1u) << node << " " << check;
    return found.empty() ? DoctorFinding() : found[0];
  }
  void ExpectIn(const std::string& text, const std::string& part) const {
    EXPECT_TRUE(absl::StrContains(text, part)) << "\"" << part << "\" is not in \"" << text << "\"";
  }

  Target target_;
  DoctorNeeds needs_;
  DoctorBundle bundle_ = {"/opt/basin-1.2.0-linux-x86_64.tar.zst", {"x86_64", "glibc 2.36"}};
  std::vector<NodeVisit> visits_;
};

using Strings = std::vector<std::string>;

TEST_F(DoctorTest, WhereAllIsWellEachCheckOfEachNodeSaysSo) {
  EXPECT_EQ(Bad(), Strings());
  Strings checks;
  for (const DoctorFinding& one : Findings()) {
    if (one.node == "h1") checks.push_back(one.check);
  }
  EXPECT_EQ(checks, (Strings{"ssh", "basin", "gpu", "shm", "files", "addresses", "ports", "reach"}));
  EXPECT_FALSE(HasProblem(Findings()));
  EXPECT_EQ(The("h1", "reach").found, "its ports answer h0, h2");
  EXPECT_EQ(The("h1", "addresses").found, "h0 10.0.0.1, h1 10.0.0.2, h2 10.0.0.3");
}

TEST_F(DoctorTest, NodeThatSshDoesNotReachIsLookedAtNoFurther) {
  visits_[1] = {};
  visits_[1].not_reached = "ssh: Host key verification failed.";
  visits_[1].not_reached_fix = "its host key is not known here; look at it once: ssh h1";
  for (NodeVisit& visit : visits_) {
    visit.reached.erase(std::remove_if(visit.reached.begin(), visit.reached.end(),
                                       [](const DoctorReached& one) { return one.node == 1; }),
                        visit.reached.end());
  }
  EXPECT_EQ(Bad(), Strings{"problem h1 ssh"});
  EXPECT_EQ(The("h1", "ssh").found, visits_[1].not_reached);
  EXPECT_EQ(The("h1", "ssh").fix, visits_[1].not_reached_fix);
  EXPECT_EQ(The("h0", "reach").found, "its ports answer h2");
}

TEST_F(DoctorTest, NodeWithoutBasinIsSentTheProgramsIfTheyRunThere) {
  visits_[2] = {};
  visits_[2].programs_missing = true;
  visits_[2].system = {"x86_64", "glibc 2.40"};
  EXPECT_EQ(Bad(), Strings{"warning h2 unseen"});
  ExpectIn(The("h2", "basin").found, "basin submit sends " + bundle_.path);

  visits_[2].system.libc = "glibc 2.31";
  EXPECT_EQ(Bad(), Strings{"problem h2 basin"});
  ExpectIn(The("h2", "basin").fix, "glibc 2.31");

  visits_[2].system = {"aarch64", "glibc 2.36"};
  EXPECT_EQ(Bad(), Strings{"problem h2 basin"});
  ExpectIn(The("h2", "basin").fix, "aarch64");

  bundle_.path = "";
  EXPECT_EQ(Bad(), Strings{"problem h2 basin"});
  ExpectIn(The("h2", "basin").fix, "--bundle");
}

TEST_F(DoctorTest, OtherVersionIsAProblem) {
  visits_[0].hello.version = "1.1.0";
  EXPECT_EQ(Bad(), Strings{"problem h0 basin"});
  EXPECT_EQ(The("h0", "basin").found, "basin 1.1.0 (x86_64, glibc 2.36), here it is 1.2.0");
}

TEST_F(DoctorTest, NameOfAnotherNodeThatLeadsToLoopbackIsAProblemItsOwnAWarning) {
  visits_[0].look.resolved[1].ips = {"127.0.1.1"};
  visits_[1].look.resolved[1].ips = {"127.0.1.1"};
  EXPECT_EQ(Bad(), (Strings{"problem h0 addresses", "warning h1 addresses"}));
  EXPECT_EQ(The("h0", "addresses").found, "h1 leads to 127.0.1.1, which is this node itself, not h1");
  ExpectIn(The("h1", "addresses").found, "all interfaces");
  ExpectIn(The("h1", "addresses").fix, "/etc/hosts");
  EXPECT_EQ(AddressToTry(visits_[0].look, target_.nodes[1], false), "");
  EXPECT_EQ(AddressToTry(visits_[0].look, target_.nodes[2], false), "10.0.0.3");
}

TEST_F(DoctorTest, LoopbackIsWhatANodeAloneNeeds) {
  Make(1);
  visits_[0].look.resolved[0].ips = {"127.0.1.1"};
  EXPECT_EQ(Bad(), Strings());
  EXPECT_EQ(AddressToTry(visits_[0].look, target_.nodes[0], true), "127.0.1.1");
}

TEST_F(DoctorTest, NameThatDoesNotResolve) {
  visits_[2].look.resolved[0] = {"h0", {}, "\"h0\" does not resolve: Name or service not known"};
  EXPECT_EQ(Bad(), Strings{"problem h2 addresses"});
  ExpectIn(The("h2", "addresses").fix, "/etc/hosts");
  EXPECT_EQ(AddressToTry(visits_[2].look, target_.nodes[0], false), "");
}

TEST_F(DoctorTest, TakenPortIsAWarningNoPortAProblem) {
  visits_[1].look.ports = {2222, 2224, 2225, 20000};
  EXPECT_EQ(Bad(), Strings{"warning h1 ports"});
  EXPECT_EQ(The("h1", "ports").found, "2223 cannot be had, 2222, 2224-2225, 20000 instead; ports are held on 10.0.0.2");
  visits_[1].look.ports = {};
  visits_[1].look.ports_problem = "4 free ports are needed";
  EXPECT_EQ(Bad(), Strings{"problem h1 ports"});
}

TEST_F(DoctorTest, PortOutOfReachIsToldWithWhoCouldNotReachIt) {
  for (DoctorReached& one : visits_[0].reached) {
    if (one.node != 2 || one.port == 2224) continue;
    one.how = DoctorReach::kTimedOut;
    one.problem = "no answer within 3 s";
  }
  EXPECT_EQ(Bad(), Strings{"problem h2 reach"});
  EXPECT_EQ(The("h2", "reach").found, "from h0, 10.0.0.3 port 2222-2223, 2225: no answer within 3 s");
  ExpectIn(The("h2", "reach").fix, "open tcp ports 2222-2223, 2225 and 20000-29999 on h2");
  for (DoctorReached& one : visits_[0].reached) {
    if (one.how == DoctorReach::kTimedOut) one.how = DoctorReach::kStranger;
  }
  ExpectIn(The("h2", "reach").fix, "see where h2 leads on h0");
}

TEST_F(DoctorTest, EachPairIsTriedUpToEightNodesThenARing) {
  EXPECT_EQ(PairsToTry(1), (std::vector<std::pair<int, int>>{{0, 0}}));
  EXPECT_EQ(PairsToTry(3).size(), 6u);
  EXPECT_EQ(PairsToTry(8).size(), 56u);
  const auto ring = PairsToTry(9);
  EXPECT_EQ(ring.size(), 9u);
  std::vector<int> reached(9);
  for (const auto& [from, to] : ring) {
    EXPECT_NE(from, to);
    ++reached[to];
  }
  EXPECT_EQ(reached, std::vector<int>(9, 1));
}

TEST_F(DoctorTest, SharedFolderIsProvedByAFileOfOneNode) {
  target_.shared_folders = {"/data"};
  visits_[0].wrote = {{"/data", "", true}};
  for (const int i : {1, 2}) visits_[i].read = {{"/data", "", true}};
  EXPECT_EQ(Bad(), Strings());
  EXPECT_EQ(The("h1", "shared").found, "/data: the file of h0 is there");

  visits_[1].read = {{"/data", "No such file or directory", true}};
  EXPECT_EQ(Bad(), Strings{"problem h1 shared"});
  EXPECT_EQ(The("h1", "shared").found, "/data: the file that h0 wrote is not seen: No such file or directory");

  visits_[1].read = {{"/data", "No such file or directory", false}};
  EXPECT_EQ(Bad(), Strings{"problem h1 shared"});
  ExpectIn(The("h1", "shared").fix, "mount it");
}

TEST_F(DoctorTest, SharedFolderThatOneNodeMayOnlyReadIsProvedByAnother) {
  target_.shared_folders = {"/data"};
  visits_[0].wrote = {{"/data", "Read-only file system", true}};
  visits_[0].read = {{"/data", "", true}};
  visits_[1].wrote = {{"/data", "", true}};
  visits_[2].read = {{"/data", "", true}};
  EXPECT_EQ(Bad(), Strings());
  EXPECT_EQ(The("h0", "shared").found, "/data: the file of h1 is there; it may not be written (Read-only file system)");
}

TEST_F(DoctorTest, SharedFolderThatNobodyMayWriteIsNotProved) {
  target_.shared_folders = {"/data"};
  for (NodeVisit& visit : visits_) visit.wrote = {{"/data", "Permission denied", true}};
  EXPECT_EQ(Bad(), (Strings{"warning h0 shared", "warning h1 shared", "warning h2 shared"}));
  for (NodeVisit& visit : visits_) visit.wrote = {{"/data", "No such file or directory", false}};
  EXPECT_EQ(Bad(), (Strings{"problem h0 shared", "problem h1 shared", "problem h2 shared"}));
}

TEST_F(DoctorTest, MissingGpuIsAProblemOnlyForAJobThatWantsOne) {
  needs_.gpu = true;
  visits_[0].hello.gpus = 2;
  visits_[0].hello.gpu_problem = "";
  visits_[1].hello.gpus = 1;
  EXPECT_EQ(Bad(), Strings{"problem h2 gpu"});
  EXPECT_EQ(The("h0", "gpu").found, "2 GPUs");
  ExpectIn(The("h2", "gpu").found, "no NVIDIA driver is loaded");
  needs_.gpu = false;
  EXPECT_EQ(Bad(), Strings());
  visits_[2].hello.gpu_problem = "nvidia-smi has not answered within 10 s";
  EXPECT_EQ(Bad(), Strings{"warning h2 gpu"});
}

TEST_F(DoctorTest, LittleSharedMemoryAndFewOpenFilesAreWarnings) {
  visits_[0].hello.shm_bytes = (uint64_t{1} << 30) - 1;
  visits_[1].hello.open_files = 1024;
  EXPECT_EQ(Bad(), (Strings{"warning h0 shm", "warning h1 files"}));
  visits_[0].hello.shm_bytes = uint64_t{1} << 30;
  visits_[1].hello.open_files = 4096;
  EXPECT_EQ(Bad(), Strings());
}

TEST_F(DoctorTest, NodeThatFallsSilentKeepsWhatItSaid) {
  visits_[1].lost = "its connection ended: Connection reset";
  EXPECT_EQ(Bad(), Strings{"problem h1 answers"});
  visits_[1].looked = false;
  EXPECT_EQ(Bad(), Strings{"problem h1 answers"});
  EXPECT_FALSE(IsThere(visits_[1]));
  EXPECT_EQ(The("h1", "basin").state, DoctorState::kOk);
}

TEST_F(DoctorTest, NeedsComeFromTheJob) {
  Job job;
  job.program = "softmax";
  job.backend = Backend::kPs;
  job.node_count = 2;
  job.worker_count = 3;
  job.parameter_server_count = 1;
  job.ports = {30000, 30100};
  job.inputs = {{"data", "/data/mnist"}};
  job.packages.pip = {"numpy"};
  job.use_gpu = true;
  DoctorNeeds needs = NeedsOfJob(job, "job.yaml", 2);
  ASSERT_EQ(needs.ports.size(), 2u);
  EXPECT_EQ(needs.ports[0] + needs.ports[1], 4);
  EXPECT_EQ(needs.range, (PortRange{30000, 30100}));
  EXPECT_EQ(needs.inputs, job.inputs);
  EXPECT_TRUE(needs.pip && needs.gpu && !needs.conda);
  job.packages.conda = {"scipy"};
  needs = NeedsOfJob(job, "job.yaml", 2);
  EXPECT_TRUE(needs.conda && !needs.pip);
  job.packages.user_managed = true;
  needs = NeedsOfJob(job, "job.yaml", 2);
  EXPECT_TRUE(!needs.conda && !needs.pip && !needs.mpi);
  job.backend = Backend::kMpi;
  EXPECT_TRUE(NeedsOfJob(job, "job.yaml", 2).mpi);
  job.setup = {"module load openmpi"};  // what it brings is only seen by a run
  EXPECT_FALSE(NeedsOfJob(job, "job.yaml", 2).mpi);
}

TEST_F(DoctorTest, MpirunIsLookedFor) {
  needs_.mpi = true;
  for (NodeVisit& visit : visits_) visit.look.mpi_version = "Open MPI 4.1.4";
  EXPECT_EQ(Bad(), Strings());
  EXPECT_EQ(The("h1", "mpi").found, "Open MPI 4.1.4");
  visits_[2].look.mpi_problem = "mpirun is of Open MPI 5.0.3, whose flags differ";
  EXPECT_EQ(Bad(), Strings{"problem h2 mpi"});
}

TEST_F(DoctorTest, WhatToDoAboutAnEngineIsTheFix) {
  needs_.image = "a/b";
  for (NodeVisit& visit : visits_) visit.look.container_found = "podman 4.3.1, image 0123456789ab";
  EXPECT_EQ(Bad(), Strings());
  visits_[1].look.container_found = "";
  visits_[1].look.container_problem = "docker (/usr/bin/docker) does not work: exit code 1\n  start its daemon there";
  EXPECT_EQ(Bad(), Strings{"problem h1 container"});
  EXPECT_EQ(The("h1", "container").found, "docker (/usr/bin/docker) does not work: exit code 1");
  EXPECT_EQ(The("h1", "container").fix, "start its daemon there");
}

TEST_F(DoctorTest, JobsInputsAndPythonAreLookedAt) {
  needs_.inputs = {{"data", "/data/mnist"}, {"words", "/data/words"}};
  needs_.pip = true;
  EXPECT_EQ(Bad(), Strings());
  EXPECT_EQ(The("h1", "inputs").found, "data /data/mnist, words /data/words");
  visits_[1].look.input_problems = {{"words", "/data/words: No such file or directory"}};
  visits_[2].look.python_problem = "there is no python3 on PATH";
  EXPECT_EQ(Bad(), (Strings{"problem h1 inputs", "problem h2 python"}));
  EXPECT_EQ(The("h1", "inputs").found, "words: /data/words: No such file or directory");
}

TEST_F(DoctorTest, NodesWithoutTasksNeedNoPorts) {
  needs_.ports[2] = 0;
  visits_[2].look.ports = {};
  EXPECT_EQ(Bad(), Strings());
}

TEST_F(DoctorTest, TextHasAlignedLinesAndACount) {
  const std::vector<DoctorFinding> findings = {
      {"h0", "ssh", DoctorState::kOk, "it is reached", ""},
      {"host-10", "addresses", DoctorState::kProblem, "two\nlines", "mend it"},
      {"h0", "shm", DoctorState::kWarning, "small", "grow it"},
  };
  EXPECT_EQ(FindingsToText(findings),
            "ok       h0       ssh        it is reached\n"
            "problem  host-10  addresses  two lines; fix: mend it\n"
            "warning  h0       shm        small; fix: grow it\n"
            "2 nodes: 1 ok, 1 warning, 1 problem\n");
  const auto json = nlohmann::json::parse(FindingsToJson(findings));
  ASSERT_EQ(json.size(), 3u);
  EXPECT_EQ(json[1], (nlohmann::json{{"node", "host-10"},
                                     {"check", "addresses"},
                                     {"state", "problem"},
                                     {"found", "two\nlines"},
                                     {"fix", "mend it"}}));
  EXPECT_TRUE(HasProblem(findings));
}

TEST(DoctorTalkTest, MessagesComeThroughAsOneLine) {
  DoctorMessage message;
  DoctorLook& look = message.look.emplace();
  look.resolved = {{"h0", {"10.0.0.1"}, ""}};
  look.ports = {2222};
  look.input_problems = {{"data", "two\nlines and \xff"}};
  const std::string line = DoctorMessageToLine(message);
  EXPECT_FALSE(absl::StrContains(line, "\n"));
  const auto read = ParseDoctorLine(line);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_TRUE(read->look.has_value());
  EXPECT_FALSE(read->hello.has_value());
  EXPECT_EQ(read->look->resolved[0].ips, look.resolved[0].ips);
  EXPECT_EQ(read->look->ports, look.ports);
  EXPECT_TRUE(absl::StartsWith(read->look->input_problems[0].path, "two\nlines and "));

  DoctorMessage reached;
  reached.reached = {{1, 2222, "10.0.0.2", DoctorReach::kRefused, "Connection refused"}};
  const auto again = ParseDoctorLine(DoctorMessageToLine(reached));
  ASSERT_TRUE(again.ok() && again->reached);
  EXPECT_EQ(again->reached->at(0).how, DoctorReach::kRefused);
}

TEST(DoctorTalkTest, OtherLinesAreRefused) {
  for (const char* line : {"", "welcome to h0", "[]", "{}", "{\"look\": 3}", "{\"hello\": {\"version\": 3}}",
                           "{\"hello\": {}, \"look\": {}}", "{\"hello\": {}"}) {
    EXPECT_EQ(ParseDoctorLine(line).status().code(), absl::StatusCode::kInvalidArgument) << line;
  }
}

}  // namespace
}  // namespace basin
