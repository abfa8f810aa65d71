#include "estimator/history/read_run.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/files.h"
#include "common/base/text.h"
#include "estimator/history/record_json.h"

namespace basin {
namespace {

void ApplyTask(const OrderedJson& json, RunRecord* record) {
  const std::optional<TaskRecord> task = TaskFromJsonValue(json);
  if (!task) return;
  for (TaskRecord& one : record->tasks) {
    if (one.name != task->name) continue;
    one = *task;
    return;
  }
  record->tasks.push_back(*task);
}

void ApplyState(const OrderedJson& json, RunRecord* record) {
  const std::optional<RunPhase> phase = PhaseNamed(TextField(json, "state"));
  const std::optional<absl::Time> time = TimeField(json, "time");
  if (!phase || !time) return;
  record->phase = *phase;
  record->reason = TextField(json, "reason");
  record->history.push_back({*phase, *time, record->reason});
  if (!IsFinal(*phase)) return;
  record->ended = TimeField(json, "ended").value_or(*time);
  if (const auto code = json.find("exit_code"); code != json.end() && code->is_number_integer()) {
    record->exit_code = code->get<int>();
  }
}

}  // namespace

RunRecord RecordFromJournal(absl::string_view lines) {
  RunRecord record;
  for (const absl::string_view line : absl::StrSplit(lines, '\n', absl::SkipEmpty())) {
    const OrderedJson json = OrderedJson::parse(ToStd(line), nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) continue;
    const std::string event = TextField(json, "event");
    if (event == "run" && json.contains("record") && json["record"].is_object()) {
      record = RecordFromJsonValue(json["record"]);
    } else if (event == "state") {
      ApplyState(json, &record);
    } else if (event == "task") {
      ApplyTask(json, &record);
    }
  }
  return record;
}

absl::StatusOr<RunRecord> ReadRun(const RunFolder& folder) {
  RunRecord record;
  absl::StatusOr<std::string> text = ReadFile(folder.RecordPath());
  if (text.ok()) {
    if (absl::StatusOr<RunRecord> read = RunRecordFromJson(*text); read.ok()) record = *std::move(read);
  }
  if (record.run_id.empty() || !IsFinal(record.phase)) {
    // The journal is synced before run.json is written, so it may know more.
    const absl::StatusOr<std::string> journal = ReadFile(folder.JournalPath(), size_t{1} << 30);
    if (journal.ok()) {
      RunRecord rebuilt = RecordFromJournal(*journal);
      // Unless its last lines could not be written: then run.json knows more states.
      if (!rebuilt.run_id.empty() && rebuilt.history.size() >= record.history.size()) {
        rebuilt.metrics = std::move(record.metrics);
        record = std::move(rebuilt);
      }
    }
  }
  if (record.run_id.empty()) {
    return absl::NotFoundError(
        absl::StrCat(folder.path(), ": no run: neither run.json nor journal.jsonl tells of one"));
  }
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(folder.path(), error);
  record.folder = error ? folder.path() : absolute.lexically_normal().string();
  record.portal_url = folder.PageUrl();
  return record;
}

std::vector<KeptFolder> KeptFolders(const RunFolder& folder) {
  std::vector<KeptFolder> kept;
  const absl::StatusOr<std::string> journal = ReadFile(folder.JournalPath(), size_t{1} << 30);
  if (!journal.ok()) return kept;
  for (const absl::string_view line : absl::StrSplit(*journal, '\n', absl::SkipEmpty())) {
    if (!absl::StrContains(line, "\"kept\"")) continue;
    const OrderedJson json = OrderedJson::parse(ToStd(line), nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || TextField(json, "event") != "kept") continue;
    KeptFolder one = {TextField(json, "host"), TextField(json, "folder"), false};
    if (const auto local = json.find("local"); local != json.end() && local->is_boolean()) one.is_local = *local;
    const auto same = [&one](const KeptFolder& other) { return other.host == one.host && other.folder == one.folder; };
    if (!one.folder.empty() && std::none_of(kept.begin(), kept.end(), same)) kept.push_back(std::move(one));
  }
  return kept;
}

ShownState StateToShow(const RunRecord& record, bool is_supervised) {
  // In a queue nobody supervises it yet.
  if (IsFinal(record.phase) || is_supervised || record.phase == RunPhase::kQueued)
    return {RunPhaseName(record.phase), ""};
  return {"NotResponding", absl::StrCat("nobody supervises this run any more; its last state was ",
                                        RunPhaseName(record.phase), "; go on with it: basin attach ", record.run_id)};
}

}  // namespace basin
