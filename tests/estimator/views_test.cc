#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "estimator/history/run_folder.h"
#include "estimator/run/progress_view.h"
#include "estimator/run/stats.h"
#include "estimator/run/top_view.h"

namespace basin {
namespace {

constexpr char kTraining[] =
    R"({"run":"r1","state":"training","global_step":1200,"min_clock":590,"view":3,"uptime_s":75,
 "model":{"variables":4,"elements":203530,"bytes":814120},
 "ps":[{"index":0,"address":"127.0.0.1:2222","lanes":1,"device":"cpu","device_bytes":0,"shards":3,"applied":3600,"refused":0,"bytes_in":1048576,"bytes_out":2048},
       {"index":1,"address":"127.0.0.1:2223","lanes":1,"device":"cuda:0","device_bytes":1048576,"shards":2,"applied":2400,"refused":1,"bytes_in":10,"bytes_out":20}],
 "clients":[{"role":"worker","index":0,"host":"h","pid":11,"incarnation":1,"state":"alive","clock":610,"lag":20,
             "staleness_mean":1.0,"staleness_max":3,"steps_per_s":140.5,"metrics":{"loss":0.40,"examples_per_s":18000},
             "last_heard_s":0.2,"waiting_for":""},
            {"role":"worker","index":1,"host":"h","pid":12,"incarnation":2,"state":"alive","clock":590,"lag":0,
             "staleness_mean":1.4,"staleness_max":4,"steps_per_s":134,"metrics":{"loss":0.424,"examples_per_s":17210},
             "last_heard_s":0.1,"waiting_for":"ps 1 at 127.0.0.1:2223"},
            {"role":"evaluator","index":0,"host":"h","pid":13,"state":"alive","metrics":{"test_accuracy":0.8612,"test_loss":0.39},
             "last_heard_s":1.0,"waiting_for":""}],
 "inputs":[{"name":"train","epoch":4,"epochs":10,"pieces_done":12,"pieces_leased":2,"pieces_total":60}],"progress":0.42})";

ClusterStats Stats(const std::string& json) {
  const auto stats = ParseStats(json);
  EXPECT_TRUE(stats.ok()) << stats.status();
  return *stats;
}

ClusterStats Changed(void (*change)(nlohmann::json&)) {
  nlohmann::json json = nlohmann::json::parse(kTraining);
  change(json);
  return Stats(json.dump());
}

TEST(ProgressLineTest, TrainingShowsAllFigures) {
  EXPECT_EQ(ProgressLine(Stats(kTraining)),
            "step 1200  42%  examples/s 35210  loss 0.412  test accuracy 0.861  staleness 1.2 (max 4)");
}

TEST(ProgressLineTest, WhatIsNotKnownIsLeftOut) {
  const ClusterStats stats = Changed([](nlohmann::json& json) {
    json["progress"] = nullptr;
    json["clients"][0]["metrics"] = {{"loss", nullptr}};
    json["clients"].erase(2);
    json["clients"].erase(1);
  });
  EXPECT_EQ(ProgressLine(stats), "step 1200  steps/s 140.5  staleness 1.0 (max 3)");
}

TEST(ProgressLineTest, DeadWorkersDoNotCount) {
  const ClusterStats stats = Changed([](nlohmann::json& json) { json["clients"][1]["state"] = "dead"; });
  EXPECT_TRUE(absl::StrContains(ProgressLine(stats), "examples/s 18000  loss 0.400")) << ProgressLine(stats);
}

TEST(ProgressLineTest, WaitingSaysForWhom) {
  const ClusterStats stats = Changed([](nlohmann::json& json) { json["state"] = "waiting"; });
  EXPECT_EQ(ProgressLine(stats), "waiting: worker 1 waits for ps 1 at 127.0.0.1:2223");
  EXPECT_EQ(ProgressLine(Stats(R"({"state":"waiting"})")), "waiting: the model is not declared yet");
}

TEST(ProgressBarTest, ShowsBarPercentAndTimeLeft) {
  const std::string line = ProgressBar(Stats(kTraining), absl::Seconds(42), 200);
  EXPECT_TRUE(absl::StartsWith(line, "[============>                 ]  42%  ETA 58s  step 1200  examples/s 35210"))
      << line;
}

TEST(ProgressBarTest, NeverLongerThanTheTerminal) {
  for (int width = 1; width < 140; ++width) {
    EXPECT_LE(ProgressBar(Stats(kTraining), absl::Seconds(42), width).size(), static_cast<size_t>(width));
  }
}

TEST(ProgressBarTest, FullAtTheEnd) {
  const ClusterStats stats = Changed([](nlohmann::json& json) { json["progress"] = 1.0; });
  EXPECT_TRUE(absl::StartsWith(ProgressBar(stats, absl::Seconds(42), 50), "[==========] 100%  step 1200"));
}

TEST(ShortDurationTest, Units) {
  EXPECT_EQ(ShortDuration(absl::Seconds(42)), "42s");
  EXPECT_EQ(ShortDuration(absl::Seconds(187)), "3m07s");
  EXPECT_EQ(ShortDuration(absl::Minutes(62)), "1h02m");
}

TEST(TopViewTest, ShowsTheWholeCluster) {
  EXPECT_EQ(RenderTop(Stats(kTraining)),
            R"(run r1  training  step 1200  slowest clock 590  view 3  up 1m15s  42%
model 4 variables, 203530 elements, 795.0 KiB

PS    LANES          DEVICE  SHARDS  APPLIED  REFUSED       IN      OUT  ADDRESS
ps 0      1             cpu       3     3600        0  1.0 MiB  2.0 KiB  127.0.0.1:2222
ps 1      1  cuda:0 1.0 MiB       2     2400        1     10 B     20 B  127.0.0.1:2223

TASK         STATE  CLOCK  LAG  STALENESS  MAX  STEPS/S  EXAMPLES/S   LOSS  TEST ACC     HEARD  PROCESS
worker 0     alive    610   20        1.0    3    140.5       18000  0.400         -  0.2s ago  h:11
worker 1     alive    590    0        1.4    4    134.0       17210  0.424         -  0.1s ago  h:12
evaluator 0  alive      -    -          -    -        -           -      -     0.861  1.0s ago  h:13

INPUT    EPOCH  DONE  LEASED  PIECES
train  4 of 10    12       2  60

worker 1 waits for ps 1 at 127.0.0.1:2223
)");
}

TEST(StatsTest, OtherVersionsAreStillRead) {
  const ClusterStats stats = Stats(R"({"global_step":"many","clients":[7,{"role":"worker"}],"ps":3,"new":{}})");
  EXPECT_EQ(stats.global_step, 0);
  ASSERT_EQ(stats.clients.size(), 1u);
  EXPECT_FALSE(ParseStats("[]").ok());
  EXPECT_FALSE(ParseStats("{").ok());
}

TEST(RunRecordTest, TellsStateTimesAndExits) {
  RunRecord record;
  record.run_id = "r1";
  record.experiment = "e";
  record.phase = RunPhase::kFailed;
  record.reason = "worker 0 exited with code 3";
  record.created = absl::UnixEpoch();
  record.ended = absl::UnixEpoch() + absl::Seconds(2);
  record.tasks = {{{Role::kPs, 0}, "127.0.0.1:2222", 7, TaskExit{0, 15}},
                  {{Role::kWorker, 0}, "127.0.0.1:2223", 8, TaskExit{3, 0}}};
  const auto json = nlohmann::json::parse(RunRecordToJson(record));
  EXPECT_EQ(json, nlohmann::json::parse(R"({"run_id": "r1", "experiment": "e", "state": "Failed",
      "reason": "worker 0 exited with code 3", "created": "1970-01-01T00:00:00.000Z", "ended": "1970-01-01T00:00:02.000Z",
      "duration_s": 2.0, "history": [], "metrics": {}, "tasks": [{"role": "ps", "index": 0, "address": "127.0.0.1:2222", "pid": 7, "signal": 15},
      {"role": "worker", "index": 0, "address": "127.0.0.1:2223", "pid": 8, "exit_code": 3}]})"));
}

}  // namespace
}  // namespace basin
