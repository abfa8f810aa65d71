#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "common/base/exit_code.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/text.h"
#include "estimator/commands/commands.h"
#include "estimator/commands/given_words.h"
#include "estimator/commands/runs_place.h"
#include "estimator/history/record_json.h"
#include "estimator/run/supervisor.h"

namespace basin {
namespace {

constexpr absl::Duration kLookEvery = absl::Milliseconds(200);
// A run changes hands within that: `basin attach` takes over.
constexpr absl::Duration kUnsupervisedPatience = absl::Seconds(10);

struct LogsFlags : RunFlags {
  std::string task;
  bool follow = false;
  int64_t tail = -1;
};

// The logs of a run that are shown, by the name in front of their lines. New ones may come while the run goes on.
std::map<std::string, std::string> LogsOf(const RunFolder& folder) {
  std::map<std::string, std::string> logs;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(absl::StrCat(folder.path(), "/logs"), error)) {
    const std::string stem = entry.path().stem().string();
    if (entry.path().extension() != ".txt") continue;
    if (const std::optional<TaskId> task = TaskOfFileName(stem)) {
      logs[task->Name()] = entry.path().string();
    } else if (absl::StartsWith(stem, "environment-")) {
      logs[stem] = entry.path().string();
    }
  }
  return logs;
}

// Prints what comes of logs: of one alone its bytes as they are, of several whole lines with the log's name in front,
// for programs whole lines as JSON.
class Shower {
 public:
  enum class Form { kBytes, kNamedLines, kJson };
  Shower(Form form, int64_t tail) : form_(form), tail_(tail) {}

  // What is new of a log; but for bytes, a line without an end waits for it, until the end of all.
  void Show(const std::string& name, const std::string& path, bool at_end) {
    State& state = logs_[name];
    state.file = std::filesystem::path(path).filename().string();
    std::ifstream file(path, std::ios::binary);
    if (!file) return;
    if (state.at < 0) state.at = tail_ >= 0 ? TailStart(file) : 0;
    file.clear();
    file.seekg(state.at);
    std::string piece(kPieceBytes, '\0');
    while (file.read(piece.data(), static_cast<std::streamsize>(piece.size())) || file.gcount() > 0) {
      state.at += file.gcount();
      Take(name, &state, absl::string_view(piece).substr(0, static_cast<size_t>(file.gcount())));
    }
    if (!at_end) return;
    if (!state.rest.empty()) PrintLine(name, state, state.rest);
    if (state.is_open) std::fputc('\n', stdout);
    state = {.file = state.file, .at = state.at};
  }

 private:
  struct State {
    std::string file;  // in the run's folder logs/
    std::streamoff at = -1;
    std::string rest;      // but for bytes: of a line that has not ended; less than kPieceBytes
    bool is_open = false;  // alone: what was printed last has no end of line
  };

  void Take(const std::string& name, State* state, absl::string_view bytes) {
    if (form_ == Form::kBytes) {
      std::fwrite(bytes.data(), 1, bytes.size(), stdout);
      state->is_open = bytes.back() != '\n';
      return;
    }
    state->rest.append(bytes.data(), bytes.size());
    size_t from = 0, end;
    while ((end = state->rest.find('\n', from)) != std::string::npos) {
      PrintLine(name, *state, absl::string_view(state->rest).substr(from, end - from));
      from = end + 1;
    }
    state->rest.erase(0, from);
    // A progress bar, or what has no lines at all.
    if (state->rest.size() < kPieceBytes) return;
    // A character stays whole.
    size_t cut = state->rest.size();
    for (int i = 0; i < 4 && (state->rest[cut - 1] & 0xC0) == 0x80; ++i) --cut;
    if ((state->rest[cut - 1] & 0xC0) == 0xC0) --cut;
    PrintLine(name, *state, absl::string_view(state->rest).substr(0, cut), /*goes_on=*/true);
    state->rest.erase(0, cut);
  }

  // Where the last lines begin, looked for backwards.
  std::streamoff TailStart(std::ifstream& file) const {
    file.seekg(0, std::ios::end);
    std::streamoff end = file.tellg();
    if (tail_ == 0) return end;
    int64_t wanted = tail_ + 1;  // the end of the last line is none between two
    std::string piece(64 << 10, '\0');
    bool first = true;
    while (end > 0) {
      const std::streamoff from = std::max<std::streamoff>(0, end - static_cast<std::streamoff>(piece.size()));
      file.seekg(from);
      file.read(piece.data(), end - from);
      for (std::streamoff i = end - from - 1; i >= 0; --i) {
        const bool last_byte = std::exchange(first, false);
        if (piece[static_cast<size_t>(i)] != '\n') {
          if (last_byte) --wanted;  // a last line without an end
          continue;
        }
        if (--wanted <= 0) return from + i + 1;
      }
      end = from;
    }
    return 0;
  }

  void PrintLine(const std::string& name, const State& state, absl::string_view line, bool goes_on = false) const {
    if (form_ == Form::kJson) {
      OrderedJson json = {{"task", ParseTaskId(name).ok() ? OrderedJson(name) : OrderedJson(nullptr)},
                          {"file", absl::StrCat("logs/", state.file)},
                          {"text", ToStd(line)}};
      if (goes_on) json["goes_on"] = true;
      std::printf("%s\n", Line(json).c_str());
      return;
    }
    std::printf("%s| ", Column(name, 9).c_str());
    std::fwrite(line.data(), 1, line.size(), stdout);
    std::fputc('\n', stdout);
  }

  static constexpr size_t kPieceBytes = 64 << 10;
  const Form form_;
  const int64_t tail_;
  std::map<std::string, State> logs_;
};

// Of a run that is submitted at this moment there is a folder before there is a record.
absl::StatusOr<RunRecord> RecordOf(const RunFolder& folder) {
  const absl::Time until = absl::Now() + kUnsupervisedPatience;
  while (true) {
    absl::StatusOr<RunRecord> record = ReadRun(folder);
    if (!absl::IsNotFound(record.status()) || absl::Now() >= until) return record;
    absl::SleepFor(kLookEvery);
  }
}

// The name under which LogsOf has it. Of a run that goes on, also of a task whose log has not come yet.
absl::StatusOr<std::string> NameOf(const RunFolder& folder, const std::string& text, bool follow) {
  const std::map<std::string, std::string> logs = LogsOf(folder);
  if (logs.contains(text)) return text;
  std::string wanted = text;
  if (const std::optional<TaskId> by_file = TaskOfFileName(text)) wanted = by_file->Name();
  if (const absl::StatusOr<TaskId> task = ParseTaskId(text); task.ok()) wanted = task->Name();
  if (logs.contains(wanted)) return wanted;
  std::vector<std::string> names;
  for (const auto& [name, path] : logs) names.push_back(name);
  if (follow) {
    BASIN_ASSIGN_OR_RETURN(const RunRecord record, RecordOf(folder));
    // The first record of a run is older than its plan.
    if (!IsFinal(record.phase) && record.tasks.empty() && ParseTaskId(wanted).ok()) return wanted;
    for (const TaskRecord& task : record.tasks) {
      if (task.name.Name() == wanted) return wanted;
      if (!logs.contains(task.name.Name())) names.push_back(task.name.Name());
    }
  }
  return absl::NotFoundError(absl::StrCat("--task ", text, ": no log of that name; ",
                                          names.empty() ? "the run has none yet" : "there are ",
                                          absl::StrJoin(names, ", ")));
}

absl::StatusOr<int> Logs(const CommandContext& context, const LogsFlags& flags) {
  BASIN_ASSIGN_OR_RETURN(const RunFolder folder, RunOf(context, flags));
  std::string only;
  if (!flags.task.empty()) {
    BASIN_ASSIGN_OR_RETURN(only, NameOf(folder, flags.task, flags.follow));
  }
  Shower shower(flags.json     ? Shower::Form::kJson
                : only.empty() ? Shower::Form::kNamedLines
                               : Shower::Form::kBytes,
                flags.tail);
  absl::Time supervised_at = absl::Now();
  bool known = false;  // there has been a record
  while (true) {
    // First whether it is over, then the logs: what was written before the end is seen.
    bool over = true, lost = false;
    if (flags.follow) {
      const absl::StatusOr<RunRecord> record = known ? ReadRun(folder) : RecordOf(folder);
      if (known && absl::IsNotFound(record.status())) {
        return absl::AbortedError(RemovedReason(folder, std::filesystem::path(folder.path()).filename().string()));
      }
      BASIN_RETURN_IF_ERROR(record.status());
      known = true;
      over = IsFinal(record->phase);
      if (over || SupervisorLock::IsHeld(folder)) supervised_at = absl::Now();
      lost = absl::Now() - supervised_at > kUnsupervisedPatience;
    }
    for (const auto& [name, path] : LogsOf(folder)) {
      if (only.empty() || name == only) shower.Show(name, path, over || lost);
    }
    if (std::fflush(stdout) != 0) return kExitFailed;  // nobody reads any more
    if (over) return kExitOk;
    if (lost) {
      BASIN_ASSIGN_OR_RETURN(const RunRecord record, ReadRun(folder));
      return absl::UnavailableError(absl::StrCat("run ", record.run_id, ": ", StateToShow(record, false).advice));
    }
    absl::SleepFor(kLookEvery);
  }
}

}  // namespace

void AddLogs(CLI::App& app, const CommandContext& context, int* exit_code) {
  CLI::App* logs = app.add_subcommand("logs", "Prints what the tasks of a run have printed");
  const auto flags = std::make_shared<LogsFlags>();  // the callback keeps it
  AddRunOption(*logs, flags.get());
  NotEmpty(logs->add_option("--task", flags->task, "Only this task's, without its name in front: worker/0"))
      ->type_name("TASK");
  logs->add_flag("-f,--follow", flags->follow, "Go on as more comes, until the run ends");
  WholeNumber(logs->add_option("--tail", flags->tail, "Begin with the last N lines of each log"), 0)->type_name("N");
  AddJsonOption(*logs, flags.get(), R"(Print each line as a JSON object on one line: {"task", "file", "text"})");
  logs->footer(
      "Exit code: 0 done, whatever has become of the run; 1 failed, with -f also where nobody supervises the run any\n"
      "more or its folder was removed; 2 wrong input.");
  logs->callback([&context, exit_code, flags] {
    const absl::StatusOr<int> code = Logs(context, *flags);
    *exit_code = code.ok() ? *code : Complain(code.status());
  });
}

}  // namespace basin
