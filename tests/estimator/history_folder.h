// A run's folder with a history and a record, for the tests of what is written there.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/files.h"
#include "estimator/history/run_history.h"
#include "tests/format/temporary_folder.h"

namespace basin {

inline const absl::Time kNow = absl::FromUnixMillis(1764370000123);
inline const TaskId kWorker0{Role::kWorker, 0};
inline const TaskId kWorker1{Role::kWorker, 1};
inline const TaskId kPs0{Role::kPs, 0};

class HistoryTest : public testing::Test {
 protected:
  HistoryTest() : folder_(RunFolder::PathFor(base_ / "runs", "exp", "20251128-120000-abcdef")) {
    EXPECT_TRUE(folder_.Create().ok());
    record_.run_id = "20251128-120000-abcdef";
    record_.experiment = "exp";
    record_.created = kNow;
    record_.target = "local";
    record_.tasks = {{kPs0, "127.0.0.1:2222", 0, {}, "here"}, {kWorker0, "127.0.0.1:2223", 0, {}, "here"}};
  }

  std::unique_ptr<RunHistory> Open() {
    absl::StatusOr<std::unique_ptr<RunHistory>> history = RunHistory::Open(folder_);
    EXPECT_TRUE(history.ok()) << history.status();
    return history.ok() ? *std::move(history) : nullptr;
  }
  std::string Text(const std::string& path) const {
    return ReadFile(absl::StrCat(folder_.path(), "/", path)).value_or("(missing)");
  }
  bool Exists(const std::string& path) const {
    return std::filesystem::exists(std::filesystem::path(folder_.path()) / path);
  }
  void Append(const std::string& path, const std::string& text) const {
    std::ofstream(absl::StrCat(folder_.path(), "/", path), std::ios::app) << text;
  }
  std::string EventFile(const std::string& task) const {
    for (const auto& entry :
         std::filesystem::directory_iterator(absl::StrCat(folder_.path(), "/logs/tensorboard/", task))) {
      return ReadFile(entry.path().string()).value_or("");
    }
    return "";
  }
  static FilePiece Piece(RunStream stream, const TaskId& task, const std::string& path, const std::string& data,
                         uint64_t offset = 0) {
    FilePiece piece;
    piece.stream = stream;
    piece.task = task;
    piece.path = path;
    piece.data = data;
    piece.offset = offset;
    return piece;
  }
  static FilePiece Output(const TaskId& task, const std::string& path, const std::string& data, bool chief = false) {
    FilePiece piece = Piece(RunStream::kOutput, task, path, data);
    piece.last = true;
    piece.is_chief = chief;
    return piece;
  }
  void End(RunHistory& history, RunPhase phase = RunPhase::kCompleted) {
    record_.phase = phase;
    record_.ended = kNow + absl::Seconds(90);
    record_.exit_code = phase == RunPhase::kCompleted ? 0 : 1;
    history.Record(kNow + absl::Seconds(90), record_);
  }

  TemporaryFolder base_;
  RunFolder folder_;
  RunRecord record_;
};

}  // namespace basin
