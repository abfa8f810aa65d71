// What is written of a run, and what is read back.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/format/event_file.h"
#include "estimator/history/metric_lines.h"
#include "estimator/history/read_run.h"
#include "tests/estimator/history_folder.h"

namespace basin {
namespace {

namespace fs = std::filesystem;

TEST_F(HistoryTest, TheRecordTellsStatesTasksAndMetrics) {
  auto history = Open();
  history->Record(kNow, record_);
  record_.phase = RunPhase::kRunning;
  record_.tasks[1].pid = 77;
  history->Record(kNow + absl::Seconds(1), record_);
  EXPECT_TRUE(
      history
          ->Store(Piece(RunStream::kMetrics, kWorker0, "", "{\"name\":\"loss\",\"value\":0.5,\"step\":3,\"time\":2}\n"))
          .ok());
  record_.tasks[1].exit = TaskExit{0, 9};
  record_.reason = "worker 0 was ended by SIGKILL";
  End(*history, RunPhase::kFailed);

  const absl::StatusOr<RunRecord> read = ReadRun(folder_);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->phase, RunPhase::kFailed);
  EXPECT_EQ(read->reason, "worker 0 was ended by SIGKILL");
  ASSERT_EQ(read->history.size(), 3u);
  EXPECT_EQ(read->history[1].phase, RunPhase::kRunning);
  EXPECT_EQ(read->history[1].time, kNow + absl::Seconds(1));
  EXPECT_EQ(read->history[2].reason, "worker 0 was ended by SIGKILL");
  EXPECT_EQ(read->tasks[1].pid, 77);
  EXPECT_EQ(read->tasks[1].exit->signal, 9);
  EXPECT_EQ(read->tasks[1].host, "here");
  EXPECT_EQ(read->exit_code, 1);
  EXPECT_EQ(read->metrics.at("loss"), 0.5);
  EXPECT_EQ(read->folder, folder_.path());
  EXPECT_EQ(read->portal_url, absl::StrCat("file://", folder_.path(), "/index.html"));
}

TEST_F(HistoryTest, AllIsReadableByTheOwnerAlone) {
  const mode_t before = umask(0);  // what the user's umask allows must not matter
  auto history = Open();
  umask(077);  // as the program has it
  EXPECT_TRUE(history->Store(Piece(RunStream::kLog, kWorker0, "", "hello\n")).ok());
  EXPECT_TRUE(history->Store(Output(kWorker0, "model.bin", "m", true)).ok());
  End(*history);
  umask(before);
  for (const auto& entry : fs::recursive_directory_iterator(folder_.path())) {
    EXPECT_EQ(entry.status().permissions() & fs::perms(077), fs::perms::none) << entry.path();
  }
  EXPECT_EQ(fs::status(folder_.path()).permissions(), fs::perms::owner_all);
}

TEST_F(HistoryTest, OutputsOfSeveralTasksDoNotCollideWhateverComesFirst) {
  auto history = Open();
  EXPECT_TRUE(history->Store(Output(kPs0, "model.h5", "of the ps")).ok());
  EXPECT_TRUE(history->Store(Output(kWorker1, "model.h5", "of worker 1")).ok());
  EXPECT_TRUE(history->Store(Output(kWorker1, "only/mine.txt", "1")).ok());
  EXPECT_TRUE(history->Store(Output(kPs0, "only", "a file where another has a folder")).ok());
  EXPECT_TRUE(history->Store(Output(kWorker0, "model.h5", "of the chief", /*chief=*/true)).ok());
  FilePiece unfinished = Piece(RunStream::kOutput, kWorker1, "half.bin", "x");
  EXPECT_TRUE(history->Store(unfinished).ok());
  End(*history, RunPhase::kFailed);
  EXPECT_EQ(Text("outputs/model.h5"), "of the chief");
  EXPECT_EQ(Text("outputs/by-task/worker-1/model.h5"), "of worker 1");
  EXPECT_EQ(Text("outputs/by-task/ps-0/model.h5"), "of the ps");
  EXPECT_EQ(Text("outputs/only/mine.txt"), "1");
  EXPECT_EQ(Text("outputs/by-task/ps-0/only"), "a file where another has a folder");
  EXPECT_FALSE(Exists("outputs/half.bin")) << "what is not whole has no name";
  EXPECT_FALSE(Exists("outputs/by-task/worker-1/half.bin"));
}

TEST_F(HistoryTest, NothingLeavesItsFolder) {
  auto history = Open();
  history->Record(kNow, record_);
  std::vector<std::string> told;
  history->TellBy([&told](const std::string& line) { told.push_back(line); });
  EXPECT_FALSE(history->Store(Output(kWorker0, "../run.json", "evil", true)).ok());
  EXPECT_FALSE(history->Store(Output(kWorker0, "/etc/evil", "evil", true)).ok());
  EXPECT_FALSE(history->Store(Piece(RunStream::kScriptLog, kWorker1, "../../token", "evil")).ok());
  FilePiece link = Output(kWorker0, "link", "", true);
  link.link_target = "../token";
  EXPECT_FALSE(history->Store(link).ok());
  history->OnTime(kNow + absl::Seconds(2));
  EXPECT_EQ(told.size(), 1u) << "each kind of failure is told once";
  link.path = "sub/link";
  link.link_target = "../model.bin";
  EXPECT_TRUE(history->Store(link).ok());
  EXPECT_FALSE(history->Store(Output(kWorker0, "sub/link/through", "evil", true)).ok());
  history->OnTime(kNow + absl::Seconds(4));
  EXPECT_EQ(told.size(), 2u) << "one of another kind is not hidden behind the first";
  EXPECT_EQ(fs::read_symlink(folder_.OutputPath("sub/link")), "../model.bin");
  EXPECT_EQ(Text("token").size(), 64u);
  EXPECT_FALSE(absl::StrContains(Text("run.json"), "evil"));
  // A script's own log never goes into the log of another task, nor among the run's event files.
  FilePiece imposter = Piece(RunStream::kScriptLog, kWorker0, "worker-1.txt", "not from worker 1\n");
  imposter.is_chief = true;
  EXPECT_TRUE(history->Store(imposter).ok());
  imposter.path = "tensorboard/worker-1/events.out.tfevents.1";
  EXPECT_TRUE(history->Store(imposter).ok());
  EXPECT_FALSE(Exists("logs/worker-1.txt"));
  EXPECT_TRUE(Exists("logs/worker-0/worker-1.txt"));
  EXPECT_FALSE(Exists("logs/tensorboard/worker-1"));
  imposter.path = "train.log";
  EXPECT_TRUE(history->Store(imposter).ok());
  EXPECT_TRUE(Exists("logs/train.log"));
}

TEST_F(HistoryTest, MetricsAreMergedWithTheirTaskWhereverLinesAreCut) {
  auto history = Open();
  const std::string lines =
      "{\"name\":\"loss\",\"value\":1,\"step\":1,\"time\":10}\nnonsense\n{\"name\":\"loss\",\"value\":NaN,\"time\":11}"
      "\n";
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_TRUE(history->Store(Piece(RunStream::kMetrics, kWorker0, "", lines.substr(i, 1), i)).ok());
  }
  EXPECT_TRUE(history
                  ->Store(Piece(RunStream::kMetrics, kWorker1, "",
                                "{\"name\":\"a b\",\"value\":2.5,\"step\":7.0,\"time\":9}\n"))
                  .ok());
  const std::vector<MetricPoint> points = *ReadMetrics(folder_.MetricsPath());
  ASSERT_EQ(points.size(), 3u);
  EXPECT_EQ(points[0].task, kWorker0);
  EXPECT_EQ(points[0].step, 1);
  EXPECT_TRUE(std::isnan(points[1].value));
  EXPECT_EQ(points[1].step, std::nullopt);
  EXPECT_EQ(points[2].name, "a b");
  EXPECT_EQ(points[2].step, 7);
  EXPECT_EQ(points[2].task, kWorker1);
  EXPECT_TRUE(
      absl::StrContains(Text("metrics.jsonl"), R"({"name":"loss","value":"NaN","time":11.0,"task":"worker/0"})"));
  EXPECT_EQ(ScanEventFile(EventFile("worker-0")).records, 3u) << "a header and two points";
}

TEST_F(HistoryTest, AMetricWithoutATimeHasThatOfItsArrivalForGood) {
  const double before = absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()) - 1;
  auto history = Open();
  history->Record(kNow, record_);
  const std::string old = "{\"name\":\"loss\",\"value\":1,\"time\":10}\n";
  const std::string bare = "{\"name\":\"loss\",\"value\":2,\"step\":7}\n";
  EXPECT_TRUE(history->Store(Piece(RunStream::kMetrics, kWorker0, "", bare)).ok());
  EXPECT_TRUE(history->Store(Piece(RunStream::kMetrics, kWorker0, "", old, bare.size())).ok());
  history->Record(kNow + absl::Seconds(1), record_);
  ASSERT_EQ(history->record().metrics.count("loss"), 1u);
  EXPECT_EQ(history->record().metrics.at("loss"), 2) << "it is no point of 1970, and so the newest";
  const std::vector<MetricPoint> points = *ReadMetrics(folder_.MetricsPath());
  ASSERT_EQ(points.size(), 2u);
  EXPECT_GT(points[0].time, before);
  EXPECT_EQ(points[1].time, 10);
  // A supervisor that takes over keeps what was written.
  const std::string written = Text("metrics.jsonl"), events = EventFile("worker-0");
  history.reset();
  history = Open();
  EXPECT_EQ(Text("metrics.jsonl"), written);
  EXPECT_EQ(EventFile("worker-0"), events);
  End(*history);
  EXPECT_EQ(history->record().metrics.at("loss"), 2);
}

TEST_F(HistoryTest, AScriptThatMakesUpNamesFillsItsOwnFileAndNotTheRecord) {
  auto history = Open();
  history->Record(kNow, record_);
  std::string lines;
  for (int i = 0; i < 3000; ++i) absl::StrAppend(&lines, "{\"name\":\"n", i, "\",\"value\":1,\"time\":", i, "}\n");
  absl::StrAppend(&lines, "{\"name\":\"n7\",\"value\":8,\"time\":4000}\n");
  EXPECT_TRUE(history->Store(Piece(RunStream::kMetrics, kWorker0, "", lines)).ok());
  EXPECT_TRUE(history
                  ->Store(Piece(RunStream::kMetrics, kWorker1, "",
                                R"({"name":"late","value":1,"time":1})"
                                "\n"))
                  .ok());
  End(*history);
  EXPECT_EQ(history->record().metrics.size(), 1024u);
  EXPECT_EQ(history->record().metrics.at("n7"), 8) << "those that are known go on";
  EXPECT_EQ(ReadMetrics(folder_.MetricsPath())->size(), 3002u) << "nothing is lost";
  EXPECT_EQ(ScanEventFile(EventFile("worker-0")).records, 1u + 1024 + 1);
  EXPECT_EQ(ScanEventFile(EventFile("worker-1")).records, 2u);
  history = Open();
  EXPECT_EQ(ScanEventFile(EventFile("worker-0")).records, 1u + 1024 + 1) << "a takeover adds nothing";
  EXPECT_EQ(ReadMetrics(folder_.MetricsPath())->size(), 3002u);
}

TEST_F(HistoryTest, ARunThatNobodySupervisesSaysHowToGoOn) {
  record_.phase = RunPhase::kRunning;
  EXPECT_EQ(StateToShow(record_, true).name, "Running");
  const ShownState lost = StateToShow(record_, false);
  EXPECT_EQ(lost.name, "NotResponding");
  EXPECT_TRUE(absl::StrContains(lost.advice, "basin attach 20251128-120000-abcdef"));
  record_.phase = RunPhase::kFailed;
  EXPECT_EQ(StateToShow(record_, false).name, "Failed");

  EXPECT_FALSE(SupervisorLock::IsHeld(folder_));
  {
    const auto lock = SupervisorLock::Take(folder_);
    ASSERT_TRUE(lock.ok());
    EXPECT_TRUE(SupervisorLock::IsHeld(folder_));
    EXPECT_EQ(SupervisorLock::Take(folder_).status().code(), absl::StatusCode::kFailedPrecondition);
  }
  EXPECT_FALSE(SupervisorLock::IsHeld(folder_));
}

TEST_F(HistoryTest, WorkIsDueOnlyWhereSomethingHasChanged) {
  auto history = Open();
  EXPECT_EQ(history->NextDeadline(), absl::InfiniteFuture());
  history->Record(kNow, record_);
  history->OnTime(kNow + absl::Seconds(60));
  EXPECT_EQ(history->NextDeadline(), absl::InfiniteFuture());
  EXPECT_TRUE(
      history->Store(Piece(RunStream::kMetrics, kWorker0, "", "{\"name\":\"loss\",\"value\":4,\"time\":1}\n")).ok());
  const absl::Time due = history->NextDeadline();
  EXPECT_LE(due, kNow + absl::Seconds(65));
  history->OnTime(std::max(due, kNow + absl::Seconds(65)));
  EXPECT_EQ(ReadRun(folder_)->metrics.at("loss"), 4);
  EXPECT_TRUE(absl::StrContains(Text("index.html"), "\"loss\""));
  EXPECT_EQ(history->NextDeadline(), absl::InfiniteFuture());
  End(*history);
  EXPECT_EQ(history->NextDeadline(), absl::InfiniteFuture());
  EXPECT_FALSE(Exists(".reserve"));
}

TEST_F(HistoryTest, APartOfTheFolderThatIsGoneIsToldOfWhereTheRestStays) {
  for (const bool rest_stays : {true, false}) {
    auto history = Open();
    std::vector<std::string> told;
    history->TellBy([&](const std::string& line) { told.push_back(line); });
    history->Record(kNow, record_);
    const std::string name = rest_stays ? "a" : "b";
    EXPECT_TRUE(history->Store(Piece(RunStream::kOutput, kWorker0, name, "half")).ok());
    fs::remove_all(folder_.OutputPath(""));
    FilePiece rest = Piece(RunStream::kOutput, kWorker0, name, "rest", 4);
    rest.last = true;
    EXPECT_FALSE(history->Store(rest).ok());
    EXPECT_TRUE(told.empty()) << told[0];
    if (!rest_stays) fs::remove_all(folder_.path());
    EXPECT_LE(history->NextDeadline(), kNow + absl::Seconds(60));
    history->OnTime(kNow + absl::Seconds(60));
    EXPECT_EQ(history->IsRemoved(), !rest_stays);
    if (!rest_stays) {
      EXPECT_TRUE(told.empty()) << told[0];
      continue;
    }
    ASSERT_EQ(told.size(), 1u);
    EXPECT_TRUE(absl::StrContains(told[0], "is not complete: ")) << told[0];
  }
}

}  // namespace
}  // namespace basin
