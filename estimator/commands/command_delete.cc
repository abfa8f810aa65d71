#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/exit_code.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "estimator/commands/commands.h"
#include "estimator/commands/given_words.h"
#include "estimator/commands/runs_place.h"
#include "estimator/history/aside.h"
#include "estimator/history/read_run.h"
#include "estimator/history/record_json.h"
#include "estimator/snapshot/task_tree.h"

namespace basin {
namespace {

namespace fs = std::filesystem;

constexpr char kDeleted[] = ".deleted-";

struct DeleteFlags : RunFlags {
  std::vector<std::string> which;
  bool force = false;
};

absl::Status MayDelete(const RunFolder& folder, bool force) {
  const absl::StatusOr<RunRecord> record = ReadRun(folder);
  const std::string id = fs::path(folder.path()).filename().string();
  if (!record.ok()) {
    if (force) return absl::OkStatus();
    return absl::Status(absl::StatusCode::kFailedPrecondition,
                        absl::StrCat("run ", id, ": its record cannot be read (", record.status().message(),
                                     "); --force deletes it all the same"));
  }
  if (IsFinal(record->phase)) return absl::OkStatus();
  if (SupervisorLock::IsHeld(folder)) {
    return absl::FailedPreconditionError(absl::StrCat("run ", id, " is ", RunPhaseName(record->phase),
                                                      "; wait for its end, or cancel it first: basin cancel ", id));
  }
  if (force) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "run ", id, " has not ended, though nobody supervises it: its tasks may still run; go on with it (basin attach ",
      id, "), or give --force"));
}

absl::Status DeleteRun(const RunFolder& folder) {
  // Nobody attaches from now on.
  const absl::StatusOr<SupervisorLock> lock = SupervisorLock::Take(folder);
  if (!lock.ok() && absl::IsFailedPrecondition(lock.status())) return lock.status();
  const fs::path path(folder.path());
  // Gone at once for everybody who lists runs, whatever happens while the files are removed.
  const fs::path aside = path.parent_path() / absl::StrCat(kDeleted, path.filename().string());
  PruneAsides(path.parent_path().string(), kDeleted);  // what a delete that was killed has left
  BASIN_RETURN_IF_ERROR(RemoveByWayOf(aside.string(), path.string()));
  rmdir(path.parent_path().c_str());  // the experiment's folder, where it is empty now
  return absl::OkStatus();
}

// BASE/runs/RUN/node-K, where an agent keeps its things: no line of a journal makes this remove anything else.
bool IsNodeFolderOf(const fs::path& path, const std::string& run_id) {
  return path.is_absolute() && path.lexically_normal() == path && absl::StartsWith(path.filename().string(), "node-") &&
         absl::StartsWith(path.parent_path().filename().string(), run_id) &&
         path.parent_path().parent_path().filename() == "runs";
}

// Where it is here; returns whether it is gone.
bool RemoveKept(const KeptFolder& kept, const std::string& run_id) {
  std::error_code error;
  if (!kept.is_local || !IsNodeFolderOf(kept.folder, run_id) || !fs::exists(kept.folder, error)) return false;
  const absl::Status removed = RemoveTree(kept.folder);
  if (!removed.ok()) {
    Warn(removed.message());
    return false;
  }
  rmdir(fs::path(kept.folder).parent_path().c_str());  // the run's, where this was its last node
  return true;
}

absl::Status Delete(const CommandContext& context, const DeleteFlags& flags) {
  // All are looked at before the first goes: a wrong name deletes nothing.
  std::vector<RunFolder> folders;
  std::set<std::string> seen;
  for (const std::string& one : flags.which) {
    RunFlags run = flags;
    run.run = one;
    BASIN_ASSIGN_OR_RETURN(const RunFolder folder, CertainRunOf(context, run));
    BASIN_RETURN_IF_ERROR(MayDelete(folder, flags.force));
    if (seen.insert(folder.path()).second) folders.push_back(folder);
  }
  OrderedJson deleted = OrderedJson::array(), left = OrderedJson::array();
  for (const RunFolder& folder : folders) {
    const std::vector<KeptFolder> kept = KeptFolders(folder);
    const std::string run_id = fs::path(folder.path()).filename().string();
    BASIN_RETURN_IF_ERROR(DeleteRun(folder));
    deleted.push_back(run_id);
    if (!flags.json) std::printf("deleted %s\n", folder.path().c_str());
    for (const KeptFolder& one : kept) {
      if (RemoveKept(one, run_id)) {
        if (!flags.json) std::printf("deleted %s\n", one.folder.c_str());
        continue;
      }
      left.push_back({{"host", one.host}, {"folder", one.folder}});
      if (!flags.json) {
        std::printf("kept on node %s, unless you have removed it: %s\n", one.host.c_str(), one.folder.c_str());
      }
    }
  }
  OrderedJson all = {{"deleted", deleted}};
  if (!left.empty()) all["left_on_nodes"] = left;
  if (flags.json) std::printf("%s\n", Pretty(all).c_str());
  return absl::OkStatus();
}

}  // namespace

void AddDelete(CLI::App& app, const CommandContext& context, int* exit_code) {
  CLI::App* remove = app.add_subcommand(
      "delete", "Deletes runs with all that they have left; registered models stay. A run that goes on is refused");
  const auto flags = std::make_shared<DeleteFlags>();  // the callback keeps it
  remove->add_option("RUN", flags->which, "Runs: an id, the beginning of one, EXPERIMENT/ID, or latest")
      ->type_name("")
      ->required();
  remove->add_flag("--force", flags->force,
                   "Also a run that has not ended and that nobody supervises any more, or whose record is damaged");
  AddRunsOption(*remove, flags.get());
  AddJsonOption(*remove, flags.get(), "Print {\"deleted\": [...]}, and left_on_nodes where folders were kept there");
  remove->footer(kUsualExitCodes);
  remove->callback([&context, exit_code, flags] {
    const absl::Status status = Delete(context, *flags);
    *exit_code = status.ok() ? kExitOk : Complain(status);
  });
}

}  // namespace basin
