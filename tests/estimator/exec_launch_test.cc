// What `basin exec` decides: which rank this is, which role a rank has, when a launch is over.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <map>

#include "absl/strings/match.h"
#include "estimator/exec/exec_layout.h"
#include "estimator/exec/launch_state.h"
#include "estimator/exec/launched_rank.h"
#include "estimator/exec/line_connection.h"
#include "estimator/exec/meeting_file.h"

namespace basin {
namespace {

absl::StatusOr<LaunchedRank> Read(const std::map<std::string, std::string>& variables, const RankFlags& flags = {}) {
  return ReadLaunchedRank(
      [&](const std::string& name) -> std::optional<std::string> {
        const auto found = variables.find(name);
        return found == variables.end() ? std::nullopt : std::optional<std::string>(found->second);
      },
      flags);
}

void ExpectRank(const absl::StatusOr<LaunchedRank>& found, uint32_t rank, uint32_t size, const std::string& launch) {
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->rank, rank);
  EXPECT_EQ(found->size, size);
  EXPECT_EQ(found->launch, launch);
}

TEST(LaunchedRankTest, EveryLaunchersVariablesAreRead) {
  ExpectRank(Read({{"OMPI_COMM_WORLD_RANK", "2"}, {"OMPI_COMM_WORLD_SIZE", "4"}, {"PMIX_NAMESPACE", "262995969"}}), 2,
             4, "openmpi-262995969");
  ExpectRank(
      Read({{"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", "3"}, {"SLURM_JOB_ID", "7"}, {"SLURM_STEP_ID", "0"}}), 1, 3,
      "slurm-7-0");
  ExpectRank(Read({{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}}), 0, 2, "pmi");
  ExpectRank(Read({{"PMIX_RANK", "1"}, {"PMIX_NAMESPACE", "slurm.pmix.7.0"}, {"SLURM_NTASKS", "2"}}), 1, 2,
             "pmix-slurm.pmix.7.0");
}

TEST(LaunchedRankTest, WithinAJobOfSlurmTheRanksAreMpiruns) {
  ExpectRank(Read({{"SLURM_PROCID", "0"},
                   {"SLURM_NTASKS", "1"},
                   {"OMPI_COMM_WORLD_RANK", "3"},
                   {"OMPI_COMM_WORLD_SIZE", "4"},
                   {"PMIX_NAMESPACE", "9"}}),
             3, 4, "openmpi-9");
}

TEST(LaunchedRankTest, FlagsWin) {
  RankFlags flags;
  flags.rank = 1;
  flags.size = 2;
  ExpectRank(Read({}, flags), 1, 2, "ranks");
  flags.launch = "my/../launch";
  ExpectRank(Read({{"PMI_RANK", "0"}, {"PMI_SIZE", "9"}}, flags), 1, 2, "my_.._launch");
}

TEST(LaunchedRankTest, WhatMakesNoSenseIsRefused) {
  EXPECT_EQ(Read({}).status().code(), absl::StatusCode::kFailedPrecondition);
  const auto message = [](const std::map<std::string, std::string>& variables) {
    return std::string(Read(variables).status().message());
  };
  EXPECT_TRUE(absl::StrContains(message({{"PMI_RANK", "x"}}), "PMI_RANK is \"x\", which is no number"));
  EXPECT_TRUE(absl::StrContains(message({{"PMIX_RANK", "0"}}), "give --size"));
  EXPECT_TRUE(absl::StrContains(message({{"PMI_RANK", "2"}, {"PMI_SIZE", "2"}}), "rank 2 of 2 ranks: expected 0 to 1"));
}

TEST(ExecLayoutTest, RanksArePsThenChiefThenWorkersThenEvaluator) {
  const ExecLayout layout = {.size = 6, .ps = 2, .chief = true, .evaluator = true};
  ASSERT_TRUE(Check(layout).ok());
  std::vector<std::string> names;
  for (uint32_t rank = 0; rank < 6; ++rank) names.push_back(TaskOfRank(layout, rank).Name());
  EXPECT_EQ(names, (std::vector<std::string>{"ps/0", "ps/1", "chief/0", "worker/0", "worker/1", "evaluator/0"}));
  const auto cluster = ClusterOf(layout, {"h:1", "h:2", "h:3", "h:4", "h:5", "h:0"});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  EXPECT_EQ(cluster->ToJson(), R"({"ps": ["h:1", "h:2"], "chief": ["h:3"], "worker": ["h:4", "h:5"]})");
}

TEST(ExecLayoutTest, TooFewRanksAreRefused) {
  EXPECT_FALSE(Check({.size = 3, .ps = 0}).ok());
  EXPECT_FALSE(Check({.size = 3, .ps = 3}).ok());
  EXPECT_FALSE(Check({.size = 3, .ps = 4294967295u}).ok());
  EXPECT_TRUE(Check({.size = 2, .ps = 1}).ok());
  EXPECT_TRUE(Check({.size = 2, .ps = 1, .chief = true}).ok());  // a chief alone trains
  const absl::Status status = Check({.size = 2, .ps = 1, .evaluator = true});
  EXPECT_TRUE(absl::StrContains(status.message(), "--ps 1 --evaluator needs at least 3 ranks, 2 were started"))
      << status;
}

using Verdict = LaunchState::Verdict;
constexpr ExecLayout kTwoWorkers = {.size = 4, .ps = 1, .evaluator = true};
constexpr absl::Duration kPsGrace = absl::Seconds(5);
const absl::Time kStart = absl::UnixEpoch();

TEST(LaunchStateTest, IsOverWhenAllWorkersAndThenTheOthersHaveEnded) {
  LaunchState state(kTwoWorkers, kPsGrace);
  state.Ended(1, 0, 0, kStart);
  EXPECT_EQ(state.At(kStart + absl::Hours(9)), Verdict::kGoesOn);
  state.Ended(2, 0, 0, kStart);
  EXPECT_EQ(state.At(kStart), Verdict::kGoesOn);
  state.Ended(3, 0, 0, kStart + absl::Seconds(1));
  state.Ended(0, 0, 0, kStart + absl::Seconds(2));
  EXPECT_EQ(state.At(kStart + absl::Seconds(2)), Verdict::kSucceeded);
}

TEST(LaunchStateTest, PsThatDoNotEndByThemselvesAreWaitedForOnlyAWhile) {
  LaunchState state(kTwoWorkers, kPsGrace);
  for (const uint32_t rank : {1, 2, 3}) state.Ended(rank, 0, 0, kStart);
  EXPECT_EQ(state.NextChange(), kStart + kPsGrace);
  EXPECT_EQ(state.At(kStart + kPsGrace - absl::Milliseconds(1)), Verdict::kGoesOn);
  EXPECT_EQ(state.At(kStart + kPsGrace), Verdict::kSucceeded);
}

TEST(LaunchStateTest, AnEvaluatorIsWaitedForOnlyAWhileAndChangesNothing) {
  LaunchState hangs(kTwoWorkers, kPsGrace), fails(kTwoWorkers, kPsGrace);
  for (const uint32_t rank : {1, 2}) hangs.Ended(rank, 0, 0, kStart);
  EXPECT_EQ(hangs.At(kStart + absl::Seconds(59)), Verdict::kGoesOn);
  EXPECT_EQ(hangs.At(kStart + LaunchState::kOthersGrace), Verdict::kSucceeded);
  for (const uint32_t rank : {1, 2}) fails.Ended(rank, 0, 0, kStart);
  fails.Ended(3, 1, 0, kStart);
  fails.Lost(0, kStart);
  EXPECT_EQ(fails.At(kStart), Verdict::kSucceeded);
}

TEST(LaunchStateTest, AnEvaluatorThatIsLostAfterTheTrainingHoldsNobodyUp) {
  LaunchState state(kTwoWorkers, kPsGrace);
  for (const uint32_t rank : {1, 2}) state.Ended(rank, 0, 0, kStart);
  state.Lost(3, kStart + absl::Seconds(1));
  EXPECT_EQ(state.NextChange(), kStart + absl::Seconds(1) + kPsGrace);
}

TEST(LaunchStateTest, WithAChiefItsEndIsTheRuns) {
  LaunchState state({.size = 4, .ps = 1, .chief = true}, kPsGrace);
  state.Ended(2, 0, 0, kStart);
  EXPECT_EQ(state.NextChange(), absl::InfiniteFuture());
  state.Ended(1, 0, 0, kStart);
  EXPECT_EQ(state.NextChange(), kStart + LaunchState::kOthersGrace);  // worker 1 may still end by itself
}

TEST(LaunchStateTest, TheFirstFailureIsTheReason) {
  LaunchState state(kTwoWorkers, kPsGrace);
  state.Known(2, "h2", 812);
  state.Ended(2, 3, 0, kStart);
  state.Ended(1, 0, SIGTERM, kStart);
  state.Lost(0, kStart);
  EXPECT_EQ(state.At(kStart), Verdict::kFailed);
  EXPECT_EQ(state.reason(), "worker 1 (rank 2, pid 812 on h2) exited with code 3");
  EXPECT_EQ(state.exit_code(), 3);
}

TEST(LaunchStateTest, OtherFailuresAreNamed) {
  const auto reason = [](const std::function<void(LaunchState&)>& what) {
    LaunchState state(kTwoWorkers, kPsGrace);
    what(state);
    EXPECT_EQ(state.At(kStart), Verdict::kFailed);
    return state.reason();
  };
  EXPECT_EQ(reason([](LaunchState& state) { state.Ended(1, 0, 9, kStart); }),
            "worker 0 (rank 1) was ended by signal 9");
  EXPECT_EQ(reason([](LaunchState& state) { state.Lost(0, kStart); }), "ps 0 (rank 0) is gone");
  EXPECT_EQ(reason([](LaunchState& state) { state.Lost(3, kStart); }), "evaluator 0 (rank 3) is gone");
  EXPECT_EQ(reason([](LaunchState& state) { state.NotStarted(2, "no such file"); }),
            "worker 1 (rank 2) does not start: no such file");
  EXPECT_EQ(reason([](LaunchState& state) { state.Fail("stopped by SIGTERM", 1); }), "stopped by SIGTERM");
}

class MeetingFileTest : public ::testing::Test {
 protected:
  MeetingFileTest() {
    std::string folder = "/tmp/meeting-XXXXXX";
    EXPECT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    path_ = MeetingPath(folder_, "slurm-7-0");
  }
  ~MeetingFileTest() override {
    unlink(path_.c_str());
    rmdir(folder_.c_str());
  }
  std::string folder_, path_;
};

TEST_F(MeetingFileTest, ComesBackAndIsThisUsersAlone) {
  EXPECT_EQ(*ReadMeeting(path_), std::nullopt);
  ASSERT_TRUE(WriteMeeting(path_, {"h0", {"10.0.0.1", "192.168.1.1"}, 40001, "secret"}).ok());
  struct stat info;
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  const auto read = ReadMeeting(path_);
  ASSERT_TRUE(read.ok() && *read) << read.status();
  EXPECT_EQ((*read)->host, "h0");
  EXPECT_EQ((*read)->hosts, (std::vector<std::string>{"10.0.0.1", "192.168.1.1"}));
  EXPECT_EQ((*read)->port, 40001);
  EXPECT_EQ((*read)->token, "secret");
}

TEST_F(MeetingFileTest, OneThatOthersMayReadIsRefused) {
  ASSERT_TRUE(WriteMeeting(path_, {"h0", {}, 1, "secret"}).ok());
  chmod(path_.c_str(), 0644);
  const absl::Status status = ReadMeeting(path_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(absl::StrContains(status.message(), "mode 0644")) << status;
}

TEST_F(MeetingFileTest, WhatIsNoSuchFileIsRefused) {
  for (const char* text :
       {"", "nonsense", "{}", R"({"basin_exec": 2})", R"({"basin_exec": "one"})", R"({"basin_exec": 1, "host": 7})"}) {
    std::ofstream(path_) << text;
    chmod(path_.c_str(), 0600);
    EXPECT_EQ(ReadMeeting(path_).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(MeetingProofTest, DependsOnAllThatIsSaid) {
  const std::string proof = MeetingProof("token", "a rank", "1", "2");
  EXPECT_EQ(proof, MeetingProof("token", "a rank", "1", "2"));
  EXPECT_NE(proof, MeetingProof("other", "a rank", "1", "2"));
  EXPECT_NE(proof, MeetingProof("token", "rank 0", "1", "2"));
  EXPECT_NE(proof, MeetingProof("token", "a rank", "2", "1"));
  EXPECT_EQ(proof.size(), 64u);
}

TEST(LineConnectionTest, LinesCrossAndNonsenseCloses) {
  auto listener = ListenAnywhere();
  ASSERT_TRUE(listener.ok()) << listener.status();
  auto one = ConnectTo("127.0.0.1", listener->port, absl::Seconds(5));
  ASSERT_TRUE(one.ok()) << one.status();
  LineConnection two(UniqueFd(accept(listener->fd.get(), nullptr, nullptr)));
  one->Send({{"a", 1}});
  one->Send({{"b", "two\nlines"}});
  EXPECT_EQ(two.Next(absl::Seconds(5))->value("a", 0), 1);
  EXPECT_EQ(two.Next(absl::Seconds(5))->value("b", ""), "two\nlines");
  EXPECT_EQ(PeerAddress(two.fd()), "127.0.0.1");
  ASSERT_EQ(write(one->fd(), "nonsense\n", 9), 9);
  EXPECT_EQ(two.Next(absl::Seconds(5)).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(two.open());
  EXPECT_EQ(ConnectTo("127.0.0.1", 1, absl::Seconds(1)).status().code(), absl::StatusCode::kUnavailable);
}

TEST(LineConnectionTest, WhoeverTalksWithoutAnEndIsReadInPieces) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  const UniqueFd talker(ends[0]);
  LineConnection connection{UniqueFd(ends[1])};
  const std::string text(3 * LineConnection::kMostReadBytes, ' ');
  const ssize_t wrote = send(talker.get(), text.data(), text.size(), MSG_DONTWAIT);
  ASSERT_GT(wrote, static_cast<ssize_t>(LineConnection::kMostReadBytes));
  EXPECT_TRUE(connection.Read().empty());
  int left = 0;
  ASSERT_EQ(ioctl(connection.fd(), FIONREAD, &left), 0);
  EXPECT_EQ(wrote - left, static_cast<ssize_t>(LineConnection::kMostReadBytes));
}

TEST(LineConnectionTest, WhatIsOfAnotherTypeIsAsIfItWereMissing) {
  const nlohmann::json line = {{"code", "three"}, {"signal", 9}};
  EXPECT_EQ(ValueIn(line, "code", 1), 1);
  EXPECT_EQ(ValueIn(line, "signal", 0), 9);
  EXPECT_EQ(ValueIn(line, "none", 7), 7);
  EXPECT_EQ(ValueIn(nlohmann::json("no object"), "code", 1), 1);
}

}  // namespace
}  // namespace basin
