#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/exit_code.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "estimator/commands/commands.h"
#include "estimator/commands/given_words.h"
#include "estimator/commands/runs_place.h"
#include "estimator/commands/slurm_runs.h"
#include "estimator/history/copy_files.h"
#include "estimator/history/record_json.h"

namespace basin {
namespace {

constexpr size_t kFilesShown = 20;

std::string TaskLine(const TaskRecord& task) {
  const std::string end = task.exit ? task.exit->Text() : task.pid == 0 ? "not started" : "";
  return absl::StrCat("  ", Column(task.name.Sentence(), 12), Column(task.host, 16), Column(task.address, 22),
                      Column(task.pid == 0 ? "" : absl::StrCat("process ", task.pid), 16), end, "\n");
}

std::string Text(const RunRecord& record, const ShownState& shown, const std::vector<std::string>& files) {
  std::string text = absl::StrCat("run         ", record.run_id, "\nexperiment  ", record.experiment, "\nstate       ",
                                  shown.name, "\n");
  if (!record.reason.empty()) absl::StrAppend(&text, "reason      ", ForTerminal(record.reason), "\n");
  if (!shown.advice.empty()) absl::StrAppend(&text, "            ", shown.advice, "\n");
  absl::StrAppend(&text, "created     ", TimeToText(record.created), "\n");
  if (record.ended) {
    absl::StrAppend(&text, "ended       ", TimeToText(*record.ended), ", after ",
                    AgeText(*record.ended - record.created), "\n");
  }
  if (record.exit_code) absl::StrAppend(&text, "exit code   ", *record.exit_code, "\n");
  if (!record.target.empty()) absl::StrAppend(&text, "target      ", ForTerminal(record.target), "\n");
  for (const auto& [name, value] : record.git)
    absl::StrAppend(&text, ForTerminal(name), "  ", ForTerminal(value), "\n");
  absl::StrAppend(&text, "folder      ", record.folder, "\npage        ", record.portal_url, "\n");
  if (!record.history.empty()) text += "states\n";
  for (const StateChange& change : record.history) {
    absl::StrAppend(&text, "  ", TimeToText(change.time), "  ", Column(RunPhaseName(change.phase), 15),
                    ForTerminal(change.reason), "\n");
  }
  if (!record.tasks.empty()) text += "tasks\n";
  for (const TaskRecord& task : record.tasks) text += TaskLine(task);
  if (!record.metrics.empty()) text += "metrics, the newest of each\n";
  for (const auto& [name, value] : record.metrics) absl::StrAppend(&text, "  ", Column(name, 24), value, "\n");
  if (!files.empty()) text += "files\n";
  for (size_t i = 0; i < std::min(files.size(), kFilesShown); ++i)
    absl::StrAppend(&text, "  ", ForTerminal(files[i]), "\n");
  if (files.size() > kFilesShown)
    absl::StrAppend(&text, "  and ", files.size() - kFilesShown, " more (--json lists all)\n");
  return text;
}

absl::Status Show(const CommandContext& context, const RunFlags& flags) {
  BASIN_ASSIGN_OR_RETURN(const RunFolder folder, RunOf(context, flags));
  // Where Slurm cannot be asked, what is recorded is shown.
  if (const absl::Status settled = SettleQueuedRun(folder); !settled.ok()) Warn(std::string(settled.message()));
  BASIN_ASSIGN_OR_RETURN(const RunRecord record, ReadRun(folder));
  const ShownState shown = StateToShow(record, IsFinal(record.phase) || SupervisorLock::IsHeld(folder));
  BASIN_ASSIGN_OR_RETURN(const std::vector<std::string> files, FilesOfRun(folder.path()));
  if (!flags.json) {
    std::fputs(Text(record, shown, files).c_str(), stdout);
    return absl::OkStatus();
  }
  OrderedJson json = RecordToJsonValue(record);
  json["state"] = shown.name;
  if (!shown.advice.empty()) json["reason"] = shown.advice;
  json["files"] = files;
  std::printf("%s\n", Pretty(json).c_str());
  return absl::OkStatus();
}

}  // namespace

void AddShow(CLI::App& app, const CommandContext& context, int* exit_code) {
  CLI::App* show = app.add_subcommand("show", "Shows a run: states, tasks, metrics, files, git");
  const auto flags = std::make_shared<RunFlags>();  // the callback keeps it
  AddRunOption(*show, flags.get());
  AddJsonOption(*show, flags.get(), "Print the run's record and the paths of its files as JSON");
  show->footer(kUsualExitCodes);
  show->callback([&context, exit_code, flags] {
    const absl::Status status = Show(context, *flags);
    *exit_code = status.ok() ? kExitOk : Complain(status);
  });
}

}  // namespace basin
