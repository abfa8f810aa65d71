// What is left of a run after a crash or on a full disk, and how the next supervisor goes on with it.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/format/event_file.h"
#include "estimator/history/read_run.h"
#include "tests/estimator/history_folder.h"

namespace basin {
namespace {

namespace fs = std::filesystem;

using HistoryCrashTest = HistoryTest;

// As on a full disk: no file grows while it lives. Names may change.
class FullDisk {
 public:
  FullDisk() : old_handler_(signal(SIGXFSZ, SIG_IGN)) {
    EXPECT_EQ(getrlimit(RLIMIT_FSIZE, &before_), 0);
    const rlimit none = {1, before_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &none), 0);
  }
  ~FullDisk() {
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &before_), 0);
    signal(SIGXFSZ, old_handler_);
  }

 private:
  const sighandler_t old_handler_;
  rlimit before_;
};

TEST_F(HistoryCrashTest, ARecordIsPutTogetherFromTheJournal) {
  auto history = Open();
  history->Record(kNow, record_);
  record_.phase = RunPhase::kRunning;
  record_.tasks[0].pid = 5;
  history->Record(kNow + absl::Seconds(2), record_);
  history->Journal(kNow, "node_lost", R"({"node": 1, "time": "never"})");
  const std::string before = Text("run.json");
  record_.phase = RunPhase::kCanceled;
  record_.ended = kNow + absl::Seconds(9);
  record_.exit_code = 1;
  history->Record(kNow + absl::Seconds(9), record_);

  // The journal's last event is one that run.json does not know: the supervisor was killed between the two.
  std::ofstream(folder_.RecordPath()) << before;
  for (const bool missing : {false, true}) {
    if (missing) fs::remove(folder_.RecordPath());
    const absl::StatusOr<RunRecord> read = ReadRun(folder_);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->phase, RunPhase::kCanceled);
    EXPECT_EQ(read->ended, kNow + absl::Seconds(9));
    EXPECT_EQ(read->exit_code, 1);
    EXPECT_EQ(read->tasks[0].pid, 5);
    EXPECT_EQ(read->experiment, "exp");
    EXPECT_EQ(read->history.size(), 3u);
  }
  EXPECT_TRUE(absl::StrContains(Text("journal.jsonl"), R"("event":"node_lost","node":1})"));
  fs::remove(folder_.JournalPath());
  EXPECT_EQ(ReadRun(folder_).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(HistoryCrashTest, AJournalThatCouldNotBeWrittenHidesNothing) {
  auto history = Open();
  history->Record(kNow, record_);
  const std::string journal = Text("journal.jsonl");
  record_.phase = RunPhase::kRunning;
  record_.tasks[0].pid = 5;
  history->Record(kNow + absl::Seconds(1), record_);
  history.reset();
  // run.json has been written, and of the journal only what came before: the disk was full for that alone.
  std::ofstream(folder_.JournalPath(), std::ios::trunc) << journal;
  EXPECT_EQ(ReadRun(folder_)->phase, RunPhase::kRunning);
  EXPECT_EQ(ReadRun(folder_)->tasks[0].pid, 5);
  // The next supervisor makes up for it.
  history = Open();
  fs::remove(folder_.RecordPath());
  EXPECT_EQ(ReadRun(folder_)->phase, RunPhase::kRunning);
  EXPECT_EQ(ReadRun(folder_)->tasks[0].pid, 5);
  EXPECT_EQ(ReadRun(folder_)->history.size(), 2u);
}

TEST_F(HistoryCrashTest, LinesThatTheJournalCouldNotTakeComeWithTheNext) {
  auto history = Open();
  history->Record(kNow, record_);
  {
    const FullDisk full;
    record_.phase = RunPhase::kRunning;
    history->Record(kNow + absl::Seconds(1), record_);
  }
  EXPECT_FALSE(history->health().ok());
  EXPECT_FALSE(absl::StrContains(Text("journal.jsonl"), "Running"));
  history->Journal(kNow + absl::Seconds(2), "node", "{}");
  const std::string journal = Text("journal.jsonl");
  EXPECT_LT(journal.find("Running"), journal.find(R"("event":"node")")) << journal;
}

TEST_F(HistoryCrashTest, OutputsAreInTheirPlacesWhenTheRunHasEndedWhateverHappensBetween) {
  auto history = Open();
  history->Record(kNow, record_);
  EXPECT_TRUE(history->Store(Output(kWorker1, "model/net.bin", "weights")).ok());
  history.reset();
  // Killed between the move and the line that tells of it.
  fs::create_directory(folder_.OutputPath("model"));
  fs::rename(folder_.OutputPath("by-task/worker-1/model/net.bin"), folder_.OutputPath("model/net.bin"));
  history = Open();
  EXPECT_EQ(history->Stored().at(0).bytes, 7u);
  EXPECT_TRUE(history->Store(Output(kWorker1, "model/net.bin", "weights")).ok());  // it is offered once more
  End(*history);
  EXPECT_EQ(Text("outputs/model/net.bin"), "weights");
  EXPECT_FALSE(Exists("outputs/by-task/worker-1/model/net.bin"));
}

TEST_F(HistoryCrashTest, AllOutputsGetTheirPlacesAlsoWhenThatCannotBeWrittenDown) {
  auto history = Open();
  history->Record(kNow, record_);
  EXPECT_TRUE(history->Store(Output(kWorker1, "a", "1")).ok());
  EXPECT_TRUE(history->Store(Output(kWorker1, "b", "2")).ok());
  {
    const FullDisk full;
    End(*history);
  }
  EXPECT_EQ(Text("outputs/a") + Text("outputs/b"), "12");
}

TEST_F(HistoryCrashTest, ATornLineIsCutOffAndTheNextIsWhole) {
  Open()->Record(kNow, record_);
  Append("journal.jsonl", R"({"time":"2025-11-28T12:00)");
  record_.phase = RunPhase::kRunning;
  EXPECT_TRUE(ReadRun(folder_).ok());
  auto second = Open();
  EXPECT_EQ(second->record().run_id, record_.run_id);
  second->Record(kNow + absl::Seconds(1), record_);
  int lines = 0;
  const std::string journal = Text("journal.jsonl");
  for (const absl::string_view line : absl::StrSplit(journal, '\n', absl::SkipEmpty())) {
    EXPECT_TRUE(nlohmann::json::accept(std::string(line))) << line;
    ++lines;
  }
  EXPECT_EQ(lines, 2);
  EXPECT_EQ(ReadRun(folder_)->history.size(), 2u);
}

TEST_F(HistoryCrashTest, PiecesThatComeAgainAfterATakeoverChangeNothing) {
  auto first = Open();
  EXPECT_TRUE(first->Store(Piece(RunStream::kLog, kWorker1, "", "one\ntwo\n")).ok());
  EXPECT_TRUE(first->Store(Piece(RunStream::kScriptLog, kWorker1, "deep/train.log", "epoch 1\n")).ok());
  EXPECT_TRUE(first->Store(Piece(RunStream::kAgent, {}, "environment-0.txt", "pip\n")).ok());
  FilePiece half = Piece(RunStream::kOutput, kWorker1, "big.bin", "aaaa");
  EXPECT_TRUE(first->Store(half).ok());
  EXPECT_TRUE(first->Store(Output(kWorker1, "small.bin", "s")).ok());
  first.reset();

  auto second = Open();
  std::map<std::string, uint64_t> stored;
  for (const StoredFile& file : second->Stored()) stored[file.path] = file.bytes;
  const std::map<std::string, uint64_t> expected = {
      {"", 8}, {"deep/train.log", 8}, {"environment-0.txt", 4}, {"big.bin", 4}, {"small.bin", 1}};
  EXPECT_EQ(stored, expected);
  EXPECT_TRUE(second->Store(Piece(RunStream::kLog, kWorker1, "", "one\n")).ok());            // all of it is there
  EXPECT_TRUE(second->Store(Piece(RunStream::kLog, kWorker1, "", "two\nthree\n", 4)).ok());  // half of it
  FilePiece rest = Piece(RunStream::kOutput, kWorker1, "big.bin", "aabb", 2);
  rest.last = rest.executable = true;
  EXPECT_TRUE(second->Store(rest).ok());
  EXPECT_TRUE(second->Store(Output(kWorker1, "small.bin", "s")).ok());
  EXPECT_EQ(Text("logs/worker-1.txt"), "one\ntwo\nthree\n");
  EXPECT_EQ(Text("logs/worker-1/deep/train.log"), "epoch 1\n");
  EXPECT_EQ(Text("logs/environment-0.txt"), "pip\n");
  End(*second);
  EXPECT_EQ(Text("outputs/big.bin"), "aaaabb");
  EXPECT_NE(fs::status(folder_.OutputPath("big.bin")).permissions() & fs::perms::owner_exec, fs::perms::none);
  EXPECT_TRUE(second->health().ok()) << second->health();
}

TEST_F(HistoryCrashTest, MetricsThatACrashHasTornAreCompletedFromTheTasksOwnLines) {
  std::string lines;
  for (int i = 0; i < 100; ++i)
    lines += absl::StrCat("{\"name\":\"loss\",\"value\":", i, ",\"step\":", i, ",\"time\":", i, "}\n");
  EXPECT_TRUE(Open()->Store(Piece(RunStream::kMetrics, kWorker0, "", lines)).ok());
  const std::string merged = Text("metrics.jsonl"), events = EventFile("worker-0");
  ASSERT_EQ(ScanEventFile(events).records, 101u);
  const std::string event_path =
      fs::directory_iterator(absl::StrCat(folder_.path(), "/logs/tensorboard/worker-0"))->path().string();
  // Also with nothing left, with all left, and with a torn end.
  for (const double kept : {0.0, 0.31, 0.5, 0.77, 0.999, 1.0}) {
    fs::resize_file(folder_.MetricsPath(), static_cast<uintmax_t>(kept * static_cast<double>(merged.size())));
    fs::resize_file(event_path, static_cast<uintmax_t>(kept * static_cast<double>(events.size())));
    auto history = Open();
    EXPECT_EQ(Text("metrics.jsonl"), merged) << kept;
    EXPECT_EQ(ScanEventFile(EventFile("worker-0")).records, 101u) << kept;
    EXPECT_EQ(ScanEventFile(EventFile("worker-0")).sound_bytes, EventFile("worker-0").size()) << kept;
    EXPECT_EQ(history->record().metrics.at("loss"), 99);
  }
}

}  // namespace
}  // namespace basin
