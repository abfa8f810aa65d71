#include "estimator/run/take_over.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "common/base/text.h"
#include "estimator/history/read_run.h"
#include "estimator/job/plan.h"
#include "estimator/launch/targets_file.h"

namespace basin {
namespace {

using nlohmann::json;

std::string TextAt(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

}  // namespace

std::string ThisHost() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "?";
}

std::string SupervisorNoteToJson(const SupervisorNote& note) {
  return json({{"epoch", note.epoch},
               {"host", note.host},
               {"pid", note.pid},
               {"detached", note.detached},
               {"version", note.version},
               {"target", json::parse(TargetToJson(note.target))}})
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

absl::StatusOr<SupervisorNote> ReadSupervisorNote(absl::string_view journal) {
  SupervisorNote note;
  absl::Time planned = absl::InfiniteFuture();
  for (const absl::string_view line : absl::StrSplit(journal, '\n', absl::SkipEmpty())) {
    const json event = json::parse(ToStd(line), nullptr, /*allow_exceptions=*/false);
    if (!event.is_object()) continue;
    const std::string kind = TextAt(event, "event");
    if (kind == "supervisor") {
      if (!event.contains("epoch") || !event["epoch"].is_number_unsigned() || !event.contains("target")) continue;
      note.epoch = event["epoch"].get<uint64_t>();
      note.host = TextAt(event, "host");
      note.version = TextAt(event, "version");
      note.pid = event.contains("pid") && event["pid"].is_number_integer() ? event["pid"].get<int>() : 0;
      note.detached = event.contains("detached") && event["detached"].is_boolean() && event["detached"].get<bool>();
      BASIN_ASSIGN_OR_RETURN(note.target, ParseTargetJson(event["target"].dump()));
    } else if (kind == "plan") {
      planned = TimeFromText(TextAt(event, "time")).value_or(absl::InfiniteFuture());
      note.begun = absl::InfiniteFuture();
    } else if (kind == "state" && TextAt(event, "state") == RunPhaseName(RunPhase::kRunning)) {
      note.begun = planned;
    }
  }
  if (note.epoch == 0) return absl::InvalidArgumentError("its journal tells of no supervisor");
  return note;
}

absl::StatusOr<SupervisedRun> ReadRunToTakeOver(const RunFolder& folder, SupervisorNote* note) {
  SupervisedRun run;
  BASIN_ASSIGN_OR_RETURN(run.record, ReadRun(folder));
  if (IsFinal(run.record.phase)) {
    return absl::FailedPreconditionError(
        absl::StrCat("run ", run.record.run_id, " is over: ", RunPhaseName(run.record.phase)));
  }
  BASIN_ASSIGN_OR_RETURN(const std::string journal, ReadFile(folder.JournalPath(), size_t{1} << 30));
  const absl::StatusOr<SupervisorNote> found = ReadSupervisorNote(journal);
  if (!found.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("run ", run.record.run_id, " cannot be taken over: ", found.status().message()));
  }
  *note = *found;
  if (note->host != ThisHost()) {
    return absl::FailedPreconditionError(absl::StrCat("run ", run.record.run_id, " is supervised on host ", note->host,
                                                      " (process ", note->pid, "); give the command there"));
  }
  if (note->version != BASIN_VERSION) {
    const std::string theirs = note->version.empty() ? "an earlier version" : note->version;
    return absl::FailedPreconditionError(absl::StrCat("run ", run.record.run_id, " is of Basin ", theirs, ", this is ",
                                                      BASIN_VERSION, "; it runs on untouched: give the command with ",
                                                      "Basin ", theirs));
  }
  BASIN_ASSIGN_OR_RETURN(const std::string job, ReadFile(folder.path() + "/job.json", size_t{16} << 20));
  BASIN_ASSIGN_OR_RETURN(run.job, ParseJob(job, folder.path() + "/job.json"));
  BASIN_ASSIGN_OR_RETURN(const std::string plan, ReadFile(folder.path() + "/plan.json", size_t{256} << 20));
  BASIN_ASSIGN_OR_RETURN(run.plan, ParsePlan(plan));
  run.target = note->target;
  run.epoch = note->epoch + 1;
  run.resumed = true;
  run.begun = note->begun;
  for (const PlannedTask& task : run.plan.tasks) {
    if (static_cast<size_t>(task.place.node) < run.target.nodes.size()) continue;
    if (run.target.kind == TargetKind::kKubernetes) continue;  // its nodes are pods
    return absl::FailedPreconditionError(absl::StrCat(folder.path(), "/plan.json and the journal's target disagree"));
  }
  return run;
}

}  // namespace basin
