// Plays a supervisor's part towards a run's history, for the Python tests: each line of standard input is one call.
//
//   history_writer RUNS EXPERIMENT RUN_ID
//   {"record": {...run.json...}, "now": 12.5}            RunHistory::Record; `now` in seconds since 1970
//   {"piece": {"stream": "log", "task": "worker/0", "path": "", "data": "...", "chief": false, "last": true}}
//   {"bytes": 1000000, "piece": {...}}                    the same with so many bytes of data
//   {"journal": "event", "fields": {...}, "now": 13}      RunHistory::Journal
//   {"time": 14}                                          RunHistory::OnTime
//   {"job": {...}}                                        RunFolder::WriteJob
//   {"fill": "PATH"}                                      writes a file there until the disk is full
//   {"wait": true}                                        prints "ready" and goes on with the next line
// The folder is made where it is missing; the supervisor's lock is held until the end of input. A line whose piece has
// no offset goes to the end of the file. Prints {"unstored": N, "health": "..."} at the end: pieces that were not
// stored.
#include <sys/stat.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "cluster_spec/cluster_spec.h"
#include "estimator/history/record_json.h"
#include "estimator/history/run_history.h"

namespace basin {
namespace {

FilePiece PieceOf(const OrderedJson& json, const RunHistory& history) {
  FilePiece piece;
  const std::string stream = json.value("stream", "log");
  piece.stream = stream == "script_log" ? RunStream::kScriptLog
                 : stream == "metrics"  ? RunStream::kMetrics
                 : stream == "output"   ? RunStream::kOutput
                 : stream == "agent"    ? RunStream::kAgent
                                        : RunStream::kLog;
  piece.task = ParseTaskId(json.value("task", "worker/0")).value();
  piece.path = json.value("path", "");
  piece.data = json.value("data", "");
  piece.is_chief = json.value("chief", false);
  piece.last = json.value("last", false);
  piece.executable = json.value("executable", false);
  uint64_t end = 0;
  for (const StoredFile& file : history.Stored()) {
    if (file.stream == piece.stream && file.task == piece.task && file.path == piece.path) end = file.bytes;
  }
  piece.offset = json.value("offset", end);
  return piece;
}

int Main(int argc, char** argv) {
  if (argc != 4) return 2;
  umask(077);
  const RunFolder folder(RunFolder::PathFor(argv[1], argv[2], argv[3]));
  struct stat info;
  if (stat(folder.path().c_str(), &info) != 0) {
    if (const absl::Status made = folder.Create(); !made.ok()) {
      std::cerr << made << "\n";
      return 1;
    }
  }
  const auto lock = SupervisorLock::Take(folder);
  absl::StatusOr<std::unique_ptr<RunHistory>> opened = RunHistory::Open(folder);
  if (!lock.ok() || !opened.ok()) {
    std::cerr << lock.status() << opened.status() << "\n";
    return 1;
  }
  RunHistory& history = **opened;
  int unstored = 0;
  for (std::string line; std::getline(std::cin, line);) {
    const OrderedJson json = OrderedJson::parse(line);
    const absl::Time now =
        absl::FromUnixMillis(static_cast<int64_t>(json.value("now", json.value("time", 0.0)) * 1000));
    if (json.contains("record")) history.Record(now, RecordFromJsonValue(json["record"]));
    if (json.contains("job")) folder.WriteJob(Pretty(json["job"])).IgnoreError();
    if (json.contains("journal"))
      history.Journal(now, json["journal"].get<std::string>(), Line(json.value("fields", OrderedJson())));
    if (json.contains("time")) history.OnTime(now);
    if (json.contains("piece")) {
      FilePiece piece = PieceOf(json["piece"], history);
      if (json.contains("bytes")) piece.data.assign(json["bytes"].get<size_t>(), 'x');
      if (!history.Store(piece).ok()) ++unstored;
    }
    if (json.contains("fill")) {
      std::ofstream file(json["fill"].get<std::string>());
      while (file << std::string(4096, 'x') && file.flush()) {
      }
    }
    if (json.contains("wait")) {
      std::puts("ready");
      std::fflush(stdout);
    }
  }
  std::printf("%s\n", Line({{"unstored", unstored}, {"health", std::string(history.health().message())}}).c_str());
  return 0;
}

}  // namespace
}  // namespace basin

int main(int argc, char** argv) { return basin::Main(argc, argv); }
